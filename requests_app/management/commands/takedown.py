"""``manage.py takedown``: removes a picture everywhere and keeps it out for good."""

import argparse
import json
import re
from typing import Any

from django.core.management.base import CommandError

from requests_app import phrases, takedowns
from requests_app.management.operator_command import OperatorCommand


class Command(OperatorCommand):
    help = (
        "Removes a picture by its address or sha256 from every request and dataset, and keeps it "
        "out for good."
    )
    example = 'python manage.py takedown https://example.org/a.jpg --reason "its author asked"'
    as_json = 'print {"found": N}, where N says how often it was found'

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "picture",
            help=(
                "the http(s) address of the picture or of its page, or the sha256 of its bytes "
                "(64 digits)"
            ),
        )
        parser.add_argument("--reason", default="", help="why, for the record")

    def handle(self, *args: Any, **options: Any) -> None:
        picture = options["picture"].strip()
        reason = options["reason"]
        if re.fullmatch(r"https?://\S+", picture, re.IGNORECASE):
            number = takedowns.take_down(url=picture, reason=reason)
        elif re.fullmatch(r"[0-9a-fA-F]{64}", picture):
            number = takedowns.take_down(sha256=picture.lower(), reason=reason)
        else:
            raise CommandError("Give an http(s) address or a sha256 of 64 hexadecimal digits.")
        if options["json"]:
            self.stdout.write(json.dumps({"found": number}))
            return
        if number:
            times = phrases.counted(number, "time")
            message = f"Taken down: found {times} here; it is blocked from now on."
        else:
            message = "Not found here; it is blocked from now on."
        self.stdout.write(message)
