"""The rules for what people type as names, search words and numbers; folders obey those too."""

from collections.abc import Iterable

from training.class_names import casefold_key, find_problem, normalize

__all__ = ["KEY_DIGITS", "casefold_key", "find_problem", "normalize", "read_keys", "read_number"]

KEY_DIGITS = 18  # of a primary key: 64 bits


def read_number(text: str, most_digits: int = 4) -> int:
    """Return the number that a form or an address has, 0 for what is none."""
    is_number = text.isascii() and text.isdigit() and len(text) <= most_digits
    return int(text) if is_number else 0


def read_keys(texts: Iterable[str]) -> list[int]:
    """Return the primary keys among these texts, without what is none."""
    keys = [read_number(text, KEY_DIGITS) for text in texts]
    return [key for key in keys if key]
