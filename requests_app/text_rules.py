"""The rules for what people type as names and search words, which folders of pictures obey too."""

from training.class_names import casefold_key, find_problem, normalize

__all__ = ["casefold_key", "find_problem", "normalize"]
