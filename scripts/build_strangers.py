"""Make the bundled strangers: pictures of many things, that a model's refusal is measured on.

    python scripts/build_strangers.py --photographs SKIMAGE_DATA --drawings OPENCLIPART_PNG

`SKIMAGE_DATA` is the folder `skimage/data` of scikit-image 0.26, `OPENCLIPART_PNG` the folder
`/usr/share/openclipart/png` of the package openclipart-png. Pages, screens and some textures are
drawn by formula. The same sources give the same pictures. What a picture is, who made it and under
which licence goes into the table beside them.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.images.decode import read_image
from training.networks.strangers import COLUMNS, FOLDER, TABLE

_SIDE = 208  # pixels of the longer side
_QUALITY = 80
_PUBLIC_DOMAIN = {
    "astronaut.png",
    "clock_motion.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "text.png",
}
"""The others of scikit-image are CC0, as its docstrings say."""
_OWN = ("drawn by scripts/build_strangers.py", "as Picaisso")

# Words that a class about the picture could have in its name.
PHOTOGRAPHS = {
    "astronaut.png": ("photograph", "NASA", "astronaut person people woman face portrait flag"),
    "camera.png": ("photograph", "Lav Varshney", "camera person people man photographer tripod"),
    "chelsea.png": ("photograph", "Stefan van der Walt", "cat animal mammal pet kitten tabby"),
    "clock_motion.png": ("photograph", "Stefan van der Walt", "clock watch"),
    "coffee.png": ("photograph", "Rachel Michetti", "coffee cup mug spoon drink food tableware"),
    "rocket.jpg": ("photograph", "SpaceX", "rocket vehicle spacecraft launch"),
    "hubble_deep_field.jpg": ("photograph", "NASA", "galaxy star space sky night"),
    "retina.jpg": ("photograph", "Mikael Häggström", "retina eye medical"),
    "cell.png": ("photograph", "scikit-image", "cell microscope medical"),
    "text.png": ("page", "scikit-image", "text page document writing"),
    "brick.png": ("texture", "CC0Textures", "brick wall building"),
    "grass.png": ("texture", "linolafett", "grass plant meadow lawn"),
    "gravel.png": ("texture", "CC0Textures", "gravel stone rock"),
}
DRAWINGS = {
    "animals/mammals/dolphin_01.png": "dolphin animal mammal fish whale",
    "animals/mammals/deer_matt_todd_01.png": "deer animal mammal",
    "animals/mammals/dogs/black_lab_ganson.png": "dog animal mammal pet labrador",
    "animals/mammals/bunny_01.png": "rabbit bunny hare animal mammal pet",
    "animals/mammals/elephant_01.png": "elephant animal mammal",
    "animals/birds/dove_symbol.png": "bird dove pigeon animal",
    "animals/rana_architetto_francesc_01.png": "frog toad animal amphibian",
    "people/a_happy_boy_01.png": "boy child person people man face",
    "people/ballerina_architetto_fra_01.png": "dancer woman person people sport",
    "people/fireman_enrique_meza_c_01.png": "fireman firefighter man person people",
    "transportation/airplane.png": "airplane plane vehicle transport sign",
    "transportation/bicycle_philippe_colin_01.png": "bicycle bike vehicle transport",
    "transportation/bus_01.png": "bus vehicle transport",
    "transportation/motorcycle_jarno_vasama_.png": "motorcycle motorbike vehicle transport",
    "transportation/old_car_lumen_design_st_r.png": "car automobile vehicle transport",
    "food/beverages/teapot_ganson.png": "teapot tea drink tableware",
    "food/breads_and_carbs/croissant_01.png": "croissant bread food pastry",
    "food/desserts/birthday_cake.png": "cake food dessert",
    "food/fruit/lemon.png": "lemon fruit food plant",
    "plants/flowers/bouquet_of_flowers_01.png": "flower bouquet plant",
    "plants/trees/tree_01.png": "tree plant",
    "plants/cactus_linda_kim_01.png": "cactus plant",
    "tools/hammer_peterm1.png": "hammer tool",
    "tools/umbrella.png": "umbrella",
    "tools/key_jordan_wiens_01.png": "key tool",
    "tools/scissors_02.png": "scissors scissor tool",
    "buildings/church_building_01_01.png": "church building house",
    "buildings/water_tower_ganson.png": "tower building",
    "buildings/furniture/soft_blue_couch_jonadab_01.png": "couch sofa furniture chair",
    "recreation/music/guitar_ganson.png": "guitar instrument music",
    "recreation/music/piano_geraint_luff_01.png": "piano instrument music furniture",
    "recreation/sports/tennis_racket_01.png": "racket sport tennis",
    "recreation/sports/soccer_ball_ganson.png": "ball football soccer sport",
    "recreation/toys/simple_teddy_bear_gerald_01.png": "bear toy animal",
    "recreation/games/dice.png": "dice die game toy",
    "geography/world_map_02.png": "map world",
    "electronics/bulb/lightbulb_jon_phillips_01.png": "bulb lamp light",
    "education/books/stack_of_books_01.png": "book",
    "computer/hardware/laptop.png": "laptop computer screen",
    "signs_and_symbols/flag_of_brazil_rodrigo_t1.png": "flag",
    "signs_and_symbols/clocks/clock04.png": "clock watch",
    "science/astronomy/saturn_dan_gerhards_01.png": "planet saturn space",
}
PATTERNS = {
    "special/patterns/pattern-puzzle-jigsaw-2.png": "pattern jigsaw puzzle",
    "special/patterns/pattern-arches-intersecting-2.png": "pattern arch",
    "special/patterns/pattern-diamond-squares-4.png": "pattern diamond square",
}
# Any class whose name speaks of the kind itself.
KIND_WORDS = {
    "photograph": "photograph photo",
    "drawing": "drawing clipart cartoon illustration icon",
    "page": "page document text screenshot screen chart",
    "texture": "texture pattern fabric textile",
}


def main() -> None:
    """Write pictures and table into the package."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--drawings", type=Path, required=True)
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    rows = []
    for name, (kind, author, words) in PHOTOGRAPHS.items():
        image = read_image(options.photographs / name)
        licence = "public domain" if name in _PUBLIC_DOMAIN else "CC0"
        rows.append(_write(image, Path(name).stem, kind, words, f"{author}, scikit-image", licence))
    for kind, drawings in (("drawing", DRAWINGS), ("texture", PATTERNS)):
        for name, words in drawings.items():
            image = read_image(options.drawings / name)
            licence = "public domain (Open Clip Art)"
            rows.append(_write(image, Path(name).stem, kind, words, name, licence))
    for number in range(_PAGES):
        rows.append(_write(page(number), f"page{number}", "page", "", *_OWN))
    for number in range(_TEXTURES):
        rows.append(_write(texture(number), f"texture{number}", "texture", "", *_OWN))
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def _write(
    image: Image.Image, name: str, kind: str, words: str, source: str, licence: str
) -> list[str]:
    """Write one picture and return its row of the table."""
    file = f"{name.strip('_')}.jpg"
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE))
    small.save(FOLDER / file, quality=_QUALITY, optimize=True)
    every_word = f"{words} {KIND_WORDS[kind]}".strip()
    return [file, kind, every_word, source, licence]


