"""A dataset.zip as those load it who get it: with the packages that they have, as its card says."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.test import override_settings
from PIL import Image

from requests_app.delivery.contents import DatasetImage
from requests_app.delivery.croissant import build_croissant
from requests_app.delivery.dataset_zip import build_dataset
from requests_app.delivery.names import download_name
from requests_app.models import ClassifierRequest, DatasetVersion, ImageUrl
from tests.pipeline.folders import image_bytes
from training.images.layout import read_layout

pytestmark = pytest.mark.django_db
NAMES = ("łoś", "狗", "c++", "a b")
SPLITS = ("train", "train", "train", "val", "test")


@dataclass(frozen=True)
class Downloaded:
    """The files as a browser saves them, and the unpacked zip."""

    zip: Path
    croissant: Path
    folder: Path
    images: int


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory, django_db_setup, django_db_blocker) -> Downloaded:
    """Return a dataset of four awkward names, built once."""
    data = tmp_path_factory.mktemp("loaders")
    downloads = data / "Downloads"
    downloads.mkdir()
    with django_db_blocker.unblock(), override_settings(DATA_DIR=data):
        pairs = [(name, "") for name in NAMES]
        classifier = ClassifierRequest.create(class_queries=pairs, email="ada@example.org")
        version = DatasetVersion.objects.create(request=classifier, number=1)
        images = _images(classifier)
        zipped = build_dataset(version, images, data / "artifacts" / "dataset.zip")
        described = build_croissant(version, images, zipped)
        target = downloads / download_name(classifier, "dataset", 1, ".zip")
        zipped.path.rename(target)
        beside = downloads / "croissant.json"
        described.path.rename(beside)
        classifier.delete()
    with zipfile.ZipFile(target) as archive:
        archive.extractall(data / "unpacked")
    (folder,) = (data / "unpacked").iterdir()
    return Downloaded(target, beside, folder, len(images))


def _images(classifier: ClassifierRequest) -> list[DatasetImage]:
    folder = classifier.folder / "collect" / "images"
    folder.mkdir(parents=True)
    found = []
    for label in classifier.classes.all():
        for number, split in enumerate(SPLITS):
            content = image_bytes(100 * label.number + number)
            name = f"{label.number}{number}".rjust(16, "0")
            (folder / f"{name}.jpg").write_bytes(content)
            address = f"https://pictures.example/{label.number}/{number}"
            image = ImageUrl(image_class=label, source="wikimedia", query=label.name)
            image.image_url = f"{address}.jpg"
            image.page_url = address
            image.title = "=A title; it's “quoted”"
            image.license = "cc-by-sa"
            image.license_version = "4.0"
            image.license_url = "https://creativecommons.org/licenses/by-sa/4.0/"
            image.license_basis = "per-item"
            image.file = f"images/{name}.jpg"
            image.sha256 = name * 4
            image.width = 64
            image.height = 48
            found.append(DatasetImage(image, label, split, len(found)))
    return found


def run(code: str, folder: Path) -> str:
    """Run Python in a folder, without a network and with a home of its own; return its output."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(home)}
    environment = {**os.environ, **offline, "HOME": str(home), "PYTHONUTF8": "1"}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-3000:]
    return ended.stdout


def snippet(folder: Path, title: str) -> str:
    """Return the Python that the card gives for a package."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"```python\n(# {re.escape(title)}.*?)```", card, re.DOTALL)
    return code


def test_torchvision_loads_each_split_as_the_card_says(downloaded):
    code = snippet(downloaded.folder, "torchvision")
    code += "print(json.dumps([names, len(data), sorted({int(label) for _, label in data})]))"
    assert json.loads(run(code, downloaded.folder)) == [list(NAMES), 12, [0, 1, 2, 3]]


def test_hugging_face_datasets_loads_it_with_its_names_as_the_card_says(downloaded):
    code = snippet(downloaded.folder, "datasets (Hugging Face)")
    code += """
loaded = {split: (data[split].num_rows, data[split].features["label"].names) for split in data}
label = data["test"].features["label"]
images = [(label.int2str(row["label"]), row["image"].size) for row in data["test"]]
import os
by_card = load_dataset(os.getcwd())["test"].features["label"]
print(json.dumps([loaded, images, type(by_card).__name__, by_card.names]))
"""
    loaded, images, kind, folders = json.loads(run(code, downloaded.folder))
    names = list(NAMES)
    assert loaded == {"train": [12, names], "validation": [4, names], "test": [4, names]}
    assert images == [[name, [64, 48]] for name in names]
    assert (kind, folders) == ("ClassLabel", ["c001", "c002", "c003", "c004"])


def test_mlcroissant_reads_image_split_label_licence_and_provenance_of_every_record(downloaded):
    code = """
import json, warnings
import mlcroissant
data = mlcroissant.Dataset("croissant.json")
assert not data.metadata.ctx.issues.errors, data.metadata.ctx.issues.report()
rows = []
for record in data.records("images"):
    row = {}
    for key, value in record.items():
        value = value.decode() if isinstance(value, bytes) else value
        row[key.removeprefix("images/")] = str(getattr(value, "size", value))
    rows.append(row)
metadata = data.metadata
print(json.dumps([rows, metadata.data_biases, metadata.personal_sensitive_information,
    metadata.data_collection, metadata.data_limitations, list(data.metadata.ctx.issues.warnings)]))
"""
    rows, *responsible, warnings = json.loads(run(code, downloaded.croissant.parent))
    assert warnings == [] and all(responsible)
    assert len(rows) == downloaded.images
    table = io.StringIO((downloaded.folder / "images.csv").read_text(encoding="utf-8"))
    expected = {row["file_name"]: row for row in csv.DictReader(table)}
    for row in rows:
        known = expected[row["file_name"]]
        assert (row["label"], row["split"]) == (known["class"], known["split"])
        assert row["image"] == "(64, 48)" and row["license"] == "cc-by-sa"
        assert row["license_url"] == known["license_url"]
        assert (row["source"], row["page_url"]) == ("wikimedia", known["page_url"])
    assert {row["label"] for row in rows} == set(NAMES)


def test_the_tree_is_what_fiftyone_and_ultralytics_take_for_a_classification(downloaded):
    """A folder per split, in it one per class, in it pictures and nothing else.

    Both packages are too large to be installed for a test.
    """
    splits = {path.name: path for path in downloaded.folder.iterdir() if path.is_dir()}
    assert set(splits) == {"train", "val", "test"}
    for split in splits.values():
        assert [path.name for path in sorted(split.iterdir())] == ["c001", "c002", "c003", "c004"]
        for file in split.glob("*/*"):
            with Image.open(file) as image:
                assert (image.format, file.suffix) == ("JPEG", ".jpg")
    for title in ("FiftyOne", "Ultralytics"):
        compile(snippet(downloaded.folder, title), title, "exec")


def test_the_names_come_back_from_the_zip_to_a_training_of_ones_own(downloaded, tmp_path):
    layout = read_layout(downloaded.folder, tmp_path)
    assert tuple(layout.classes.values()) == NAMES
    assert len(layout.files) == downloaded.images
    assert {file.provenance.title for file in layout.files} == {"=A title; it's “quoted”"}


def test_pandas_reads_the_tables_as_they_are(downloaded):
    code = """
import json, pandas
table = pandas.read_csv("images.csv")
print(json.dumps([list(table["class"].unique()), list(table["title"].unique()), len(table)]))
"""
    names, titles, rows = json.loads(run(code, downloaded.folder))
    assert set(names) == set(NAMES) and rows == downloaded.images
    assert titles == ["'=A title; it's “quoted”"]
