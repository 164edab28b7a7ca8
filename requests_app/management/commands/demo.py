"""``manage.py demo``: one whole request, end to end, on this machine and with nothing faked."""

import sys
from argparse import SUPPRESS
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from requests_app.demo import scenario
from requests_app.demo.visitor import DemoFailed
from requests_app.management.operator_command import OperatorCommand
from training.terminal import seconds, whole_number


class Command(OperatorCommand):
    help = "Run one whole request end to end on this machine, in a data folder of its own."
    example = "python manage.py demo --classes mammal plant --images 38"
    as_json = "print the outcome as one line of JSON, nothing else"

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        photographs = scenario.PHOTOGRAPHS
        backbone = "efficientnet_lite0"
        add("--keep", action="store_true", help="leave the site running until Ctrl-C")
        add("--folder", type=Path, help="made anew; default: demo in the data folder")
        add("--photographs", type=Path, default=photographs, help=f"default {photographs}")
        add("--classes", nargs="+", default=["mammal", "plant"], help="names of folders in there")
        add("--images", type=whole_number(1), default=38, help="pictures per class, default 38")
        add("--backbone", default=backbone, help=f"default {backbone}")
        add(
            "--limit", type=seconds, default=600, help="seconds after which to give up, default 600"
        )
        add("--inside", action="store_true", help=SUPPRESS)

    def handle(self, *args: Any, **options: Any) -> None:
        photographs = options["photographs"].absolute()
        if not photographs.is_dir():
            raise CommandError(
                f"There are no photographs in {options['photographs']}: install the package"
                " tuxpaint-stamps-default, or name another folder with --photographs."
            )
        folder = options["folder"] or settings.DATA_DIR / "demo"
        try:
            if not options["inside"]:
                scenario.restart_inside(folder.absolute(), sys.argv)
            if folder != settings.DATA_DIR:
                raise CommandError("--inside is for the demo's own use.")
            plan = scenario.Plan(
                folder=folder,
                photographs=photographs,
                classes=options["classes"],
                images_per_class=options["images"],
                backbone=options["backbone"],
                limit_seconds=options["limit"],
            )
            scenario.run(
                plan, as_json=options["json"], quiet=options["quiet"], keep=options["keep"]
            )
        except DemoFailed as failure:
            raise CommandError(str(failure)) from failure
