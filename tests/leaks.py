"""What a test must not leave behind: threads, processes, open files, temporary files.

What a fixture of a wider scope starts, a browser or a server, belongs to that fixture. What Python
and its libraries keep for the whole process is named in ``KEPT_FOR_GOOD``.
"""

import gc
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from atexit import register
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PATIENCE_SECONDS = 2.0  # that ending takes: a thread that is told to, a process that was killed
MARK = "TESTED_BY"  # in the environment of all that tests start, and of all that those start
STARTS = ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.forkpty")
# What libraries make once and keep until the process ends, by what it is called.
KEPT_FOR_GOOD = re.compile(
    r"""
    thread\ (asyncio_|ThreadPoolExecutor|QueueFeederThread|pytest_timeout|tqdm_monitor|pydevd).*
    |temporary\ file\ torchinductor_.*
    |file\ (anon_inode:|/proc/|/sys/|/dev/(null$|urandom$|zero$|shm/)).*
    |file\ .*/(site-packages|lib/python3[.0-9]*|fonts)/.*
    |file\ .*\.(onnx|npz|safetensors|sqlite3)
    """,
    re.VERBOSE,
)

# The connections of a web server of the whole run, which a browser keeps open for the next test.
KEPT_BY_A_SERVER = re.compile(r"thread .*\(process_request_thread\).*|file socket:.*")


def use_own_temporary_folder() -> Path:
    """Give this run a folder for temporary files, so that those of others do not count.

    Its name is short: the path of a socket of Chromium's below it has 107 bytes at most.
    """
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # for tmp_path
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@dataclass
class Leaks:
    """Knows what there was before, and names what has been added since."""

    folder: Path
    known: set[str] = field(default_factory=set)
    has_started: bool = False  # a process, since it was last looked

    def install(self) -> None:
        """Mark what this process starts, and note that it starts something."""
        os.environ[MARK] = str(os.getpid())

        def note(event: str, arguments: tuple[object, ...]) -> None:
            if event in STARTS:
                self.has_started = True

        sys.addaudithook(note)
        self.known = self.there()

    def there(self) -> set[str]:
        """Return everything that there is now, each as a few words."""
        found = {f"thread {thread.name} ({thread.ident})" for thread in threading.enumerate()}
        found |= set(_open_files())
        found |= {f"temporary file {path.name}" for path in self.folder.iterdir()}
        if self.has_started:
            found |= set(_started_processes())
        return found

    def new(self, has_server: bool = False) -> set[str]:
        """Return what was added and is no exception, after a moment for what is just ending.

        :param has_server: a web server of the whole run was used
        """
        left = self._new(has_server)
        if not left:
            return left
        gc.collect()
        end = time.monotonic() + PATIENCE_SECONDS
        while (left := self._new(has_server)) and time.monotonic() < end:
            time.sleep(0.02)
        return left

    def _new(self, has_server: bool) -> set[str]:
        now = self.there()
        if not any(one.startswith("process") for one in now):
            self.has_started = False
        self.known &= now
        added = {one for one in now - self.known if not KEPT_FOR_GOOD.match(one)}
        if has_server:
            added = {one for one in added if not KEPT_BY_A_SERVER.match(one)}
        return added

    def accept(self) -> None:
        """Take all that there is now for known."""
        self.known = self.there()

    @contextmanager
    def belonging_to_a_fixture(self) -> Iterator[None]:
        """Take what is started in the body for known: its fixture ends it later."""
        before = self.there()
        yield
        self.known |= self.there() - before


def _open_files() -> Iterator[str]:
    for entry in list(Path("/proc/self/fd").iterdir()):
        try:
            target = entry.readlink()
        except OSError:  # the listing itself
            continue
        yield f"file {target}"


def _started_processes() -> Iterator[str]:
    """Yield what descends from this process, whoever its parent is by now."""
    mark = f"{MARK}={os.getpid()}".encode()
    for entry in list(Path("/proc").iterdir()):
        pid = entry.name
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        try:
            is_ours = mark in (entry / "environ").read_bytes().split(b"\0")
            if is_ours and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                yield f"process {pid} {command.decode(errors='replace')[:120]}"
        except (OSError, psutil.Error):
            continue


def describe(left: set[str]) -> str:
    return "left behind: " + "; ".join(sorted(left))
