"""What our commands have in common: an example in their help, `--json` and `--quiet`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser, DjangoHelpFormatter

from training.terminal import HelpFormatter, add_example, add_output_flags


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
