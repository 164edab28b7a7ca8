"""Find the file with a backbone's pretrained weights: in a folder, in the cache, on a server.

A file counts only if the sha256 of its bytes begins with the digits in its name, as torchvision's
do. No torch here.
"""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from training.progress import Progress, no_progress
from training.run_folder import atomic_write

DOWNLOAD_URL = "https://download.pytorch.org/models"

_CONNECT_SECONDS = 10.0  # for the connection and for each read
_DEADLINE_SECONDS = 600.0  # for the whole file: 100 MB at 1.4 Mbit/s
_CHUNK = 1 << 20  # bytes
_LIMIT = 1 << 30  # bytes; no weight file is larger


class WeightsUnavailableError(Exception):
    """The weights could not be had; the message says why, as the end of a sentence."""


@dataclass(frozen=True)
class WeightSources:
    """Where weight files are looked for, in this order; an empty path or URL is skipped."""

    folder: Path | None
    """Given by the operator; never written to."""
    cache: Path
    """Downloaded files are kept here."""
    url: str
    """Base URL of the download server."""


def find_weights(file_name: str, sources: WeightSources, report: Progress = no_progress) -> Path:
    """Return the path of a checked weight file, downloaded once if need be.

    Raises WeightsUnavailableError.
    """
    for folder in (sources.folder, sources.cache):
        path = folder / file_name if folder else None
        if path and path.is_file() and _has_promised_digest(path):
            return path
    if not sources.url:
        raise WeightsUnavailableError("no download server is configured")
    folder_url = sources.url.rstrip("/")
    target = sources.cache / file_name
    return _download(f"{folder_url}/{file_name}", target, report)


def _has_promised_digest(path: Path) -> bool:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    promised = _promised_digest(path.name)
    return digest.hexdigest().startswith(promised)


def _promised_digest(file_name: str) -> str:
    """Return the leading digits of the sha256 in a name such as resnet50-11ad3fa6.pth."""
    stem = Path(file_name).stem
    return stem.rsplit("-", 1)[-1]


def _download(url: str, target: Path, report: Progress) -> Path:
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme not in ("http", "https"):
        raise WeightsUnavailableError("the download URL is neither http nor https")
    _remove_abandoned(target)
    # Outside the try: a cache that cannot be written is not a server that cannot be reached.
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(target) as file:
            digest = _receive(url, file, report)
            if not digest.startswith(_promised_digest(target.name)):
                raise WeightsUnavailableError(
                    "the downloaded file is not the one that was promised (wrong hash)"
                )
    except urllib.error.HTTPError as error:
        raise WeightsUnavailableError(f"the download server answered {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        raise WeightsUnavailableError("the download server could not be reached") from error
    return target


def _remove_abandoned(target: Path) -> None:
    """Remove half downloads of killed processes; one that still grows belongs to another run."""
    for partial in target.parent.glob(f".{target.name}.*.tmp"):
        changed = partial.stat().st_mtime
        if time.time() - changed > _DEADLINE_SECONDS:
            partial.unlink(missing_ok=True)


def _receive(url: str, file: BinaryIO, report: Progress) -> str:
    """Stream a URL into an open file; return the hex sha256 of what came."""
    digest = hashlib.sha256()
    received = 0
    deadline = time.monotonic() + _DEADLINE_SECONDS
    request = urllib.request.Request(url, headers={"User-Agent": "Picaisso"})
    with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS) as response:
        length = response.headers.get("Content-Length")
        expected = int(length or 0)
        while chunk := response.read(_CHUNK):
            received += len(chunk)
            if received > _LIMIT or time.monotonic() > deadline:
                raise WeightsUnavailableError("the download was too large or took too long")
            digest.update(chunk)
            file.write(chunk)
            report(received, expected)
    return digest.hexdigest()
