"""Too few pictures: what is recommended, leaving a class out, and sources that were unreachable."""

import json
from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from requests_app import lifecycle, pipeline, shortage, tasks
from requests_app.models import (
    ClassifierRequest,
    ImageClass,
    ImageUrl,
    Job,
    JobState,
    OutgoingMail,
    SourceHealth,
    Status,
)
from scraping.reasons import Reason
from scraping.sources.catalogue import Outcome
from tests.pipeline.folders import write_collection
from tests.pipeline.stages import ask_nobody, drain
from training.run_folder import MINIMUM_BESIDE_TEST, MINIMUM_PER_CLASS

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def three(data_dir, settings) -> ClassifierRequest:
    """A request of three classes whose collection waits for a worker."""
    settings.CONFIRM_EMAIL = False
    classes = (("cat", ""), ("dog", ""), ("zzzzqq", ""))
    return pipeline.submit(pipeline.Submission(classes=classes, email="ada@example.org"))


def collect(
    classifier: ClassifierRequest,
    kept: dict[str, int],
    outcome: str = Outcome.PARTIAL,
    rejected: dict[str, int] | None = None,
    tested: int = 0,
) -> None:
    """Have the collection end with so many images of each class, and this outcome of its source.

    The first `tested` of each class are marked for the test by the person.
    """
    folder = write_collection(classifier, 40)
    names = {c.class_id: c.name for c in classifier.classes.all()}
    result = json.loads((folder / "result.json").read_text())
    for summary in result["classes"]:
        summary["kept"] = kept[summary["name"]]
        summary["rejected"] = rejected or {}
    for source in result["sources"]:
        source["kept"] = kept[names[source["class"]]]
        source["outcome"] = outcome
        source["cool_down_seconds"] = 60 if outcome in shortage.UNREACHABLE else None
    (folder / "result.json").write_text(json.dumps(result))
    lines = []
    seen: dict[str, int] = {}
    for line in (folder / "images.jsonl").read_text().splitlines():
        row = json.loads(line)
        seen[row["class"]] = seen.get(row["class"], 0) + 1
        if seen[row["class"]] <= tested and row["state"] == "kept":
            row["split"] = "test"
        if seen[row["class"]] <= kept[names[row["class"]]]:
            lines.append(json.dumps(row) + "\n")
    for class_id in names:
        for reason, count in (rejected or {}).items():
            for number in range(count):
                address = f"https://a.example/{class_id}-{reason}-{number}.jpg"
                fate = {"state": "rejected", "reason": reason, "file": ""}
                lines.append(
                    json.dumps({**row, "class": class_id, "image_url": address, **fate}) + "\n"
                )
    (folder / "images.jsonl").write_text("".join(lines))
    drain("collect")
    classifier.refresh_from_db()


def attention_mails() -> int:
    return OutgoingMail.objects.filter(key__contains="attention").count()


def test_going_on_with_fewer_is_recommended_only_where_training_can_work(three):
    collect(three, {"cat": 40, "dog": 12, "zzzzqq": MINIMUM_PER_CLASS})
    assert "go on with fewer pictures" in three.error["remedy"]
    assert shortage.shortage_of(three).can_train
    three.classes.filter(name="zzzzqq").update(kept=MINIMUM_PER_CLASS - 1)
    lack = shortage.shortage_of(three)
    assert not lack.can_train
    remedy = shortage.remedy(three, lack, None)
    assert "fewer" not in remedy
    assert "leave out “dog” and “zzzzqq”" in remedy


def test_own_test_pictures_are_none_to_learn_from(three):
    ClassifierRequest.objects.update(supplied={"as_test": True})
    collect(three, {"cat": 40, "dog": 32, "zzzzqq": 35}, tested=30)
    assert three.status == Status.NEEDS_ATTENTION
    counts = "“cat” 10, “dog” 2, “zzzzqq” 5; 20 per class are needed"
    assert counts in three.error["reason"] and "beside your own" in three.error["reason"]
    assert "fewer" not in three.error["remedy"]
    three.classes.exclude(name="cat").update(kept=30 + MINIMUM_BESIDE_TEST)
    assert shortage.shortage_of(three).can_train
    ImageUrl.objects.filter(image_class__name="cat", rank__gt=2).update(split="")
    assert not shortage.shortage_of(three).can_train, "too few are left to test on"


def test_of_two_classes_none_can_be_left_out(confirmed):
    collect(confirmed, {"cat": 40, "dog": 0})
    assert "leave out" not in confirmed.error["remedy"]
    assert not lifecycle.leave_out(confirmed, [2])
    assert confirmed.classes.count() == 2


def test_fewer_than_the_trainer_takes_are_never_trained_on(three):
    collect(three, {"cat": 40, "dog": 40, "zzzzqq": 3})
    assert lifecycle.retry(three, accept_fewer=True)
    drain("collect")
    three.refresh_from_db()
    assert three.status == Status.NEEDS_ATTENTION
    assert not Job.objects.filter(stage="train").exists()


def test_a_class_without_pictures_is_left_out_and_the_others_are_trained(three):
    collect(three, {"cat": 40, "dog": 40, "zzzzqq": 0})
    assert three.status == Status.NEEDS_ATTENTION
    assert "“zzzzqq” 0" in three.error["reason"]
    kept = ImageUrl.objects.filter(image_class__name__in=["cat", "dog"]).count()
    assert lifecycle.leave_out(three, [3])
    drain("collect")
    three.refresh_from_db()
    assert [c.name for c in three.classes.all()] == ["cat", "dog"]
    assert Job.objects.filter(stage="train", state=JobState.QUEUED).count() == 1
    assert three.versions.get().images == 80
    assert ImageUrl.objects.count() == kept, "nothing else is lost"
    assert not lifecycle.leave_out(three, [3]), "it is gone already"


