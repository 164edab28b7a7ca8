"""Finds the file with a backbone's pretrained weights: in a given folder, in the cache, or on the
download server.

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
_CHUNK = 1 << 20
_LIMIT = 1 << 30  # no weight file is larger


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


def find_weights(file_name: str, places: WeightSources, report: Progress = no_progress) -> Path:
    """Path of a checked weight file, downloaded once if need be. Raises WeightsUnavailableError."""
    for folder in (places.folder, places.cache):
        path = folder / file_name if folder else None
        if path and path.is_file() and _genuine(path):
            return path
    if not places.url:
        raise WeightsUnavailableError("no download server is configured")
    return _download(places.url.rstrip("/") + "/" + file_name, places.cache / file_name, report)


def _genuine(path: Path) -> bool:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest().startswith(_promised(path.name))


def _promised(file_name: str) -> str:
    """Leading digits of the sha256 that a name such as resnet50-11ad3fa6.pth promises."""
    return Path(file_name).stem.rsplit("-", 1)[-1]


def _download(url: str, target: Path, report: Progress) -> Path:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise WeightsUnavailableError("the download URL is neither http nor https")
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    try:
        with atomic_write(target) as file:
            digest = _receive(url, file, report)
            if not digest.startswith(_promised(target.name)):
                raise WeightsUnavailableError(
                    "the downloaded file is not the one that was promised (wrong hash)"
                )
    except urllib.error.HTTPError as error:
        raise WeightsUnavailableError(f"the download server answered {error.code}") from error
    except (OSError, http.client.HTTPException) as error:
        raise WeightsUnavailableError("the download server could not be reached") from error
    return target


def _remove_abandoned(target: Path) -> None:
    """Half a download whose process was killed; one that still grows belongs to another run."""
    for half in target.parent.glob(f".{target.name}.*.tmp"):
        if time.time() - half.stat().st_mtime > _DEADLINE_SECONDS:
            half.unlink(missing_ok=True)


def _receive(url: str, file: BinaryIO, report: Progress) -> str:
    """Stream a URL into an open file; return the hex sha256 of what came."""
    digest, received, deadline = hashlib.sha256(), 0, time.monotonic() + _DEADLINE_SECONDS
    request = urllib.request.Request(url, headers={"User-Agent": "Picaisso"})
    with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS) as answer:
        expected = int(answer.headers.get("Content-Length") or 0)
        while chunk := answer.read(_CHUNK):
            received += len(chunk)
            if received > _LIMIT or time.monotonic() > deadline:
                raise WeightsUnavailableError("the download was too large or took too long")
            digest.update(chunk)
            file.write(chunk)
            report(received, expected)
    return digest.hexdigest()
