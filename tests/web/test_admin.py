"""The dashboard: every list and every row opens, records stay records, and the queue's own tables
are out of reach.
"""

import re
from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from requests_app import lifecycle
from requests_app.models import (
    ClassifierRequest,
    Job,
    OutgoingMail,
    SourceHealth,
    Status,
    WorkerBeat,
)
from tests.web.conftest import delivered, operations, post, running, stopped, submitted

MODELS = list(apps.get_app_config("requests_app").get_models())


@pytest.fixture
def everything(db) -> None:
    """Rows in every table, with names that would do harm if they were not escaped."""
    submitted()
    running("<script>alert(1)</script>", "dog")
    delivered()
    stopped("failed")
    operations()
    OutgoingMail.objects.first().attachments.set(delivered().versions.get().artifacts.all())


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
