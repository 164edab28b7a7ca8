"""Jobs and leases under claims, beats, jumps of the clock, doubled notices, buttons and crashes.

A machine of Hypothesis looks for an order of these in which the books do not balance.
"""

from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from requests_app import lifecycle, pipeline, takedowns, versions
from requests_app.models import (
    ClassifierRequest,
    ImageUrl,
    Job,
    JobState,
    OutgoingMail,
    Status,
    TakenDown,
    TrainingRun,
    sha256_hex,
)
from requests_app.workers import jobs
from tests import books

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(400),
    pytest.mark.unbalanced("stages are done as far as rows are concerned, without their files"),
]

QUEUES = st.sampled_from(jobs.QUEUES)
WORKERS = st.sampled_from(("ann", "bob"))
WHICH = st.integers(0, 2)
JUMPS = st.sampled_from((10, 70, 130, 400))  # seconds; a lease is 120
ENDS = st.sampled_from(("done", "refused", "broken"))
MOST_REQUESTS = 3
now = timezone.now
offset = [0.0]  # seconds that the clock of the machine is ahead


def later():
    return now() + timedelta(seconds=offset[0])


def address(classifier: ClassifierRequest) -> str:
    return f"http://pictures.example/{classifier.pk}.jpg"


class Jobs(RuleBasedStateMachine):
    """Two workers, each with a lease or none, and up to three requests."""

    def __init__(self) -> None:
        super().__init__()
        for model in (OutgoingMail, TakenDown, ClassifierRequest):
            model.objects.all().delete()
        offset[0] = 0.0
        self.leases: dict[str, jobs.Lease] = {}
        self.fences: dict[int, int] = {}  # the highest that each job has had
        self.effects: Counter[int] = Counter()  # how often each job has ended well

    # --- persons and the clock ---

    @precondition(lambda self: ClassifierRequest.objects.count() < MOST_REQUESTS)
    @rule()
    def submit(self) -> None:
        made = pipeline.submit(
            pipeline.Submission(classes=(("cat", ""), ("dog", "")), email="ada@example.org")
        )
        url = address(made)
        ImageUrl.objects.create(
            image_class=made.classes.first(),
            source="bing",
            query="cat",
            image_url=url,
            url_sha256=sha256_hex(url),
            state="kept",
        )

    @rule(which=WHICH, button=st.sampled_from(("cancel", "retry", "retrain", "again", "delete")))
    def press(self, which: int, button: str) -> None:
        classifier = self._request(which)
        if classifier is None:
            return
        {
            "cancel": lifecycle.cancel,
            "retry": lifecycle.retry,
            "retrain": lifecycle.retrain,
            "again": lifecycle.collect_again,
            "delete": lifecycle.delete,
        }[button](classifier)

    @rule(which=WHICH)
    def take_down(self, which: int) -> None:
        classifier = self._request(which)
        if classifier is not None:
            takedowns.take_down(url=address(classifier))

    @rule(seconds=JUMPS)
    def clock_jumps(self, seconds: int) -> None:
        offset[0] += seconds

    @rule(queue=QUEUES)
    def notified_twice(self, queue: str) -> None:
        jobs.notify(queue)
        jobs.notify(queue)

    @rule()
    def reap(self) -> None:
        jobs.reap(pipeline.HANDLERS)

    # --- workers ---

    @rule(worker=WORKERS, queue=QUEUES)
    def claim(self, worker: str, queue: str) -> None:
        if worker in self.leases:
            return
        lease = jobs.claim(queue)
        if lease is not None:
            self._note(lease)
            self.leases[worker] = lease

    @rule(worker=WORKERS)
    def beat(self, worker: str) -> None:
        """Go on with a job for a second, as a stage does while its child works."""
        lease = self.leases.get(worker)
        if lease is None:
            return
        try:
            pipeline._begin(lease)
            lease.beat({"done": 1, "total": 2})
        except (jobs.LeaseLost, jobs.CancelRequested):
            self._let_drain_end(self.leases.pop(worker), "cancelled")

    @rule(worker=WORKERS, end=ENDS)
    def end(self, worker: str, end: str) -> None:
        lease = self.leases.pop(worker, None)
        if lease is not None:
            self._let_drain_end(lease, end)

    @rule(worker=WORKERS)
    def crash(self, worker: str) -> None:
        """Forget the lease, as a killed worker does."""
        self.leases.pop(worker, None)

    @rule(queue=QUEUES, end=ENDS)
    def drain(self, queue: str, end: str) -> None:
        """Let a third worker do the oldest job of a queue in one go."""

        def run(lease: jobs.Lease) -> None:
            self._note(lease)
            self._run(lease, end)

        jobs.drain(queue, jobs.Handlers(run=run, failed=pipeline.report_failure))

    # --- what is done ---

    def _request(self, which: int) -> ClassifierRequest | None:
        everything = list(ClassifierRequest.objects.order_by("pk"))
        return everything[which] if which < len(everything) else None

    def _note(self, lease: jobs.Lease) -> None:
        assert lease.job.fence > self.fences.get(lease.job.pk, 0), "each claim has a new fence"
        self.fences[lease.job.pk] = lease.job.fence

    def _let_drain_end(self, lease: jobs.Lease, end: str) -> None:
        """End a job that is held already in the way in which ``drain`` ends it."""
        handlers = jobs.Handlers(
            run=lambda same: self._run(same, end), failed=pipeline.report_failure
        )
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(jobs, "claim", lambda queue: lease)
            jobs.drain(lease.job.queue, handlers)

    def _run(self, lease: jobs.Lease, end: str) -> None:
        """Do a stage, as far as rows are concerned."""
        classifier = pipeline._begin(lease)
        lease.beat()
        if end == "refused":
            raise jobs.StageFailed("There was no browser.", "Install one.")
        if end == "broken":
            raise ValueError("something unexpected")
        stage = lease.job.stage
        with lease.finishing():
            if stage == pipeline.COLLECT.name:
                versions.create_version(classifier)
                pipeline.TRAIN.enqueue(classifier)
            elif stage == pipeline.TRAIN.name:
                version = versions.latest_version(classifier)
                TrainingRun.objects.filter(version=version).update(finished=timezone.now())
                pipeline.PACKAGE.enqueue(classifier)
            elif stage == pipeline.PACKAGE.name:
                pipeline.DELIVER.enqueue(classifier)
            else:
                assert classifier.move(Status.DELIVERED)
        self.effects[lease.job.pk] += 1

    # --- what always holds ---

    @invariant()
    def the_rows_agree(self) -> None:
        assert list(books.rows_out_of_step()) == []

    @invariant()
    def no_job_counts_twice(self) -> None:
        assert not [job for job, times in self.effects.items() if times > 1]

    @invariant()
    def what_was_taken_down_is_not_kept(self) -> None:
        blocked = set(TakenDown.objects.values_list("digest", flat=True))
        assert not ImageUrl.objects.filter(state="kept", url_sha256__in=blocked).exists()

    def teardown(self) -> None:
        """Both workers die; then everything comes to an end by itself."""
        self.leases.clear()
        for _ in range(8):
            offset[0] += 400
            jobs.reap(pipeline.HANDLERS)
            for queue in 3 * jobs.QUEUES:
                self.drain_well(queue)
        assert not connection.in_atomic_block
        assert not Job.objects.filter(state__in=(JobState.QUEUED, JobState.RUNNING)).exists()
        assert not ClassifierRequest.objects.filter(
            status__in=(Status.QUEUED, Status.RUNNING)
        ).exists()
        self.the_rows_agree()
        failures = OutgoingMail.objects.filter(key__contains=":failed:")
        for job in Job.objects.filter(state=JobState.FAILED):
            told = failures.filter(key__endswith=f":failed:{job.pk}").count()
            was_moved = job.request.events.filter(actor=f"job:{job.pk}", new=Status.FAILED).exists()
            assert told == int(was_moved) or job.request.status == Status.EXPIRED

    def drain_well(self, queue: str) -> None:
        def run(lease: jobs.Lease) -> None:
            self._run(lease, "done")

        jobs.drain(queue, jobs.Handlers(run=run, failed=pipeline.report_failure))


def test_no_order_of_events_makes_a_job_count_twice_or_loses_a_request(
    data_dir, transactional_db, settings, monkeypatch
):
    settings.CONFIRM_EMAIL = False
    monkeypatch.setattr(timezone, "now", later)
    run_state_machine_as_test(Jobs, settings=BOUNDS)


BOUNDS = settings(
    max_examples=40,
    stateful_step_count=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
