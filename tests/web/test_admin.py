"""The dashboard: every list and every row opens, records stay records, and the queue's own tables
are out of reach.
"""

import hashlib
import re
import zipfile
from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from requests_app import lifecycle, takedowns
from requests_app.models import (
    Allowance,
    BrowserTurn,
    ClassifierRequest,
    DatasetVersion,
    Decision,
    Event,
    IdempotencyKey,
    ImageUrl,
    Job,
    LinksWish,
    OutgoingMail,
    OwnCheck,
    SourceHealth,
    Status,
    TakenDown,
    WorkerBeat,
)
from scraping.picture_zip import content_of
from tests.web.conftest import (
    delivered,
    keep_picture,
    operations,
    post,
    running,
    stopped,
    submitted,
    words,
)

MODELS = list(apps.get_app_config("requests_app").get_models())


@pytest.fixture
def everything(db) -> None:
    """Rows in every table, with names that would do harm if they were not escaped."""
    submitted()
    running("<script>alert(1)</script>", "dog")
    delivered()
    stopped("failed")
    operations()
    request = delivered()
    decided(request)
    IdempotencyKey.objects.create(key_sha256="a" * 64, request=request)
    OwnCheck.objects.create(request=delivered(), received=3)
    Allowance.objects.create(rule="mailbox", digest="d" * 64, until=timezone.now())
    LinksWish.objects.create(email="ada@example.org")
    OutgoingMail.objects.first().attachments.set(delivered().versions.get().artifacts.all())


def decided(classifier: ClassifierRequest) -> Decision:
    """A decision by which a person removed a picture."""
    before = {"1": {"state": "kept", "label": None}}
    return Decision.objects.create(
        request=classifier, actor="person", action="remove", before=before
    )


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss", "boss@example.org", "a long secret"))
    client.handler.enforce_csrf_checks = True
    client.get("/")
    return client


