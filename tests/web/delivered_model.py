"""A delivered request with a real model: a pretrained network with a made-up head, exported as
every trained one is.

Whoever imports the two functions with `pytest.fixture` has the fixtures that they name.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from requests_app import prediction
from requests_app.models import ClassifierRequest, ImageUrl
from tests.training import example_models
from tests.web.conftest import delivered
from training.explanations import LearnedImage, write_neighbours
from training.images.decode import as_array, read_image
from training.predict import open_model

NAMES = example_models.NAMES
REPORT = (
    "<!doctype html><html lang=en><meta name=viewport content=width=device-width>"
    "<title>Report</title><style>p{color:rgb(1,2,3)}</style>"
    "<p id=text>Right on 12 of 12<script>document.title='ran'</script>"
    "<a id=out href='https://pictures.example/' target=_blank>Where it was found</a>"
)


@pytest.fixture(scope="session", name="model_folder")
def export_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model folder, exported once."""
    folder = tmp_path_factory.mktemp("delivered") / "model"
    example_models.export(folder, "efficientnet_lite0", tmp_path_factory.getbasetemp() / "caches")
    (folder / "report.html").write_text(REPORT)
    return folder


@pytest.fixture(name="with_model")
def deliver_model(model_folder: Path, site: Path) -> Iterator[ClassifierRequest]:
    """A delivered request whose newest version has this model, and its training pictures."""
    classifier = delivered(*NAMES)
    run = classifier.versions.get().folder
    shutil.copytree(model_folder, run / "model", copy_function=shutil.copyfile)
    add_neighbours(classifier)
    prediction.cache.clear()
    yield classifier
    prediction._open.cache_clear()


def add_neighbours(classifier: ClassifierRequest) -> None:
    """Say that the model learned from the kept pictures."""
    run = classifier.versions.get().folder
    model = open_model(run, threads=1)
    learned = []
    embeddings = []
    for row in ImageUrl.objects.filter(image_class__request=classifier):
        file = classifier.folder / "collect" / row.file
        embeddings.append(model.run(as_array(read_image(file))).embedding)
        page = f"https://pictures.example/page/{row.pk}"
        learned.append(LearnedImage(row.file, row.image_class.name, "“untitled”", page))
    write_neighbours(run, learned, np.stack(embeddings))
    ImageUrl.objects.update(creator="Ada", license="CC BY", license_version="4.0")


def write_pictures(folder: Path) -> list[Path]:
    """Write pictures of odd sizes and several formats, and return their files."""
    folder.mkdir(exist_ok=True)
    files = []
    for number, pixels in enumerate(example_models.odd_pictures(5, seed=3)[2:]):
        file = folder / f"picture-{number}.png"
        Image.fromarray(pixels).save(file)
        files.append(file)
    photograph = Image.fromarray(example_models.odd_pictures(3, seed=5)[2]).resize((640, 400))
    for suffix in ("jpg", "webp"):
        file = folder / f"photograph.{suffix}"
        photograph.save(file, quality=92)
        files.append(file)
    return files
