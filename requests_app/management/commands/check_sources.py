"""``manage.py check_sources``: asks every source one small real question and shows how it is."""

import argparse
import json
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from rich.console import Console
from rich.table import Table

from requests_app.management.operator_command import OperatorCommand
from requests_app.workers import source_check
from scraping.sources.catalogue import CATALOGUE, Outcome

COLORS = {Outcome.OK: "green", Outcome.PARTIAL: "green", Outcome.NOT_APPLICABLE: "yellow"}


class Command(OperatorCommand):
    help = (
        "Asks every source of the site one small real question, shows the answers, and remembers "
        "them."
    )
    example = "python manage.py check_sources openverse bing"
    as_json = "print a line of JSON for each source"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "sources", nargs="*", help="names of sources; default: those of PICAISSO_SOURCES"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        names = options["sources"] or list(settings.SOURCES)
        try:
            rows = source_check.check_sources(names)
        except source_check.CheckFailed as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            for row in rows:
                self.stdout.write(json.dumps(row))
        else:
            self.show_table(rows)
        outcomes = {row["outcome"] for row in rows}
        if not outcomes & {Outcome.OK, Outcome.PARTIAL}:
            raise CommandError("No source answers.")

    def show_table(self, rows: list[dict[str, Any]]) -> None:
        titles = ("source", "outcome", "found", "seconds", "what it said")
        table = Table(*titles, box=None, pad_edge=False)
        for row in rows:
            label = CATALOGUE[row["name"]].label
            outcome = f"[{COLORS.get(row['outcome'], 'red')}]{row['outcome']}[/]"
            table.add_row(
                label, outcome, str(row["found"]), f"{row['seconds']:.1f}", row["message"]
            )
        console = Console()
        with console.capture() as text:
            console.print(table)
        self.stdout.write(text.get())
