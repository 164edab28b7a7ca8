import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.training.tiny_training import SIDE
from training.finetuning.views import (
    RANDOM_PARAMETERS,
    Augmentation,
    Loader,
    Variations,
    train_view,
)
from training.networks.catalogue import CROP

STILL = Augmentation(
    min_area=1.0,
    max_aspect_ratio=1.0,
    degrees=0.0,
    flip_probability=0.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
)
CPU = torch.device("cpu")


def unchanged(images: Tensor) -> Tensor:
    """Stand in for normalizing."""
    return images


def view_of(center_crops: Tensor, parameters: Tensor | None = None, **values: Any) -> Tensor:
    """Return the training view with this augmentation alone, by random parameters."""
    if parameters is None:
        count = len(center_crops)
        parameters = torch.rand(count, RANDOM_PARAMETERS)
    augmentation = dataclasses.replace(STILL, **values)
    variations = Variations.draw(parameters, augmentation)
    return train_view(center_crops, variations, unchanged)


def gradient() -> Tensor:
    """Return a center crop that rises from left to right in red and downwards in green."""
    rising = torch.arange(SIDE, dtype=torch.uint8)
    crop = torch.zeros((1, SIDE, SIDE, 3), dtype=torch.uint8)
    crop[..., 0] = rising
    crop[..., 1] = rising[:, None]
    crop[..., 2] = 100
    return crop


def plain(count: int, value: int) -> Tensor:
    """Return center crops of one color."""
    shape = (count, SIDE, SIDE, 3)
    return torch.full(shape, value, dtype=torch.uint8)


def test_the_train_view_depends_on_its_random_parameters_alone() -> None:
    shape = (6, SIDE, SIDE, 3)
    center_crops = torch.randint(0, 256, shape, dtype=torch.uint8)
    parameters = torch.rand(6, RANDOM_PARAMETERS)
    augmentation = Augmentation(erase_probability=0.5)
    variations = Variations.draw(parameters, augmentation)
    whole = train_view(center_crops, variations, unchanged)
    assert whole.shape == (6, 3, CROP, CROP)
    assert whole.dtype == torch.float32

    again = train_view(center_crops, Variations.draw(parameters, augmentation), unchanged)
    assert torch.equal(whole, again)
    first_half = train_view(center_crops[:3], variations[:3], unchanged)
    second_half = train_view(center_crops[3:], variations[3:], unchanged)
    halves = torch.cat([first_half, second_half])
    assert torch.allclose(whole, halves, atol=1e-3)
    others = torch.rand(6, RANDOM_PARAMETERS)
    varied = train_view(center_crops, Variations.draw(others, augmentation), unchanged)
    assert not torch.allclose(whole, varied, atol=10)


def test_without_any_augmentation_the_train_view_is_the_whole_center_crop() -> None:
    center_crop = gradient()
    channels_first = center_crop.permute(0, 3, 1, 2)
    images = channels_first.float()
    expected = functional.interpolate(images, (CROP, CROP), mode="bilinear")
    view = view_of(center_crop)
    assert torch.allclose(view, expected, atol=0.1)


def test_flipping_rotating_and_cropping_each_do_as_they_are_called() -> None:
    still = view_of(gradient())
    flipped = view_of(gradient(), flip_probability=1.0)
    mirrored = still.flip(3)
    assert torch.allclose(flipped, mirrored, atol=0.1)

    most_to_one_side = torch.ones(1, RANDOM_PARAMETERS)
    rotated = view_of(gradient(), most_to_one_side, degrees=90.0)
    middle = CROP // 2
    center_of_still = still[0, :, middle, middle]
    center_of_rotated = rotated[0, :, middle, middle]
    assert torch.allclose(center_of_rotated, center_of_still, atol=1.5)
    green_across = rotated[0, 1, middle]
    red_across = still[0, 0, middle]
    assert torch.allclose(green_across, red_across, atol=1.5)  # across is now what was down

    smallest_at_left_and_top = torch.zeros(1, RANDOM_PARAMETERS)
    cropped = view_of(gradient(), smallest_at_left_and_top, min_area=0.25)
    red_and_green = cropped[0, :2]
    assert red_and_green.min() < 2
    assert red_and_green.max() == pytest.approx(SIDE / 2, abs=2)


def test_colors_change_by_no_more_than_their_factors() -> None:
    gray_100 = plain(64, 100)
    brighter = view_of(gray_100, brightness=0.2)
    assert brighter.min() >= 80 - 1e-3
    assert brighter.max() <= 120 + 1e-3
    assert brighter.std() > 5

    even_gray = view_of(gray_100, contrast=0.5, saturation=0.5)
    expected = torch.full_like(even_gray, 100.0)  # nothing to change
    assert torch.allclose(even_gray, expected, atol=1e-2)

    least = torch.zeros(1, RANDOM_PARAMETERS)
    gray = view_of(gradient(), least, saturation=1.0)
    red, green, blue = gray.unbind(dim=1)
    assert torch.allclose(red, green, atol=1e-2)
    assert torch.allclose(red, blue, atol=1e-2)


def test_erasing_makes_a_rectangle_plain_in_the_chosen_share() -> None:
    view = view_of(plain(200, 255), erase_probability=0.3)
    black = (view == 0).all(dim=1)
    erased_share = black.float().mean(dim=(1, 2))
    erased = erased_share > 0
    assert 0.2 < erased.float().mean() < 0.4
    assert erased_share[erased].min() > 0.01
    assert erased_share.max() < 0.25


@pytest.mark.parametrize("resident", [True, False])
def test_the_loader_hands_out_every_batch_in_order_from_memory_or_by_its_thread(
    resident: bool,
) -> None:
    random = np.random.default_rng(0)
    shape = (20, 8, 8, 3)
    center_crops = random.integers(0, 256, shape, dtype=np.uint8)
    order = random.permutation(20)
    batches = np.split(order, [7, 14, 14])
    loader = Loader(center_crops, CPU, resident)
    loaded = list(loader.batches(batches))
    sizes = [len(batch) for batch in loaded]
    assert sizes == [7, 7, 0, 6]
    expected = torch.from_numpy(center_crops[order])
    assert torch.equal(torch.cat(loaded), expected)
    nothing = loader.batches([])
    assert list(nothing) == []
