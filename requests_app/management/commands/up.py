"""``manage.py up``: the whole site in the foreground, and nothing of it left behind."""

import argparse
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from requests_app import pipeline
from requests_app.workers import supervisor
from requests_app.workers.supervisor import SERVICES, WEB


class Command(BaseCommand):
    help = (
        "Runs the site in the foreground: the web server and the three queue clusters. "
        "Ctrl-C stops all of it."
    )
    requires_system_checks = "__all__"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        every = ",".join(SERVICES)
        parser.add_argument("--only", default=every, help=f"comma-separated services of {every}")
        parser.add_argument(
            "--host", default="127.0.0.1", help="address of the web server (default 127.0.0.1)"
        )
        parser.add_argument(
            "--port", type=int, default=8000, help="port of the web server (default 8000)"
        )
        parser.add_argument(
            "--no-migrate", action="store_true", help="leave the database's tables as they are"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        host = options["host"]
        port = options["port"]
        names = [name.strip() for name in options["only"].split(",") if name.strip()]
        unknown = ", ".join(name for name in names if name not in SERVICES)
        if unknown:
            known = ", ".join(SERVICES)
            raise CommandError(f"--only: no such service: {unknown}. Known are {known}.")
        try:
            locks = [supervisor.lock_service(name) for name in names]
        except supervisor.AlreadyRunning as error:
            raise CommandError(str(error)) from error
        if not options["no_migrate"]:
            call_command("migrate", interactive=False, verbosity=0)
        if WEB in names and not settings.DEBUG:
            call_command("collectstatic", interactive=False, verbosity=0)
        if WEB in names:
            self.stdout.write(f"Picaisso is at http://{host}:{port}/ (Ctrl-C stops it).")
            if settings.EMAIL_IN_FOLDER:
                self.stdout.write(pipeline.where_mails_are())
        services = [supervisor.make_service(name, host, port) for name in names]
        supervisor.Supervisor(services).run()
        for file in locks:
            file.close()
