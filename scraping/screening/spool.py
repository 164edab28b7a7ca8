"""Bodies that have arrived and are not yet decided, on disk.

They keep memory flat while screening is behind the network, and survive a kill: what had arrived is
not asked for again. Making a file for each would cost as much as a third of decoding it, so bodies
lie one behind the other in a few segments that are used over and over; an index tells what lies
where. An extent is only used again when the address whose body it held is decided and on record, so
an entry of the index for an undecided address is always true, unless the machine itself went down:
then the spool of before is not trusted.
"""

import contextlib
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

SEGMENT_BYTES = 16 << 20  # a segment is left for the next one when it holds so much
BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Extent:
    """Where a body lies: bytes `offset` to `offset + size` of a segment."""

    segment: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """The body. Raises OSError when it cannot be read."""
        with self.segment.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), self.size, self.offset)


class _Segment:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("w+b", buffering=0)
        self.end = 0
        self.undecided = 0

    def append(self, body: bytes | bytearray) -> Extent:
        """Write a body behind the others."""
        extent = Extent(self.path, self.end, len(body))
        rest, at = memoryview(body), self.end
        while rest:  # an almost full disk may take a part without complaint
            written = os.pwrite(self.file.fileno(), rest, at)
            rest, at = rest[written:], at + written
        self.end = at
        self.undecided += 1
        return extent


class Spool:
    """A folder of bodies on their way from the network to the screening. Raises OSError when the
    disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._index_path = folder / "index"
        self._earlier = dict(self._survivors())
        self._keep_survivors()
        self._first_number = 1 + max(
            (int(extent.segment.name) for extent in self._earlier.values()), default=0
        )
        self._segments: list[_Segment] = []
        self._where: dict[Path, _Segment] = {}

    def earlier(self, url: str) -> Extent | None:
        """The body that an earlier run received and did not come to decide."""
        return self._earlier.get(_name(url))

    def add(self, url: str, body: bytes | bytearray) -> Extent:
        """Keep a body that has arrived."""
        extent = self._current().append(body)
        self._index.write(_entry(_name(url), extent))
        return extent

    def settled(self, extent: Extent) -> None:
        """The address of this body is decided, and that is on record."""
        segment = self._where.get(extent.segment)
        if segment is None:  # of an earlier run
            return
        segment.undecided -= 1
        if not segment.undecided:
            segment.end = 0

    def close(self) -> None:
        """Close the files; what they hold stays."""
        self._index.close()
        for segment in self._segments:
            segment.file.close()

    def remove(self) -> None:
        """Everything is decided."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._folder)

    def _current(self) -> _Segment:
        """The first segment with room; they are few."""
        for segment in self._segments:
            if segment.end < SEGMENT_BYTES:
                return segment
        segment = _Segment(self._folder / f"{self._first_number + len(self._segments)}")
        self._segments.append(segment)
        self._where[segment.path] = segment
        return segment

    def _survivors(self) -> list[tuple[str, Extent]]:
        """What the index of an earlier run tells, if the machine has been up ever since."""
        if not self._index_path.exists():
            return []
        first, *lines = self._index_path.read_bytes().split(b"\n")[:-1]
        if first != _boot():
            return []
        return [_parsed(line, self._folder) for line in lines]

    def _keep_survivors(self) -> None:
        """Begin a new index with the old entries, and remove segments that none of them names."""
        named = {extent.segment for extent in self._earlier.values()} | {self._index_path}
        for file in list(self._folder.iterdir()):
            if file not in named:
                file.unlink()
        beside = self._folder / "index.new"
        entries = (_entry(name, extent) for name, extent in self._earlier.items())
        beside.write_bytes(_boot() + b"\n" + b"".join(entries))
        beside.replace(self._index_path)
        self._index = self._index_path.open("ab", buffering=0)


def _name(url: str) -> str:
    return hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()[:32]


def _entry(name: str, extent: Extent) -> bytes:
    return f"{name} {extent.segment.name} {extent.offset} {extent.size}\n".encode()


def _parsed(line: bytes, folder: Path) -> tuple[str, Extent]:
    name, segment, offset, size = line.decode().split()
    return name, Extent(folder / segment, int(offset), int(size))


def _boot() -> bytes:
    """What changes when the machine is started anew; where nothing tells, what changes always."""
    return BOOT.read_bytes().strip() if BOOT.exists() else os.urandom(16).hex().encode()
