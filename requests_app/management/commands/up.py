"""``manage.py up``: the whole site in the foreground, and nothing of it left behind."""

import argparse
import socket
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import Tags
from django.core.management import call_command
from django.core.management.base import CommandError

from requests_app import pipeline
from requests_app.management.operator_command import OperatorCommand
from requests_app.workers import supervisor, upgrade
from requests_app.workers.supervisor import SERVICES, WEB
from training.terminal import address_sentence, whole_number


class Command(OperatorCommand):
    help = (
        "Runs the site in the foreground: the web server and the three queue clusters. "
        "Ctrl-C stops all of it."
    )
    example = "python manage.py up --port 8000"
    has_results = False  # it serves until it is stopped
    requires_system_checks = "__all__"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        every = ",".join(SERVICES)
        parser.add_argument("--only", default=every, help=f"comma-separated services of {every}")
        parser.add_argument(
            "--host", default="127.0.0.1", help="address of the web server (default 127.0.0.1)"
        )
        parser.add_argument(
            "--port",
            type=whole_number(1, 65535),
            default=8000,
            help="port of the web server (default 8000)",
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
        if WEB in names:
            self.check_address(host, port)
        try:
            locks = [supervisor.lock_service(name) for name in names]
        except supervisor.AlreadyRunning as error:
            raise CommandError(str(error)) from error
        self.check(tags=[Tags.database], databases=["default"])
        self.bring_tables_up_to_date(names, no_migrate=options["no_migrate"])
        if WEB in names and not settings.DEBUG:
            call_command("collectstatic", interactive=False, verbosity=0)
        if WEB in names:
            address = supervisor.address_of(host, port)
            self.stdout.write(f"Picaisso is at {address}/ (Ctrl-C stops it).")
            if settings.EMAIL_IN_FOLDER:
                self.stdout.write(pipeline.where_mails_are())
        services = [supervisor.make_service(name, host, port) for name in names]
        supervisor.Supervisor(services).run()
        for file in locks:
            file.close()

    def bring_tables_up_to_date(self, names: Sequence[str], *, no_migrate: bool) -> None:
        """Change the tables as this code needs them, once no worker of older code is left.

        :raises CommandError: they are of newer code, or such a worker does not end
        """
        if upgrade.has_tables() and upgrade.is_superseded():
            raise CommandError(
                "The tables are of a newer version of Picaisso. Update the program on this "
                "machine, then start again."
            )
        if no_migrate:
            return
        if upgrade.has_tables() and upgrade.has_waiting_migrations():
            own = [supervisor.cluster_prefix(name) for name in names]
            left = upgrade.drain_workers(own)
            if left:
                raise CommandError(
                    "The tables are to be changed, and workers of the version before still run: "
                    f"{', '.join(left)}. Stop them, then start again."
                )
        call_command("migrate", interactive=False, verbosity=0)

    def check_address(self, host: str, port: int) -> None:
        """Raise CommandError where the web server could not listen."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _name, address = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            raise CommandError(address_sentence(host, port, error)) from error
