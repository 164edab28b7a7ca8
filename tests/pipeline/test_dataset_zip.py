"""The files that are delivered: complete, checked, and the same whenever they are built."""

import csv
import hashlib
import io
import json

import pytest
import yaml
from huggingface_hub import DatasetCard

from requests_app.delivery.attribution import credit
from requests_app.delivery.contents import DatasetImage
from requests_app.delivery.model_zip import open_artifact
from requests_app.delivery.tables import images_table, rejected_table
from requests_app.models import (
    Artifact,
    ImageUrl,
    Job,
    JobState,
)
from scraping.recipe import read_recipe
from scraping.sources.terms import TERMS
from tests.pipeline.stages import (
    TopFolder,
    drain,
    open_dataset,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_dataset_zip_is_complete_and_its_checksums_hold(packaged):
    with open_dataset() as archive:
        names = archive.names_below()
        for line in archive.read_below("SHA256SUMS").decode().splitlines():
            digest, _, name = line.partition("  ")
            assert hashlib.sha256(archive.read_below(name)).hexdigest() == digest
        assert len(archive.read_below("SHA256SUMS").decode().splitlines()) == len(names) - 1
        assert json.loads(archive.read_below("classes.json")) == {"c001": "cat", "c002": "dog"}
        rows = list(csv.DictReader(io.StringIO(archive.read_below("images.csv").decode())))
        assert {row["file_name"] for row in rows} == {
            name for name in names if name.endswith(".jpg")
        }
        for row in rows:
            split, class_id, name = row["file_name"].split("/")
            assert (
                row["split"] == split and row["class"] == {"c001": "cat", "c002": "dog"}[class_id]
            )
            assert name == row["sha256"][:16] + ".jpg"
            assert hashlib.sha256(archive.read_below(row["file_name"])).hexdigest() == row["sha256"]
            assert (row["license"], row["license_basis"], row["creator"]) == (
                "cc-by-sa",
                "per-item",
                "Ada",
            )
        rejected = list(csv.DictReader(io.StringIO(archive.read_below("rejected.csv").decode())))
        assert [row["reason"] for row in rejected] == ["too_small", "too_small"]
        assert "metadata.csv" not in names
        card = archive.read_below("README.md").decode()
        assert card.startswith("---\n") and "| `c001` | cat |" in card
        attribution = archive.read_below("ATTRIBUTION.md").decode()
        assert attribution.count("“A title” by Ada") == len(rows)


def test_the_recipe_names_every_picture_as_the_table_does(packaged, client, tmp_path):
    with open_dataset() as archive:
        content = archive.read_below("recipe.json")
        rows = list(csv.DictReader(io.StringIO(archive.read_below("images.csv").decode())))
    artifact = Artifact.objects.get(kind="recipe")
    assert artifact.sha256 == hashlib.sha256(content).hexdigest()
    answer = client.get(f"{packaged.get_absolute_url()}download/recipe/")
    assert b"".join(answer.streaming_content) == content
    assert "picaisso-cat-dog-recipe.json" in answer.headers["Content-Disposition"]
    (tmp_path / "recipe.json").write_bytes(content)
    recipe = read_recipe(tmp_path / "recipe.json")
    assert [(label.id, label.name) for label in recipe.classes] == [
        ("c001", "cat"),
        ("c002", "dog"),
    ]
    assert recipe.unusable == {} and len(recipe.images) == len(rows)
    for image, row in zip(recipe.images, rows, strict=True):
        assert (image.image_url, image.split) == (row["image_url"], row["split"])
        assert (image.sha256, image.source_sha256) == (row["sha256"], row["source_sha256"])
        assert image.difference_hash is not None and image.credit["creator"] == "Ada"


def test_a_picture_without_an_address_is_counted_in_the_recipe(packaged, tmp_path):
    supplied = ImageUrl.objects.filter(state="kept").first()
    ImageUrl.objects.filter(pk=supplied.pk).update(source="upload", image_url="cats/mine.jpg")
    Job.objects.filter(stage="package").update(state=JobState.QUEUED)
    drain("train")
    recipe = read_recipe(Artifact.objects.get(kind="recipe").file)
    assert (recipe.without_address, len(recipe.images)) == (1, recipe.rows - 1)


def test_building_a_zip_again_gives_the_same_bytes(packaged):
    artifact = Artifact.objects.get(kind="dataset")
    before = artifact.sha256
    Job.objects.filter(stage="package").update(state=JobState.QUEUED)
    drain("train")
    artifact.refresh_from_db()
    assert artifact.sha256 == before == hashlib.sha256(artifact.file.read_bytes()).hexdigest()
    assert Artifact.objects.count() == 4


def test_the_credit_of_a_picture_that_ai_made_says_so(packaged):
    image = ImageUrl.objects.filter(state="kept").first()
    ImageUrl.objects.filter(pk=image.pk).update(detail="its file says trainedAlgorithmicMedia")
    Job.objects.filter(stage="package").update(state=JobState.QUEUED)
    drain("train")
    with open_dataset() as archive:
        lines = archive.read_below("ATTRIBUTION.md").decode().splitlines()
    marked = [line for line in lines if line.endswith("; its file says trainedAlgorithmicMedia")]
    assert len(marked) == 1 and image.sha256[:16] in marked[0]


CREDITS = [
    (
        {},
        "“A title” by Ada. Licence: CC BY-SA 4.0 <https://creativecommons.org/licenses/by-sa/4.0/>",
    ),
    (
        {
            "attribution": "“A” by Ada, CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)"
            ", via pictures.example"
        },
        "“A” by Ada, CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)",
    ),
    (
        {"attribution": "(c) Ada, some rights reserved (CC BY-SA), via Bing", "license_url": ""},
        "(c) Ada, some rights reserved (CC BY-SA)",
    ),
    (
        {"attribution": "“A” by Ada, licence unknown, via pictures.example", "license": ""}
        | {"license_url": "", "license_basis": "unknown"},
        "“A” by Ada, licence unknown",
    ),
    (
        {"attribution": "", "title": "A", "license_url": "", "license_basis": "filter"},
        "“A” by Ada. Licence: CC BY-SA 4.0 (as the search was filtered)",
    ),
    (
        {"attribution": "“A” by Ada, CC BY-SA", "license_url": "", "license_basis": "file"},
        "“A” by Ada, CC BY-SA. Licence as its file says",
    ),
]


@pytest.mark.parametrize(("facts", "sentence"), CREDITS)
def test_the_credit_of_a_picture_says_each_thing_once(collected, facts, sentence):
    image = ImageUrl.objects.filter(state="kept").first()
    for name, value in facts.items():
        setattr(image, name, value)
    assert credit(image) == f"{sentence}. Found by Bing at <{image.page_url}>"


BROUGHT = [
    ({"source": "upload"}, "Supplied by the requester"),
    (
        {"source": "upload", "creator": "Ada", "license": "cc-by", "license_version": "4.0"},
        "Supplied by the requester, made by Ada. Licence: CC BY 4.0 (as its file says)",
    ),
    (
        {"source": "url_list", "image_url": "https://a.example/1.jpg"},
        "Supplied by the requester, from <https://a.example/1.jpg>. Licence: unknown",
    ),
]


@pytest.mark.parametrize("basis", ["requester", "file"])
@pytest.mark.parametrize(("facts", "sentence"), BROUGHT)
def test_the_credit_of_what_was_brought_along_never_names_a_file(facts, sentence, basis):
    row = {"image_url": "upload:cat/John Smith.jpg", "license_basis": basis}
    image = ImageUrl(**(row | facts), attribution="Supplied by the requester.")
    assert credit(image) == sentence


def test_no_name_of_a_file_that_was_brought_along_is_in_the_tables(packaged):
    labels = list(packaged.classes.all())
    images = list(ImageUrl.objects.of_request(packaged).filter(state="kept")[:3])
    for number, image in enumerate(images):
        image.source = "upload"
        image.image_url = f"upload:cat/John Smith {number}.jpg"
        image.save()
    details = [
        "like upload:cat/John Smith.jpg", "upload:cat/John Smith.jpg is kept instead",
        "like https://a.example/upload:1.jpg",
    ]  # fmt: skip
    for image, detail in zip(images, details, strict=True):
        entry = DatasetImage(image, labels[0], "train", None)
        (row,) = csv.DictReader(io.StringIO(images_table([entry]).decode()))
        assert row["image_url"] == "" and row["source"] == "upload"
        image.state = "rejected"
        image.detail = detail
        image.save()
    text = rejected_table(labels).decode()
    assert "John Smith" not in text
    found = [
        row["detail"] for row in csv.DictReader(io.StringIO(text)) if row["source"] == "upload"
    ]
    assert found == [
        "like one of the requester's pictures",
        "one of the requester's pictures is kept instead",
        "like https://a.example/upload:1.jpg",
    ]


def test_the_card_is_read_by_the_hub_s_own_package_and_speaks_in_words(packaged):
    with open_dataset() as archive:
        text = archive.read_below("README.md").decode()
    card = DatasetCard(text)
    card_data = card.data.to_dict()
    assert card_data["pretty_name"] == "Pictures of cat and dog"
    assert card_data["license"] == ["cc-by-sa-4.0"] and card_data["size_categories"] == ["n<1K"]
    assert card_data["task_categories"] == ["image-classification"]
    splits = [entry["split"] for entry in card_data["configs"][0]["data_files"]]
    assert splits == ["train", "validation", "test"]
    assert "- 2 too small\n" in text and "too_small" not in text
    assert "- pictures.example: 66\n" in text and "- CC BY-SA 4.0: 66\n" in text
    assert "Sources: Bing (66)." in text


def test_a_licence_that_the_hub_does_not_list_is_other(packaged):
    kept = ImageUrl.objects.filter(state="kept")
    kept.filter(pk=kept.first().pk).update(license="", license_basis="unknown")
    Job.objects.filter(stage="package").update(state=JobState.QUEUED)
    drain("train")
    with open_dataset() as archive:
        card = DatasetCard(archive.read_below("README.md").decode())
    assert card.data.license == "other"
    assert "- unknown: 1\n" in card.text


def test_no_cell_of_a_table_is_a_formula_or_breaks_its_line(packaged):
    signs = {"=HYPERLINK(1)": "'=HYPERLINK(1)", "@SUM(A1)": "'@SUM(A1)", "a\rb\nc": "a b c"}
    for image, title in zip(ImageUrl.objects.filter(state="kept"), signs, strict=False):
        ImageUrl.objects.filter(pk=image.pk).update(title=title)
    Job.objects.filter(stage="package").update(state=JobState.QUEUED)
    drain("train")
    with open_dataset() as archive:
        text = archive.read_below("images.csv").decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert set(signs.values()) <= {row["title"] for row in rows}
    assert len(text.splitlines()) == len(rows) + 1


def test_the_model_zip_is_the_model_folder(packaged):
    with TopFolder(open_artifact(Artifact.objects.get(kind="model"))) as archive:
        assert sorted(archive.names_below()) == ["SHA256SUMS", "model.onnx"]


KEY = "50c9509d-22c7-4a22-a47d-8c48425ef4a7"
OTHER_KEY = "8a863029-f435-446a-821e-275f4f641165"


def test_what_was_taken_is_cited_and_gbif_gets_its_table(packaged):
    kept = list(ImageUrl.objects.filter(state="kept").order_by("pk"))
    for number, image in enumerate(kept[:6]):
        image.source = "gbif"
        image.dataset_key = ["", KEY, OTHER_KEY, KEY, KEY, OTHER_KEY][number]
        image.save()
    Job.objects.filter(stage="package").update(state=JobState.QUEUED)
    drain("train")
    with open_dataset() as archive:
        cited = yaml.safe_load(archive.read_below("CITATION.cff"))
        derived = archive.read_below("derived_dataset.csv").decode()
        of_pictures = archive.read_below("gbif.csv").decode().splitlines()
        card = archive.read_below("README.md").decode()
        credits = archive.read_below("ATTRIBUTION.md").decode()
    assert derived == f"{KEY},3\n{OTHER_KEY},2\n"
    assert of_pictures[0] == "file_name,datasetKey" and len(of_pictures) == 7
    assert credits.count(f"; GBIF dataset {KEY}") == 3
    assert "6 pictures are from GBIF" in card and "Of 1 picture it was not recorded." in card
    assert f"- GBIF ({TERMS['gbif'].when}): {TERMS['gbif'].sentence}" in card
    # What the schema of the Citation File Format 1.2 requires.
    assert cited["cff-version"] == "1.2.0" and cited["message"] and cited["type"] == "dataset"
    assert cited["title"] == "Pictures of cat and dog" and cited["authors"][0]["name"]
    assert cited["keywords"] == ["cat", "dog"] and cited["license"] == ["CC-BY-SA-4.0"]
    assert [entry["title"] for entry in cited["references"]] == [
        "Bing",
        "GBIF",
        f"GBIF dataset {KEY}",
        f"GBIF dataset {OTHER_KEY}",
    ]
    for entry in cited["references"]:
        assert entry["type"] and entry["authors"][0]["name"] and entry["url"].startswith("https://")


def test_pictures_of_gbif_from_before_keys_were_recorded_are_packed_all_the_same(packaged):
    ImageUrl.objects.filter(state="kept").update(source="gbif")
    Job.objects.filter(stage="package").update(state=JobState.QUEUED)
    drain("train")
    with open_dataset() as archive:
        assert "derived_dataset.csv" not in archive.names_below()
        card = archive.read_below("README.md").decode()
    assert "66 pictures are from GBIF" in card and "search again" in card
