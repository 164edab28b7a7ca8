"""``manage.py check_sources``: asks every source one small real question and shows how it is."""

import argparse
import json
import subprocess
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table

from requests_app import phrases
from requests_app.workers import collection_sync

TIMEOUT_SECONDS = 600


class Command(BaseCommand):
    help = "Asks every source of the site one small real question, shows the answers, and remembers them."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "sources", nargs="*", help="names of sources; default: those of PICAISSO_SOURCES"
        )
        parser.add_argument(
            "--json", action="store_true", help="a line of JSON per source instead of the table"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if unknown := [name for name in options["sources"] if name not in settings.KNOWN_SOURCES]:
            raise CommandError(
                f"No such source: {', '.join(unknown)}. Known: {', '.join(settings.KNOWN_SOURCES)}."
            )
        rows = self._ask(options["sources"] or list(settings.SOURCES))
        collection_sync.record_health(rows)
        if options["json"]:
            for row in rows:
                self.stdout.write(json.dumps(row, ensure_ascii=False))
        else:
            console = Console()
            with console.capture() as text:
                console.print(_table(rows))
            self.stdout.write(text.get())
        if not any(row["outcome"] in ("ok", "partial") for row in rows):
            raise CommandError("No source answers.")

    def _ask(self, names: list[str]) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "scraping", "check", "--json"]
        for name in names:
            command += ["--source", name]
        # The libraries read the same variables, so the child is asked in the site's own words.
        answer = subprocess.run(
            command,
            cwd=settings.BASE_DIR,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        lines = [line for line in answer.stdout.splitlines() if line.startswith("{")]
        if not lines:
            raise CommandError(
                answer.stderr.strip().splitlines()[-1] if answer.stderr.strip() else "No answer."
            )
        return [json.loads(line) for line in lines]


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("source", "outcome", "found", "seconds", "what it said", box=None, pad_edge=False)
    for row in rows:
        works = row["outcome"] in ("ok", "partial")
        colour = "green" if works else "yellow" if row["outcome"] == "not_applicable" else "red"
        table.add_row(
            phrases.SOURCES.get(row["name"], row["name"]),
            f"[{colour}]{row['outcome']}[/]",
            str(row["found"]),
            f"{row['seconds']:.1f}",
            row["message"],
        )
    return table
