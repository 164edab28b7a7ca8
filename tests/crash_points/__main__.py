"""Ends a site before and after each of its operations, lets it recover, and opens the books.

``python -m tests.crash_points --folder DIR [--scenario NAME] [--database URL] [--every]``

Nothing of a site runs twice in one process: the prepared process forks one that is ended at the
given operation, then one that does what a restarted site does.
"""

import argparse
import json
import os
import shutil
import stat
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections

PROCESSES = 3  # at once; each waits for children for a part of its time
LEAVES_MORE = ("open", "child", "mail")
OWN_TABLES = ("requests_app_", "django_q_")


def forked(action: Callable[[], None]) -> int:
    """Do something in a process of its own; return how that ended, as ``os.waitpid`` tells it."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        action()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


class Bench:
    """A folder with a prepared site, and a slot for each process that tears copies of it apart."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.database = database
        self.prepared = folder / "prepared"

    # --- a site ---

    def open_slot(self, name: str) -> Path:
        """Make the site of this slot the one of this process; return its data folder."""
        data = self.folder / name / "data"
        data.mkdir(parents=True, exist_ok=True)
        settings.DATA_DIR = data
        settings.MAIL_DIR = data / "mail"
        settings.FILE_UPLOAD_TEMP_DIR = data / "arriving"
        if self.database == "sqlite":
            connections["default"].settings_dict["NAME"] = data / "db.sqlite3"
        else:
            connections["default"].settings_dict["NAME"] = f"picaisso_{name.replace('-', '_')}"
        return data

    def fill_slot(self, name: str, template: str) -> None:
        """Copy a prepared site into a slot."""
        slot = self.folder / name
        shutil.rmtree(slot, ignore_errors=True)
        shutil.copytree(self.folder / template, slot)
        (slot / "accepted.txt").touch()

    def prepare(self) -> None:
        """Make the tables, the program that stands for the children, and what they leave."""
        assert forked(self._prepare) == 0

    def _prepare(self) -> None:
        from requests_app.models import ClassifierRequest
        from tests.crash_points import scenarios
        from tests.pipeline.folders import METRICS, write_collection
        from training import run_folder

        if self.database != "sqlite":
            self._make_database("empty")
        data = self.open_slot("empty")
        call_command("migrate", interactive=False, verbosity=0)
        if self.database != "sqlite":
            self._copy_tables()
        else:
            connection.close()
            (self.folder / "with-children").mkdir()
            shutil.copytree(data, self.folder / "with-children" / "data")
            self.open_slot("with-children")
        scenarios.submit()
        classifier = ClassifierRequest.objects.get()
        shutil.copytree(
            write_collection(classifier, scenarios.PER_CLASS), self.prepared / "collect"
        )
        run_folder.write_json(self.prepared / "run" / "metrics.json", METRICS)
        result = {"ok": True, "seconds": {"train": 2.0}, "notices": []}
        run_folder.write_json(self.prepared / "run" / "result.json", result)
        if self.database != "sqlite":
            self._clear_tables()
        stub = Path(__file__).with_name("stub_child.py")
        program = self.folder / "python"
        program.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -I -S "{stub}" "{self.prepared}" "$@"\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        shutil.rmtree(self.folder / "empty" / "data" / "requests", ignore_errors=True)

    def _make_database(self, slot: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE picaisso_{slot.replace('-', '_')} CHARSET utf8mb4")
        connection.close()

    def _copy_tables(self) -> None:
        """Make the same tables for every slot, quicker than by migrations."""
        statements = []
        with connection.cursor() as cursor:
            for table in connection.introspection.table_names(cursor):
                cursor.execute(f"SHOW CREATE TABLE {table}")
                statements.append(cursor.fetchone()[1])
        for slot in ("warm", *self.slots()):
            self._make_database(slot)
            self.open_slot(slot)
            with connection.cursor() as cursor:
                cursor.execute("SET FOREIGN_KEY_CHECKS = 0")
                for statement in statements:
                    cursor.execute(statement)
            connection.close()
        self.open_slot("empty")

    def slots(self) -> list[str]:
        return [f"slot-{number}" for number in range(PROCESSES)]

    def _clear_tables(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET FOREIGN_KEY_CHECKS = 0")
            for table in connection.introspection.table_names(cursor):
                if table.startswith(OWN_TABLES):
                    cursor.execute(f"DELETE FROM {table}")
            cursor.execute("SET FOREIGN_KEY_CHECKS = 1")

    # --- a scenario ---

    def warm_up(self) -> None:
        """Load in this process what every process of a site loads when it is first needed."""
        self.fill_slot("warm", "empty")
        _, scenario = self._enter("warm", "request")
        scenario.act()
        connections.close_all()

    def prepare_scenario(self, name: str) -> str:
        """Bring a site into the state where a scenario begins; return the template's name."""
        template = f"before-{name}"
        self.fill_slot(template, "empty")

        def act() -> None:
            _, scenario = self._enter(template, name)
            scenario.prepare()

        assert forked(act) == 0
        return template

    def _enter(self, slot: str, name: str):
        """Become a process of the site in this slot."""
        from tests.crash_points import operations, scenarios

        data = self.open_slot(slot)
        settings.EMAIL_BACKEND = "tests.crash_points.operations.CountedMails"
        operations.CountedMails.folder = data.parent
        scenarios.use_stub_children(self.folder / "python")
        return scenarios, scenarios.SCENARIOS[name]

    def count(self, name: str, template: str) -> list[tuple[str, bool]]:
        """Return all operations of a scenario that nothing ends, and whether each may last."""
        slot = self.slots()[0]
        self.fill_slot(slot, template)
        answer = self.folder / "operations.json"

        def act() -> None:
            from tests.crash_points.operations import Operations

            _, scenario = self._enter(slot, name)
            if self.database != "sqlite":
                self._clear_tables()
            operations = Operations()
            operations.install()
            operations.is_on = True
            scenario.act()
            operations.is_on = False
            answer.write_text(
                json.dumps(list(zip(operations.names, operations.lasting, strict=True)))
            )

        assert forked(act) == 0
        return [(operation, lasting) for operation, lasting in json.loads(answer.read_text())]

    def tear(self, name: str, template: str, slot: str, fatal: int, after: bool) -> list[str]:
        """End the site at one operation, restart it, and return what does not balance then."""
        self.fill_slot(slot, template)

        def act() -> None:
            from tests.crash_points.operations import Operations

            _, scenario = self._enter(slot, name)
            if self.database != "sqlite":
                self._clear_tables()
            operations = Operations(fatal, after)
            operations.install()
            operations.is_on = True
            scenario.act()

        answer = self.folder / slot / "found.json"

        def recover() -> None:
            scenarios, scenario = self._enter(slot, name)
            clock = scenarios.Clock()
            clock.install()
            scenario.finish(clock)
            answer.write_text(json.dumps(scenarios.imbalances(scenario)))

        if not os.WIFSIGNALED(forked(act)):
            return ["it did not come to this operation"]
        if forked(recover) != 0:
            return ["the recovery failed"]
        return list(json.loads(answer.read_text()))


def points_of(operations: list[tuple[str, bool]], every: bool) -> list[tuple[int, bool]]:
    """Return (number, after) of each point that leaves something of its own.

    What only reads, and what a rollback takes back, leaves what the operation before has left.
    After an operation the site is as before the next one, but for an empty file that was just
    opened, and for what a child or a mail server does meanwhile.
    """
    points = []
    for number, (name, lasting) in enumerate(operations, start=1):
        if lasting or every:
            points.append((number, False))
        if every or (lasting and name.startswith(LEAVES_MORE)):
            points.append((number, True))
    points.append((len(operations), True))
    return points


def run_scenario(bench: Bench, name: str, every: bool, stride: int = 1) -> bool:
    """Tear a scenario at all of its points; print what does not balance, and how many there are."""
    started = time.monotonic()
    template = bench.prepare_scenario(name)
    operations = bench.count(name, template)
    points = points_of(operations, every)[::stride]
    report = bench.folder / "report.jsonl"
    report.write_text("")
    pids = []
    for share, slot in enumerate(bench.slots()):
        pid = os.fork()
        if not pid:
            _tear_share(bench, name, template, slot, points[share::PROCESSES], report)
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    holes = 0
    for fatal, after, found in sorted(rows):
        if found:
            holes += 1
            when = "after" if after else "before"
            operation = operations[fatal - 1][0]
            print(f"{name}: ended {when} operation {fatal} ({operation}): {'; '.join(found)}")
    seconds = time.monotonic() - started
    print(
        f"{name}: {len(operations)} operations, {len(rows)} of {len(points)} points,"
        f" {holes} holes, {seconds:.0f} s",
        flush=True,
    )
    return holes == 0 and len(rows) == len(points)


def _tear_share(bench, name, template, slot, points, report) -> None:
    with report.open("a") as file:
        for fatal, after in points:
            found = bench.tear(name, template, slot, fatal, after)
            file.write(json.dumps([fatal, after, found]) + "\n")
            file.flush()


def main() -> int:
    django.setup()
    from tests.crash_points.scenarios import SCENARIOS

    parser = argparse.ArgumentParser(prog="python -m tests.crash_points", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append")
    parser.add_argument("--every", action="store_true", help="also points that leave nothing new")
    parser.add_argument("--stride", type=int, default=1, help="only each so-many-th point")
    options = parser.parse_args()
    database = settings.DATABASES["default"]["ENGINE"].rpartition(".")[2].removesuffix("3")
    bench = Bench(options.folder, database)
    bench.prepare()
    bench.warm_up()
    is_sound = True
    for name in options.scenario or SCENARIOS:
        is_sound &= run_scenario(bench, name, options.every, options.stride)
    return 0 if is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
