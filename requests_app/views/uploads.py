"""Uploads. Pictures to classify are held in memory alone: nothing of them touches the disk.

What a person brings along for a new request goes to the disk at once, as far as it may be so large.
"""

import io
from collections.abc import Collection, Mapping
from typing import Any

from django.core.files.uploadedfile import (
    InMemoryUploadedFile,
    UploadedFile,
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
    """Writes the files of some fields to the disk, and nothing of one that is too large."""

    def __init__(self, request: HttpRequest, fields: Collection[str]) -> None:
        super().__init__(request)
        self._fields = fields
        self._received = 0
        self._together = 0
        self.problems: dict[str, str] = {}
        """Why a file was not taken, by its field."""

    def new_file(self, *arguments: Any, **named: Any) -> None:
        field_name = str(arguments[0] if arguments else named["field_name"])
        if field_name not in self._fields:
            raise SkipFile
        super().new_file(*arguments, **named)
        self._received = 0

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self._received += len(raw_data)
        self._together += len(raw_data)
        if not self._is_too_large():
            super().receive_data_chunk(raw_data, start)

    def _is_too_large(self) -> bool:
        """Return whether this file is, or all together are, more than is taken."""
        most_together = len(self._fields) * supplied.MOST_BYTES
        return self._received > supplied.MOST_BYTES or self._together > most_together

    def file_complete(self, file_size: int) -> Any:
        if self._is_too_large():
            self.problems[str(self.field_name)] = supplied.TOO_LARGE
            self.file.close()
            return None
        return super().file_complete(file_size)


def hold_files(
    files: Mapping[str, UploadedFile], draft: supplied.Draft | None, problems: dict[str, str]
) -> supplied.Draft | None:
    """Hold the files of a new request, by their field; add why one cannot be held."""
    given = {}
    for field, file in files.items():
        kind = field.removeprefix("own_")
        if kind in supplied.FILES and file.size:
            given[kind] = file
    if not given:
        return draft
    if not supplied.has_room():
        problems.update(dict.fromkeys((f"own_{kind}" for kind in given), supplied.FULL))
        return draft
    return supplied.hold(given, draft)
