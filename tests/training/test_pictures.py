import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.tuning import SIDE, tiny_network
from training.finetuning.views import (
    RANDOM_PARAMETERS,
    Augmentation,
    Loader,
    eval_view,
    train_view,
)
from training.images.decode import read_image
from training.networks.catalogue import CROP
from training.networks.image_cache import ImageCache, open_cache
from training.run_folder import ImageRow, RunError

SIZES = [(300, 200), (64, 64), (40, 500), (1, 1), (231, 233)]
STILL = Augmentation(
    min_area=1.0,
    max_aspect_ratio=1.0,
    degrees=0.0,
    flip_probability=0.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
)


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, list[ImageRow]]:
    """A run folder with pictures of several sizes, and its rows."""
    random, rows = np.random.default_rng(0), []
    (tmp_path / "images").mkdir()
    for number, (width, height) in enumerate(SIZES):
        small = random.integers(
            0, 256, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8
        )
        path = tmp_path / "images" / f"{number}.png"
        Image.fromarray(small).resize((width, height)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(ImageRow(file=f"images/{number}.png", class_id="c001", sha256=digest))
    return tmp_path, rows


def filled(run: tuple[Path, list[ImageRow]]) -> ImageCache:
    folder, rows = run
    cache = open_cache(folder / "cache", rows, SIDE)
    cache.fill(tiny_network(), rows, folder, lambda done, total: None)
    return cache


def unchanged(pictures: torch.Tensor) -> torch.Tensor:
    """In place of normalising."""
    return pictures


def test_the_eval_view_is_what_the_network_prepares_but_for_rounding(
    run: tuple[Path, list[ImageRow]],
) -> None:
    cache, network = filled(run), tiny_network()
    views = eval_view(torch.from_numpy(cache.center_crops), network.normalize)
    for view, row in zip(views, run[1], strict=True):
        pixels = torch.from_numpy(np.array(read_image(run[0] / row.file)))
        assert view.shape == (3, CROP, CROP)
        assert (view - network.prepare(pixels)).abs().max() <= 0.501 / network.std.min()


def test_a_cache_that_is_opened_again_decodes_only_what_is_missing(
    run: tuple[Path, list[ImageRow]],
) -> None:
    folder, rows = run
    cache = filled(run)
    expected = cache.center_crops.copy()
    cache.done[3], cache.center_crops[3] = 0, 0  # as if killed before this one
    (folder / rows[0].file).unlink()  # would be missed if it were decoded again
    again, seen = open_cache(folder / "cache", rows, SIDE), []
    again.fill(tiny_network(), rows, folder, lambda done, total: seen.append((done, total)))
    assert seen == [(5, 5)]
    assert np.array_equal(again.center_crops, expected) and again.done.all()


def test_other_pictures_another_order_or_another_side_have_a_cache_of_their_own(
    run: tuple[Path, list[ImageRow]],
) -> None:
    folder, rows = run
    other = dataclasses.replace(rows[0], sha256="0" * 64)
    caches = [(rows, SIDE), (rows[::-1], SIDE), ([other, *rows[1:]], SIDE), (rows, 256)]
    paths = {open_cache(folder / "cache", some, side).path for some, side in caches}
    assert len(paths) == len(caches)


def test_a_cache_file_of_the_wrong_size_is_made_anew(run: tuple[Path, list[ImageRow]]) -> None:
    cache = filled(run)
    expected = cache.center_crops.copy()
    path, flags = cache.path, cache.path.with_suffix(".done")
    del cache
    path.write_bytes(path.read_bytes()[:1000])
    assert not open_cache(run[0] / "cache", run[1], SIDE).center_crops.any()
    again = filled(run)
    assert np.array_equal(again.center_crops, expected)
    again.remove()
    assert not path.exists() and not flags.exists()


def test_a_picture_that_has_gone_is_an_error_with_its_name(
    run: tuple[Path, list[ImageRow]],
) -> None:
    (run[0] / run[1][2].file).unlink()
    with pytest.raises(RunError, match=r"2\.png") as error:
        filled(run)
    assert error.value.stage == "finetune" and error.value.retry


def test_the_train_view_depends_on_its_draws_alone() -> None:
    squares = torch.randint(0, 256, (6, SIDE, SIDE, 3), dtype=torch.uint8)
    draws, augmentation = torch.rand(6, RANDOM_PARAMETERS), Augmentation(erase_probability=0.5)
    whole = train_view(squares, draws, augmentation, unchanged)
    assert whole.shape == (6, 3, CROP, CROP) and whole.dtype == torch.float32
    assert torch.equal(whole, train_view(squares, draws, augmentation, unchanged))
    halves = [
        train_view(squares[part], draws[part], augmentation, unchanged)
        for part in (slice(3), slice(3, 6))
    ]
    assert torch.allclose(whole, torch.cat(halves), atol=1e-3)
    assert not torch.allclose(
        whole,
        train_view(squares, torch.rand(6, RANDOM_PARAMETERS), augmentation, unchanged),
        atol=10,
    )


def gradient() -> torch.Tensor:
    """A square that rises from left to right in red and from top to bottom in green."""
    square = torch.zeros((1, SIDE, SIDE, 3), dtype=torch.uint8)
    rising = torch.arange(SIDE, dtype=torch.uint8)
    square[..., 0], square[..., 1], square[..., 2] = rising, rising[:, None], 100
    return square


def test_without_any_augmentation_the_train_view_is_the_whole_square() -> None:
    view = train_view(gradient(), torch.rand(1, RANDOM_PARAMETERS), STILL, unchanged)
    expected = torch.nn.functional.interpolate(
        gradient().permute(0, 3, 1, 2).float(), (CROP, CROP), mode="bilinear"
    )
    assert torch.allclose(view, expected, atol=0.1)


def test_mirroring_turning_and_cropping_each_do_as_they_are_called() -> None:
    still = train_view(gradient(), torch.rand(1, RANDOM_PARAMETERS), STILL, unchanged)
    mirrored = train_view(
        gradient(),
        torch.rand(1, RANDOM_PARAMETERS),
        dataclasses.replace(STILL, flip_probability=1.0),
        unchanged,
    )
    assert torch.allclose(mirrored, still.flip(3), atol=0.1)
    draws = torch.ones(1, RANDOM_PARAMETERS)  # the largest turn, to the one side
    turned = train_view(gradient(), draws, dataclasses.replace(STILL, degrees=90.0), unchanged)
    middle = CROP // 2
    assert torch.allclose(turned[0, :, middle, middle], still[0, :, middle, middle], atol=1.5)
    assert torch.allclose(
        turned[0, 1, middle], still[0, 0, middle], atol=1.5
    )  # across is now what was down
    draws = torch.zeros(1, RANDOM_PARAMETERS)  # the smallest crop, furthest to the left and top
    cropped = train_view(gradient(), draws, dataclasses.replace(STILL, min_area=0.25), unchanged)
    assert cropped[0, :2].min() < 2
    assert cropped[0, :2].max() == pytest.approx(SIDE / 2, abs=2)


def test_colours_change_by_no_more_than_their_factors() -> None:
    square = torch.full((64, SIDE, SIDE, 3), 100, dtype=torch.uint8)
    draws = torch.rand(64, RANDOM_PARAMETERS)
    brighter = train_view(square, draws, dataclasses.replace(STILL, brightness=0.2), unchanged)
    assert brighter.min() >= 80 - 1e-3 and brighter.max() <= 120 + 1e-3 and brighter.std() > 5
    alike = train_view(
        square, draws, dataclasses.replace(STILL, contrast=0.5, saturation=0.5), unchanged
    )
    assert torch.allclose(
        alike, torch.full_like(alike, 100.0), atol=1e-2
    )  # grey and even: nothing to change
    paler = train_view(
        gradient(),
        torch.zeros(1, RANDOM_PARAMETERS),
        dataclasses.replace(STILL, saturation=1.0),
        unchanged,
    )
    assert torch.allclose(paler[:, 0], paler[:, 1], atol=1e-2) and torch.allclose(
        paler[:, 0], paler[:, 2], atol=1e-2
    )


def test_erasing_makes_a_rectangle_plain_in_the_chosen_share() -> None:
    square = torch.full((200, SIDE, SIDE, 3), 255, dtype=torch.uint8)
    view = train_view(
        square,
        torch.rand(200, RANDOM_PARAMETERS),
        dataclasses.replace(STILL, erase_probability=0.3),
        unchanged,
    )
    erased = (view == 0).all(dim=1).float().mean(dim=(1, 2))
    assert 0.2 < (erased > 0).float().mean() < 0.4
    assert erased[erased > 0].min() > 0.01 and erased.max() < 0.25


@pytest.mark.parametrize("resident", [True, False])
def test_the_feed_hands_out_every_batch_in_order_from_memory_or_by_its_thread(
    resident: bool,
) -> None:
    squares = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    order = np.random.default_rng(1).permutation(20)
    batches = [order[:7], order[7:14], order[14:14], order[14:]]
    fed = list(Loader(squares, torch.device("cpu"), resident).batches(batches))
    assert [len(batch) for batch in fed] == [7, 7, 0, 6]
    assert torch.equal(torch.cat(fed), torch.from_numpy(squares[order]))
    assert list(Loader(squares, torch.device("cpu"), resident).batches([])) == []
