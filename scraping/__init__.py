"""From words to picture files: search the sources, fetch through a guard, keep what is a usable
picture.

An ordinary library: no Django, no torch. `python -m scraping --help` shows what it does from a
terminal.
"""

__version__ = "0.1.0"


class ConfigError(ValueError):
    """The configuration cannot be used; the text is a sentence for the user."""


class SettingError(ConfigError):
    """A file that a setting names cannot be used: wrong usage of the program."""
