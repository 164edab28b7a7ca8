import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.training.conftest import on_white, stamps
from training.images.statistics import IMAGE_STATISTICS, image_statistics


def test_statistics_stand_in_the_order_of_their_names() -> None:
    image = Image.new("RGB", (320, 200), (100, 100, 100))
    assert dict(zip(IMAGE_STATISTICS, image_statistics(image).tolist(), strict=True)) == {
        "width": 320,
        "height": 200,
        "brightness": 100,
        "sharpness": 0,
    }


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (5000, 2), (64, 64)])
def test_images_of_any_size_have_finite_statistics(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    statistics = image_statistics(Image.fromarray(noise))
    assert statistics.dtype == np.float32 and statistics.shape == (4,)
    assert np.isfinite(statistics).all() and tuple(statistics[:2]) == size


def test_a_blurred_photograph_is_less_sharp_and_a_dimmed_one_less_bright() -> None:
    for path in stamps("plants")[:10]:
        image = on_white(path)
        whole = image_statistics(image)
        blurred = image_statistics(image.filter(ImageFilter.GaussianBlur(max(image.size) / 40)))
        dimmed = image_statistics(image.point(lambda value: value // 2))
        assert blurred[3] < 0.5 * whole[3] and blurred[2] == pytest.approx(whole[2], rel=0.05)
        assert dimmed[2] == pytest.approx(whole[2] / 2, abs=1)


def test_an_enlarged_photograph_stays_about_as_sharp() -> None:
    image = on_white(stamps("animals/mammals")[0])
    twice = image.resize((2 * image.width, 2 * image.height), Image.Resampling.LANCZOS)
    assert image_statistics(twice)[3] == pytest.approx(image_statistics(image)[3], rel=0.35)
