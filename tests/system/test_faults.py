"""Faults of one running site, one after the other: F02, F06 to F13, in the numbers of the tests.

Those that take a whole request each, F01 to F05 and F16, stand in ``test_survival``; those that
need no browser, F16 and F17, in ``test_upkeep``.
"""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count

import pytest

from requests_app.demo.visitor import DemoFailed
from requests_app.workers.processes import PROJECT
from tests.mail_servers import Recorder, smtp_server
from tests.system.site import SHORT_TIMES, Proc, Site, running_site, text_of
from tests.system.test_survival import (
    IMAGES,
    check_nothing_left,
    is_child_supervisor,
    is_chromium,
    is_collector,
    missing,
)

LEASE = float(SHORT_TIMES["PICAISSO_LEASE_SECONDS"])
SLACK = 60.0  # for a machine on which much else runs
pytestmark = [
    pytest.mark.system,
    pytest.mark.browser,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}"),
]
people = count()


class BusySite(Site):
    """A site where nobody has to confirm, and where each request is another person's."""

    mailbox: Recorder

    def order(self) -> str:
        """Send a request; return the path of its page."""
        return self.submit(IMAGES, email=f"person{next(people)}@example.org")

    def collector_of(self, path: str, fence: int = 0) -> Proc:
        """Wait for the collecting child of a request, with this fence if one is said."""
        ((job,),) = self.rows(
            f"SELECT MIN(id) FROM requests_app_job WHERE request_id={self.key_of(path)}"
        )

        def is_it(process: Proc) -> bool:
            marker = process.environment.get("PICAISSO_JOB", "")
            wanted = f"{job}:{fence}" if fence else f"{job}:"
            return is_collector(process) and marker.startswith(wanted)

        return self.wait_for("the collector", is_it, SLACK)[0]

    def worker_of(self, child: Proc) -> Proc:
        """Return the worker of the queue that runs a child."""
        (supervisor,) = self.find(lambda p: p.pid == child.parent and is_child_supervisor(p))
        (worker,) = self.find(lambda p: p.pid == supervisor.parent)
        return worker

    def mails_to(self, path: str) -> list[str]:
        key = self.key_of(path)
        ((address,),) = self.rows(
            f"SELECT email FROM requests_app_classifierrequest WHERE id={key}"
        )
        return [text_of(mail) for mail in self.mailbox.messages if mail["To"] == address]

    def latest_notice(self) -> int:
        """Return the key of the newest notice; those of killed workers lie locked for days."""
        ((latest,),) = self.rows("SELECT MAX(id) FROM django_q_ormq")
        return latest or 0

    def notices_after(self, notice: int) -> int:
        """Return how many newer notices to collect are not acknowledged yet."""
        query = "SELECT COUNT(*) FROM django_q_ormq WHERE key = 'collect' AND id >"
        ((waiting,),) = self.rows(f"{query} {notice}")
        return waiting

    def cancel(self, path: str) -> None:
        """End a request, and wait until nothing works for it any more."""
        assert self.post(path, "cancel") == 202
        self.wait("the end of its work", lambda: not self.running_jobs(path), 10 + SLACK)

    def running_jobs(self, path: str) -> list[tuple[str, str, int]]:
        return [job for job in self.jobs(path) if job[1] in ("queued", "running")]


@contextmanager
def busy_site(tmp_path_factory, **settings: str) -> Iterator[BusySite]:
    recorder = Recorder()
    folder = tmp_path_factory.mktemp("faults") / "site"
    own = {"PICAISSO_CONFIRM_EMAIL": "0", **settings}
    with smtp_server(recorder) as port, running_site(folder, port, **own) as running:
        running.__class__ = BusySite
        running.mailbox = recorder
        yield running
        check_nothing_left(running)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with busy_site(tmp_path_factory) as running:
        yield running


def test_f02_a_job_whose_worker_is_killed_every_time_fails_after_three_attempts(site):
    path = site.order()
    for attempt in (1, 2, 3):
        # Killed by hand each time, so that its fence has grown by a claim and a reaping.
        collector = site.collector_of(path, fence=2 * attempt - 1)
        site.worker_of(collector).kill()
    site.wait("the failure", lambda: site.status(path) == "failed", LEASE + SLACK)
    site.wait("the mail about it", lambda: len(site.mails_to(path)) == 1, SLACK)
    time.sleep(LEASE + 4)
    assert site.jobs(path) == [("collect", "failed", 3)]
    assert len(site.mails_to(path)) == 1
    assert site.find(is_collector) == []


