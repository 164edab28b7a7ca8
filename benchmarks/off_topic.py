"""How many pages, drawings and photographs the pretrained network's ImageNet classifier suspects.

    python -m benchmarks.off_topic [--pages 8] [FOLDER...]

Pages of nine kinds are rendered by Chromium, with other words and sizes each time; photographs and
cartoons are those of tuxpaint-stamps-default, drawings those of openclipart-png, as far as they are
installed. Each further FOLDER of pictures is a row of its own. A picture's share is the probability
of ImageNet's classes that are pages, screens, packets or comics; from 0.5 on it is suspected.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.photographs import STAMPS
from training.images.decode import BrokenImageError, read_image
from training.metrics import Floats
from training.networks.backbones import BACKBONES, load_backbone
from training.networks.catalogue import BUNDLED
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.networks.imagenet import ImageNetHead
from training.networks.weights import WeightSources

DRAWINGS = Path("/usr/share/openclipart/png")
MOST = 400  # pictures of a folder
_AT_ONCE = 16
_SIZES = ("1200,900", "800,1000", "1000,1000", "1400,800")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_WORDS = "about city home learn light market music news people power pricing school state travel"


def main() -> None:
    """Print one row per kind of picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--pages", type=int, default=8, help="of each kind, default 8")
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    judge = Judge()
    print(f"{'pictures':34} {'n':>5} {'median':>7} {'p95':>6} {'> 0.3':>6} {'> 0.5':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for kind in PAGES:
            paths = rendered(kind, options.pages, Path(folder))
            _print_row(f"pages: {kind}", judge.page_shares(paths))
    for title, paths in installed_sets().items():
        _print_row(title, judge.page_shares(paths))
    for folder in options.folders:
        _print_row(folder.name, judge.page_shares(_pictures(folder)))


class _Raw(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


def _print_row(title: str, shares: Floats) -> None:
    if not len(shares):
        print(f"{title:34} none here")
        return
    median = np.median(shares)
    high = np.quantile(shares, 0.95)
    counts = [int((shares >= threshold).sum()) for threshold in (0.3, 0.5)]
    print(f"{title:34} {len(shares):5} {median:7.3f} {high:6.3f} {counts[0]:6} {counts[1]:6}")


class Judge:
    """The bundled network with the classifier of its weights."""

    network: ClassifierNetwork
    imagenet: ImageNetHead

    def __init__(self) -> None:
        loaded = load_backbone(BACKBONES[BUNDLED], "pretrained", WeightSources(None, Path(), ""))
        assert loaded.imagenet is not None
        self.imagenet = loaded.imagenet
        self.network = ClassifierNetwork(loaded.backbone, loaded.network, 2)

    def page_shares(self, paths: Sequence[Path]) -> Floats:
        """Return the shares [n] of the pictures that can be read."""
        shares: list[float] = []
        for images in _batches(paths):
            embeddings = embed_images(self.network, images)
            shares.extend(self.imagenet.page_share(embeddings))
        return np.array(shares)


def _batches(paths: Sequence[Path]) -> Iterator[list[Image.Image]]:
    for start in range(0, len(paths), _AT_ONCE):
        images = []
        for path in paths[start : start + _AT_ONCE]:
            try:
                images.append(read_image(path))
            except BrokenImageError:
                continue
        if images:
            yield images


def installed_sets() -> Mapping[str, list[Path]]:
    """Return the pictures of installed packages by title; an absent package's are none."""
    stamps = sorted(STAMPS.rglob("*.png"))
    cartoons = [path for path in stamps if "cartoon" in str(path)]
    photographs = [path for path in stamps if "cartoon" not in str(path)]
    signs = [path for path in photographs if "symbols" in str(path)]
    others = [path for path in photographs if "symbols" not in str(path)]
    return {
        "stamps: photographs, cut out": others,
        "stamps: letters, signs, notes": signs,
        "stamps: cartoons": cartoons,
        "openclipart: drawings": _pictures(DRAWINGS),
    }


def _pictures(folder: Path) -> list[Path]:
    """Return pictures below a folder, a fixed random choice where they are many."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES:
            found.append(path)
    random.Random(0).shuffle(found)
    return found[:MOST]


def rendered(kind: str, count: int, folder: Path) -> list[Path]:
    """Return screenshots of pages of a kind by Chromium; none where it is not installed."""
    screenshots = []
    for number in range(count):
        page = folder / f"{kind}-{number}.html"
        screenshot = page.with_suffix(".png")
        chosen = random.Random(number)
        page.write_text(PAGES[kind](chosen), encoding="utf-8")
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu"]
        command.append(f"--window-size={_SIZES[number % len(_SIZES)]}")
        command += [f"--screenshot={screenshot}", page.as_uri()]
        try:
            subprocess.run(command, capture_output=True, check=True, timeout=60)
        except FileNotFoundError:
            return []
        screenshots.append(screenshot)
    return screenshots


def _line(chosen: random.Random, words: int) -> str:
    line = " ".join(chosen.choice(_WORDS.split()) for _ in range(words))
    return line.capitalize()


def _color(chosen: random.Random, lightness: int) -> str:
    return f"hsl({chosen.randrange(360)}, 60%, {lightness}%)"


def _article(chosen: random.Random) -> str:
    body = f"<h1>{_line(chosen, 6)}</h1>"
    for _ in range(6):
        body += f"<p>{_line(chosen, 60)}."
    bar = f"<div style='background:{_color(chosen, 35)};color:#fff;padding:12px'>Home News</div>"
    return f"<body style='font-family:sans-serif;margin:30px'>{bar}{body}"


def _shop(chosen: random.Random) -> str:
    body = "<body style='font-family:sans-serif'><h2>Products</h2>"
    for _ in range(12):
        picture = f"<div style='height:140px;background:{_color(chosen, 70)}'></div>"
        price = f"<p>${chosen.randrange(3, 99)}.00<p><button>Add to cart</button>"
        style = "display:inline-block;width:200px;margin:10px;border:1px solid #ccc"
        body += f"<div style='{style}'>{picture}<b>{_line(chosen, 3)}</b>{price}</div>"
    return body


def _menu(chosen: random.Random) -> str:
    body = "<body style='font-family:serif;background:#fdf6e3;text-align:center'><h1>Menu</h1>"
    for _ in range(16):
        body += f"<p>{_line(chosen, 4)} ..... {chosen.randrange(5, 30)}.50"
    return body


def _chat(chosen: random.Random) -> str:
    body = "<body style='background:#e5ddd5;font-family:sans-serif'>"
    for number in range(12):
        side = number % 2
        color = ("#fff", "#dcf8c6")[side]
        style = f"margin:8px {38 * side}%;padding:8px;border-radius:8px;background:{color}"
        body += f"<div style='{style}'>{_line(chosen, 14)}</div>"
    return body


def _slide(chosen: random.Random) -> str:
    points = ""
    for _ in range(5):
        points += f"<li>{_line(chosen, 6)}"
    style = f"background:{_color(chosen, 25)};color:white;font:36px sans-serif;padding:60px"
    return f"<body style='{style}'><h1>{_line(chosen, 4)}</h1><ul>{points}</ul>"


def _table(chosen: random.Random) -> str:
    body = "<body style='font-family:monospace'><table border=1>"
    for _ in range(30):
        body += "<tr>"
        for _ in range(10):
            body += f"<td>{chosen.randrange(10000)}"
    return body


def _chart(chosen: random.Random) -> str:
    bars = ""
    for _ in range(10):
        height = chosen.randrange(50, 430)
        bars += f"<div style='width:60px;margin:10px;height:{height}px;background:#47a'></div>"
    style = "display:flex;align-items:flex-end;height:450px;border-left:2px solid"
    return f"<h2>{_line(chosen, 3)}</h2><div style='{style}'>{bars}</div>"


def _comic(chosen: random.Random) -> str:
    body = "<body style='font-family:cursive'>"
    for _ in range(6):
        balloon = "background:white;border:2px solid;border-radius:50%;padding:20px"
        panel = f"background:{_color(chosen, 80)};border:4px solid;width:360px;height:280px"
        body += f"<div style='display:inline-block;margin:6px;{panel}'>"
        body += f"<div style='{balloon}'>{_line(chosen, 5)}</div></div>"
    return body


def _logo(chosen: random.Random) -> str:
    radius = chosen.choice((0, 50, 300))
    style = f"font:bold 160px sans-serif;color:{_color(chosen, 45)};border:20px solid"
    word = chosen.choice(_WORDS.split())
    return f"<div style='{style};border-radius:{radius}px;margin:80px;padding:40px'>{word}</div>"


PAGES: Mapping[str, Callable[[random.Random], str]] = {
    "article": _article,
    "shop": _shop,
    "menu": _menu,
    "chat": _chat,
    "slide": _slide,
    "table": _table,
    "chart": _chart,
    "comic": _comic,
    "logo": _logo,
}
"""Kind to what makes the HTML of one such page."""


if __name__ == "__main__":
    main()
