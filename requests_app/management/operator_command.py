"""What our commands have in common: an example in their help, `--json` and `--quiet`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    DjangoHelpFormatter,
)
from django.db import Error

from training.terminal import HelpFormatter, add_example, add_output_flags, system_sentence


class _Formatter(HelpFormatter, DjangoHelpFormatter):
    """Django's, which shows its own flags last, and leaves the example as it is written."""


class OperatorCommand(BaseCommand):
    """A command of ours. Those that have no results set `has_results` to False."""

    example = ""
    as_json = "print JSON"
    has_results = True

    def create_parser(self, *args: Any, **options: Any) -> CommandParser:
        parser = super().create_parser(*args, **options)
        if self.has_results:
            add_output_flags(parser, self.as_json)
        add_example(parser, self.example)
        parser.formatter_class = _Formatter
        return parser


@contextmanager
def failures_in_words() -> Iterator[None]:
    """Say in a sentence what the database or the system refuses.

    :raises CommandError: it refused something in the body
    """
    try:
        yield
    except Error as error:
        raise CommandError(f"The database does not answer: {error}") from error
    except OSError as error:
        raise CommandError(system_sentence(error)) from error
