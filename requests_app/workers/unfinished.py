"""Files that were being written when their writer was killed.

Every file is written beside its place and renamed when it is complete, so that one which is there
is whole. What a killed process leaves is the other one: nobody reads it, and nothing else removes
it, because whoever begins again writes under a name of its own.
"""

import os
import shutil
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from django.conf import settings

PATTERNS = (".*.tmp", "*.part", "*.whole")  # of files and folders that are not complete yet
FOLDERS = ("requests", "mail")  # in the data folder
AFTER_SECONDS = 86_400.0  # without a change: nothing takes so long to write


def remove_unfinished() -> int:
    """Remove what nobody has gone on writing for a day; return how many files and folders."""
    oldest = time.time() - AFTER_SECONDS
    removed = 0
    for path in _unfinished():
        try:
            is_old = path.lstat().st_mtime < oldest
        except FileNotFoundError:  # complete by now
            continue
        if not is_old:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed += 1
    return removed


def _unfinished() -> Iterator[Path]:
    for name in FOLDERS:
        for folder, folders, files in os.walk(Path(settings.DATA_DIR) / name):
            for inside in (*folders, *files):
                if any(fnmatch(inside, pattern) for pattern in PATTERNS):
                    yield Path(folder, inside)
