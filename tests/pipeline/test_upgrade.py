"""Old and new code side by side: who changes the tables waits, who is too old ends."""

import threading
import time
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.utils import timezone

from requests_app.models import WorkerBeat
from requests_app.workers import supervisor, upgrade

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def short_times(settings):
    settings.BEAT_SECONDS = 0.2
    settings.STOP_SECONDS = 0.5
    upgrade_margin = upgrade.MARGIN_SECONDS
    upgrade.MARGIN_SECONDS = 1.0
    yield
    upgrade.MARGIN_SECONDS = upgrade_margin


@pytest.fixture
def of_the_future(transactional_db):
    """The tables as a later version leaves them."""
    row = ("requests_app", "9999_of_the_future", timezone.now())
    with connection.cursor() as cursor:
        sql = "INSERT INTO django_migrations (app, name, applied) VALUES (%s, %s, %s)"
        cursor.execute(sql, row)
        yield
        cursor.execute("DELETE FROM django_migrations WHERE name = %s", [row[1]])


def beat(cluster: str, seconds_ago: float = 0.0) -> None:
    at = timezone.now() - timedelta(seconds=seconds_ago)
    WorkerBeat.objects.update_or_create(
        cluster=cluster, defaults={"queue": cluster.partition("-")[0], "at": at}
    )


def test_the_tables_of_the_tests_are_those_of_the_code():
    assert upgrade.has_tables()
    assert not upgrade.has_waiting_migrations()
    assert not upgrade.is_superseded()


def test_nobody_is_waited_for_where_all_workers_are_silent_or_our_own():
    beat("train-theirs-1", seconds_ago=60)
    beat("collect-ours-1")
    started = time.monotonic()
    assert upgrade.drain_workers(["collect-ours-"]) == []
    assert time.monotonic() - started < 1
    assert not WorkerBeat.objects.filter(stop=True).exists()


def test_a_worker_elsewhere_is_asked_to_stop_and_waited_for():
    beat("train-theirs-1")

    def end_when_asked() -> None:
        while not WorkerBeat.objects.filter(stop=True).exists():
            beat("train-theirs-1")
            time.sleep(0.05)
        WorkerBeat.objects.all().delete()
        connection.close()

    other = threading.Thread(target=end_when_asked)
    other.start()
    try:
        assert upgrade.drain_workers() == []
    finally:
        other.join(10)
    assert not other.is_alive()


def test_a_worker_that_does_not_end_is_named():
    WorkerBeat.objects.create(
        cluster="train-theirs-1",
        queue="train",
        busy_until=timezone.now() + timedelta(minutes=10),
    )
    assert upgrade.drain_workers() == ["train"]
    assert WorkerBeat.objects.get().stop


def test_an_up_that_another_asks_to_stop_ends(settings):
    services = [supervisor.make_service("train", "127.0.0.1", 8000)]
    services[0].cluster = "train-ours-1"
    beat("train-ours-1")
    own = supervisor.Supervisor(services)
    own._leave_to_newer_code()
    assert not own.stopping
    WorkerBeat.objects.update(stop=True)
    own._leave_to_newer_code()
    assert own.stopping


def test_an_up_of_older_code_than_the_tables_ends_and_does_not_start(of_the_future, data_dir):
    own = supervisor.Supervisor([supervisor.make_service("web", "127.0.0.1", 8000)])
    own._leave_to_newer_code()
    assert own.stopping
    for flags in ([], ["--no-migrate"]):
        with pytest.raises(CommandError, match="of a newer version"):
            call_command("up", "--only", "train", *flags)
