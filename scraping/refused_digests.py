"""The list of images that the operator refuses by the SHA-256 of their bytes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from scraping import SettingError

__all__ = ["RefusedDigests", "SettingError"]

DIGEST = re.compile(r"[0-9a-f]{64}")
HEADINGS = frozenset({"sha256", "sha-256", "sha_256", "digest", "hash"})
DELIMITERS = re.compile(r"[,;\t]")


@dataclass(frozen=True)
class RefusedDigests:
    """SHA-256 digests, of 32 bytes each, of received bytes or of stored files."""

    digests: frozenset[bytes] = frozenset()

    @classmethod
    def read(cls, file: str) -> Self:
        """Read a list: a digest in hexadecimal a line, or in the first column of a CSV.

        Empty lines and lines that start with `#` are skipped. Without a name the list is empty.
        Raises SettingError when the file cannot be read or a line is no digest.
        """
        if not file:
            return cls()
        path = Path(file)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            reason = error.strerror or "unknown error"
            raise SettingError(
                f"The list of refused digests {path} cannot be read: {reason}."
            ) from error
        except UnicodeDecodeError as error:
            raise SettingError(f"The list of refused digests {path} is not UTF-8 text.") from error
        return cls(frozenset(_digests(text, path)))

    def __bool__(self) -> bool:
        return bool(self.digests)

    def has(self, *digests: str | None) -> bool:
        """Return whether one of these digests in hexadecimal is on the list."""
        if not self.digests:
            return False
        return any(bytes.fromhex(digest) in self.digests for digest in digests if digest)


def _digests(text: str, path: Path) -> Iterator[bytes]:
    is_first = True
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        cell = DELIMITERS.split(line, maxsplit=1)[0]
        digest = cell.strip().strip("\"'").strip().lower()
        is_heading = is_first and digest in HEADINGS
        is_first = False
        if is_heading:
            continue
        if not DIGEST.fullmatch(digest):
            raise SettingError(
                f"Line {number} of the list of refused digests {path} is not a SHA-256 digest:"
                " 64 characters from 0 to 9 and a to f."
            )
        yield bytes.fromhex(digest)
