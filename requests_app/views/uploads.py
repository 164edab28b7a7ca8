"""Uploads. Pictures to classify are held in memory alone: nothing of them touches the disk.

What a person brings along for a new request goes to the disk at once, as far as it may be so large.
"""

import io
from collections.abc import Collection, Iterable
from typing import Any

from django.core.files.uploadedfile import (
    InMemoryUploadedFile,
    TemporaryUploadedFile,
)
from django.core.files.uploadhandler import (
    FileUploadHandler,
    SkipFile,
    TemporaryFileUploadHandler,
)
from django.http import HttpRequest

from requests_app import supplied
from requests_app.prediction import MAX_BYTES, MAX_TOGETHER_BYTES, TOO_LARGE

TOO_MUCH = (
    f"The files before this one have {MAX_TOGETHER_BYTES // 1_000_000} MB together. Send it in"
    " another go."
)
ASK_FOR_ROOM_BYTES = 10_000_000  # after so many bytes of a file each time


class HeldFile(InMemoryUploadedFile):
    """An uploaded file in memory."""

    problem = ""
    """Why its content was not held, in a sentence; "" for a whole file."""


class MemoryUploadHandler(FileUploadHandler):
    """Holds what fits; of a file that is too large only the name and why it was dropped."""

    def __init__(self, request: HttpRequest, most_bytes: int = MAX_BYTES) -> None:
        """:param most_bytes: of one file"""
        super().__init__(request)
        self._most_bytes = most_bytes
        self._together = 0
        self._body = bytearray()
        self._problem = ""

    def new_file(self, *arguments: Any, **named: Any) -> None:
        super().new_file(*arguments, **named)
        self._body = bytearray()
        self._problem = ""

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """Append a chunk, unless the file has been given up."""
        if self._problem:
            return
        self._body += raw_data
        if len(self._body) > self._most_bytes:
            self._problem = TOO_LARGE
        elif self._together + len(self._body) > MAX_TOGETHER_BYTES:
            self._problem = TOO_MUCH
        if self._problem:
            self._body = bytearray()

    def file_complete(self, file_size: int) -> HeldFile:
        self._together += len(self._body)
        file = HeldFile(
            file=io.BytesIO(self._body),
            field_name=self.field_name,
            name=self.file_name or "",
            content_type=self.content_type,
            size=len(self._body),
            charset=self.charset,
        )
        file.problem = self._problem
        return file


class DiskUploadHandler(TemporaryFileUploadHandler):
    """Writes the files of some fields to the disk, and nothing of one that is too large.

    Whether there is room is asked before a file arrives, and again as it grows.
    """

    def __init__(self, request: HttpRequest, fields: Collection[str]) -> None:
        super().__init__(request)
        self._fields = fields
        self._received = 0
        self._together = 0
        self._room_asked_at = 0
        self._problem = ""
        self.problems: dict[str, str] = {}
        """Why a file was not taken, by its field."""

    def new_file(self, *arguments: Any, **named: Any) -> None:
        field_name = str(arguments[0] if arguments else named["field_name"])
        if field_name not in self._fields:
            raise SkipFile
        if not supplied.has_room():
            self.problems[field_name] = supplied.FULL
            raise SkipFile
        super().new_file(*arguments, **named)
        self._received = 0
        self._room_asked_at = 0
        self._problem = ""

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self._received += len(raw_data)
        self._together += len(raw_data)
        if not self._problem:
            self._problem = self._problem_of_size()
        if not self._problem:
            super().receive_data_chunk(raw_data, start)

    def _problem_of_size(self) -> str:
        """Return why no more of this file is taken, "" if it is."""
        most_together = len(self._fields) * supplied.MOST_BYTES
        if self._received > supplied.MOST_BYTES or self._together > most_together:
            return supplied.TOO_LARGE
        if self._received - self._room_asked_at < ASK_FOR_ROOM_BYTES:
            return ""
        self._room_asked_at = self._received
        return "" if supplied.has_room() else supplied.FULL

    def file_complete(self, file_size: int) -> Any:
        if not self._received:
            self._problem = supplied.EMPTY
        if self._problem:
            self.problems[str(self.field_name)] = self._problem
            self.file.close()
            return None
        return super().file_complete(file_size)


def hold_files(
    files: Iterable[tuple[str, Any]], draft: supplied.Draft | None
) -> supplied.Draft | None:
    """Hold the files of a new request, by their field, as ``DiskUploadHandler`` took them.

    Raises GoneError as ``supplied.hold`` does.
    """
    given = {}
    for field, file in files:
        kind = field.removeprefix("own_")
        if kind in supplied.FILES and isinstance(file, TemporaryUploadedFile):
            given[kind] = file
    return supplied.hold(given, draft) if given else draft
