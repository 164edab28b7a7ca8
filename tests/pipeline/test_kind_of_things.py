"""The kind of things of a request: from the form to the collection, and back to its row."""

import json

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from requests_app import lifecycle, pipeline
from requests_app.models import ClassifierRequest, ImageUrl, OutgoingMail, Status
from tests.pipeline.folders import write_collection, write_run
from tests.pipeline.stages import ask_nobody, drain, open_dataset, rows_of
from tests.replicas.commons import CommonsReplica
from tests.replicas.pictures_host import PictureHost

pytestmark = pytest.mark.django_db(transaction=True)

THINGS = {
    "jaguar": ["species of large cat", "British car brand"],
    "leopard": ["large cat native to Africa and Asia"],
}
SENTENCE = "Searched as “jaguar animal”, because both names are animals in Wikidata."
DERIVED = {"word": "animal", "how": "derived", "sentence": SENTENCE}


def cats(**values) -> ClassifierRequest:
    classes = (("jaguar", ""), ("leopard", ""))
    submission = pipeline.Submission(classes=classes, email="ada@example.org", **values)
    return pipeline.submit(submission)


@pytest.fixture
def unasked(data_dir, transactional_db, settings) -> None:
    """Addresses need no confirmation."""
    settings.CONFIRM_EMAIL = False


def config_of(classifier: ClassifierRequest) -> dict:
    values: dict = json.loads((classifier.folder / "collect" / "config.json").read_text())
    return values


def collect_nothing(classifier: ClassifierRequest) -> ClassifierRequest:
    """Run the collection with all sources closed; then the request asks for help."""
    ask_nobody()
    drain("collect")
    classifier.refresh_from_db()
    assert classifier.status == Status.NEEDS_ATTENTION
    return classifier


@pytest.mark.parametrize(
    ("values", "find", "written"),
    [({"kind": "animal"}, True, "animal"), ({}, True, None), ({}, False, "")],
    ids=["given", "to be found out", "unwanted"],
)
def test_the_collection_is_told_the_kind(unasked, values, find, written):
    classifier = cats(**values)
    ClassifierRequest.objects.update(find_kind=find)
    collect_nothing(classifier)
    assert config_of(classifier)["kind"] == written
    assert classifier.kind_found["how"] == ("none" if written is None else "given")


def test_what_a_collection_finds_out_reaches_the_request_and_its_mail(unasked, settings):
    settings.CONTACT = "operator@example.org"
    settings.MIN_SIDE = 64
    classifier = cats(sources=("wikimedia",))
    ClassifierRequest.objects.update(images_per_class=2)
    with (
        PictureHost() as host,
        CommonsReplica(host.url + "/pic/{}.jpg", things=THINGS) as commons,
    ):
        settings.SOURCE_URLS = {"wikimedia": commons.url}
        settings.ALLOWED_PRIVATE_HOSTS = [commons.host, host.host]
        drain("collect")
        assert commons.searches[0] == "jaguar animal"
    classifier.refresh_from_db()
    assert classifier.kind_found == DERIVED
    assert [c.search_words for c in classifier.classes.all()] == ["jaguar animal", "leopard animal"]
    assert SENTENCE in OutgoingMail.objects.get(key__contains="attention").text


def test_another_kind_drops_what_was_found_for_names_and_not_for_words_of_their_own(confirmed):
    """The second class has words of its own."""
    folder = write_collection(confirmed, 7)
    drain("collect")
    confirmed.refresh_from_db()
    assert lifecycle.retry(confirmed, kind="animal")
    assert not ImageUrl.objects.filter(image_class__number=1).exists()
    assert ImageUrl.objects.filter(image_class__number=2).count() == 8
    ask_nobody()
    drain("collect")
    lines = (folder / "images.jsonl").read_text().splitlines()
    assert {json.loads(line)["class"] for line in lines} == {"c002"}
    assert config_of(confirmed)["kind"] == "animal"
    confirmed.refresh_from_db()
    assert confirmed.kind_found["sentence"] == "Searched as “cat animal”, as you asked."


def test_the_kind_that_was_found_out_can_be_taken_back(unasked):
    classifier = cats()
    folder = write_collection(classifier, 7)
    (folder / "kind.json").write_text(json.dumps(DERIVED))
    drain("collect")
    classifier.refresh_from_db()
    assert classifier.search_kind == "animal"
    assert lifecycle.retry(classifier, kind="")
    classifier.refresh_from_db()
    assert (classifier.search_kind, classifier.find_kind) == ("", False)
    assert not ImageUrl.objects.exists()
    collect_nothing(classifier)
    assert (config_of(classifier)["kind"], classifier.search_kind) == ("", "")
    assert (folder / "images.jsonl").read_text() == ""


@pytest.mark.parametrize("kind", [None, "animal"])
def test_a_retry_with_the_same_kind_keeps_everything(unasked, kind):
    classifier = cats()
    folder = write_collection(classifier, 7)
    (folder / "kind.json").write_text(json.dumps(DERIVED))
    drain("collect")
    classifier.refresh_from_db()
    assert lifecycle.retry(classifier, kind=kind)
    collect_nothing(classifier)
    assert ImageUrl.objects.filter(state="kept").count() == 14
    assert classifier.kind_found == DERIVED


def test_the_dataset_card_says_what_was_searched_for(unasked):
    classifier = cats()
    folder = write_collection(classifier, 33)
    (folder / "kind.json").write_text(json.dumps(DERIVED))
    drain("collect")
    write_run(classifier.versions.get(), rows_of(classifier))
    drain("train")
    drain("train")
    with open_dataset() as archive:
        card = archive.read_below("README.md").decode()
    assert "| `c001` | jaguar | jaguar animal |" in card
    assert f"{SENTENCE} Where that brought too few pictures" in card
    drain("picaisso")
    assert SENTENCE in OutgoingMail.objects.get(key__contains="delivered").text


def test_a_request_from_before_there_were_kinds_is_migrated_and_goes_on(data_dir):
    app = "requests_app"
    executor = MigrationExecutor(connection)
    executor.migrate([(app, "0003_license_basis_of_files")])
    try:
        old = executor.loader.project_state((app, "0003_license_basis_of_files")).apps
        row = old.get_model(app, "ClassifierRequest").objects.create(
            email="ada@example.org", token_sha256="a" * 64, status="queued"
        )
        for number, name in enumerate(("cat", "dog"), start=1):
            old.get_model(app, "ImageClass").objects.create(
                request=row, number=number, name=name, query=name
            )
    finally:
        call_command("migrate", app, verbosity=0)
    classifier = ClassifierRequest.objects.get()
    assert (classifier.kind, classifier.kind_found, classifier.search_kind) == ("", {}, "")
    pipeline.COLLECT.enqueue(classifier)
    collect_nothing(classifier)
    assert config_of(classifier)["kind"] is None
