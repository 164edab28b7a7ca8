"""The upkeep of a running site whose mail server is silent, or that was off for a day: F16, F17."""

import secrets
import signal
import time

import pytest

from tests.mail_servers import Recorder, silent_server, smtp_server
from tests.system.mariadb import free_port
from tests.system.site import Site, links

IMAGES = 20
SLACK = 60.0  # for a machine on which much else runs
pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

MAKE_LOST_JOB_AND_OLD_REQUEST = """
from datetime import timedelta
from django.utils import timezone
from requests_app.models import ClassifierRequest, Job
from requests_app.workers import jobs
classes = [("cat", ""), ("dog", "")]
now = timezone.now()
lost = ClassifierRequest.create(class_queries=classes, email="lost@example.org", status="running")
Job.objects.create(
    request=lost, stage="collect", queue="collect", state="running", attempt=3, fence=5,
    owner="gone", lease_until=now - timedelta(seconds=1),
)
old = ClassifierRequest.create(class_queries=classes, email="old@example.org", status="failed")
ClassifierRequest.objects.filter(pk=old.pk).update(moved=now - timedelta(days=31))
jobs.notify("picaisso", "prune")
print("MADE", lost.url, old.pk)
"""


@pytest.fixture
def site(tmp_path):
    """Return a site that is not started, and that asks no source at all."""
    folder = tmp_path / "site"
    folder.mkdir()
    site = Site(folder, free_port())
    site.settings = {"PICAISSO_SOURCES": "wikimedia", "PICAISSO_CONTACT": ""}
    yield site
    site.end()


def test_f16_a_mail_server_that_is_down_or_silent_delays_mail_and_nothing_else(site):
    site.start()
    for number in range(3):
        site.submit(IMAGES, email=f"person{number}@example.org")
    most_attempts = "SELECT MAX(attempts) FROM requests_app_outgoingmail"
    site.wait("a second attempt", lambda: site.rows(most_attempts)[0][0] >= 2, SLACK)
    with silent_server(site.smtp_port) as silent:
        site.wait("a sender", lambda: bool(silent.accepted), SLACK)
        began = time.monotonic()
        _, lost, old = site.shell(MAKE_LOST_JOB_AND_OLD_REQUEST).split()[-3:]
        lost = lost.removeprefix(site.url)
        status = f"SELECT status FROM requests_app_classifierrequest WHERE id={old}"
        site.wait("the end of the lost job", lambda: site.status(lost) == "failed", 20)
        site.wait("the old request's end", lambda: site.rows(status) == [("expired",)], 20)
        # One mail waits 30 seconds for the server, and no second one beside it.
        assert len(silent.accepted) <= 2 + (time.monotonic() - began) / 30
        assert "picaisso does not answer" not in site.log.read_text()
    recorder = Recorder()
    with smtp_server(recorder, site.smtp_port):
        site.wait("all mail", lambda: len(recorder.messages) == 4, SLACK)
        time.sleep(3)
        assert len({mail["Message-ID"] for mail in recorder.messages}) == 4
        assert len(links(recorder.messages)) == 3
        assert site.stop() == 0


PASS_A_DAY = """
from datetime import timedelta
from django.db.models import F
from django_q.models import OrmQ
from requests_app.models import ClassifierRequest, Job, WorkerBeat
from requests_app.workers import jobs
for _ in range(24):
    jobs.notify("picaisso", "prune")
    jobs.notify("picaisso", "reap")
day = timedelta(days=1)
OrmQ.objects.update(lock=F("lock") - day)
Job.objects.update(created=F("created") - day)
WorkerBeat.objects.update(at=F("at") - day)
classes = [("cat", ""), ("dog", "")]
old = ClassifierRequest.create(class_queries=classes, email="old@example.org", status="failed")
ClassifierRequest.objects.filter(pk=old.pk).update(moved=F("moved") - 31 * day)
print("OLD", old.pk)
"""


def test_f17_after_a_day_off_and_with_another_key_what_waited_is_done_once(site):
    recorder = Recorder()
    site.settings |= {
        "PICAISSO_CONFIRM_EMAIL": "0",
        "PICAISSO_SECRET_KEY": secrets.token_urlsafe(64),
    }
    with smtp_server(recorder, site.smtp_port):
        site.start("--only", "web,picaisso")
        path = site.submit(IMAGES)
        key = site.key_of(path)
        assert site.jobs(path) == [("collect", "queued", 0)]
        assert site.stop(signal.SIGTERM) == 0
        old = site.shell(PASS_A_DAY).split()[-1]
        site.settings["PICAISSO_SECRET_KEY"] = secrets.token_urlsafe(64)
        site.start()
        job = f"SELECT state, attempt FROM requests_app_job WHERE request_id={key}"
        site.wait("the job that waited", lambda: site.rows(job) == [("done", 1)], SLACK)
        events = f"SELECT COUNT(*) FROM requests_app_event WHERE new='expired' AND request_id={old}"
        site.wait("the upkeep", lambda: site.rows(events) == [(1,)], SLACK)
        notices = "SELECT COUNT(*) FROM django_q_ormq WHERE key='picaisso'"
        site.wait("the end of the notices", lambda: site.rows(notices)[0][0] <= 1, SLACK)
        site.wait("the mail", lambda: len(recorder.messages) == 1, SLACK)
        time.sleep(3)
        assert site.rows(events) == [(1,)]
        assert len(recorder.messages) == 1
        assert site.stop() == 0
