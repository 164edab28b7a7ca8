"""How a line of a log looks: as text or as JSON, with the request and the job that it is about.

The site and both command lines write their logs by this. A child is told by its environment whose
job it does; inside of a process `about` says it for what is done within. No line names an e-mail
address, nor the password of an address with one.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType

LOG = "PICAISSO_LOG"  # text or json
FORMATS = ("text", "json")
REQUEST = "PICAISSO_REQUEST"
JOB = "PICAISSO_JOB"  # number and fence
PLAIN = "%(asctime)s %(levelname)s %(name)s%(about)s: %(message)s"
# Of a mail, or of a database or server with user and password in front of its name.
ADDRESS = re.compile(r"""[^\s/"'<>()\[\]{},;]+@[\w-]+(?:\.[\w-]+)*""")
HIDDEN = "(address)"

NOTHING: Mapping[str, str] = MappingProxyType({})
_everywhere: dict[str, str] = {}  # in all threads
_about: ContextVar[Mapping[str, str]] = ContextVar("about")


@contextmanager
def about(**names: object) -> Iterator[None]:
    """Say what the lines written within are about: `request=12, job=34`, or `visit="3f9c"`.

    What an outer one says stays; an empty value says nothing.
    """
    given = {name: str(value) for name, value in names.items() if value}
    token = _about.set({**_about.get(NOTHING), **given})
    try:
        yield
    finally:
        _about.reset(token)


def add_about(**names: object) -> None:
    """Say more of what the lines of the enclosing `about` are about, to its end.

    Outside of any it would never end: then nothing is said.
    """
    enclosing = _about.get(None)
    if enclosing is not None:
        _about.set({**enclosing, **{name: str(value) for name, value in names.items()}})


class LineFormatter(logging.Formatter):
    """Writes a record as one line of text or of JSON; with a traceback the text has several."""

    def __init__(self, as_json: bool = False, fmt: str = PLAIN) -> None:
        super().__init__(fmt)
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        named = {**_everywhere, **_about.get(NOTHING)}
        record.about = "".join(f" {name}={value}" for name, value in named.items())
        if not self.as_json:
            text = self.hidden(super().format(record))
            return text.encode(errors="backslashreplace").decode()
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            **named,
            "message": self.hidden(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = self.hidden(self.formatException(record.exc_info))
        return json.dumps(line)

    def hidden(self, text: str) -> str:
        """Return a text without what no log may say."""
        return without_addresses(text)


def without_addresses(text: str) -> str:
    return ADDRESS.sub(HIDDEN, text)


def set_up(variables: Mapping[str, str], level: int = logging.WARNING) -> None:
    """Write the log of a command line to standard error, as its environment says.

    By hand, where no job is named, a line has no time: whoever reads it sees it come.
    """
    job, _, _ = variables.get(JOB, "").partition(":")
    request = variables.get(REQUEST, "")
    fmt = PLAIN if job else "%(levelname)s %(name)s%(about)s: %(message)s"
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(variables.get(LOG) == "json", fmt))
    logging.basicConfig(level=level, handlers=[handler])
    if job:
        _everywhere.update(request=request, job=job)
