"""What a request's page shows in every state, and how it stays up to date."""

import html
import re
from datetime import timedelta

import onnx
import pytest
from django.urls import NoReverseMatch, resolve, reverse
from django.utils import timezone
from onnx import helper
from PIL import Image

from requests_app import lifecycle, pipeline
from requests_app.models import ClassifierRequest, Job, Status, TrainingRun, WorkerBeat
from requests_app.views.result import MODEL_LINES
from tests.web.conftest import delivered, keep_picture, page_of, running, stopped, submitted, words

# --- progress ---


def test_a_running_request_shows_counts_time_left_and_pictures(client):
    classifier = running()
    cat = classifier.classes.first()
    picture = keep_picture(cat, 1)
    keep_picture(cat, 2, source="openverse")
    page = page_of(client, classifier)
    text = words(page)
    assert "Collecting pictures" in text
    assert "25 %, about 2 minutes left" in text
    assert "Bing: 1 kept" in text
    assert "Openverse: 1 kept" in text
    assert "2 of 40" in text
    assert f"/images/{picture.pk}.jpg" in page
    assert re.search(
        r'class="stage running" aria-current="step".*?Collect pictures.*?1 min 15 s',
        page,
        re.DOTALL,
    )


def test_a_waiting_request_says_what_it_waits_for(client):
    first = submitted()
    pipeline.confirm(first)
    second = submitted()
    pipeline.confirm(second)
    assert "No worker is running" in page_of(client, second)
    beat = WorkerBeat.objects.create(cluster="c", queue="collect")
    assert "Yours is next." in page_of(client, first)
    assert "1 request is ahead of yours." in page_of(client, second)
    WorkerBeat.objects.filter(pk=beat.pk).update(at=timezone.now() - timedelta(hours=1))
    assert "No worker is running" in page_of(client, second)


def test_a_worker_that_stopped_answering_is_mentioned(client):
    classifier = running()
    classifier.jobs.update(lease_until=timezone.now() - timedelta(seconds=5))
    assert "The worker has stopped answering" in page_of(client, classifier)


def test_the_polled_part_is_the_same_as_the_first(client):
    classifier = running()
    keep_picture(classifier.classes.first(), 1)
    classifier.jobs.update(started=None)  # so that no second passes between the two

    def without_tokens(text: str) -> str:
        return re.sub(r'value="\w{64}"', "", text)

    page = page_of(client, classifier)
    part = client.get(f"{classifier.get_absolute_url()}progress/").content.decode()
    assert without_tokens(part).strip() in without_tokens(page)
    assert "<html" not in part


def test_a_poll_without_news_is_not_answered_again(client):
    classifier = submitted()
    path = f"{classifier.get_absolute_url()}progress/"
    first = client.get(path)
    assert first.status_code == 200
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    pipeline.confirm(classifier)
    assert client.get(path, headers={"If-None-Match": first.headers["ETag"]}).status_code == 200


def test_the_poll_that_finds_the_end_stops_the_polling(client):
    for classifier in (delivered(), stopped("failed"), stopped("needs_attention")):
        response = client.get(
            f"{classifier.get_absolute_url()}progress/", headers={"HX-Request": "true"}
        )
        assert response.status_code == 286
        assert b"hx-get" not in response.content


def test_a_poller_gets_a_fragment_when_the_request_is_deleted_meanwhile(client):
    classifier = running()
    lifecycle.delete(classifier)
    response = client.get(
        f"{classifier.get_absolute_url()}progress/", headers={"HX-Request": "true"}
    )
    assert response.status_code == 410
    assert response.content.lstrip().startswith(b"<section")
    assert b'id="progress"' in response.content
    assert b"<html" not in response.content


def test_without_scripts_the_page_refreshes_itself_while_it_is_open(client):
    refresh = '<noscript><meta http-equiv="refresh"'
    assert refresh in page_of(client, running())
    assert refresh not in page_of(client, delivered())


