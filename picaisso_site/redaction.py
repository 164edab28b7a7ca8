"""Logs without what nobody but a person may know: links that are keys, addresses, passwords."""

import logging
import re

from training.log_lines import LineFormatter

PATH = re.compile(r"(/(?:r|s|confirm|api/v1/requests)/)[^/\s\"'<>?#&]+")
TOKEN = re.compile(r"(?<![\w-])(?=[\w-]*[A-Z])(?=[\w-]*[a-z])(?=[\w-]*\d)[\w-]{32}(?![\w-])")
HIDDEN = "(hidden)"
PLAIN = ("with-pictures",)  # what follows these paths and is no key
SHORTEST_SECRET = 6  # characters; less would be found everywhere


class RedactingFormatter(LineFormatter):
    """Writes one record, its traceback included, without keys and addresses.

    A record that says so (`shows_links`) keeps its links: the confirmation link of a site on this
    machine whose mails are only files. What Django refuses as suspicious is told in one line.
    """

    def __init__(self, as_json: bool = False, secrets: tuple[str, ...] = ()) -> None:
        super().__init__(as_json)
        self._secrets = [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]

    def format(self, record: logging.LogRecord) -> str:
        if record.name.startswith("django.security"):
            record.exc_info = None
            record.exc_text = None
        if getattr(record, "shows_links", False):
            return LineFormatter(self.as_json).format(record)
        return super().format(record)

    def hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        text = super().hidden(text)
        return TOKEN.sub(HIDDEN, PATH.sub(_without_key, text))


def _without_key(match: re.Match[str]) -> str:
    end = match[0].removeprefix(match[1])
    return match[0] if end in PLAIN else match[1] + HIDDEN
