"""The rules for what people type as names, search words and numbers; folders obey those too."""

import re
import unicodedata
from collections.abc import Iterable

from training.class_names import casefold_key, find_problem, normalize

__all__ = [
    "KEY_DIGITS",
    "casefold_key",
    "find_problem",
    "holds_address",
    "normalize",
    "read_keys",
    "read_number",
]

KEY_DIGITS = 18  # of a primary key: 64 bits

# What mail programs make a link of: a scheme, a mailbox, or a domain.
ADDRESS = re.compile(r":\s*//|\bwww\b|@|[\w-]\.(?=[^\W\d_]{2})[\w-]+", re.IGNORECASE)
DOTS = str.maketrans("\u3002\uff0e\uff61\u2024", "....")  # that stand for the one in a domain


def holds_address(text: str) -> bool:
    """Return whether a text holds, or could be read as, a web or e-mail address."""
    plain = unicodedata.normalize("NFKC", text.translate(DOTS))
    return ADDRESS.search(plain) is not None


def read_number(text: str, most_digits: int = 4) -> int:
    """Return the number that a form or an address has, 0 for what is none."""
    is_number = text.isascii() and text.isdigit() and len(text) <= most_digits
    return int(text) if is_number else 0


def read_keys(texts: Iterable[str]) -> list[int]:
    """Return the primary keys among these texts, without what is none."""
    keys = [read_number(text, KEY_DIGITS) for text in texts]
    return [key for key in keys if key]
