"""The rules for what people type as names and search words, which folders of pictures obey too."""

from training.class_names import casefold_key, find_problem, normalize

__all__ = ["casefold_key", "find_problem", "normalize", "read_number"]


def read_number(text: str, most_digits: int = 4) -> int:
    """Return the number that a form or an address has, 0 for what is none."""
    is_number = text.isascii() and text.isdigit() and len(text) <= most_digits
    return int(text) if is_number else 0
