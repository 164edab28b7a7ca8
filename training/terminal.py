"""What is printed: on consoles that lack characters it is shown with replacement."""

from __future__ import annotations

import codecs
import io
import json
import sys
from typing import Any


def replace_unknown_characters() -> None:
    """Have standard output replace what its encoding does not know, as standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, at once: in ASCII unless standard output is UTF-8."""
    text = json.dumps(value, ensure_ascii=False)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    # Names of files can hold halves of surrogate pairs, which UTF-8 does not know either.
    if not is_utf8 or not _is_encodable(text):
        text = json.dumps(value)
    print(text, flush=True)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
