"""``manage.py backup``: database and files of the site in one file, while it runs."""

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
        "Writes the database and the files of the site into one file with checksums. The site may "
        "go on running. The file holds addresses and the secret key: keep it as safe as the site."
    )
    example = "python manage.py backup /backups/picaisso-monday.tar"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE.tar", help="a file that is not there")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with failures_in_words():
                contents = backup.write(options["file"])
        except backup.BackupFailed as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps({"file": str(options["file"]), **asdict(contents)}))
            return
        files = counted(contents.files, "file")
        size = f"{contents.bytes / 1e6:.0f} MB"
        self.stdout.write(f"{options['file']}: the database and {files}, {size}.")
        if contents.vanished:
            gone = counted(contents.vanished, "file")
            self.stdout.write(f"{gone} were deleted while the backup was made.")