def test_f06_a_job_that_is_notified_of_five_times_on_four_workers_runs_once(site):
    before = site.latest_notice()
    more = {**site.environment(), "Q_CLUSTER_NAME": "collect"}
    command = [sys.executable, "manage.py", "qcluster"]
    second_cluster = subprocess.Popen(command, cwd=PROJECT, env=more, start_new_session=True)
    try:
        path = site.order()
        collector = site.collector_of(path)
        collector.send(signal.SIGSTOP)  # so that it does not end before the others had their chance
        site.shell(
            "from requests_app.workers import jobs\nfor _ in range(5): jobs.notify('collect')"
        )
        # One notice is left: that of the job that runs.
        site.wait("the end of all others", lambda: site.notices_after(before) == 1, SLACK)
        assert [found.pid for found in site.find(is_collector)] == [collector.pid]
        assert site.jobs(path) == [("collect", "running", 1)]
        collector.send(signal.SIGCONT)
        site.cancel(path)
    finally:
        second_cluster.terminate()
        second_cluster.wait(30)


def test_f07_what_a_paused_worker_brings_after_another_one_has_finished_is_dropped(site):
    path = site.order()
    collector = site.collector_of(path)
    paused = site.worker_of(collector)
    paused.send(signal.SIGSTOP)
    try:
        site.collector_of(path, fence=3)  # the reaper's is the second
        assert site.find(lambda p: p.pid == collector.pid) == []

        def trains() -> bool:
            return any(stage == "train" for stage, _, _ in site.jobs(path))

        site.wait("the end of the collection", trains, 2 * SLACK)
        collected = {p: p.stat().st_mtime_ns for p in site.folder.glob("data/requests/*/collect/*")}
    finally:
        paused.send(signal.SIGCONT)
    dropped = "was taken over by another worker; this result is dropped"
    site.wait("the late worker", lambda: dropped in site.log.read_text(), SLACK)
    assert site.jobs(path)[0] == ("collect", "done", 2)
    assert [job[0] for job in site.jobs(path)] == ["collect", "train"]
    assert all(file.stat().st_mtime_ns == written for file, written in collected.items())
    assert site.mails_to(path) == []
    site.cancel(path)


@contextmanager
def broken_queue(site: Site) -> Iterator[None]:
    """Let the database refuse every notice for the queue `collect`."""
    file = site.folder / "data" / "db.sqlite3"
    with closing(sqlite3.connect(file, timeout=20)) as database:
        database.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON django_q_ormq WHEN NEW.key = 'collect'"
            " BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
        database.commit()
        try:
            yield
        finally:
            database.execute("DROP TRIGGER broken")
            database.commit()


def test_f09_a_submission_that_fails_after_its_job_was_made_leaves_nothing(site):
    tables = ("classifierrequest", "job", "outgoingmail", "event")
    count_all = ", ".join(f"(SELECT COUNT(*) FROM requests_app_{name})" for name in tables)
    before = site.rows(f"SELECT {count_all}")
    with broken_queue(site), pytest.raises(DemoFailed, match=r"answered 50[03]"):
        site.order()
    assert site.rows(f"SELECT {count_all}") == before
    path = site.order()
    site.collector_of(path)
    assert site.jobs(path) == [("collect", "running", 1)]
    site.cancel(path)


MAKE_COUNTER = """
from requests_app.models import ClassifierRequest
classes = [("cat", ""), ("dog", "")]
made = ClassifierRequest.create(class_queries=classes, email="", status="cancelled")
ClassifierRequest.objects.filter(pk=made.pk).update(images_per_class=0)
print("COUNTER", made.pk)
"""
COUNT_UP = """
from django.db import transaction
from requests_app.models import ClassifierRequest
for _ in range(100):
    with transaction.atomic():
        row = ClassifierRequest.objects.select_for_update().get(pk={key})
        row.images_per_class += 1
        row.save(update_fields=["images_per_class"])
"""


