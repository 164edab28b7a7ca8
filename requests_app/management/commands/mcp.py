"""``manage.py mcp``: a door for agents, over standard input and output."""

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from requests_app.management.operator_command import OperatorCommand

EXAMPLE = """\
An agent starts it by itself. In the settings of most of them:

  {"mcpServers": {"picaisso": {"command": "/path/to/picaisso/.venv/bin/python",
    "args": ["/path/to/picaisso/manage.py", "mcp", "--site", "http://127.0.0.1:8000"]}}}

Then say: "Order a classifier for corgi and shiba inu; my address is a@example.org."
"""
MISSING = (
    "The package mcp is missing. Install it: .venv/bin/python -m pip install -r"
    " requirements-agents.txt"
)


class Command(OperatorCommand):
    help = (
        "Lets an agent order, watch, correct and use classifiers on a site (Model Context Protocol)"
        " with the limits of the API; a person confirms each order by mail."
    )
    example = EXAMPLE
    has_results = False  # standard output belongs to the protocol
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--site",
            default=settings.BASE_URL,
            help=f"address of the site (PICAISSO_BASE_URL; {settings.BASE_URL})",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            from requests_app import agent_tools
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != "mcp":
                raise
            raise CommandError(MISSING) from error
        agent_tools.serve(options["site"])
