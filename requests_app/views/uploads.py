"""Uploads that are held in memory alone: nothing of a person's pictures touches the disk."""

import io
from typing import Any

from django.core.files.uploadedfile import InMemoryUploadedFile
from django.core.files.uploadhandler import FileUploadHandler
from django.http import HttpRequest

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
