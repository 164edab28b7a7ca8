"""The job pattern with a real database: one holder at a time, whatever happens to the others."""

import sys
import threading
import time
from datetime import timedelta

import pytest
from django.db import (
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.utils import timezone
from django_q.exceptions import TimeoutException
from django_q.models import OrmQ

from requests_app.models import (
    ClassifierRequest,
    Job,
    JobState,
    WorkerBeat,
)
from requests_app.workers import jobs, processes
from tests.pipeline.stages import (
    handlers,
    let_the_lease_run_out,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_job_and_its_notice_exist_only_if_the_transaction_commits(confirmed):
    OrmQ.objects.all().delete()
    before = Job.objects.count()
    with pytest.raises(RuntimeError), transaction.atomic():
        jobs.enqueue(confirmed, "train", "train")
        raise RuntimeError
    assert Job.objects.count() == before
    assert not OrmQ.objects.exists()
    jobs.enqueue(confirmed, "train", "train")
    assert OrmQ.objects.filter(key="train").count() == 1


def test_f06_five_notices_run_a_job_once(confirmed):
    ran = []

    def run(lease):
        ran.append(lease.job.pk)
        with lease.finishing():
            pass

    for _ in range(5):
        jobs.drain("collect", handlers(run))
    assert len(ran) == 1
    assert confirmed.jobs.get().state == JobState.DONE


def test_a_drain_runs_one_job_and_notifies_of_the_next(confirmed):
    other = ClassifierRequest.create(
        class_queries=[("a", ""), ("b", "")], email="b@example.org", status="queued"
    )
    jobs.enqueue(other, "collect", "collect")
    OrmQ.objects.all().delete()
    ran = []

    def run(lease):
        ran.append(lease.job.request_id)
        with lease.finishing():
            pass

    jobs.drain("collect", handlers(run))
    assert ran == [confirmed.pk]
    assert OrmQ.objects.filter(key="collect").count() == 1


def test_two_jobs_of_one_request_never_run_side_by_side(confirmed):
    first = jobs.claim("collect")
    second = jobs.enqueue(confirmed, "collect", "collect")
    assert jobs.claim("collect") is None
    with first.finishing():
        pass
    assert jobs.claim("collect").job.pk == second.pk


def test_of_many_claimers_one_wins(confirmed):
    winners = []
    barrier = threading.Barrier(6)

    def compete():
        try:
            barrier.wait()
            lease = jobs.claim("collect")
            if lease:
                winners.append(lease.job.fence)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=compete) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert winners == [1]


def test_a_lost_job_is_put_back_with_a_new_fence_and_its_late_result_is_dropped(confirmed):
    lost = jobs.claim("collect")
    let_the_lease_run_out(lost.job)
    jobs.reap(handlers(lambda lease: None))
    second = jobs.claim("collect")
    assert second.job.pk == lost.job.pk and second.job.fence > lost.job.fence
    with pytest.raises(jobs.LeaseLost):
        lost.beat()
    with pytest.raises(jobs.LeaseLost), lost.finishing():
        raise AssertionError("the body of a lost job's transaction must not run")
    with second.finishing():
        pass
    assert confirmed.jobs.get().state == JobState.DONE


def test_a_job_that_kills_every_worker_fails_after_three_attempts(confirmed):
    failures = []
    for _ in range(3):
        let_the_lease_run_out(jobs.claim("collect").job)
        jobs.reap(handlers(lambda lease: None, failures))
    job = confirmed.jobs.get()
    assert (job.state, job.attempt) == (JobState.FAILED, 3)
    assert len(failures) == 1
    assert jobs.claim("collect") is None


@pytest.mark.parametrize(
    "error",
    [ValueError("boom"), SystemExit(3), TimeoutException("Task exceeded maximum timeout value")],
    ids=["exception", "exit", "timeout"],
)
def test_f12_an_unexpected_end_is_tried_again_and_the_third_is_final(confirmed, error):
    failures = []

    def run(lease):
        raise error

    for _ in range(4):
        try:
            jobs.drain("collect", handlers(run, failures))
        except TimeoutException:  # django-q2 records it, and replaces its worker
            assert isinstance(error, TimeoutException)
    job = confirmed.jobs.get()
    assert (job.state, job.attempt) == (JobState.FAILED, 3)
    assert failures == [(job.pk, jobs.UNEXPECTED.reason)]
    assert confirmed.jobs.count() == 1, "the next stage never starts"


def test_a_stage_that_refuses_fails_at_once_and_says_why(confirmed):
    failures = []

    def run(lease):
        raise jobs.StageFailed("No browser.", "Install one.")

    jobs.drain("collect", handlers(run, failures))
    job = confirmed.jobs.get()
    assert (job.state, job.error) == (JobState.FAILED, "No browser.")
    assert failures == [(job.pk, "No browser.")]


def test_a_stage_that_may_succeed_next_time_is_tried_three_times(confirmed):
    attempts = []
    failures = []

    def run(lease):
        attempts.append(lease.job.attempt)
        raise jobs.StageFailed("The trainer was stopped.", retry=True)

    for _ in range(4):
        jobs.drain("collect", handlers(run, failures))
    assert attempts == [1, 2, 3]
    assert len(failures) == 1


def test_a_stopping_cluster_puts_its_job_back_without_counting_the_attempt(confirmed, settings):
    settings.CLUSTER_ID = "collect-1"
    WorkerBeat.objects.create(cluster="collect-1", queue="collect")

    def run(lease):
        WorkerBeat.objects.update(stop=True)
        lease.beat()

    jobs.drain("collect", handlers(run))
    job = confirmed.jobs.get()
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    jobs.drain("collect", handlers(lambda lease: pytest.fail("a stopping cluster must not claim")))


def test_a_cancelled_job_ends_and_its_child_with_it(confirmed, data_dir):
    def run(lease):
        Job.objects.update(cancel_requested=True)
        lease.run_child(
            [sys.executable, "-c", "import time; time.sleep(60)"], data_dir / "log.txt", dict
        )

    started = time.monotonic()
    jobs.drain("collect", handlers(run))
    assert confirmed.jobs.get().state == JobState.CANCELLED
    assert time.monotonic() - started < 10
    assert processes.marked_processes(str(data_dir)) == {}


def test_a_job_over_its_limit_is_ended_with_its_whole_tree(confirmed, data_dir):
    script = (
        "import subprocess, sys, time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "subprocess.Popen(['setsid', 'sleep', '60']); time.sleep(60)"
    )

    def run(lease):
        lease.limit_seconds = 0.5
        lease.run_child([sys.executable, "-c", script], data_dir / "log.txt", dict)

    jobs.drain("collect", handlers(run))
    assert "longer than its limit" in confirmed.jobs.get().error
    assert processes.marked_processes(str(data_dir)) == {}


def test_a_forgotten_job_is_notified_of_again(confirmed, settings):
    OrmQ.objects.all().delete()
    Job.objects.update(created=timezone.now() - timedelta(seconds=settings.LEASE_SECONDS + 1))
    jobs.reap(handlers(lambda lease: None))
    jobs.reap(handlers(lambda lease: None))
    assert OrmQ.objects.filter(key="collect").count() == 1


def test_a_childs_exit_code_and_progress_come_through(confirmed, data_dir):
    seen = []

    def run(lease):
        code = lease.run_child(
            [sys.executable, "-c", "import time, sys; time.sleep(2.5); sys.exit(7)"],
            data_dir / "log.txt",
            lambda: {"done": 3, "total": 9},
        )
        seen.append((code, Job.objects.get().progress))
        with lease.finishing():
            pass

    jobs.drain("collect", handlers(run))
    assert seen == [(7, {"done": 3, "total": 9})]


GONE = OperationalError(2006, "Server has gone away")


class Outage:
    """Raises a database error for so many calls, then lets pass."""

    def __init__(self, calls: int, error: Exception = GONE) -> None:
        self.calls = calls
        self.error = error

    def __call__(self, execute, sql, params, many, context):
        if self.calls:
            self.calls -= 1
            raise self.error
        return execute(sql, params, many, context)


def test_a_child_works_on_while_the_database_is_away(confirmed, data_dir):
    code = []

    def run(lease):
        with connection.execute_wrapper(Outage(2)):
            command = [sys.executable, "-c", "import time; time.sleep(3.5)"]
            code.append(lease.run_child(command, data_dir / "log.txt", dict))
        with lease.finishing():
            pass

    jobs.drain("collect", handlers(run))
    job = confirmed.jobs.get()
    assert code == [0]
    assert (job.state, job.attempt) == (JobState.DONE, 1)


def test_a_child_is_ended_when_the_lease_has_run_out_during_an_outage(
    confirmed, data_dir, settings
):
    settings.LEASE_SECONDS = 1

    def run(lease):
        with connection.execute_wrapper(Outage(100)):
            lease.run_child(
                [sys.executable, "-c", "import time; time.sleep(60)"], data_dir / "log.txt", dict
            )

    started = time.monotonic()
    jobs.drain("collect", handlers(run))
    assert time.monotonic() - started < 20
    job = confirmed.jobs.get()
    assert (job.state, job.attempt) == (JobState.QUEUED, 0)
    assert processes.marked_processes(str(data_dir)) == {}


@pytest.mark.parametrize(
    "error",
    [GONE, OperationalError("database is locked"), InterfaceError(0, "")],
    ids=["gone", "locked", "closed"],
)
def test_a_database_outage_does_not_count_as_an_attempt(confirmed, error):
    failures = []

    def run(lease):
        raise error

    OrmQ.objects.all().delete()
    for _ in range(5):
        jobs.drain("collect", handlers(run, failures))
    job = confirmed.jobs.get()
    assert (job.state, job.attempt, failures) == (JobState.QUEUED, 0, [])
    assert OrmQ.objects.filter(key="collect").exists()


@pytest.mark.parametrize(
    "error",
    [OperationalError(1054, "Unknown column"), DataError("too long"), IntegrityError("twice")],
    ids=["column", "data", "integrity"],
)
def test_a_mistake_in_a_query_counts_as_an_attempt(confirmed, error):
    failures = []

    def run(lease):
        raise error

    for _ in range(3):
        jobs.drain("collect", handlers(run, failures))
    assert (confirmed.jobs.get().state, len(failures)) == (JobState.FAILED, 1)


def test_after_an_outage_nobody_is_taken_for_lost_before_a_lease_is_over(confirmed):
    lease = jobs.claim("collect")
    let_the_lease_run_out(lease.job)
    long_ago = timezone.now() - timedelta(hours=1)
    WorkerBeat.objects.create(cluster="collect-1", queue="collect", at=long_ago)
    jobs.forgive_silence(["collect"])
    jobs.reap(handlers(lambda lease: None))
    assert WorkerBeat.objects.get().is_fresh
    lease.beat()
    with lease.finishing():
        pass
    assert confirmed.jobs.get().state == JobState.DONE
