"""``manage.py move_database``: takes all rows along into another, empty database."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError

from requests_app.management.operator_command import OperatorCommand
from requests_app.workers import supervisor
from training.environment import ENV_FILE
from training.terminal import system_sentence

TAKEN_ALONG = ("requests_app", "auth.user")
TABLES = "from django.db import connection; print(len(connection.introspection.table_names()))"
ROWS = """
from django.apps import apps
from django.contrib.auth.models import User
models = [*apps.get_app_config("requests_app").get_models(), User]
print({model.__name__: model.objects.count() for model in models})
"""


class Command(OperatorCommand):
    help = (
        "Copies everything from the site's database into another one, which must be empty, and "
        "compares the numbers of rows. The site must be stopped. The old database stays as it is."
    )
    example = "python manage.py move_database new-database.url"
    has_results = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "file",
            type=Path,
            metavar="FILE",
            help="a file that holds the new DATABASE_URL: a command line can be read by everybody",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            url = options["file"].read_text().strip()
            locks = [supervisor.lock_service(name) for name in supervisor.SERVICES]
        except supervisor.AlreadyRunning as error:
            raise CommandError(f"{error} Stop the site first.") from error
        except OSError as error:
            raise CommandError(system_sentence(error)) from error
        if int(self.there(url, "shell", "-v0", "-c", TABLES)):
            raise CommandError("The new database is not empty; nothing was changed.")
        call_command("migrate", interactive=False, verbosity=0)
        here = self.there("", "shell", "-v0", "-c", ROWS)
        with tempfile.TemporaryDirectory(prefix="picaisso-move-") as folder:
            rows = Path(folder) / "rows.json"
            natural = {"use_natural_foreign_keys": True, "use_natural_primary_keys": True}
            call_command("dumpdata", *TAKEN_ALONG, output=str(rows), verbosity=0, **natural)
            self.there(url, "migrate", "-v0")
            self.there(url, "loaddata", "-v0", str(rows))
        moved = self.there(url, "shell", "-v0", "-c", ROWS)
        for file in locks:
            file.close()
        if moved != here:
            raise CommandError(f"Not all rows have arrived: {moved} instead of {here}.")
        self.stdout.write(f"Moved: {moved.strip()}")
        self.stdout.write("Now name the new database in DATABASE_URL, and start the site.")

    def there(self, url: str, *words: str) -> str:
        """Run a command of the site on another database, "" for this one; return its output.

        :raises CommandError: it failed
        """
        environment = {
            **settings.MACHINE_VARIABLES,
            ENV_FILE: "",
            "PICAISSO_DATA_DIR": str(settings.DATA_DIR),
            "PICAISSO_SECRET_KEY": settings.SECRET_KEY,
            "DATABASE_URL": url or settings.DATABASE_URL,
        }
        command = [sys.executable, "manage.py", *words]
        ended = subprocess.run(
            command,
            cwd=settings.BASE_DIR,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            said = ended.stderr.strip().splitlines() or [f"code {ended.returncode}"]
            raise CommandError(f"The new database cannot be used: {said[-1]}")
        return ended.stdout
