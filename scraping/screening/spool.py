"""Bodies that have arrived and are not yet decided, on disk.

They keep memory flat while screening is behind the network, and survive a kill: what had arrived is
not asked for again. Making a file for each would cost as much as a third of decoding it, so bodies
lie one behind the other in a few segments that are used over and over, and an index says what lies
where. An extent is used again only when the URL whose body it held is decided and on record, so an
index entry of an undecided URL is always true, unless the machine itself went down: then an earlier
spool is not trusted.
"""

import contextlib
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from scraping.files import atomic_write

SEGMENT_BYTES = 16 << 20  # a fuller segment takes no further body
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Extent:
    """Where a body lies: bytes `offset` to `offset + size` of a segment."""

    segment: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the body. Raises OSError when it cannot be read."""
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
        rest = memoryview(body)
        while rest:  # an almost full disk may take less without complaint
            written = os.pwrite(self.file.fileno(), rest, self.end)
            self.end += written
            rest = rest[written:]
        self.undecided += 1
        return extent


class Spool:
    """A folder of bodies between network and screening. Raises OSError when the disk is full."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._index_path = folder / "index"
        self._earlier = self._read_index()
        self._remove_unnamed()
        self._start_index()
        numbers = [int(extent.segment.name) for extent in self._earlier.values()]
        self._next_number = 1 + max(numbers, default=0)
        self._segments: list[_Segment] = []
        self._segment_at: dict[Path, _Segment] = {}

    def earlier(self, url: str) -> Extent | None:
        """Return the body that an earlier run received and did not come to decide."""
        return self._earlier.get(_key(url))

    def add(self, url: str, body: bytes | bytearray) -> Extent:
        """Keep a body that has arrived."""
        extent = self._open_segment().append(body)
        self._index.write(_index_line(_key(url), extent))
        return extent

    def settled(self, extent: Extent) -> None:
        """Release a body whose URL is decided and on record."""
        segment = self._segment_at.get(extent.segment)
        if segment is None:  # it belongs to an earlier run
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
        """Delete the folder: everything is decided."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._folder)

    def _open_segment(self) -> _Segment:
        """Return the first segment with room, or a new one; they are few."""
        for segment in self._segments:
            if segment.end < SEGMENT_BYTES:
                return segment
        segment = _Segment(self._folder / str(self._next_number))
        self._next_number += 1
        self._segments.append(segment)
        self._segment_at[segment.path] = segment
        return segment

    def _read_index(self) -> dict[str, Extent]:
        """Return what an earlier run left, if the machine has been up ever since."""
        if not self._index_path.exists():
            return {}
        boot_id, *lines = self._index_path.read_bytes().split(b"\n")[:-1]
        if boot_id != _boot_id():
            return {}
        extents = {}
        for line in lines:
            key, segment, offset, size = line.decode().split()
            extents[key] = Extent(self._folder / segment, int(offset), int(size))
        return extents

    def _remove_unnamed(self) -> None:
        """Remove the segments that no entry of the index names."""
        named = {self._index_path}
        for extent in self._earlier.values():
            named.add(extent.segment)
        for file in list(self._folder.iterdir()):
            if file not in named:
                file.unlink()

    def _start_index(self) -> None:
        """Start a new index with the old entries."""
        lines = [_boot_id() + b"\n"]
        for key, extent in self._earlier.items():
            lines.append(_index_line(key, extent))
        atomic_write(self._index_path, b"".join(lines))
        self._index = self._index_path.open("ab", buffering=0)


def _key(url: str) -> str:
    return hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()[:32]


def _index_line(key: str, extent: Extent) -> bytes:
    return f"{key} {extent.segment.name} {extent.offset} {extent.size}\n".encode()


def _boot_id() -> bytes:
    """Return what changes at each start of the machine; random bytes where nothing tells."""
    if BOOT_ID.exists():
        return BOOT_ID.read_bytes().strip()
    return os.urandom(16).hex().encode()
