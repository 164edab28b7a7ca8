"""A dataset.zip as those use it who get it: with the packages that they have, as its card says."""

import base64
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.test import override_settings
from huggingface_hub import DatasetCard
from PIL import Image

from requests_app.delivery.contents import DatasetImage
from requests_app.delivery.croissant import build_croissant
from requests_app.delivery.dataset_zip import build_dataset
from requests_app.delivery.names import download_name
from requests_app.models import ClassifierRequest, DatasetVersion, ImageUrl
from tests.pipeline.folders import image_bytes
from tests.replicas.hub import HubReplica
from training.images.layout import read_layout

ROOT = Path(__file__).resolve().parents[2]
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


def pushed(downloaded, hub, *arguments, token="hf_test"):
    """Run the client's command in the folder of the downloads; return code, output and errors."""
    home = downloaded.folder.parent / "home"
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HOME": str(home)}
    # Its own storage protocol needs the hub's own storage; without, it speaks plain LFS.
    environment = {**os.environ, **settings, "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "picaisso_client", "push", "--to", "hub", *arguments]
    ended = subprocess.run(
        command,
        cwd=downloaded.zip.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_an_open_dataset_is_pushed_private_and_whole_to_the_hub(downloaded):
    with HubReplica() as hub:
        hub.files["train/c001/of-an-earlier-version.jpg"] = "0"
        code, out, errors = pushed(downloaded, hub, "ada/pets", "--json")
        assert code == 0, errors
        told = json.loads(out)
        assert told == {"url": f"{hub.url}/datasets/ada/pets", "pictures": downloaded.images}
        assert hub.repositories["ada/pets"]["visibility"] == "private"
        assert hub.repositories["ada/pets"]["type"] == "dataset"
        expected = {
            path.relative_to(downloaded.folder).as_posix()
            for path in downloaded.folder.rglob("*")
            if path.is_file()
        }
        assert set(hub.files) == expected
        card = base64.b64decode(hub.files["README.md"]).decode()
        assert DatasetCard(card).data.license == ["cc-by-sa-4.0"] and "łoś" in card
        names = json.loads(base64.b64decode(hub.files["classes.json"]))
        assert tuple(names.values()) == NAMES


def test_what_else_lies_in_the_folder_is_not_published(downloaded, tmp_path):
    folder = shutil.copytree(downloaded.folder, tmp_path / "dataset")
    for name in (".env", "notes.txt", "train/.env", "images/me.jpg", "docs/README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("SECRET=1")
    with HubReplica() as hub:
        code, _, errors = pushed(downloaded, hub, "ada/pets", "--dataset", str(folder))
        assert code == 0, errors
        expected = downloaded.folder.rglob("*")
        names = {
            path.relative_to(downloaded.folder).as_posix() for path in expected if path.is_file()
        }
        assert set(hub.files) == names
        nested = folder / "train/c001/family/me.jpg"
        nested.parent.mkdir()
        nested.write_text("no picture")
        hub.requests.clear()
        code, _, errors = pushed(downloaded, hub, "ada/pets", "--dataset", str(folder))
        assert code == 1 and "not those of images.csv" in errors and not hub.requests
    table = folder / "images.csv"
    text = table.read_text(encoding="utf-8")
    for content, sentence in (
        (text.replace("license_basis", "basis", 1).encode(), "has no column license_basis"),
        (text.encode("utf-16"), "images.csv cannot be read"),
    ):
        table.write_bytes(content)
        code, _, errors = pushed(downloaded, hub, "ada/pets", "--dataset", str(folder))
        assert code == 1 and sentence in errors and len(errors.splitlines()) == 1, errors


def test_a_push_that_broke_goes_on_with_what_is_missing(downloaded):
    with HubReplica(breaks_after=7) as hub:
        code, _, errors = pushed(downloaded, hub, "ada/pets", "--dataset", str(downloaded.folder))
        assert code == 1 and errors.strip().endswith(
            "Run the same command again: it goes on from there."
        )
        assert len(hub.blobs) == 7 and not hub.files
        hub.breaks_after = None
        hub.requests.clear()
        code, out, errors = pushed(downloaded, hub, "ada/pets", "--dataset", str(downloaded.zip))
        assert code == 0 and out.strip() == f"{hub.url}/datasets/ada/pets", errors
        sent = [request for request in hub.requests if request.path.startswith("/storage/")]
        assert len(sent) == downloaded.images - 7 and len(hub.files) > downloaded.images


def test_what_may_not_be_published_is_refused_and_counted(downloaded, tmp_path):
    folder = shutil.copytree(downloaded.folder, tmp_path / "dataset")
    table = folder / "images.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1].replace(",cc-by-sa,", ",cc-by-nc,")
    lines[2] = lines[2].replace(",cc-by-sa,", ",,")
    lines[3] = lines[3].replace(",per-item,", ",filter,")
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with HubReplica() as hub:
        code, out, errors = pushed(downloaded, hub, "ada/pets", "--dataset", str(folder))
        assert (code, out) == (1, "") and not hub.requests
    assert "3 of 20 pictures have no open licence that their source states" in errors
    assert "(1 cc-by-nc, 1 cc-by-sa, 1 unknown)" in errors and "--license open" in errors


def test_a_push_without_a_token_or_a_dataset_is_one_sentence(downloaded, tmp_path):
    with HubReplica() as hub:
        code, _, errors = pushed(downloaded, hub, "ada/pets", token="hf_wrong")
        assert code == 1 and "The hub answered 401. Log in with" in errors.splitlines()[-1]
        code, _, errors = pushed(downloaded, hub, "ada/pets", "--dataset", str(tmp_path))
        assert code == 1 and errors.strip().endswith("it has no images.csv.")
        code, _, errors = pushed(downloaded, hub, "ada/pets", "--dataset", "gone.zip")
        assert code == 1 and "gone.zip is not there" in errors
