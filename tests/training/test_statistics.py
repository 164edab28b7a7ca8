import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps
from sklearn.metrics import roc_auc_score

from tests.training.conftest import on_white, stamps
from training.images.statistics import IMAGE_STATISTICS, image_statistics


def test_statistics_stand_in_the_order_of_their_names() -> None:
    image = Image.new("RGB", (320, 200), (100, 100, 100))
    named = dict(zip(IMAGE_STATISTICS, image_statistics(image).tolist(), strict=True))
    expected = {
        "width": 320,
        "height": 200,
        "brightness": 100,
        "sharpness": 0,
        "colourfulness": 0,
        "border_flatness": 1,
        "border_brightness": 100,
        "border_spread": 0,
        "text": 0,
    }
    assert named == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (5000, 2), (64, 64)])
def test_images_of_any_size_have_finite_statistics(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    statistics = image_statistics(Image.fromarray(noise))
    assert statistics.dtype == np.float32 and statistics.shape == (len(IMAGE_STATISTICS),)
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


def value_of(name: str, image: Image.Image) -> float:
    return float(image_statistics(image)[IMAGE_STATISTICS.index(name)])


def test_pure_colours_are_more_colourful_than_pastels_and_grey_is_not_colourful() -> None:
    halves = Image.new("RGB", (200, 200), (255, 0, 0))
    halves.paste((0, 0, 255), (0, 0, 100, 200))
    pastel = Image.blend(halves, Image.new("RGB", halves.size, "white"), 0.7)
    assert value_of("colourfulness", halves) > 2 * value_of("colourfulness", pastel) > 20
    for path in stamps("plants")[:5]:
        assert value_of("colourfulness", on_white(path).convert("L").convert("RGB")) < 0.01


def test_colourfulness_is_the_metric_of_its_paper() -> None:
    """Half red, half blue: rg is 255 and 0, yb 127.5 and -255."""
    halves = Image.new("RGB", (160, 160), (255, 0, 0))
    halves.paste((0, 0, 255), (0, 0, 80, 160))
    red_green = np.array([255.0, 0.0])
    yellow_blue = np.array([127.5, -255.0])
    spread = np.hypot(red_green.std(), yellow_blue.std())
    strength = np.hypot(red_green.mean(), yellow_blue.mean())
    assert value_of("colourfulness", halves) == pytest.approx(spread + 0.3 * strength, rel=0.01)


def test_a_frame_is_a_flat_border_and_noise_is_none() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    plain = Image.fromarray(noise)
    framed = ImageOps.expand(plain, 12, "white")
    bars = ImageOps.expand(plain, (0, 60), "black")
    assert value_of("border_flatness", plain) < 0.2
    assert value_of("border_flatness", framed) == 1
    assert value_of("border_flatness", bars) > 0.45
    assert value_of("border_brightness", framed) > 250 and value_of("border_spread", framed) < 2


@pytest.mark.parametrize("size", [(480, 360), (1024, 768), (360, 640)])
def test_captions_are_found_in_photographs_of_any_size(size: tuple[int, int]) -> None:
    """The area under the ROC curve, of photographs with a line of text against those without."""
    pictures = [on_white(path).resize(size) for path in stamps("plants", "food", "animals")[:60]]
    without = [value_of("text", picture) for picture in pictures]
    font = ImageFont.load_default(size=size[1] // 16)
    captioned = []
    for number, picture in enumerate(pictures):
        draw = ImageDraw.Draw(picture)
        line = f"Picture {number} of the agency"
        middle = (size[0] / 2, size[1] * 0.92)
        draw.text(middle, line, "white", font, "mm", stroke_width=2, stroke_fill="black")
        captioned.append(value_of("text", picture))
    truth = [0] * len(without) + [1] * len(captioned)
    assert roc_auc_score(truth, without + captioned) > 0.95
