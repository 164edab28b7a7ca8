"""`/healthz` and `check_workers`: what is wrong is named, and what is well is not."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connection
from django.utils import timezone

from requests_app import health
from requests_app.models import Job, JobState, MailState, OutgoingMail, WorkerBeat
from requests_app.workers import jobs
from tests.web.conftest import submitted


@pytest.fixture(autouse=True)
def workers(site):
    """A cluster of each queue that has just answered."""
    for queue in jobs.QUEUES:
        WorkerBeat.objects.create(cluster=f"{queue}-1", queue=queue)


def ago(seconds: float):
    return timezone.now() - timedelta(seconds=seconds)


def wrong(client) -> dict[str, str]:
    response = client.get("/healthz")
    answer = response.json()
    assert answer["healthy"] == (response.status_code == 200) == (not answer["wrong"])
    assert response.status_code in (200, 503)
    assert "no-store" in response.headers["Cache-Control"]
    return answer["wrong"]


def check_workers(*flags: str) -> str:
    out = StringIO()
    call_command("check_workers", *flags, stdout=out)
    return out.getvalue()


def test_a_site_that_is_well_says_so_in_five_queries(client, django_assert_max_num_queries):
    with django_assert_max_num_queries(5):
        assert wrong(client) == {}
    assert check_workers().count(" well ") == 3


def test_a_queue_that_is_silent_for_three_minutes_is_wrong(client):
    WorkerBeat.objects.filter(queue="train").update(at=ago(179))
    found = wrong(client)
    assert (
        set(found) == {"workers"} and "queue train has answered for 179 seconds" in found["workers"]
    )
    with pytest.raises(CommandError, match="queue train has answered for 179 seconds"):
        check_workers()


def test_a_queue_without_any_worker_is_wrong(client):
    WorkerBeat.objects.filter(queue="collect").delete()
    assert wrong(client) == {"workers": "The queue collect has no worker."}


def test_a_silent_cluster_whose_job_renews_its_lease_is_well(client):
    WorkerBeat.objects.update(at=ago(3600))
    WorkerBeat.objects.filter(queue="picaisso").update(busy_until=ago(-60))
    for queue in ("collect", "train"):
        Job.objects.create(
            request=submitted(),
            stage=queue,
            queue=queue,
            state=JobState.RUNNING,
            owner=f"{queue}-1",
            lease_until=ago(-60),
        )
    assert wrong(client) == {}
    Job.objects.filter(queue="train").update(lease_until=ago(1))
    assert "queue train" in wrong(client)["workers"]


def test_a_job_that_nobody_takes_although_a_worker_is_free_is_wrong(client):
    job = Job.objects.create(
        request=submitted(), stage="collect", queue="collect", created=ago(301)
    )
    assert wrong(client) == {
        "workers": "In the queue collect 1 job waits although a worker is free."
    }
    rows = [json.loads(line) for line in out_of_failing("--json").splitlines()]
    assert [(row["queue"], row["waiting"]) for row in rows if row["wrong"]] == [("collect", 1)]
    # Both workers of the cluster are at work: it has to wait.
    for _ in range(2):
        Job.objects.create(
            request=submitted(),
            stage="collect",
            queue="collect",
            state=JobState.RUNNING,
            owner="collect-1",
            lease_until=ago(-60),
        )
    assert wrong(client) == {}
    Job.objects.filter(state=JobState.RUNNING).update(state=JobState.DONE)
    Job.objects.filter(pk=job.pk).update(created=ago(100))
    assert wrong(client) == {}


def out_of_failing(*flags: str) -> str:
    out = StringIO()
    with pytest.raises(CommandError):
        call_command("check_workers", *flags, stdout=out)
    return out.getvalue()


def test_mail_that_does_not_leave_is_wrong(client):
    submitted()
    OutgoingMail.objects.update(created=ago(700), error="Connection refused")
    assert wrong(client) == {"mail": "No mail leaves; the oldest has waited for 12 minutes."}
    submitted()
    OutgoingMail.objects.filter(created__gt=ago(600)).update(state=MailState.SENT, sent=ago(0))
    assert wrong(client) == {}, "another has left since"


def test_an_address_that_its_server_refuses_is_no_fault_of_the_site(client):
    submitted()
    refusal = "{'nobody@example.org': (550, b'no such user')}"
    OutgoingMail.objects.update(created=ago(700), error=refusal)
    assert wrong(client) == {}


def test_a_folder_that_cannot_be_reached_is_wrong(client, settings, tmp_path):
    settings.DATA_DIR = tmp_path / "unmounted"
    assert wrong(client) == {"disk": "The data folder cannot be reached."}


def test_a_disk_without_room_is_wrong_before_stages_fail(client, monkeypatch):
    monkeypatch.setattr(health, "LEAST_FREE_BYTES", 1e18)
    assert "make room" in wrong(client)["disk"]


def test_a_database_that_does_not_answer_is_named_alone(client):
    def refuse(*arguments):
        raise OperationalError("unable to open database file")

    with connection.execute_wrapper(refuse):
        assert set(wrong(client)) == {"database"}
        with pytest.raises(CommandError, match="does not answer"):
            check_workers()
    assert wrong(client) == {}


def test_nothing_secret_is_told(client, settings):
    WorkerBeat.objects.all().delete()
    submitted()
    OutgoingMail.objects.update(created=ago(700))
    text = client.get("/healthz").content.decode()
    for secret in (str(settings.DATA_DIR), "ada@example.org", settings.SECRET_KEY, "cat"):
        assert secret not in text


def test_a_probe_beside_the_proxy_is_not_sent_away(client, settings):
    settings.SECURE_SSL_REDIRECT = True
    assert client.get("/healthz").status_code == 200
    assert client.get("/").status_code == 301


def test_the_first_page_of_the_admin_says_the_same(admin_client):
    page = admin_client.get("/admin/").content.decode()
    assert "Database, workers, disk and mail are well." in page
    WorkerBeat.objects.filter(queue="train").delete()
    page = admin_client.get("/admin/").content.decode()
    assert '<p class="errornote">The queue train has no worker.</p>' in page
