"""Screen the files of a folder: what is a usable picture is stored clean, the rest has a reason.

The folder has sub-folders; the clean pictures lie in sub-folders of the same names, each called by
its content. `screened.jsonl` gets a row per file as it is decided.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scraping.files import json_line
from scraping.reasons import Reason
from scraping.refused_digests import RefusedDigests
from scraping.screening.pool import ScreenPool
from scraping.screening.screen import CleanImage, Rejection, ScreenSettings, file_name, store

ROWS = "screened.jsonl"
AT_ONCE = 8  # files in memory


@dataclass(frozen=True)
class ScreenedFile:
    """What became of one file."""

    file: str
    """Relative to the folder."""
    kept: str = ""
    """The clean picture, relative to the folder of those; "" for a refused file."""
    reason: str = ""
    """Of `scraping.reasons.Reason`."""
    sha256: str = ""
    source_sha256: str = ""
    width: int = 0
    height: int = 0
    mime: str = ""


@dataclass
class ScreenedFolder:
    """How many files were kept, and how many refused by reason."""

    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


def _tell_nobody(done: int, total: int, /) -> None:
    """Report nothing: for callers that only want the result."""


async def screen_folder(
    folder: Path,
    out: Path,
    settings: ScreenSettings,
    refused: RefusedDigests,
    on_progress: Callable[[int, int], None] = _tell_nobody,
) -> ScreenedFolder:
    """Screen every file of a folder's sub-folders.

    Of files with the same content the first is kept. `on_progress` hears how many files of how many
    are decided.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = _files(folder)
    counts = ScreenedFolder()
    seen: set[str] = set()
    async with ScreenPool(settings) as pool:
        with (out / ROWS).open("wb") as rows:
            for start in range(0, len(files), AT_ONCE):
                some = files[start : start + AT_ONCE]
                tasks = [pool.screen(path.read_bytes()) for path in some]
                answers = await asyncio.gather(*tasks)
                for path, answer in zip(some, answers, strict=True):
                    name = path.relative_to(folder)
                    row = _decide(name, answer, out, refused, seen)
                    line = json_line(asdict(row))
                    rows.write(line)
                    rows.flush()
                    if row.reason:
                        counts.rejected[row.reason] += 1
                    else:
                        counts.kept += 1
                on_progress(min(start + AT_ONCE, len(files)), len(files))
    return counts


def _files(folder: Path) -> list[Path]:
    """Return the files of the sub-folders; links are none."""
    files = []
    for path in folder.glob("*/*"):
        if path.is_file() and not path.is_symlink():
            files.append(path)
    return sorted(files)


def _decide(
    name: Path,
    answer: CleanImage | Rejection,
    out: Path,
    refused: RefusedDigests,
    seen: set[str],
) -> ScreenedFile:
    """Store a clean picture, unless its like was there or the operator refuses it."""
    if isinstance(answer, Rejection):
        return ScreenedFile(name.as_posix(), reason=answer.reason)
    if refused.has(answer.sha256, answer.source_sha256):
        return ScreenedFile(name.as_posix(), reason=Reason.REFUSED_DIGEST)
    if answer.sha256 in seen:
        return ScreenedFile(name.as_posix(), reason=Reason.DUPLICATE)
    seen.add(answer.sha256)
    target = out / name.parent
    target.mkdir(parents=True, exist_ok=True)
    store(answer, target)
    kept = name.parent / file_name(answer.sha256)
    return ScreenedFile(
        file=name.as_posix(),
        kept=kept.as_posix(),
        sha256=answer.sha256,
        source_sha256=answer.source_sha256,
        width=answer.width,
        height=answer.height,
        mime=answer.mime,
    )
