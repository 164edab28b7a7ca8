"""``manage.py doctor``: what is missing or wrong on this machine, and how to mend it."""

import json
from collections import Counter
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError

from requests_app import doctor
from requests_app.management.operator_command import OperatorCommand

MARKS = {doctor.OK: "ok  ", doctor.NOTE: "note", doctor.WRONG: "NO  "}


class Command(OperatorCommand):
    help = (
        "Says what is missing or wrong on this machine and how to mend it: packages, browser, "
        "weights, GPU, disk, memory, database, mail, address, keys, rights. Ends with 1 where the "
        "site cannot work."
    )
    example = "python manage.py doctor"
    as_json = "print a line of JSON for each finding"
    requires_system_checks: list[str] = []  # they are among what is examined

    def handle(self, *args: Any, **options: Any) -> None:
        counts: Counter[str] = Counter()
        for finding in doctor.examine():
            counts[finding.state] += 1
            if options["json"]:
                self.stdout.write(json.dumps(asdict(finding), ensure_ascii=False))
                continue
            self.stdout.write(f"{MARKS[finding.state]} {finding.subject}: {finding.text}")
            if finding.mend:
                self.stdout.write(f"       {finding.mend}")
        if counts[doctor.WRONG]:
            raise CommandError(f"{counts[doctor.WRONG]} things keep the site from working.")