def test_leaving_out_asks_on_where_another_class_is_short_too(three):
    collect(three, {"cat": 40, "dog": 2, "zzzzqq": 0})
    mails = attention_mails()
    assert lifecycle.leave_out(three, [3])
    three.refresh_from_db()
    assert three.status == Status.NEEDS_ATTENTION
    assert "“dog” 2" in three.error["reason"] and "zzzzqq" not in three.error["reason"]
    assert attention_mails() == mails


def test_a_search_after_leaving_out_knows_nothing_of_that_class(three):
    collect(three, {"cat": 40, "dog": 2, "zzzzqq": 1})
    assert lifecycle.leave_out(three, [3])
    assert lifecycle.retry(three, class_queries={2: "dog animal"})
    ask_nobody()
    drain("collect")
    rows = (three.folder / "collect" / "images.jsonl").read_text().splitlines()
    assert {json.loads(row)["class"] for row in rows} == {"c001"}


def test_a_class_in_the_middle_can_be_left_out_of_a_training_that_failed(three):
    collect(three, {"cat": 40, "dog": 40, "zzzzqq": 40})
    ImageUrl.objects.filter(image_class__name="dog").update(state="removed")
    drain("train")
    three.refresh_from_db()
    assert three.status == Status.FAILED and "dog" in three.error["reason"]
    assert lifecycle.leave_out(three, [2])
    drain("collect")
    version = three.versions.latest("number")
    assert (version.number, version.images) == (2, 80)


def test_what_is_delivered_or_at_work_keeps_its_classes(three):
    assert not lifecycle.leave_out(three, [3])
    ClassifierRequest.objects.update(status=Status.DELIVERED)
    assert not lifecycle.leave_out(ClassifierRequest.objects.get(), [3])
    assert ImageClass.objects.count() == 3


def test_sources_that_cannot_be_reached_are_not_blamed_on_the_words(three):
    collect(three, {"cat": 2, "dog": 40, "zzzzqq": 40}, outcome=Outcome.NETWORK)
    assert "Bing could not be reached" in three.error["reason"]
    assert "Nothing is wrong with your words. We try again by ourselves" in three.error["remedy"]
    assert "wording" not in three.error["remedy"]
    assert attention_mails() == 0


def test_a_source_that_failed_for_another_request_just_before_is_an_outage_too(three):
    SourceHealth.record("bing", Outcome.NETWORK, "Bing is away.", cool_down_seconds=60)
    collect(three, {"cat": 2, "dog": 40, "zzzzqq": 40}, outcome=Outcome.NOT_APPLICABLE)
    assert "Bing could not be reached" in three.error["reason"]


def pass_time(classifier: ClassifierRequest) -> None:
    """Let the time of the next try come."""
    error = {**classifier.error, "again_at": (timezone.now() - timedelta(seconds=1)).isoformat()}
    ClassifierRequest.objects.filter(pk=classifier.pk).update(error=error)


def test_they_are_asked_again_by_themselves_a_few_times_and_then_the_person_is(three):
    pauses = []
    kept = {"cat": 2, "dog": 40, "zzzzqq": 40}
    collect(three, kept, outcome=Outcome.TIMEOUT)
    while "again_at" in three.error:
        pauses.append(datetime.fromisoformat(three.error["again_at"]) - timezone.now())
        tasks.reap("picaisso")
        assert Job.objects.filter(state=JobState.QUEUED).count() == 0, "not before its time"
        pass_time(three)
        tasks.reap("picaisso")
        assert Job.objects.filter(stage="collect", state=JobState.QUEUED).count() == 1
        three.refresh_from_db()
        assert three.events.last().actor == "timer"
        assert attention_mails() == 0
        (three.folder / "collect" / pipeline.SEARCH_AGAIN).unlink()  # the same answer once more
        collect(three, kept, outcome=Outcome.TIMEOUT)
    assert len(pauses) == len(shortage.OUTAGE_PAUSES)
    assert pauses == sorted(pauses)
    assert pauses[0] > timedelta(seconds=60), "a source that failed rests for a minute"
    assert attention_mails() == 1
    assert "Nothing is wrong with your words" in three.error["remedy"]
    assert "earch again later" in three.error["remedy"]


def test_the_same_pictures_in_two_classes_are_named_as_the_cause(confirmed):
    collect(confirmed, {"cat": 2, "dog": 2}, rejected={Reason.IN_TWO_CLASSES: 38})
    remedy = confirmed.error["remedy"]
    assert "The same pictures were found for two classes" in remedy
    assert "38 of “cat” and 38 of “dog”" in remedy


def test_nothing_that_is_bound_to_fail_is_recommended(confirmed):
    collect(confirmed, {"cat": 2, "dog": 40})
    assert confirmed.error["remedy"] == "Try another wording."


def test_sources_that_the_operator_names_and_the_request_left_out_are_recommended(
    confirmed, settings
):
    ClassifierRequest.objects.update(sources=[settings.SOURCES[0]])
    confirmed.refresh_from_db()
    collect(confirmed, {"cat": 2, "dog": 40})
    assert "ask more sources" in confirmed.error["remedy"]


def test_who_asks_for_few_pictures_is_not_told_that_more_are_needed(confirmed, settings):
    settings.MIN_IMAGES = 50
    ClassifierRequest.objects.update(images_per_class=20)
    collect(confirmed, {"cat": 20, "dog": 20})
    assert confirmed.status == Status.RUNNING
