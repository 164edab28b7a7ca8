"""The versions of a dataset: figures, before and after, downloads of each."""

import pytest
from django.utils import timezone

from requests_app import curation, phrases, result_mail, sharing
from requests_app.models import (
    ClassifierRequest,
    DatasetVersion,
    ImageUrl,
    Status,
    TrainingRun,
)
from tests.web.conftest import add_artifact, delivered, metrics, post, running, words


def place(classifier: ClassifierRequest, path: str = "") -> str:
    return f"{classifier.get_absolute_url()}versions/{path}"


def comparison(before: int, after: int, mended: list[str], broken: list[str], p: float) -> dict:
    return {
        "against": 1, "images": 100, "right_before": before, "right_after": after,
        "mended": mended, "broken": broken, "p_value": p,
    }  # fmt: skip


@pytest.fixture
def twice() -> ClassifierRequest:
    """A request with a second version, which has one more test picture right."""
    classifier = delivered("cat", "dog")
    version = DatasetVersion.objects.create(request=classifier, number=2, images=3)
    mended = ImageUrl.objects.first()
    TrainingRun.objects.create(
        version=version,
        backbone="efficientnet_lite0",
        finished=timezone.now(),
        metrics=metrics(["cat", "dog"], [[10, 0], [1, 9]]),
        comparison=comparison(88, 89, [mended.file], [], 1.0),
    )
    add_artifact(version, "model", b"the second")
    return classifier


def test_all_versions_are_listed_with_before_and_after(client, twice):
    page = client.get(place(twice)).content.decode()
    text = words(page)
    assert text.index("Version 2 (latest)") < text.index("Version 1")
    assert "On the 100 test pictures that both versions have, 89 are right instead of 88" in text
    assert "Right now, wrong in version 1" in text
    assert f"/images/{ImageUrl.objects.first().pk}/" in page


def test_the_mail_about_a_later_version_compares_it_with_the_one_before(twice):
    version = twice.versions.get(number=2)
    row = result_mail.put_delivered(twice, version)
    assert row.subject == "cat, dog: version 2 is ready (89 of 100 instead of 88)"
    for text in (" ".join(row.text.split()), words(row.html)):
        assert "Version 2 of your classifier is ready" in text
        assert "Compared with version 1" in text
        assert "89 are right instead of 88; 1 mended, 0 broken (p = 1.00" in text


def test_page_mail_and_share_say_how_many_test_pictures_a_person_has_looked_at(client, twice):
    images = list(ImageUrl.objects.order_by("pk"))
    ImageUrl.objects.update(split="test")
    assert twice.looked_at == ""
    curation.remove(twice, [images[0].pk], "person")
    curation.relabel(twice, [images[1].pk], 2, "person")
    sharing.switch_on(twice, "person")
    sentence = "A person has looked at 2 of the 4 test pictures."
    for path in (twice.get_absolute_url(), place(twice), f"/s/{twice.share_token}/"):
        assert sentence in words(client.get(path).content.decode()), path
    row = result_mail.put_delivered(twice, twice.versions.get(number=2))
    assert sentence in row.text and sentence in row.html
    for image in images:
        curation.judge(twice, image.pk, "right", None, "person")
    assert twice.looked_at == "A person has looked at all 4 test pictures."


def test_each_version_has_its_own_downloads(client, twice):
    files = {}
    for query in ("", "?version=1", "?version=2"):
        response = client.get(f"{twice.get_absolute_url()}download/model/{query}")
        files[query] = b"".join(response.streaming_content)
    assert files["?version=2"] == files[""] == b"the second" != files["?version=1"]
    for query in ("?version=3", "?version=x", "?version=", "?version=" + "9" * 40):
        response = client.get(f"{twice.get_absolute_url()}download/model/{query}")
        assert response.status_code == 404


@pytest.mark.parametrize(("kind", "name"), [("pth", "model.pth"), ("report", "report.html")])
def test_files_that_lie_in_the_model_folder_are_those_of_the_version_asked_for(
    client, twice, kind, name
):
    for version in twice.versions.all():  # as of 0.1.0, which had no downloads of these kinds
        version.artifacts.filter(kind=kind).delete()
        (version.folder / "model").mkdir(parents=True, exist_ok=True)
        (version.folder / "model/model.onnx").write_bytes(b"network")
        (version.folder / "model" / name).write_bytes(b"of %d" % version.number)
    address = f"{twice.get_absolute_url()}download/{kind}/"
    for query, content in (("", b"of 2"), ("?version=1", b"of 1"), ("?version=2", b"of 2")):
        response = client.get(address + query)
        assert b"".join(response.streaming_content) == content, query
    (twice.versions.get(number=1).folder / "model" / name).unlink()
    for query in ("?version=1", "?version=3"):
        assert client.get(address + query).status_code == 404


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            comparison(88, 94, list("abcdefgh"), list("ij"), 0.109),
            "On the 100 test pictures that both versions have, 94 are right instead of 88; 8"
            " mended, 2 broken (p = 0.11, McNemar’s exact test). Chance alone may do that, so"
            " neither is shown to be better.",
        ),
        (
            comparison(80, 95, list("abcdefghijklmno"), [], 0.00006),
            "On the 100 test pictures that both versions have, 95 are right instead of 80; 15"
            " mended, 0 broken (p = under 0.01, McNemar’s exact test). Chance alone would hardly"
            " do that.",
        ),
        (
            comparison(90, 90, [], [], 1.0),
            "On the 100 test pictures that both versions have, 90 are right instead of 90; both"
            " models are right and wrong on the same pictures.",
        ),
    ],
)
def test_before_and_after_in_words(values, sentence):
    assert phrases.comparison(values) == sentence


def test_training_again_starts_only_with_changes_and_says_what_is_missing(holder, twice):
    for image in ImageUrl.objects.all():
        ImageUrl.objects.filter(pk=image.pk).update(version_number=image.image_class.number)
    response = post(holder, place(twice, "train/"))
    page = words(holder.get(response["Location"]).content.decode())
    assert "Nothing has changed since the last training" in page
    twice.refresh_from_db()
    assert twice.status == Status.DELIVERED


def test_before_the_first_version_the_page_says_so(client):
    page = words(client.get(place(running())).content.decode())
    assert "There is no version yet" in page