def staff(client, *permissions: str):
    user = User.objects.create_user("ada", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    client.get("/")
    return client


def place(model, view: str, *args) -> str:
    return reverse(f"admin:requests_app_{model._meta.model_name}_{view}", args=args)


def test_every_table_is_in_the_dashboard():
    assert {model for model in MODELS if not admin.site.is_registered(model)} == set()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_list_and_every_row_open(boss, everything, model):
    rows = list(model.objects.all())
    assert rows, "the test needs rows to look at"
    page = boss.get(place(model, "changelist"))
    assert page.status_code == 200
    assert page.content.count(b'class="action-select"') in (0, len(rows))
    for row in rows:
        response = boss.get(place(model, "change", row.pk))
        assert response.status_code == 200
        assert b"<script>alert" not in response.content


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_search_filter_and_date_answers(boss, everything, model):
    options = admin.site.get_model_admin(model)
    assert options.search_fields
    list_page = place(model, "changelist")
    assert boss.get(list_page, {"q": "1"}).status_code == 200
    assert boss.get(list_page, {"q": "dog"}).status_code == 200
    filters = re.findall(r'href="(\?[^"]+)"', boss.get(list_page).content.decode())
    for query in filters[:40]:
        assert boss.get(list_page + query.replace("&amp;", "&"), follow=True).status_code == 200


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_records_are_not_added_edited_or_deleted_by_hand(boss, everything, model):
    row = model.objects.first()
    adding = boss.get(place(model, "add"))
    editing = post(boss, place(model, "change", row.pk))
    deleting = boss.get(place(model, "delete", row.pk))
    assert adding.status_code == 403
    assert editing.status_code == 403
    assert deleting.status_code == 403


def test_the_first_page_is_titled_and_shows_the_state(boss, everything):
    page = boss.get("/admin/").content.decode()
    assert "<title>Dashboard | Picaisso</title>" in page
    assert "collect of request" in page
    assert "alive" in page
    assert "refused to answer" in page
    assert not re.search(r"<style|\sstyle=", page)


def test_the_first_page_opens_on_an_empty_site(boss):
    page = boss.get("/admin/").content.decode()
    assert "No worker has reported" in page
    assert "None yet" in page


def test_a_request_shows_its_classes_jobs_and_events(boss, everything):
    classifier = delivered()
    page = boss.get(place(ClassifierRequest, "change", classifier.pk)).content.decode()
    for related in ("classes", "jobs", "versions", "events"):
        assert f'id="{related}-group"' in page
    assert classifier.token_sha256 not in page
    assert classifier.get_absolute_url() in page


def test_lists_do_not_ask_the_database_per_row(boss, django_assert_max_num_queries):
    for _ in range(8):
        delivered()
    for model in MODELS:
        with django_assert_max_num_queries(14):
            boss.get(place(model, "changelist"))


def queries_of(client, address: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        assert client.get(address).status_code == 200
    return len(queries)


def rows_everywhere(number: int) -> None:
    """Add as many rows of each table, all of requests but one's own."""
    for index in range(number):
        classifier = delivered()
        Job.objects.create(request=classifier, stage="collect", queue="collect")
        WorkerBeat.objects.create(cluster=f"collect-{index}", queue="collect")
        SourceHealth.record(f"source-{index}", "blocked", "It said no.", cool_down_seconds=60)
        BrowserTurn.objects.create(name=f"lock-{index}", job=index)
        TakenDown.objects.create(what="url", digest=f"{index:064x}")
        Event.objects.create(request=classifier, new="failed")
        decided(classifier)


def test_no_page_asks_the_database_more_for_30_rows_than_for_one(boss):
    addresses = [place(model, "changelist") for model in MODELS] + ["/admin/"]
    rows_everywhere(1)
    for address in addresses:
        boss.get(address)  # what is asked for once, such as content types
    before = {address: queries_of(boss, address) for address in addresses}
    TakenDown.objects.all().delete()
    BrowserTurn.objects.all().delete()
    WorkerBeat.objects.all().delete()
    rows_everywhere(30)
    after = {address: queries_of(boss, address) for address in addresses}
    assert after == before


def test_the_page_of_a_request_asks_no_more_for_30_rows_of_it_than_for_one(boss):
    classifier = delivered()
    address = place(ClassifierRequest, "change", classifier.pk)
    boss.get(address)
    before = queries_of(boss, address)
    for index in range(30):
        Job.objects.create(request=classifier, stage="collect", queue="collect")
        Event.objects.create(request=classifier, new="failed")
        keep_picture(classifier.classes.first(), 10 + index)
    assert queries_of(boss, address) == before


def test_the_texts_of_mails_are_nobodys_to_read(boss):
    classifier = submitted()
    row = OutgoingMail.objects.get()
    assert "/confirm/" in row.text
    page = boss.get(place(OutgoingMail, "change", row.pk)).content.decode()
    assert "/confirm/" not in page
    assert classifier.email in page


@pytest.mark.parametrize("model", ["schedule", "failure", "success", "ormq", "task"])
def test_the_queues_own_tables_cannot_be_reached(boss, model):
    with pytest.raises(NoReverseMatch):
        reverse(f"admin:django_q_{model}_changelist")
    for path in (f"/admin/django_q/{model}/", f"/admin/django_q/{model}/add/"):
        assert boss.get(path).status_code == 404


def test_staff_cannot_make_a_schedule_even_with_its_permission(client, db):
    staff(client, "add_schedule", "change_schedule", "view_schedule")
    fields = {"name": "x", "func": "os.system", "args": "'touch /tmp/owned'", "schedule_type": "O"}
    assert post(client, "/admin/django_q/schedule/add/", **fields).status_code == 404
    schedule = apps.get_model("django_q", "Schedule")
    assert not schedule.objects.filter(func="os.system").exists()


def list_of(client, model, **query: str) -> str:
    """The rows of a list, as one line of text."""
    page = client.get(place(model, "changelist"), query).content.decode()
    rows = re.search(r'<table id="result_list">(.*?)</table>', page, re.DOTALL).group(1)
    return words(rows)


def tile(page: str, title: str) -> str:
    """The text of one tile of the first page."""
    for text in re.findall(r'<section class="tile[^"]*">(.*?)</section>', page, re.DOTALL):
        if words(text).startswith(title):
            return words(text)
    raise AssertionError(f"there is no tile “{title}”")


def test_the_first_page_shows_queues_with_their_oldest_waiting_job_and_last_sign_of_life(boss):
    now = timezone.now()
    first, second = submitted(), submitted()
    for classifier, minutes in ((first, 50), (second, 5)):
        created = now - timedelta(minutes=minutes)
        Job.objects.create(request=classifier, stage="train", queue="train", created=created)
    running()
    seen = now - timedelta(minutes=7)
    WorkerBeat.objects.create(cluster="train-1", queue="train", at=seen)
    queues = tile(boss.get("/admin/").content.decode(), "Queues")
    assert "train none 0 2 50 minutes 7 minutes ago" in queues
    assert "collect none 1 0 – –" in queues


def test_the_first_page_shows_pictures_an_hour_disk_mail_and_failures_a_day(boss):
    classifier = delivered()
    kept = ImageUrl.objects.all()
    assert kept.count() == 4
    two_hours_ago = timezone.now() - timedelta(hours=2)
    kept.filter(pk=kept.first().pk).update(fetched_at=two_hours_ago)
    stopped("failed")
    yesterday = timezone.now() - timedelta(days=1)
    Event.objects.create(request=classifier, new="failed", at=yesterday)
    Event.objects.create(request=classifier, new="failed", at=timezone.now() - timedelta(days=8))
    unsent = OutgoingMail.objects.count()
    OutgoingMail.objects.filter(pk=OutgoingMail.objects.first().pk).update(state="given_up")
    page = boss.get("/admin/").content.decode()
    assert "In the last hour 3" in tile(page, "Pictures kept")
    assert f"Not sent yet {unsent - 1}" in tile(page, "Mail")
    assert "Given up 1" in tile(page, "Mail")
    failures = tile(page, "Failed requests")
    assert failures.startswith(f"Failed requests Today 1 {yesterday.day} {yesterday:%b} 1")
    assert sum(int(number) for number in re.findall(r"(?<=[a-z] )\d+", failures)) == 2
    assert re.search(r"Free [\d.,]+ [MGT]B", page_text := words(page)), page_text


def test_only_superusers_see_the_schedules_of_the_queue(boss, client):
    schedule = apps.get_model("django_q", "Schedule")
    schedule.objects.create(name="nightly", func="requests_app.tasks.prune")
    assert "nightly" in boss.get("/admin/").content.decode()
    staff(client, "view_job", "view_schedule")
    page = client.get("/admin/").content.decode()
    assert "nightly" not in page
    assert "django-q2" not in page


def test_the_tables_have_plain_names(boss):
    page = words(boss.get("/admin/").content.decode())
    for name in ("Pictures", "Browser locks", "Workers", "Blocked pictures", "Mails", "Classes"):
        assert name in page
    for jargon in ("Image urls", "Browser turns", "Worker beats", "Taken downs", "Outgoing mails"):
        assert jargon not in page


def test_a_failed_request_says_in_the_list_why(boss):
    stopped("failed")
    rows = list_of(boss, ClassifierRequest)
    assert "Only 3 pictures of “dog”. Try another wording." in rows


def test_the_network_of_a_request_is_named_without_remarks(boss):
    classifier = submitted()
    page = words(boss.get(place(ClassifierRequest, "change", classifier.pk)).content.decode())
    assert "network ResNet50 " in page
    assert "(the default)" not in page


def test_every_filter_of_the_list_of_pictures_has_a_name(boss):
    delivered()
    page = boss.get(place(ImageUrl, "changelist")).content.decode()
    filters = page.partition('id="changelist-filter"')[2]
    names = [words(link) for link in re.findall(r'<a href="\?[^>]*>(.*?)</a>', filters, re.DOTALL)]
    assert "none" in names
    assert "" not in names


def test_jobs_stand_newest_first_and_only_a_running_one_shows_progress(boss):
    running()
    done = running()
    done.jobs.update(state="done", finished=timezone.now())
    rows = list_of(boss, Job)
    newest, oldest = done.jobs.get().pk, Job.objects.order_by("pk").first().pk
    assert rows.index(f" {newest} Request") < rows.index(f" {oldest} Request")
    assert rows.count("25 %") == 1


def test_only_a_job_that_is_stalled_is_called_so(boss):
    running()
    lost = running()
    assert "Stalled" not in list_of(boss, Job)
    lost.jobs.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert list_of(boss, Job).count("Stalled") == 1


def test_a_request_shows_its_pictures_figures_and_the_end_of_its_log(boss):
    classifier = delivered()
    log = classifier.folder / "collect" / "log.txt"
    lines = [f"line {number} <b>" for number in range(2000)]
    log.write_text("\n".join(lines))
    page = boss.get(place(ClassifierRequest, "change", classifier.pk)).content.decode()
    for picture in ImageUrl.objects.all():
        assert reverse("admin:requests_app_imageurl_thumbnail", args=[picture.pk]) in page
    text = words(page)
    assert "This model tells the classes apart: right on 18 of 20 test pictures" in text
    assert "Bing answered in part: 10 found. Bing asked for a human check." in text
    assert "9 duplicates, 5 unreachable, 1 too small" in text
    assert "line 1999 &lt;b&gt;" in page
    assert "line 1900" not in page


def test_no_row_shows_raw_json(boss, everything):
    for model in MODELS:
        for row in model.objects.all():
            page = words(boss.get(place(model, "change", row.pk)).content.decode())
            for raw in ("{&quot;", "[{", "{&#x27;", "[&quot;"):
                assert raw not in page, f"{model.__name__}: {raw}"


def test_the_request_of_a_row_is_named_once(boss):
    classifier = delivered()
    for model in (Job, Event, OutgoingMail, DatasetVersion):
        row = model.objects.filter(request=classifier).first()
        page = boss.get(place(model, "change", row.pk)).content.decode()
        labels = re.findall(r"<label>(\w+):</label>", page)
        assert labels.count("Request") == 1, model


def act(client, model, action: str, *rows):
    selected = [str(row.pk) for row in rows]
    path = place(model, "changelist")
    return post(client, path, action=action, _selected_action=selected)


def test_cancelling_from_the_list_is_logged_with_the_name(boss):
    classifier = running()
    assert act(boss, ClassifierRequest, "cancel_selected", classifier).status_code == 302
    classifier.refresh_from_db()
    assert classifier.status == Status.CANCELLED
    assert classifier.events.last().actor == "admin:boss"
    assert LogEntry.objects.get().object_id == str(classifier.pk)


def test_retrying_from_the_list_starts_what_failed_and_nothing_unconfirmed(boss):
    failed = stopped("failed")
    unconfirmed = submitted()
    act(boss, ClassifierRequest, "cancel_selected", unconfirmed)
    act(boss, ClassifierRequest, "retry_selected", failed, unconfirmed)
    failed.refresh_from_db()
    unconfirmed.refresh_from_db()
    assert (failed.status, unconfirmed.status) == (Status.QUEUED, Status.CANCELLED)
    assert Job.objects.filter(request=unconfirmed).count() == 0


def test_searching_again_from_the_list_starts_with_the_collection(boss):
    classifier = delivered()
    working = running()
    act(boss, ClassifierRequest, "collect_selected", classifier, working)
    classifier.refresh_from_db()
    assert classifier.status == Status.QUEUED
    assert classifier.jobs.last().stage == "collect"
    assert classifier.jobs.last().state == "queued"
    page = boss.get("/admin/").content.decode()
    assert "1 request started again." in page
    assert "1 request could not be started again." in page


def test_a_picture_is_taken_down_from_the_list_after_a_question(boss):
    classifier = delivered()
    picture = ImageUrl.objects.first()
    file = classifier.folder / "collect" / picture.file
    page = act(boss, ImageUrl, "take_down", picture).content.decode()
    assert "This cannot be undone." in page
    assert reverse("admin:requests_app_imageurl_thumbnail", args=[picture.pk]) in page
    assert file.exists()
    path = place(ImageUrl, "changelist")
    answer = {"action": "take_down", "_selected_action": [str(picture.pk)]}
    post(boss, path, **answer, confirmed="yes", reason="its author asked")
    picture.refresh_from_db()
    assert (picture.state, picture.reason) == ("rejected", "taken_down")
    assert not file.exists()
    assert set(TakenDown.objects.values_list("reason", flat=True)) == {"its author asked"}
    assert LogEntry.objects.get().object_id == str(picture.pk)
    assert "1 picture taken down and kept out." in boss.get("/admin/").content.decode()


def test_a_picture_that_a_person_added_is_taken_down_by_its_content(boss):
    classifier = delivered()
    own = ImageUrl.objects.latest("pk")
    ImageUrl.objects.exclude(pk=own.pk).update(source_sha256="")
    ImageUrl.objects.filter(pk=own.pk).update(source="own", image_url="")
    path = place(ImageUrl, "changelist")
    answer = {"action": "take_down", "_selected_action": [str(own.pk)]}
    post(boss, path, **answer, confirmed="yes", reason="its author asked")
    same = ImageUrl.objects.filter(sha256=own.sha256)
    assert set(ImageUrl.objects.filter(state="rejected")) == set(same)
    assert ImageUrl.objects.of_request(classifier).count() > same.count()
    assert TakenDown.objects.get().digest == own.sha256


def contents(classifier: ClassifierRequest) -> list[bytes]:
    """What is in the zip that was brought along, nothing for what is damaged."""
    with zipfile.ZipFile(classifier.folder / "supplied/pictures.zip") as archive:
        found = [content_of(archive, entry) for entry in archive.infolist()]
    return [content or b"" for content in found]


def test_a_picture_that_was_brought_along_is_taken_down_alone_and_out_of_its_zip(boss):
    mine, others = delivered(), delivered()
    for classifier, method in ((mine, zipfile.ZIP_DEFLATED), (others, zipfile.ZIP_STORED)):
        (classifier.folder / "supplied").mkdir()
        path = classifier.folder / "supplied/pictures.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            for number in range(3):
                archive.writestr(f"cat/100 % {number}.jpg", f"{classifier.pk} {number}")
            archive.writestr("c001/notes.txt", "hello")
        for number, image in enumerate(ImageUrl.objects.of_request(classifier)[:3]):
            image.source = "upload"
            image.image_url = f"upload:cat/100 %25 {number}.jpg"
            image.sha256 = f"{classifier.pk:x}{number}" * 32
            received = f"{classifier.pk} {number}".encode()
            image.source_sha256 = hashlib.sha256(received).hexdigest() if number else ""
            image.bytes = len(received)
            image.save()
    first, second, third = ImageUrl.objects.of_request(mine).filter(source="upload")
    third.sha256 = third.source_sha256 = ""  # as of one that could not be decoded
    third.save()
    answer = {"action": "take_down", "_selected_action": [str(first.pk), str(third.pk)]}
    post(boss, place(ImageUrl, "changelist"), **answer, confirmed="yes", reason="")
    gone = set(ImageUrl.objects.filter(reason="taken_down"))
    assert gone == {first, third}, "those of others that are called the same stay"
    assert [row.digest for row in TakenDown.objects.all()] == [first.sha256]
    assert contents(mine) == [b"", b"%d 1" % mine.pk, b"", b"hello"]
    zipped = (mine.folder / "supplied/pictures.zip").read_bytes()
    assert [zipped.count(b"100 %% %d" % number) for number in range(3)] == [0, 2, 0], "no name"
    assert contents(others) == [b"%d %d" % (others.pk, number) for number in range(3)] + [b"hello"]
    answer = {"action": "take_down", "_selected_action": [str(second.pk)]}
    post(boss, place(ImageUrl, "changelist"), **answer, confirmed="yes")
    assert contents(mine) == [b"", b"", b"", b"hello"]
    image = ImageUrl.objects.of_request(others).filter(source="upload").last()
    assert takedowns.take_down(sha256=image.source_sha256) == 1
    assert contents(others)[1:] == [b"%d 1" % others.pk, b"", b"hello"]


def test_no_more_pictures_are_taken_down_at_once_than_a_page_can_wait_for(boss):
    image_class = delivered().classes.first()
    pictures = [keep_picture(image_class, 100 + number) for number in range(21)]
    act(boss, ImageUrl, "take_down", *pictures)
    assert "at most 20 pictures at once" in boss.get("/admin/").content.decode()
    assert not TakenDown.objects.exists()


def test_staff_who_may_only_look_cannot_take_a_picture_down(client, db):
    staff(client, "view_imageurl")
    delivered()
    picture = ImageUrl.objects.first()
    path = place(ImageUrl, "changelist")
    answer = {"action": "take_down", "_selected_action": [str(picture.pk)], "confirmed": "yes"}
    post(client, path, **answer)
    picture.refresh_from_db()
    assert picture.state == "kept"


def test_deleting_from_the_list_removes_the_files_too(boss):
    classifier = delivered()
    act(boss, ClassifierRequest, "delete_everything", classifier)
    classifier.refresh_from_db()
    assert classifier.status == Status.EXPIRED
    assert not classifier.folder.exists()


def test_what_could_not_be_deleted_from_the_list_is_not_counted_as_done(boss):
    gone = delivered()
    kept = delivered()
    assert lifecycle.delete(gone)
    act(boss, ClassifierRequest, "delete_everything", gone, kept)
    page = boss.get("/admin/").content.decode()
    assert "1 request deleted." in page
    assert "1 request could not be deleted." in page
    assert [entry.object_id for entry in LogEntry.objects.all()] == [str(kept.pk)]


def test_staff_who_may_only_look_cannot_act(client, db):
    staff(client, "view_classifierrequest")
    classifier = running()
    assert b'name="action"' not in client.get(place(ClassifierRequest, "changelist")).content
    act(client, ClassifierRequest, "cancel_selected", classifier)
    classifier.refresh_from_db()
    assert classifier.status == Status.RUNNING


def test_a_given_up_mail_is_tried_again_and_a_sent_one_is_not(boss):
    submitted()
    submitted()
    lost, sent = OutgoingMail.objects.all()
    OutgoingMail.objects.filter(pk=lost.pk).update(state="given_up", attempts=9)
    OutgoingMail.objects.filter(pk=sent.pk).update(state="sent")
    act(boss, OutgoingMail, "send_again", lost, sent)
    states = dict(OutgoingMail.objects.values_list("pk", "state"))
    assert states == {lost.pk: "waiting", sent.pk: "sent"}


def test_a_closed_source_is_opened_again(boss):
    operations()
    SourceHealth.objects.update(closed_until=timezone.now() + timedelta(hours=1))
    act(boss, SourceHealth, "reopen", SourceHealth.objects.get())
    assert SourceHealth.objects.get().closed_until is None


def sources_on(page: str) -> dict[str, list[str]]:
    """source -> the other cells of its row in the table of the first page."""
    table = re.search(r'<table class="sources">.*?</table>', page, re.DOTALL).group(0)
    sources = {}
    for row in table.split("<tr>")[2:]:
        cells = []
        for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL):
            text = re.sub(r"<[^>]*>", " ", cell)
            cells.append(" ".join(text.split()))
        sources[cells[0]] = cells[1:]
    return sources


def test_the_first_page_shows_how_each_source_is(boss):
    SourceHealth.record("openverse", "ok", "")
    for _ in range(2):
        SourceHealth.record(
            "bing", "blocked", "Bing asked for <b>a human</b> check.", cool_down_seconds=3600
        )
    SourceHealth.objects.filter(name="openverse").update(
        asked=timezone.now() - timedelta(minutes=90)
    )
    shown = sources_on(boss.get("/admin/").content.decode())
    until = SourceHealth.objects.get(name="bing").closed_until
    assert shown["Openverse"] == ["answered", "–", "1 hour, 30 minutes ago", "open now"]
    assert shown["Bing"][0] == "refused to answer 2 times in a row"
    assert shown["Bing"][1] == "Bing asked for &lt;b&gt;a human&lt;/b&gt; check."
    assert shown["Bing"][3] == f"{until.day} {until:%b, %H:%M} UTC"
    assert shown["GBIF"] == ["not asked yet", "–", "–", "–"]
    assert next(iter(shown)) == "Openverse"  # in the order of asking


def test_a_source_whose_pause_is_over_waits_for_a_trial(boss):
    SourceHealth.record("bing", "blocked", "", cool_down_seconds=60)
    a_second_ago = timezone.now() - timedelta(seconds=1)
    SourceHealth.objects.update(closed_until=a_second_ago)
    page = boss.get("/admin/").content.decode()
    assert sources_on(page)["Bing"][3] == "at its next trial"


def test_a_worker_that_was_killed_is_soon_called_silent(boss, settings):
    beat = WorkerBeat.objects.create(cluster="collect-1", queue="collect")
    for beats, word in ((4, "alive"), (6, "silent")):
        WorkerBeat.objects.filter(pk=beat.pk).update(
            at=timezone.now() - timedelta(seconds=beats * settings.BEAT_SECONDS)
        )
        page = boss.get("/admin/").content.decode()
        assert re.search(rf'collect <strong class="\w+">{word}</strong>', page)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_an_endless_number_in_a_search_is_answered(boss, everything, model):
    assert boss.get(place(model, "changelist"), {"q": "9" * 5000}).status_code == 200


def test_strangers_are_sent_to_the_login(client, everything):
    for model in MODELS:
        assert client.get(place(model, "changelist")).status_code == 302


def test_staff_who_may_only_look_get_no_address_by_which_a_request_can_be_changed(
    client, everything
):
    classifier = delivered()
    picture = ImageUrl.objects.of_request(classifier).first()
    staff(client, *(f"view_{model._meta.model_name}" for model in MODELS))
    tokens = [row.token for row in ClassifierRequest.objects.all()]
    for model in MODELS:
        pages = [client.get(place(model, "changelist"))]
        pages += [client.get(place(model, "change", row.pk)) for row in model.objects.all()]
        for page in pages:
            assert page.status_code == 200
            assert "/r/" not in page.content.decode()
            assert [token for token in tokens if token in page.content.decode()] == []
    assert picture_in_admin(client, picture).status_code == 200
    assert "/r/" not in client.get("/admin/").content.decode()
    kind = ContentType.objects.get_for_model(ClassifierRequest).pk
    assert client.get(f"/admin/r/{kind}/{classifier.pk}/").status_code == 404


def picture_in_admin(client, picture: ImageUrl):
    return client.get(reverse("admin:requests_app_imageurl_thumbnail", args=[picture.pk]))


def test_a_picture_of_the_admin_is_for_staff_who_may_look_at_it(client):
    picture = ImageUrl.objects.of_request(delivered()).first()
    assert picture_in_admin(client, picture).status_code == 302
    staff(client, "view_job")
    assert picture_in_admin(client, picture).status_code == 403
    assert client.get("/admin/requests_app/imageurl/0/thumbnail.jpg").status_code == 403


def test_staff_who_may_change_requests_find_their_pages(boss):
    classifier = delivered()
    for page in (place(ClassifierRequest, "changelist"), place(ClassifierRequest, "change", 1)):
        if "change/" in page:
            page = place(ClassifierRequest, "change", classifier.pk)
        assert classifier.get_absolute_url() in boss.get(page).content.decode()


def log_in(client, password: str, forwarded: str = "", name: str = "boss"):
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    fields = {"username": name, "password": password}
    return client.post("/admin/login/?next=/admin/", fields, headers=headers)


def test_f30_ten_wrong_passwords_lock_an_account_out_whatever_x_forwarded_for_says(client):
    User.objects.create_superuser("boss", "boss@example.org", "a long secret")
    for number in range(10):
        log_in(client, "wrong", forwarded=f"203.0.113.{number}")
    locked = log_in(client, "a long secret", forwarded="203.0.113.99")
    assert locked.status_code == 429
    assert "Too many wrong passwords" in locked.content.decode()
    assert client.get("/admin/").status_code == 302


def test_f30_behind_a_proxy_the_lock_out_is_for_the_address_that_it_saw(client, settings):
    User.objects.create_superuser("boss", "boss@example.org", "a long secret")
    settings.PROXY_COUNT = 1
    for number in range(10):
        log_in(client, "wrong", forwarded=f"198.51.100.{number}, 203.0.113.7")
    assert log_in(client, "a long secret", forwarded="1.2.3.4, 203.0.113.7").status_code == 429
    assert log_in(client, "a long secret", forwarded="203.0.113.8").status_code == 302


def test_f30_nobody_but_a_superuser_can_make_a_schedule_and_nobody_in_the_dashboard(client):
    staff(client, *Permission.objects.values_list("codename", flat=True))
    for name in ("schedule", "ormq", "success", "failure"):
        for method in (client.get, client.post):
            fields = {"name": "x", "func": "os.system", "args": "'id'"}
            assert method(f"/admin/django_q/{name}/add/", fields).status_code in (403, 404)
