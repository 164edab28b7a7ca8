"""A request's pages: who may see them, what they show in every state, and how they stay up to
date.
"""

import io
import re
from datetime import timedelta

import pytest
from django.core import signing
from django.utils import timezone
from PIL import Image

from requests_app import lifecycle, pipeline
from requests_app.models import ClassifierRequest, ImageUrl, Job, JobState, Status, WorkerBeat
from tests.web.conftest import delivered, keep_picture, overtaken, post, running, stopped, submitted
from training.metrics import Metrics

STRANGER = "A" * 32


def page_of(client, classifier: ClassifierRequest) -> str:
    response = client.get(classifier.get_absolute_url())
    assert response.status_code == 200
    return response.content.decode()


def words(page: str) -> str:
    """The text of a page as one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


# --- the gate ---

PLACES = ["", "progress/", "delete/", "images/1.jpg", "download/model/", "download/dataset/"]
ACTIONS = ["cancel/", "retry/", "delete/"]


@pytest.mark.parametrize("place", PLACES)
def test_a_stranger_gets_the_same_404_everywhere(client, place):
    delivered()
    plain = client.get("/nothing/here/").content
    response = client.get(f"/r/{STRANGER}/{place}")
    assert response.status_code == 404
    assert response.content == plain


@pytest.mark.parametrize("action", ACTIONS)
def test_a_stranger_can_do_nothing(holder, action):
    delivered()
    assert post(holder, f"/r/{STRANGER}/{action}").status_code == 404
    assert ClassifierRequest.objects.get().status == Status.DELIVERED


def test_one_wrong_character_makes_a_stranger(client):
    token = delivered().token
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert client.get(f"/r/{wrong}/").status_code == 404


@pytest.mark.parametrize("place", PLACES)
def test_what_was_deleted_is_gone(client, place):
    classifier = delivered()
    address = classifier.get_absolute_url()
    lifecycle.delete(classifier)
    response = client.get(address + place)
    assert response.status_code == 410
    assert b"This request is gone" in response.content


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_can_be_done_with_what_is_gone(holder, action):
    classifier = delivered()
    lifecycle.delete(classifier)
    assert post(holder, f"{classifier.get_absolute_url()}{action}").status_code == 410


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("who", ["holder", "stranger"])
def test_nothing_below_a_token_is_indexed_or_named_to_others(client, place, who):
    classifier = delivered()
    pk = ImageUrl.objects.values_list("pk", flat=True)[0]
    token = classifier.token if who == "holder" else STRANGER
    response = client.get(f"/r/{token}/{place}".replace("images/1", f"images/{pk}"))
    assert response.headers["X-Robots-Tag"] == "noindex, nofollow"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"].startswith("private")
    assert "no-store" in response.headers["Cache-Control"] or "images" in place


def test_the_policy_against_foreign_scripts_is_on_every_page(client):
    classifier = running()
    for path in ("/", classifier.get_absolute_url(), f"/r/{STRANGER}/", "/admin/login/"):
        policy = client.get(path).headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize(
    "make", [submitted, running, delivered, lambda: stopped("needs_attention")]
)
def test_no_page_has_scripts_or_styles_inside(client, make):
    page = page_of(client, make())
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)  # nothing from a third party


def test_a_class_name_is_text_on_every_page(client):
    name = "<script>alert(1)</script>"
    for classifier in (
        submitted(name, "dog"),
        running(name, "dog"),
        delivered(name, "{{ 7|add:7 }}"),
    ):
        for place in ("", "progress/", "delete/"):
            page = client.get(classifier.get_absolute_url() + place).content.decode()
            assert "<script>alert" not in page
            assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7|add:7 }}" in page


# --- confirming ---


def confirm_path(classifier: ClassifierRequest) -> str:
    return pipeline.confirmation_link(classifier).split("8000", 1)[1]


def test_looking_at_the_confirmation_link_starts_nothing(client):
    classifier = submitted()
    response = client.get(confirm_path(classifier))
    assert response.status_code == 200
    assert b"Yes, start" in response.content
    classifier.refresh_from_db()
    assert (classifier.status, classifier.jobs.count()) == (Status.UNCONFIRMED, 0)


def test_pressing_the_button_starts_the_work_and_shows_the_request(holder):
    classifier = submitted()
    response = post(holder, confirm_path(classifier))
    classifier.refresh_from_db()
    assert (response.status_code, response.headers["Location"]) == (
        303,
        classifier.get_absolute_url(),
    )
    assert (classifier.status, classifier.jobs.count()) == (Status.QUEUED, 1)


def test_pressing_it_twice_starts_one_piece_of_work(holder):
    classifier = submitted()
    first, second = (post(holder, confirm_path(classifier)) for _ in range(2))
    assert (first.status_code, second.status_code) == (303, 200)
    assert Job.objects.count() == 1
    for response in (second, holder.get(confirm_path(classifier))):
        assert b"Already confirmed" in response.content
        assert f'href="{classifier.get_absolute_url()}"' in response.content.decode()


def cancelled(make) -> ClassifierRequest:
    classifier = make()
    assert lifecycle.cancel(classifier)
    return classifier


@pytest.mark.parametrize(
    "make",
    [delivered, lambda: cancelled(running), lambda: cancelled(submitted)],
    ids=["delivered", "cancelled", "cancelled before"],
)
def test_a_used_link_starts_nothing_after_the_end(holder, make):
    classifier = make()
    path = confirm_path(classifier)
    before = (ClassifierRequest.objects.get().status, Job.objects.count())
    response = post(holder, path)
    assert (ClassifierRequest.objects.get().status, Job.objects.count()) == before
    text = words(response.content.decode())
    assert "It works once only" in text
    assert "Yes, start" not in text
    assert f'href="{classifier.get_absolute_url()}"' in response.content.decode()


def test_a_forged_link_is_answered_in_plain_words(holder):
    classifier = submitted()
    forged = confirm_path(classifier)[:-5] + "AAAA/"
    for response in (holder.get(forged), post(holder, forged), holder.get("/confirm/anything/")):
        assert response.status_code == 404
        assert b"This link does not work" in response.content
    classifier.refresh_from_db()
    assert classifier.status == Status.UNCONFIRMED


def test_a_link_older_than_a_day_does_not_work(client, monkeypatch):
    classifier = submitted()
    day_ago = timezone.now().timestamp() - 86_500
    monkeypatch.setattr(signing.time, "time", lambda: day_ago)
    old = confirm_path(classifier)
    monkeypatch.undo()
    assert client.get(old).status_code == 404


def test_the_confirmation_of_what_is_gone_is_gone(client):
    classifier = submitted()
    path = confirm_path(classifier)
    lifecycle.delete(classifier)
    assert client.get(path).status_code == 410


def test_the_link_is_shown_only_where_mails_are_files_and_debugging_is_on(client, settings):
    classifier = submitted()
    assert "/confirm/" not in page_of(client, classifier)
    settings.DEBUG = True
    assert "/confirm/" in page_of(client, classifier)
    settings.EMAIL_IN_FOLDER = False
    assert "/confirm/" not in page_of(client, classifier)


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
    assert "It is next." in page_of(client, first)
    assert "1 other piece of work before this one" in page_of(client, second)
    WorkerBeat.objects.filter(pk=beat.pk).update(at=timezone.now() - timedelta(hours=1))
    assert "No worker is running" in page_of(client, second)


def test_a_silent_worker_is_told(client):
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
    assert "90 % 95 % interval: 69.9 % to 97.2 %" in text
    assert "This model tells the classes apart: right on 90 % of 20 test pictures" in text
    assert "always naming the largest class would be right on 50 %" in text
    assert "The bundled backbone was used." in text
    assert "cat 90 % 90 % 10" in text
    assert "56 to train, 12 to check, 20 to test" in text
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
    cells = re.findall(r'<td class="(right|wrong) heat-\d+" title="(.*?)">(\d+)</td>', page)
    assert len(cells) == 9
    assert ("right", "9 pictures of owl called owl", "9") in cells
    assert ("wrong", "1 picture of owl called cat", "1") in cells


def test_a_model_that_learned_nothing_is_called_so(client):
    assert "This model is no better than guessing" in page_of(client, delivered(better=False))


def test_the_files_stand_there_with_size_and_checksum(client):
    classifier = delivered()
    page = page_of(client, classifier)
    for artifact in classifier.versions.get().artifacts.all():
        assert f"{classifier.get_absolute_url()}download/{artifact.kind}/" in page
        assert artifact.sha256 in page
    assert "2.0\xa0KB" in page


def test_it_says_until_when_everything_is_kept(client, settings):
    settings.RETENTION_DAYS = 7
    day = timezone.now() + timedelta(days=7)
    assert f"Kept until {day.day} {day:%B %Y}" in words(page_of(client, delivered()))


def test_a_stop_is_told_with_its_reason_and_remedy(client):
    for status, title in (
        ("failed", "This did not work"),
        ("needs_attention", "Your help is needed"),
    ):
        text = words(page_of(client, stopped(status)))
        assert title in text
        assert "Only 3 pictures of “dog”. Try another wording." in text
        assert "Try again" in text


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


# --- cancel, retry, delete ---


def test_cancel_stops_the_work(holder):
    classifier = running()
    response = post(holder, f"{classifier.get_absolute_url()}cancel/")
    assert (response.status_code, response.headers["Location"]) == (
        303,
        classifier.get_absolute_url(),
    )
    classifier.refresh_from_db()
    assert classifier.status == Status.CANCELLED
    assert classifier.jobs.get().cancel_requested


def test_what_is_finished_cannot_be_cancelled(holder):
    classifier = delivered()
    post(holder, f"{classifier.get_absolute_url()}cancel/")
    assert "nothing left to cancel" in page_of(holder, classifier)
    classifier.refresh_from_db()
    assert classifier.status == Status.DELIVERED


@pytest.mark.parametrize("action", ["cancel/", "retry/"])
def test_looking_does_nothing_and_leads_to_the_request(client, action):
    classifier = running()
    response = client.get(f"{classifier.get_absolute_url()}{action}")
    assert (response.status_code, response.headers["Location"]) == (
        303,
        classifier.get_absolute_url(),
    )
    assert client.get(f"/r/{STRANGER}/{action}").status_code == 404
    classifier.refresh_from_db()
    assert classifier.status == Status.RUNNING


@pytest.mark.parametrize("place", [*PLACES[:2], "download/model/"])
def test_sending_where_nothing_is_taken_has_a_finished_page(holder, place):
    classifier = delivered()
    response = post(holder, f"{classifier.get_absolute_url()}{place}")
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")
    assert b"That does not work here" in response.content
    assert post(holder, f"/r/{STRANGER}/{place}").status_code == 404


@pytest.mark.parametrize("action", ACTIONS)
def test_a_foreign_page_can_do_nothing(holder, action):
    classifier = running()
    assert holder.post(f"{classifier.get_absolute_url()}{action}").status_code == 403
    classifier.refresh_from_db()
    assert classifier.status == Status.RUNNING


def test_a_failed_request_starts_again(holder):
    classifier = stopped("failed")
    assert post(holder, f"{classifier.get_absolute_url()}retry/").status_code == 303
    classifier.refresh_from_db()
    assert classifier.status == Status.QUEUED
    assert classifier.jobs.filter(state=JobState.QUEUED).count() == 1


def test_a_retry_takes_other_words_fewer_pictures_and_what_is_there(holder):
    classifier = stopped("needs_attention")
    fields = {"queries": ["cat", "dog animal"], "images_per_class": "25", "accept_fewer": "on"}
    assert post(holder, f"{classifier.get_absolute_url()}retry/", **fields).status_code == 303
    classifier.refresh_from_db()
    assert [c.query for c in classifier.classes.all()] == ["cat", "dog animal"]
    assert (classifier.images_per_class, classifier.accept_fewer, classifier.status) == (
        25,
        True,
        Status.QUEUED,
    )


def test_a_bad_retry_is_answered_beside_its_field(holder):
    classifier = stopped("needs_attention")
    fields = {"queries": ["cat", "d\0g"], "images_per_class": "5"}
    response = post(holder, f"{classifier.get_absolute_url()}retry/", **fields)
    page = response.content.decode()
    assert response.status_code == 400
    assert "control characters" in re.search(r'id="id_queries_1_error">(.*?)<', page).group(1)
    assert "20 to 500" in re.search(r'id="id_images_per_class_error">(.*?)<', page).group(1)
    summary = re.search(r'role="alert".*?</div>', page, re.DOTALL).group(0)
    assert re.findall(r'href="#(\w+)"', summary) == ["id_images_per_class", "id_queries_1"]
    assert re.search(r'<details class="options" open>', page)
    assert "Try again" in words(page)
    assert (
        holder.get(f"{classifier.get_absolute_url()}retry/").headers["Location"]
        == classifier.get_absolute_url()
    )
    classifier.refresh_from_db()
    assert classifier.status == Status.NEEDS_ATTENTION


def test_a_retry_asks_other_sources_under_another_licence(holder):
    classifier = stopped("needs_attention", license="open")
    fields = {"license": "any", "sources": ["nasa", "bing", "openverse"], "sources_offered": "True"}
    assert post(holder, f"{classifier.get_absolute_url()}retry/", **fields).status_code == 303
    classifier.refresh_from_db()
    assert (classifier.license, classifier.status) == ("any", Status.QUEUED)
    assert classifier.sources == ["openverse", "bing", "nasa"]  # asked in the order of the page
    assert classifier.jobs.latest("pk").stage == "collect"


def test_the_form_shows_licence_and_sources_as_they_are(client):
    classifier = stopped("needs_attention", license="open", sources=["bing", "met"])
    page = page_of(client, classifier)
    assert '<option value="open" selected>' in page
    boxes = re.findall(r'<input type="checkbox" name="sources" value="(\w+)"([^>]*)>', page)
    assert [name for name, rest in boxes if "checked" in rest] == ["bing", "met"]
    assert [name for name, _ in boxes[:3]] == [
        "bing",
        "met",
        "openverse",
    ]  # its own first, then the site's
    assert len(boxes) == len(dict(boxes)) == 10


def test_a_retry_without_changes_keeps_the_sources_in_their_own_order(holder):
    classifier = stopped("failed", sources=["bing", "openverse"])
    result = classifier.folder / "collect" / "result.json"
    result.parent.mkdir(parents=True)
    result.write_text("{}")
    fields = {"license": "any", "sources": ["openverse", "bing"], "sources_offered": "True"}
    assert post(holder, f"{classifier.get_absolute_url()}retry/", **fields).status_code == 303
    classifier.refresh_from_db()
    assert classifier.sources == ["bing", "openverse"]
    assert result.exists()  # nothing has changed, so that nothing is asked again


BAD_RETRIES = {
    "no source": ({"sources_offered": "True"}, "id_sources", "Choose at least one source."),
    "unknown source": ({"sources": ["elsewhere"]}, "id_sources", "sources offered"),
    "unknown licence": ({"license": "stolen"}, "id_license", "licences offered"),
    "very many pictures": ({"images_per_class": "9" * 5000}, "id_images_per_class", "20 to 500"),
}


@pytest.mark.parametrize("case", BAD_RETRIES)
def test_what_cannot_be_asked_for_is_answered_beside_its_field(holder, case):
    fields, field, sentence = BAD_RETRIES[case]
    classifier = stopped("needs_attention")
    response = post(holder, f"{classifier.get_absolute_url()}retry/", **fields)
    page = response.content.decode()
    assert response.status_code == 400
    assert page.count(f'id="{field}_error"') == 1
    assert sentence in re.search(rf'id="{field}_error">(.*?)<', page).group(1)
    assert f'href="#{field}"' in page
    assert re.search(rf'id="{field}"', page)
    classifier.refresh_from_db()
    assert classifier.status == Status.NEEDS_ATTENTION


def test_a_bad_retry_of_what_has_started_meanwhile_shows_the_work(holder):
    classifier = running()
    response = post(holder, f"{classifier.get_absolute_url()}retry/", images_per_class="5")
    assert (response.status_code, response.headers["Location"]) == (
        303,
        classifier.get_absolute_url(),
    )
    assert "cannot be started again" in page_of(holder, classifier)


def test_a_retry_never_goes_round_the_confirmation_of_the_address(holder):
    classifier = submitted()
    post(holder, f"{classifier.get_absolute_url()}cancel/")
    assert "Try again" not in page_of(holder, classifier)
    post(holder, f"{classifier.get_absolute_url()}retry/")
    classifier.refresh_from_db()
    assert (classifier.status, classifier.jobs.count()) == (Status.CANCELLED, 0)


def test_deleting_asks_first_and_then_removes_everything(holder):
    classifier = delivered()
    path = f"{classifier.get_absolute_url()}delete/"
    assert "Delete everything?" in holder.get(path).content.decode()
    assert classifier.folder.exists()
    response = post(holder, path)
    assert (response.status_code, response.headers["Location"]) == (303, "/")
    assert b"Everything of this request has been deleted" in holder.get("/").content
    assert not classifier.folder.exists()
    assert not ImageUrl.objects.exists()
    classifier.refresh_from_db()
    assert classifier.email == ""


def test_a_deletion_that_someone_else_was_faster_with_is_not_called_a_success(holder):
    classifier = delivered()
    with overtaken(status=Status.EXPIRED):
        response = post(holder, f"{classifier.get_absolute_url()}delete/")
    assert (response.status_code, response.headers["Location"]) == (
        303,
        classifier.get_absolute_url(),
    )
    page = holder.get(classifier.get_absolute_url())
    assert page.status_code == 410
    assert b"could not be deleted" in page.content
    assert b"has been deleted: pictures" not in page.content


# --- thumbnails ---


def thumbnail_path(classifier: ClassifierRequest, image: ImageUrl) -> str:
    return f"{classifier.get_absolute_url()}images/{image.pk}.jpg"


def test_a_thumbnail_is_small_made_once_and_kept(client):
    classifier = running()
    image = keep_picture(classifier.classes.first(), 1)
    response = client.get(thumbnail_path(classifier, image))
    content = b"".join(response.streaming_content)
    assert response.headers["Content-Type"] == "image/jpeg"
    assert Image.open(io.BytesIO(content)).size == (256, 128)
    kept = list((classifier.folder / "thumbnails").iterdir())
    assert [file.name for file in kept] == [f"{image.pk}.jpg"]
    (classifier.folder / "collect" / image.file).unlink()
    assert b"".join(client.get(thumbnail_path(classifier, image)).streaming_content) == content


def test_only_kept_pictures_of_this_very_request_are_shown(client):
    classifier = running()
    other = running()
    image = keep_picture(classifier.classes.first(), 1)
    foreign = keep_picture(other.classes.first(), 2)
    assert client.get(thumbnail_path(classifier, foreign)).status_code == 404
    ImageUrl.objects.filter(pk=image.pk).update(state="rejected")
    assert client.get(thumbnail_path(classifier, image)).status_code == 404


def test_a_picture_that_is_not_on_disk_is_a_404(client):
    classifier = running()
    image = keep_picture(classifier.classes.first(), 1)
    (classifier.folder / "collect" / image.file).unlink()
    assert client.get(thumbnail_path(classifier, image)).status_code == 404


def test_a_broken_picture_is_a_404(client):
    classifier = running()
    image = keep_picture(classifier.classes.first(), 1)
    (classifier.folder / "collect" / image.file).write_bytes(b"not a picture")
    assert client.get(thumbnail_path(classifier, image)).status_code == 404


@pytest.mark.parametrize("digits", [20, 5000])
def test_a_picture_with_an_endless_number_is_a_404(client, digits):
    assert client.get(f"{running().get_absolute_url()}images/{'9' * digits}.jpg").status_code == 404


@pytest.mark.parametrize("file", ["../../secret_key", "/etc/passwd", "", "images"])
def test_a_thumbnail_never_leaves_the_collection(client, site, file):
    classifier = running()
    image = keep_picture(classifier.classes.first(), 1)
    Image.new("RGB", (10, 10)).save(site / "secret_key", "JPEG")
    ImageUrl.objects.filter(pk=image.pk).update(file=file)
    assert client.get(thumbnail_path(classifier, image)).status_code == 404


def test_the_figures_of_these_tests_have_every_key_of_a_real_metrics_file():
    run = delivered().versions.get().run
    assert set(run.metrics) == Metrics.__required_keys__
