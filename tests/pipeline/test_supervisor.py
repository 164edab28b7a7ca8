"""The supervisor of `manage.py up`: what it asks of its clusters, and what it takes over."""

import signal
from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import OrmQ

from requests_app.models import Job, JobState, WorkerBeat
from requests_app.workers import jobs
from requests_app.workers.supervisor import Service, Supervisor, cluster_prefix

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cluster():
    """Return a cluster that runs and takes no notice, as one with a long job."""
    service = Service("train", ["sleep", "60"], {})
    service.start()
    yield service
    service.kill()


def test_a_cluster_with_a_long_job_is_asked_for_one_beat_and_not_for_hundreds(cluster):
    supervisor = Supervisor([cluster])
    ask_for_beats = supervisor.timers[0].action
    for _ in range(3):
        ask_for_beats()
        WorkerBeat.objects.update(at=timezone.now())  # as the lease of its job does
    assert OrmQ.objects.filter(key="train").count() == 1


@pytest.fixture
def own_signals():
    """Give this process back what it does on signals, which a supervisor changes."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_what_a_killed_up_was_working_on_is_taken_over_at_once(confirmed, settings, own_signals):
    settings.CLUSTER_ID = cluster_prefix("collect") + "dead"
    WorkerBeat.objects.create(cluster=settings.CLUSTER_ID, queue="collect")
    WorkerBeat.objects.create(cluster="collect-of-another-machine", queue="collect")
    jobs.claim("collect")
    stop_after_start()
    assert [beat.cluster for beat in WorkerBeat.objects.all()] == ["collect-of-another-machine"]
    job = confirmed.jobs.get()
    assert job.state == JobState.RUNNING
    assert job.lease_until <= timezone.now() + timedelta(seconds=1)
    assert Job.objects.count() == 1


def test_what_another_machine_works_on_is_left_to_it(confirmed, settings, own_signals):
    settings.CLUSTER_ID = "collect-of-another-machine"
    jobs.claim("collect")
    stop_after_start()
    assert confirmed.jobs.get().lease_until > timezone.now() + timedelta(seconds=1)


def stop_after_start():
    """Run a supervisor that starts what it has and stops at once."""
    supervisor = Supervisor([Service("collect", ["true"], {})])
    supervisor.stopping = True
    supervisor.run()
