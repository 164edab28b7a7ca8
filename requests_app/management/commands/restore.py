"""``manage.py restore``: brings a site back from a backup, into an empty data folder."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from requests_app import backup
from requests_app.management.operator_command import OperatorCommand, failures_in_words
from requests_app.phrases import counted


class Command(OperatorCommand):
    help = (
        "Brings a site back from a backup, after comparing every file with its checksum. The data "
        "folder and the database must be empty."
    )
    example = "PICAISSO_DATA_DIR=/srv/new python manage.py restore /backups/picaisso-monday.tar"
    requires_system_checks: list[str] = []  # the tables are not there yet

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE.tar", help="a backup")
        parser.add_argument(
            "--check", action="store_true", help="only read the backup, and change nothing"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        bring_back = backup.read if options["check"] else backup.restore
        try:
            with failures_in_words():
                contents = bring_back(options["file"])
        except backup.BackupFailed as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(asdict(contents)))
            return
        what = f"the database and {counted(contents.files, 'file')} of {contents.made}"
        if options["check"]:
            self.stdout.write(f"The backup is whole: {what}.")
        else:
            self.stdout.write(f"Restored: {what}. Start the site: python manage.py up")
