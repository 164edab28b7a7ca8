import dataclasses
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.tiny_training import SIDE, tiny_network
from training.finetuning.views import eval_view
from training.images.decode import read_image
from training.networks.catalogue import CROP
from training.networks.image_cache import ImageCache, open_cache
from training.progress import no_progress
from training.run_folder import ImageRow, RunError

SIZES = [(300, 200), (64, 64), (40, 500), (1, 1), (231, 233)]


class Images(NamedTuple):
    """The images of a run folder."""

    folder: Path
    rows: list[ImageRow]


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """A run folder with images of several sizes."""
    random = np.random.default_rng(0)
    rows = []
    (tmp_path / "images").mkdir()
    for number, (width, height) in enumerate(SIZES):
        shape = (max(1, height // 8), max(1, width // 8), 3)
        pixels = random.integers(0, 256, shape, dtype=np.uint8)
        name = f"images/{number}.png"
        path = tmp_path / name
        Image.fromarray(pixels).resize((width, height)).save(path)
        digest = hashlib.sha256(path.read_bytes())
        rows.append(ImageRow(file=name, class_id="c001", sha256=digest.hexdigest()))
    return Images(tmp_path, rows)


def opened_cache(images: Images) -> ImageCache:
    return open_cache(images.folder / "cache", images.rows, SIDE)


def filled_cache(images: Images) -> ImageCache:
    cache = opened_cache(images)
    cache.fill(tiny_network(), images.rows, images.folder, no_progress)
    return cache


def test_the_eval_view_is_what_the_network_prepares_but_for_rounding(images: Images) -> None:
    network = tiny_network()
    cache = filled_cache(images)
    center_crops = torch.from_numpy(cache.center_crops)
    views = eval_view(center_crops, network.normalize)
    tolerance = 0.501 / network.std.min()
    for view, row in zip(views, images.rows, strict=True):
        image = read_image(images.folder / row.file)
        pixels = torch.from_numpy(np.array(image))
        difference = view - network.prepare(pixels)
        assert view.shape == (3, CROP, CROP)
        assert difference.abs().max() <= tolerance


def test_a_cache_that_is_opened_again_decodes_only_what_is_missing(images: Images) -> None:
    cache = filled_cache(images)
    expected = cache.center_crops.copy()
    cache.done[3] = 0  # as if killed before this one
    cache.center_crops[3] = 0
    (images.folder / images.rows[0].file).unlink()  # would be missed if it were decoded again
    reports: list[tuple[int, int]] = []

    def report(done: int, total: int, message: str = "", /) -> None:
        reports.append((done, total))

    again = opened_cache(images)
    again.fill(tiny_network(), images.rows, images.folder, report)
    assert reports == [(5, 5)]
    assert np.array_equal(again.center_crops, expected)
    assert again.done.all()


def test_other_images_another_order_or_another_side_have_a_cache_of_their_own(
    images: Images,
) -> None:
    folder = images.folder / "cache"
    rows = images.rows
    other_image = dataclasses.replace(rows[0], sha256="0" * 64)
    caches = [
        open_cache(folder, rows, SIDE),
        open_cache(folder, rows[::-1], SIDE),
        open_cache(folder, [other_image, *rows[1:]], SIDE),
        open_cache(folder, rows, 256),
    ]
    paths = {cache.path for cache in caches}
    assert len(paths) == len(caches)


def test_a_cache_file_of_the_wrong_size_is_made_anew(images: Images) -> None:
    cache = filled_cache(images)
    expected = cache.center_crops.copy()
    path = cache.path
    del cache
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    assert not opened_cache(images).center_crops.any()
    again = filled_cache(images)
    assert np.array_equal(again.center_crops, expected)


def test_an_image_that_has_gone_is_an_error_with_its_name(images: Images) -> None:
    gone = images.rows[2]
    (images.folder / gone.file).unlink()
    with pytest.raises(RunError, match=r"2\.png") as error:
        filled_cache(images)
    assert error.value.stage == "finetune"
    assert error.value.retry
