"""``manage.py personal_data``: all that is stored about an e-mail address."""

import argparse
import json
from typing import Any

from requests_app import lifecycle, privacy
from requests_app.management.operator_command import OperatorCommand
from requests_app.phrases import counted


class Command(OperatorCommand):
    help = (
        "Prints as JSON all that is stored about an e-mail address: each of its requests with all "
        "rows and the names of its files. With --delete it deletes all of that."
    )
    example = "python manage.py personal_data ada@example.org > ada.json"
    as_json = 'print JSON when deleting, too: {"deleted": N}'

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("address", help="the e-mail address, in capitals or not")
        parser.add_argument("--delete", action="store_true", help="delete it instead")

    def handle(self, *args: Any, **options: Any) -> None:
        found = privacy.requests_of(options["address"])
        if options["delete"]:
            for classifier in found:
                lifecycle.delete(classifier, reason="deleted by the operator")
            message = f"{counted(len(found), 'request')} deleted."
            if options["json"]:
                message = json.dumps({"deleted": len(found)})
            self.stdout.write(message)
            return
        documents = [privacy.stored_about(classifier) for classifier in found]
        self.stdout.write(json.dumps(documents, ensure_ascii=False, indent=1))
