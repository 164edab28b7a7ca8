"""The time that the form names: told by what was finished here, by what waits, and by the size."""

from datetime import timedelta

import pytest
from django.utils import timezone

from requests_app import pipeline
from requests_app.models import ClassifierRequest, Job, JobState, WorkerBeat
from tests.web.conftest import submitted, words


@pytest.fixture
def workers() -> None:
    for queue in ("collect", "train"):
        WorkerBeat.objects.create(cluster=f"{queue}-1", queue=queue)


def finished(collect: float, train: float) -> ClassifierRequest:
    """A request of 80 pictures whose stages took so many seconds."""
    classifier = submitted("cat", "dog")
    end = timezone.now()
    for stage, seconds in ((pipeline.COLLECT, collect), (pipeline.TRAIN, train)):
        Job.objects.create(
            request=classifier,
            stage=stage.name,
            queue=stage.queue,
            state=JobState.DONE,
            started=end - timedelta(seconds=seconds),
            finished=end,
        )
    return classifier


def waiting() -> ClassifierRequest:
    classifier = submitted("cat", "dog")
    pipeline.confirm(classifier)
    return classifier


def sentence(client, classes: int = 2, images: int = 40) -> str:
    return client.get(f"/estimate/?classes={classes}&images={images}").json()["sentence"]


def test_before_the_first_result_the_usual_time_is_said(client, workers):
    assert sentence(client) == "The first request here: usually 3 to 15 minutes."
    waiting()
    assert sentence(client) == (
        "No request was finished here yet: usually 3 to 15 minutes, after 1 request."
    )


def test_without_a_worker_no_time_is_promised(client):
    finished(120, 180)
    assert sentence(client) == ("No worker is running at the moment. Requests wait until one is.")


def test_the_median_of_what_was_finished_counts_by_its_size(client, workers):
    for collect, train in ((100, 60), (120, 180), (900, 4000)):
        finished(collect, train)
    assert sentence(client) == "About 5 minutes: nothing is ahead of yours."
    assert sentence(client, classes=4) == "About 10 minutes: nothing is ahead of yours."
    assert sentence(client, images=20) == "About 2 minutes: nothing is ahead of yours."


def test_no_stage_is_said_to_take_longer_than_its_limit(client, workers, settings):
    settings.COLLECT_MINUTES = 30
    settings.TRAIN_MINUTES = 60
    finished(120, 180)
    assert sentence(client, 10, 500) == "About 2 hours: nothing is ahead of yours."


def test_what_is_ahead_is_shared_between_the_workers(client, workers):
    """Two collect at once, one trains: three trainings of 3 minutes end 11 minutes from now."""
    finished(120, 180)
    first = waiting()
    waiting()
    assert sentence(client) == "About 11 minutes: 2 requests are ahead of yours."
    job = first.jobs.get()
    job.state = JobState.RUNNING
    job.started = timezone.now() - timedelta(seconds=120)
    job.save()
    assert sentence(client) == "About 9 minutes: 2 requests are ahead of yours."


def test_the_form_and_the_waiting_page_say_the_same(client, workers):
    finished(120, 180)
    assert "About 12 minutes: nothing is ahead of yours." in client.get("/").content.decode()
    page = words(client.get(submitted().get_absolute_url()).content.decode())
    assert "Click it and we start. It then takes about 5 minutes." in page
    waiting()
    page = words(client.get(waiting().get_absolute_url()).content.decode())
    assert "1 request is ahead of yours. It takes about 8 minutes." in page


def test_it_costs_the_same_however_many_requests_there_were(
    client, workers, django_assert_max_num_queries
):
    for _ in range(6):
        finished(120, 180)
        waiting()
    with django_assert_max_num_queries(6):
        sentence(client)


@pytest.mark.parametrize("query", ["", "?classes=x&images=-3", "?classes=99999999&images=1e9"])
def test_what_is_no_size_is_answered_too(client, workers, query):
    finished(120, 180)
    assert "About " in client.get(f"/estimate/{query}").json()["sentence"]