def count_up_in_four_processes(site: Site) -> int:
    """Let four writers count to a hundred each, in one row; return how far they came together."""
    key = int(site.shell(MAKE_COUNTER).split()[-1])
    command = [sys.executable, "manage.py", "shell", "-v0", "-c", COUNT_UP.format(key=key)]
    writers = []
    for _ in range(4):
        writers.append(subprocess.Popen(command, cwd=PROJECT, env=site.environment()))
    assert [writer.wait(120) for writer in writers] == [0, 0, 0, 0]
    ((counted,),) = site.rows(
        f"SELECT images_per_class FROM requests_app_classifierrequest WHERE id={key}"
    )
    return int(counted)


def test_f10_four_writers_beside_a_running_job_lose_nothing_and_lock_nobody_out(site):
    path = site.order()
    site.collector_of(path)
    assert count_up_in_four_processes(site) == 400
    assert site.jobs(path)[0][2] == 1
    assert "database is locked" not in site.log.read_text()
    site.cancel(path)


def test_f11_a_database_that_is_locked_at_the_end_of_a_stage_delays_it_and_nothing_else(site):
    path = site.order()
    site.collector_of(path)
    result = f"data/requests/{site.key_of(path)}/collect/result.json"
    site.wait("the end of the collection", lambda: any(site.folder.glob(result)), 2 * SLACK)
    file = site.folder / "data" / "db.sqlite3"
    with closing(sqlite3.connect(file, timeout=20, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        time.sleep(0.75 * LEASE)
        database.execute("ROLLBACK")

    def trains() -> bool:
        return [job[0] for job in site.jobs(path)] == ["collect", "train"]

    site.wait("the next stage", trains, SLACK)
    assert site.jobs(path)[0] == ("collect", "done", 1)
    site.cancel(path)
    assert len(site.jobs(path)) == 2


def test_f12_a_stage_that_fails_each_time_is_tried_three_times_and_the_next_never_starts(site):
    before = site.latest_notice()
    path = site.order()
    for fence in (1, 2, 3):
        site.collector_of(path, fence).kill()
    site.wait("the failure", lambda: site.status(path) == "failed", SLACK)
    site.wait("the mail about it", lambda: len(site.mails_to(path)) == 1, SLACK)
    assert site.jobs(path) == [("collect", "failed", 3)]
    site.wait("the end of all notices", lambda: site.notices_after(before) == 0, SLACK)


def test_f13_a_cancel_ends_what_waits_and_what_runs_and_says_nothing_by_mail(site):
    running = [site.order(), site.order()]
    for path in running:
        site.collector_of(path)
    waiting = site.order()
    assert site.jobs(waiting) == [("collect", "queued", 0)]
    for path in (waiting, *running):
        assert site.post(path, "cancel") == 202
        assert site.status(path) == "cancelled"
    assert site.jobs(waiting) == [("collect", "cancelled", 0)]

    def ended() -> bool:
        states = {job[1] for path in running for job in site.jobs(path)}
        return states == {"cancelled"} and not site.find(is_collector)

    site.wait("the end of what ran", ended, 10 + SLACK)
    assert site.find(is_chromium) == []
    for path in (waiting, *running):
        assert site.post(path, "cancel") == 409
        assert site.mails_to(path) == []
    events = "SELECT COUNT(*) FROM requests_app_event WHERE new='cancelled' AND request_id="
    assert [site.rows(f"{events}{site.key_of(path)}") for path in running] == [[(1,)], [(1,)]]


def test_f08_a_hung_browser_and_a_hung_collection_are_ended_at_their_limit(tmp_path_factory):
    limit = 20.0
    own = {"PICAISSO_COLLECT_MINUTES": str(limit / 60), "PICAISSO_LEASE_SECONDS": "30"}
    with busy_site(tmp_path_factory, **own) as site:
        first = site.order()
        site.wait_for("Chromium", is_chromium, SLACK)
        second = site.order()
        hung = site.collector_of(second)
        hung.send(signal.SIGSTOP)  # as one that hangs in C code: no signal but SIGKILL ends it
        for process in site.find(lambda p: "/chromium" in p.command.split(" ")[0]):
            process.send(signal.SIGSTOP)

        def ended() -> bool:
            return not site.running_jobs(first) and not site.running_jobs(second)

        site.wait("both ends", ended, limit + 2 * 12 + SLACK)
        assert [attempt for _, _, attempt in site.jobs(first)] == [1]
        assert site.jobs(second) == [("collect", "failed", 1)]
        assert "longer than its limit" in (site.page(second) or "")
        assert site.find(lambda p: "PICAISSO_JOB" in p.environment) == []
        assert site.find(is_chromium) == []