_PAGES = 9
_TEXTURES = 6
_LINE = 9  # pixels from a line of writing to the next
_INK = (40, 40, 48)
_COLOURS = ((46, 96, 180), (200, 80, 50), (60, 140, 90), (150, 90, 160), (220, 170, 40))


def page(number: int) -> Image.Image:
    """Return a page of writing, a table, a chart or a screen with windows, drawn at random."""
    random = np.random.default_rng(number)
    width = int(random.integers(150, _SIDE + 1))
    image = Image.new("RGB", (width, _SIDE), (250, 250, 248))
    draw = ImageDraw.Draw(image)
    painters = (_write_lines, _draw_bars, _draw_windows)
    painters[number % len(painters)](draw, width, random)
    return image


def _write_lines(draw: ImageDraw.ImageDraw, width: int, random: np.random.Generator) -> None:
    """Fill a page with bars as long as words."""
    for top in range(14, _SIDE - 12, _LINE):
        left = 14
        while left < width - 24:
            length = int(random.integers(5, 26))
            right = min(left + length, width - 14)
            draw.rectangle((left, top, right, top + 3), fill=_INK)
            left = right + 4


def _draw_bars(draw: ImageDraw.ImageDraw, width: int, random: np.random.Generator) -> None:
    """Draw a bar chart with its axes."""
    bottom = _SIDE - 20
    draw.line((20, 12, 20, bottom, width - 10, bottom), fill=_INK, width=2)
    for number, left in enumerate(range(28, width - 20, 18)):
        height = int(random.integers(12, bottom - 14))
        colour = _COLOURS[number % len(_COLOURS)]
        draw.rectangle((left, bottom - height, left + 11, bottom - 2), fill=colour)


def _draw_windows(draw: ImageDraw.ImageDraw, width: int, random: np.random.Generator) -> None:
    """Draw windows with a title bar, buttons and lines."""
    background = tuple(int(value) for value in random.integers(60, 160, 3))
    draw.rectangle((0, 0, width, _SIDE), fill=background)
    for _ in range(3):
        left = int(random.integers(0, width // 2))
        top = int(random.integers(0, _SIDE // 2))
        right = left + int(random.integers(70, 130))
        bottom = top + int(random.integers(60, 110))
        colour = _COLOURS[int(random.integers(len(_COLOURS)))]
        draw.rectangle((left, top, right, bottom), fill=(244, 244, 246), outline=_INK)
        draw.rectangle((left, top, right, top + 10), fill=colour)
        for line in range(top + 18, bottom - 6, _LINE):
            end = int(random.integers(left + 20, right - 6))
            draw.rectangle((left + 6, line, end, line + 3), fill=(120, 120, 130))


def texture(number: int) -> Image.Image:
    """Return waves, checks or spots in two colours, drawn at random."""
    random = np.random.default_rng(100 + number)
    down, across = np.mgrid[0:_SIDE, 0:_SIDE] / _SIDE
    frequency = float(random.uniform(4, 16))
    turned = across + float(random.uniform(-1, 1)) * down
    waves = np.sin(2 * np.pi * frequency * turned)
    if number % 3 == 1:
        waves = np.sign(waves * np.sin(2 * np.pi * frequency * down))
    if number % 3 == 2:
        waves = random.normal(size=(_SIDE, _SIDE))
    share = (np.clip(waves, -1, 1)[:, :, None] + 1) / 2
    first = random.uniform(0, 255, 3)
    second = random.uniform(0, 255, 3)
    values: NDArray[np.float64] = share * first + (1 - share) * second
    return Image.fromarray(values.astype(np.uint8))


if __name__ == "__main__":
    main()
