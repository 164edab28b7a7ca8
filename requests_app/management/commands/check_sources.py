"""``manage.py check_sources``: asks every source one small real question and shows how it is."""

import argparse
import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table

from requests_app.workers import collection_sync, source_check
from scraping.sources.catalogue import CATALOGUE, Outcome

ANSWERED = (Outcome.OK, Outcome.PARTIAL)
COLORS = {Outcome.OK: "green", Outcome.PARTIAL: "green", Outcome.NOT_APPLICABLE: "yellow"}


class Command(BaseCommand):
    help = "Asks every source one small real question, shows the answers, and remembers them."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "sources", nargs="*", help="names of sources; default: those of PICAISSO_SOURCES"
        )
        parser.add_argument(
            "--json", action="store_true", help="a line of JSON per source instead of the table"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        names = options["sources"] or list(settings.SOURCES)
        unknown = ", ".join(name for name in names if name not in CATALOGUE)
        if unknown:
            raise CommandError(f"No such source: {unknown}. Known: {', '.join(CATALOGUE)}.")
        try:
            rows = source_check.check_sources(names)
        except source_check.CheckFailed as error:
            raise CommandError(str(error)) from error
        collection_sync.record_health(rows)
        if options["json"]:
            for row in rows:
                self.stdout.write(json.dumps(row, ensure_ascii=False))
        else:
            self.show_table(rows)
        if not any(row["outcome"] in ANSWERED for row in rows):
            raise CommandError("No source answers.")

    def show_table(self, rows: list[dict[str, Any]]) -> None:
        columns = ("source", "outcome", "found", "seconds", "what it said")
        table = Table(*columns, box=None, pad_edge=False)
        for row in rows:
            label = CATALOGUE[row["name"]].label
            color = COLORS.get(row["outcome"], "red")
            outcome = f"[{color}]{row['outcome']}[/]"
            seconds = f"{row['seconds']:.1f}"
            table.add_row(label, outcome, str(row["found"]), seconds, row["message"])
        console = Console()
        with console.capture() as text:
            console.print(table)
        self.stdout.write(text.get())