def test_a_page_costs_the_same_few_queries_however_many_pictures(
    client, django_assert_max_num_queries
):
    classifier = running()
    for number in range(30):
        keep_picture(classifier.classes.first(), number)
    with django_assert_max_num_queries(12):
        page_of(client, classifier)


# --- the result ---


def test_a_delivered_request_shows_what_was_measured(client):
    text = words(page_of(client, delivered()))
    assert "Your classifier is ready" in text
    assert text.count("95 % interval 69.9 % to 97.2 %") == 1
    assert (
        "This model tells the classes apart. 18 of 20 pictures Right on the test pictures" in text
    )
    assert "Realistic: 70 to 97 %." in text
    assert "This model tells the classes apart: right on 18 of 20 test pictures" in text
    assert "Always naming the largest class would be right on 50 %" in text
    assert "The bundled backbone was used." in text
    assert "cat 90 % 90 % 10" in text
    assert "56 training, 12 validation, 20 test" in text
    assert "EfficientNet-Lite0" in text


def test_it_says_what_was_asked_found_kept_and_left_out(client):
    text = words(page_of(client, delivered()))
    assert (
        "Asked for 40, found 20, kept 2. Left out: 9 duplicates, 5 unreachable, 1 too small."
        in text
    )
    assert "Bing asked for a human check." in text


def test_the_matrix_has_every_count_with_its_meaning(client):
    page = page_of(client, delivered("cat", "dog", "owl"))
    cell = r'<td class="(right|wrong) heat-\d+" title="(.*?)">(?:<a [^>]*>)?(\d+)(?:</a>)?</td>'
    cells = re.findall(cell, page)
    assert len(cells) == 9
    assert ("right", "9 pictures of owl called owl", "9") in cells
    assert ("wrong", "1 picture of owl called cat", "1") in cells


def test_a_cell_of_the_matrix_leads_to_its_pictures(client):
    classifier = delivered("cat", "dog", "owl")
    page = page_of(client, classifier)
    links = re.findall(r'<a href="([^"]*)" aria-label="1 picture of owl called cat">', page)
    gallery = reverse("gallery", args=[classifier.token])
    assert links == [f"{gallery}?class=3&amp;predicted=1&amp;split=test"]
    assert client.get(html.unescape(links[0])).status_code == 200


def test_a_model_that_learned_nothing_is_called_so(client):
    assert "This model is no better than guessing" in page_of(client, delivered(better=False))


def test_the_files_stand_there_with_size_and_checksum(client):
    classifier = delivered()
    page = page_of(client, classifier)
    for artifact in classifier.versions.get().artifacts.all():
        assert f"{classifier.get_absolute_url()}download/{artifact.kind}/" in page
        assert artifact.sha256 in page
    assert "2.0 kB" in page


def test_it_says_until_when_everything_is_kept(client, settings):
    settings.RETENTION_DAYS = 7
    day = timezone.now() + timedelta(days=7)
    assert f"Kept until {day.day} {day:%B %Y}" in words(page_of(client, delivered()))


def test_a_stopped_request_shows_reason_and_remedy(client):
    for status, title in (
        ("failed", "This request failed"),
        ("needs_attention", "We found too few pictures"),
    ):
        text = words(page_of(client, stopped(status)))
        assert title in text
        assert "Only 3 pictures of “dog”. Try another wording." in text
        assert ("Try again" if status == "failed" else "Search again") in text


def test_stages_from_before_a_repeated_collection_are_not_shown_as_done(client):
    classifier = delivered()
    ClassifierRequest.objects.filter(pk=classifier.pk).update(status=Status.RUNNING)
    Job.objects.create(
        request=classifier,
        stage="collect",
        queue="collect",
        state="running",
        started=timezone.now(),
    )
    page = page_of(client, classifier)
    assert re.findall(r'<li class="stage (\w+)"', page) == [
        "done",
        "running",
        "waiting",
        "waiting",
        "waiting",
    ]


