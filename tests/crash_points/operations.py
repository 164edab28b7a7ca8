"""Counts what a process does to database, files, mail server and children, and ends it at one.

An operation is one SQL statement, one commit, one change of a file or folder (made, opened for
writing, renamed, linked, removed, flushed to the disk), one mail handed over, one child started.
"""

import builtins
import io
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.mail.backends.base import BaseEmailBackend
from django.db import connection

FILE_CALLS = ("rename", "replace", "unlink", "remove", "rmdir", "mkdir", "link", "symlink", "fsync")
WRITING = os.O_WRONLY | os.O_RDWR
READS = ("SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK TO", "PRAGMA", "BEGIN", "SET")

current: "Operations | None" = None


class Operations:
    """The operations of this process, from now on, and the one at which it ends."""

    def __init__(self, fatal: int = 0, after: bool = False) -> None:
        """
        :param fatal: number of the operation, from 1; 0: none
        :param after: whether it is done before the process ends
        """
        self.fatal = fatal
        self.after = after
        self.names: list[str] = []
        self.lasting: list[bool] = []
        self.is_on = False

    @contextmanager
    def operation(self, name: str, lasting: bool = True) -> Iterator[None]:
        """Count one operation, which happens in the body.

        :param lasting: whether it may leave something that outlives the process
        """
        if not self.is_on:
            yield
            return
        self.names.append(name)
        self.lasting.append(lasting)
        is_fatal = len(self.names) == self.fatal
        if is_fatal and not self.after:
            end_hard()
        number = len(self.names) - 1
        self.is_on = False  # what it is made of counts as one
        try:
            yield
        except BaseException:
            self.lasting[number] = False  # a folder that is there already, a file that is not
            raise
        finally:
            if is_fatal:
                end_hard()
            self.is_on = True

    # --- seams ------------------------------------------------------------------------------------

    def install(self) -> None:
        """Put counters around the calls of Python and of Django that all of it goes through."""
        global current
        current = self
        connection.execute_wrappers.append(self._sql)
        self._wrap(connection, "_commit", lambda *args, **options: "commit")
        for call in FILE_CALLS:
            self._wrap(os, call, self._file_name(call))
        for module in (builtins, io):
            self._wrap(module, "open", _opened)
        self._wrap(os, "open", _opened_low)
        self._wrap(subprocess.Popen, "__init__", lambda *args, **options: "child start")

    def _sql(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        words = " ".join(str(sql).split()[:3])
        is_read = words.startswith(READS)
        in_transaction = connection.in_atomic_block
        with self.operation(f"SQL {words}", lasting=not is_read and not in_transaction):
            return execute(sql, params, many, context)

    def _file_name(self, call: str) -> Callable[..., str]:
        def name(*args: Any, **options: Any) -> str:
            path = args[0] if isinstance(args[0], str | os.PathLike) else ""
            return f"{call} {Path(path).name}"

        return name

    def _wrap(self, owner: Any, attribute: str, name_of: Callable[..., str]) -> None:
        original = getattr(owner, attribute)

        def counted(*args: Any, **options: Any) -> Any:
            name = name_of(*args, **options)
            if not name:
                return original(*args, **options)
            with self.operation(name):
                return original(*args, **options)

        setattr(owner, attribute, counted)


def _opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> str:
    """Return the name of the operation, "" for a file that is only read."""
    if isinstance(file, int) or not set(mode) & set("wax+"):
        return ""
    return f"open {Path(os.fsdecode(file)).name} to write"


def _opened_low(path: Any, flags: int, *args: Any, **options: Any) -> str:
    if not flags & WRITING and not flags & os.O_CREAT:
        return ""
    return f"open {Path(os.fsdecode(path)).name} to write"


def end_hard() -> None:
    """End this process as the kernel does: nothing is flushed, closed or rolled back by itself."""
    os.kill(os.getpid(), signal.SIGKILL)


class CountedMails(BaseEmailBackend):
    """A mail server that accepts all; a line each in ``accepted.txt`` beside the data."""

    folder: Path

    def send_messages(self, email_messages: Any) -> int:
        for message in email_messages:
            if current is None:
                self._accept(message)
                continue
            with current.operation("mail"):
                self._accept(message)
        return len(email_messages)

    def _accept(self, message: Any) -> None:
        message.message().as_bytes()
        identity = message.extra_headers["Message-ID"]
        with (self.folder / "accepted.txt").open("a") as file:
            file.write(f"{identity}\n")
