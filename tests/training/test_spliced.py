"""Files that are put together when they are read: one size, one digest, from any byte on."""

import io
import random
from pathlib import Path

import pytest

from training.spliced import Piece, SpliceError, open_splice, spliced, write_splice

LARGE = random.Random(0).randbytes(300_000)


@pytest.fixture
def splice(tmp_path: Path) -> tuple[Path, bytes]:
    """A splice and what it stands for."""
    (tmp_path / "large.bin").write_bytes(LARGE)
    parts = [
        b"first\n",
        Piece("large.bin", 1000, 200_000),
        b"",
        b"between",
        Piece("large.bin", 0, 10),
        b"last",
    ]
    write_splice(tmp_path / "whole.splice", parts, tmp_path)
    expected = b"first\n" + LARGE[1000:201_000] + b"between" + LARGE[:10] + b"last"
    return tmp_path / "whole.splice", expected


def test_it_reads_as_one_file_from_any_byte_on(splice: tuple[Path, bytes]) -> None:
    path, expected = splice
    draws = random.Random(1)
    with open_splice(path, path.parent) as file:
        assert file.read() == expected and file.read() == b""
        for _ in range(200):
            start = draws.randrange(len(expected) + 5)
            length = draws.choice([0, 1, 7, 5000, 300_000])
            file.seek(start)
            assert file.read(length) == expected[start : start + length]
        assert file.seek(-4, io.SEEK_END) == len(expected) - 4 and file.read() == b"last"
    assert spliced(path, path.parent).bytes == len(expected)
    assert path.stat().st_size < 300, "the pieces lie on disk once"


def test_what_is_damaged_or_does_not_match_is_refused(splice: tuple[Path, bytes]) -> None:
    path, _ = splice
    content = path.read_bytes()
    for damaged in (b"", b"[]x", b"[[1]]\n", b'[["../large.bin",0,1]]\n', content[:-2]):
        path.write_bytes(damaged)
        with pytest.raises(SpliceError, match=r"whole\.splice"):
            open_splice(path, path.parent)
    path.write_bytes(content)
    (path.parent / "large.bin").write_bytes(LARGE[:5000])
    with pytest.raises(SpliceError, match=r"does not match large\.bin"):
        open_splice(path, path.parent)
    (path.parent / "large.bin").unlink()
    with pytest.raises(FileNotFoundError):
        open_splice(path, path.parent)