# --- the result, in the order of what people want to know ---


def positions(text: str, *parts: str) -> list[int]:
    found = [text.index(part) for part in parts]
    assert found == sorted(found), "these stand in another order"
    return found


def test_the_result_begins_with_the_verdict_and_ends_with_what_few_want(client):
    text = words(page_of(client, delivered()))
    positions(
        text,
        "This model tells the classes apart. 18 of 20 pictures",
        "Realistic: 70 to 97 %.",
        "How it was judged",
        "Downloads",
        "Per class",
        "Mix-ups",
        "How it was made",
        "Seed",
        "How long each stage took",
    )
    page = page_of(client, ClassifierRequest.objects.get())
    for folded in ("How it was made", "How long each stage took", "Where they come from"):
        assert re.search(rf'<details class="fold[\w ]*"><summary>{folded}', page)


def test_the_interval_is_a_drawing_with_the_numbers_of_the_model(client):
    page = page_of(client, delivered())
    drawn = re.search(r'class="range" x="([\d.]+)" y="2" width="([\d.]+)"', page)
    low = float(drawn.group(1))
    assert (round(low, 1), round(low + float(drawn.group(2)), 1)) == (69.9, 97.2)
    assert 'class="at" x1="90.00"' in page
    assert 'class="chance" x1="50.00"' in page
    assert 'aria-label="Realistic: 70 to 97 % right.' in page


def colour_of(client, change) -> str:
    """How the first figure of a delivered request is coloured, with other metrics."""
    classifier = delivered()
    run = TrainingRun.objects.get(version__request=classifier)
    change(run.metrics)
    run.save()
    return re.search(r'class="big ([\w ]*)"', page_of(client, classifier)).group(1)


def test_the_figure_is_green_only_where_the_low_end_of_its_interval_is_good(client):
    def narrow(metrics):
        metrics["headline"]["interval"] = [0.81, 0.95]

    assert colour_of(client, lambda metrics: None) == "fair"
    assert colour_of(client, narrow) == ""
    assert colour_of(client, lambda metrics: metrics.update(verdict="not_shown")) == "unsure"
    assert colour_of(client, lambda metrics: metrics.update(verdict="no_better")) == "weak"


@pytest.mark.parametrize(
    ("count", "sentence"),
    [
        (0, ""),
        (1, "1 picture outside the test part looks mislabelled"),
        (24, "24 pictures outside the test part look mislabelled"),
    ],
)
def test_suspected_labels_are_named_where_there_are_any(client, count, sentence):
    classifier = delivered()
    run = TrainingRun.objects.get()
    run.metrics["label_issues"] = count
    run.save()
    page = page_of(client, classifier)
    assert ('id="suspects"' in page) == bool(count)
    assert sentence in words(page)


def test_each_file_says_what_to_do_with_it_and_what_is_inside(client):
    text = words(page_of(client, delivered()))
    assert "Unzip it, open try.html and drop a picture on it." in text
    assert "report.html" in text
    assert "a folder for each class" in text
    assert "pip install onnxruntime pillow numpy" in text
    assert "onnxruntime.InferenceSession(&quot;model.onnx&quot;)" in text


def test_the_three_lines_of_python_work(tmp_path, monkeypatch, capsys):
    model = small_model()
    onnx.save(model, tmp_path / "model.onnx")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    lines = MODEL_LINES.splitlines()
    assert len(lines) == 3
    exec(compile(MODEL_LINES, "page", "exec"), {})
    assert "0.5" in capsys.readouterr().out


