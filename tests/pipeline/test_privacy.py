"""The table of what is stored is true: of tables and files, and of what a deletion leaves."""

import json
from collections.abc import Iterator
from datetime import timedelta
from fnmatch import fnmatch
from io import StringIO
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.utils import timezone

from requests_app import curation, lifecycle, mail, pipeline, privacy, supplied, tasks
from requests_app.models import (
    ClassifierRequest,
    IdempotencyKey,
    ImageUrl,
    Job,
    OutgoingMail,
    OwnCheck,
    Status,
)
from tests.pipeline.folders import image_bytes, write_collection, write_run
from tests.pipeline.stages import drain, rows_of

pytestmark = pytest.mark.django_db(transaction=True)

TYPED = ("zebrafinch", "quokka", "smiling", "marsupialia", "ada@example.org", "holidays.jpg")
FOUND = ("pictures.example", "by Ada", "A &quot;title")


@pytest.fixture
def everything(data_dir, transactional_db, settings) -> ClassifierRequest:
    """Return a delivered request of which something lies in every table and kind of file."""
    settings.EMAIL_BACKEND = "requests_app.mail.FolderBackend"
    submission = pipeline.Submission(
        classes=(("zebrafinch", ""), ("quokka", "quokka smiling")),
        email="ada@example.org",
        kind="marsupialia",
        brought={"unused": [["holidays.jpg", "It shows nothing."]]},
    )
    classifier = pipeline.submit(submission)
    pipeline.confirm(classifier)
    write_collection(classifier, 33)
    drain("collect")
    write_run(classifier.versions.get(), rows_of(classifier))
    for queue in ("train", "train", "picaisso"):
        drain(queue)
    classifier.refresh_from_db()
    images = ImageUrl.objects.filter(state="kept")
    curation.relabel(classifier, [images[0].pk], 2, "person")
    curation.judge(classifier, images.filter(split="test")[0].pk, "off-topic", None, "person")
    thumbnail = classifier.folder / "thumbnails" / f"{images[1].pk}.jpg"
    thumbnail.parent.mkdir()
    thumbnail.write_bytes(image_bytes(1))
    check = OwnCheck.objects.create(request=classifier, refused=[["holidays.jpg", "It is empty."]])
    (check.folder / "received").mkdir(parents=True)
    (check.folder / "received" / "holidays.jpg").write_bytes(b"mine")
    (classifier.folder / supplied.FOLDER).mkdir()
    (classifier.folder / supplied.FOLDER / "pictures.zip").write_bytes(b"holidays.jpg")
    IdempotencyKey.objects.create(request=classifier, key_sha256="a" * 64, wish_sha256="b" * 64)
    staff = User.objects.create(username="boss")
    for row in (classifier.classes.first(), OutgoingMail.objects.first(), images[2]):
        LogEntry.objects.create(
            user=staff,
            content_type=ContentType.objects.get_for_model(row),
            object_id=str(row.pk),
            object_repr=str(row),
            action_flag=CHANGE,
            change_message="it showed zebrafinch",
        )
    Job.objects.update(progress={"message": "Bing: quokka"}, error="“quokka” has 3.")
    while mail.send_waiting():
        pass
    assert classifier.status == Status.DELIVERED
    return classifier


def values() -> Iterator[str]:
    """Yield every value of every row, as `table.column: value`."""
    for model in apps.get_models(include_auto_created=True):
        for row in model._base_manager.all():
            for field in model._meta.concrete_fields:
                value = str(field.value_from_object(row))
                yield f"{model.__name__}.{field.name}: {value}"


def files(folder: Path) -> list[str]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return [path.relative_to(folder).as_posix() for path in found]


def traces(folder: Path) -> list[str]:
    """Return where something stands that a person typed or that was found for it."""
    words = (*TYPED, *FOUND)
    found = [value for value in values() if any(word in value for word in words)]
    for name in files(folder):
        content = name + (folder / name).read_bytes().decode(errors="replace")
        if any(word in content for word in words):
            found.append(name)
    return found


def test_every_table_has_one_line_on_the_page_and_no_line_a_table_too_many():
    tables = apps.get_models(include_auto_created=True)
    names = {model.__name__ for model in tables if not model._meta.proxy}
    told = [table for line in privacy.STORED for table in line.tables]
    assert set(told) == names, "a new table needs a line in requests_app/privacy.py"
    assert len(told) == len(set(told))


def test_every_file_of_a_request_belongs_to_a_line(everything, data_dir):
    places = [place for line in privacy.STORED for place in line.files]
    for name in files(data_dir):
        assert any(fnmatch(name, f"{place}*") for place in places), f"no line says where {name} is"


def test_every_row_of_a_request_is_found_from_it():
    own = {ClassifierRequest, *privacy.RELATED}
    for model in apps.get_app_config("requests_app").get_models():
        pointed_at = {field.related_model for field in model._meta.fields if field.is_relation}
        assert model in own or not pointed_at & own, f"{model.__name__} is in no export"


@pytest.mark.parametrize("end", ["deleted", "expired"])
def test_of_a_request_that_is_gone_nothing_is_left_but_what_the_page_says(
    everything, data_dir, settings, end
):
    for model in privacy.RELATED:
        assert model._default_manager.exists(), f"no {model.__name__} is there to be deleted"
    assert len(traces(data_dir)) > 100
    if end == "deleted":
        lifecycle.delete(everything)
    else:
        age = timedelta(days=settings.RETENTION_DAYS, seconds=1)
        ClassifierRequest.objects.update(moved=timezone.now() - age)
        tasks.prune("picaisso")
    assert traces(data_dir) == []
    assert not everything.folder.exists()
    remaining = {value.partition(".")[0] for value in values()} & {
        model.__name__ for model in (ClassifierRequest, *privacy.RELATED)
    }
    assert remaining == {"ClassifierRequest", "Event", "Job"}
    assert everything.events.get().new == "expired"


def test_an_address_gets_all_that_is_stored_of_it_and_nothing_of_others(everything):
    other = pipeline.submit(
        pipeline.Submission(classes=(("owl", ""), ("fox", "")), email="eve@example.org")
    )
    said = StringIO()
    call_command("personal_data", "ADA@example.org", stdout=said)
    (document,) = json.loads(said.getvalue())
    text = json.dumps(document, ensure_ascii=False)
    assert [word for word in TYPED if word not in text] == []
    assert "owl" not in text and other.email not in text
    assert everything.token_sha256 not in text
    assert document["request"]["email"] == "ada@example.org"
    assert len(document["pictures"]) == 68
    on_disk = sum(1 for path in everything.folder.rglob("*") if path.is_file())
    assert len(document["files"]) == on_disk + len(mail.copies_of(everything))


def test_an_operator_deletes_all_of_an_address(everything):
    said = StringIO()
    call_command("personal_data", "ada@example.org", delete=True, stdout=said)
    assert said.getvalue() == "1 request deleted.\n"
    assert ClassifierRequest.objects.get().erased
    said = StringIO()
    call_command("personal_data", "ada@example.org", delete=True, json=True, stdout=said)
    assert json.loads(said.getvalue()) == {"deleted": 0}


def test_each_mail_has_the_link_that_deletes_everything(everything):
    copies = mail.copies_of(everything)
    assert len(copies) == 2
    for copy in copies:
        text = copy.read_bytes().replace(b"=\n", b"").decode()
        assert f"{everything.url}delete/" in text.replace("=\r\n", "")