def small_model() -> onnx.ModelProto:
    """A model with the input and the output of a delivered one; all it says is 0.5, 0.5."""
    picture = helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["h", "w", 3])
    answer = helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, [1, 2])
    value = helper.make_tensor("half", onnx.TensorProto.FLOAT, [1, 2], [0.5, 0.5])
    constant = helper.make_node("Constant", [], ["half"], value=value)
    flat = helper.make_node("Identity", ["half"], ["probabilities"])
    seen = helper.make_node("Identity", ["image"], ["seen"])
    graph = helper.make_graph([constant, flat, seen], "small", [picture], [answer])
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def test_links_to_pages_that_do_not_exist_are_not_shown(client):
    """What the address book of the site knows is linked, and nothing else."""
    classifier = delivered()
    page = page_of(client, classifier)
    for name in ("try", "gallery", "report", "review", "versions"):
        try:
            address = reverse(name, args=[classifier.token])
        except NoReverseMatch:
            continue
        assert f'href="{address}' in page
    for address in re.findall(rf'href="({classifier.get_absolute_url()}[^"?]*)', page):
        resolve(address)


def test_the_model_of_before_stays_on_the_page_when_another_training_fails(client):
    classifier = delivered()
    ClassifierRequest.objects.update(status=Status.FAILED)
    text = words(page_of(client, classifier))
    assert "This request failed" in text
    assert "18 of 20 pictures" in text


# --- honest waiting ---


def test_who_waits_may_close_the_page(client):
    note = "You may close this page: a mail comes when it is ready, or when we need you."
    first = submitted()
    assert note not in page_of(client, first)
    pipeline.confirm(first)
    assert note in page_of(client, first)
    assert note in page_of(client, running())
    assert note not in page_of(client, delivered())


def test_a_cancelled_request_does_not_look_as_if_it_worked(client, settings):
    settings.RETENTION_DAYS = 7
    classifier = running()
    lifecycle.cancel(classifier)
    page = page_of(client, classifier)
    day = timezone.now() + timedelta(days=7)
    assert re.findall(r'<li class="stage (\w+)"', page)[1] == "cancelled"
    assert "stage running" not in page
    assert "Stopped. The pictures collected so far are kept until" in page
    assert f"{day.day} {day:%B %Y}</time>; you can continue any time." in page


def test_what_was_cancelled_before_its_confirmation_promises_nothing(client):
    classifier = submitted()
    lifecycle.cancel(classifier)
    assert "Stopped. Nothing was collected." in page_of(client, classifier)


def test_counts_stand_in_the_cards_alone(client):
    classifier = running()
    classifier.jobs.update(progress={"done": 3, "total": 80, "message": "cat: 2 of 40 kept"})
    assert "2 of 40 kept" not in page_of(client, classifier)


def chips(page: str) -> dict[str, str]:
    found = re.findall(r'<span class="chip (\w+)">(.*?)</span>', page)
    return {text: state for state, text in found}


def report(name: str, outcome: str, message: str = "") -> dict[str, object]:
    return {"name": name, "outcome": outcome, "found": 5, "message": message}


def test_a_source_that_gave_nothing_is_not_green(client):
    classifier = running()
    cat = classifier.classes.first()
    keep_picture(cat, 1)
    cat.outcomes = [
        report("bing", "ok"),
        report("openverse", "no_results", "Openverse found nothing for “cat”."),
        report("wikimedia", "not_applicable"),
        report("nasa", "blocked"),
    ]
    cat.save()
    page = page_of(client, classifier)
    assert chips(page) == {
        "Bing: 1 kept": "good",
        "Openverse: 0 kept": "empty",
        "Wikimedia Commons: 0 kept": "empty",
        "NASA: 0 kept": "off",
    }
    assert "NASA refused to answer." in page
    assert "Openverse found nothing for “cat”." in page


def test_how_little_a_source_had_is_said_only_where_pictures_are_missing(client):
    classifier = running()
    cat = classifier.classes.first()
    cat.outcomes = [report("bing", "partial", "Bing found 39 in all.")]
    cat.save()
    keep_picture(cat, 1)
    assert "Bing found 39 in all." in page_of(client, classifier)
    ClassifierRequest.objects.update(images_per_class=1)
    page = page_of(client, classifier)
    assert "39" not in words(page)
    assert chips(page) == {"Bing: 1 kept": "good"}
