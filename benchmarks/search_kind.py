"""What the kind of things in a search brings where names mean several things.

A gallery site holds photographs under two names with two meanings each: `jaguar` finds mammals and
vehicles, `leopard` birds and clothes. Mammals and birds are meant. The real collection, with the
source for Bing and a real Chromium, fills a quota per class, with the names alone and with the kind
`animal`; the smaller quota can be filled with what is meant, the larger one cannot.

``right`` is the share of the kept images that show what is meant. ``accuracy`` is the balanced
accuracy of the linear head, fitted on what was collected (embeddings of efficientnet_lite0), on
other photographs of what is meant. Figures are means over the seeds in percent, with the standard
error of the mean; ``gain`` is that of the paired differences.
"""

import argparse
import json
import math
import random
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.image_sets import network
from benchmarks.photographs import photographs
from scraping.collect import collect
from scraping.config import CollectConfig
from scraping.gallery import GalleryServer
from training.fitting.linear_head import Samples, fit_head
from training.images.decode import read_image
from training.metrics import balanced_accuracy
from training.networks.classifier import ClassifierNetwork
from training.networks.embeddings import embed_images
from training.progress import no_progress

KIND = "animal"
MEANT: Mapping[str, Sequence[str]] = {
    "jaguar": ["animals/mammals"],
    "leopard": ["animals/birds"],
}
NOT_MEANT: Mapping[str, Sequence[str]] = {
    "jaguar": ["vehicles", "household"],
    "leopard": ["clothes", "hobbies"],
}
SEARCHABLE = 22  # photographs of each meaning in the gallery
TESTED = 12  # others of what is meant, to test with
QUOTAS = (15, 32)
MIN_SIDE = 64


@dataclass(frozen=True)
class Scores:
    """The share of right images, and the accuracy of the head that they make."""

    right: float
    accuracy: float


def build_gallery(folder: Path, seed: int) -> dict[str, list[Path]]:
    """Write the gallery's pictures, and return those of what is meant that it does not get."""
    draw = random.Random(seed)
    held_out = {}
    for name, sources in MEANT.items():
        files = photographs(sources)
        draw.shuffle(files)
        held_out[name] = files[SEARCHABLE : SEARCHABLE + TESTED]
        _write(files[:SEARCHABLE], folder / "animals" / name, draw)
    for name, sources in NOT_MEANT.items():
        files = photographs(sources)
        draw.shuffle(files)
        _write(files[:SEARCHABLE], folder / "things" / name, draw)
    return held_out


def _write(files: Sequence[Path], folder: Path, draw: random.Random) -> None:
    """Write pictures under random names: the gallery's order comes from the names."""
    folder.mkdir(parents=True)
    for file in files:
        name = f"{draw.getrandbits(64):016x}.jpg"
        read_image(file).save(folder / name, "JPEG", quality=90)


def collected(folder: Path, gallery: GalleryServer, quota: int, kind: str) -> list[Path]:
    """Collect both classes, and return the kept images; one that is right lies below `animals`."""
    classes = []
    for number, name in enumerate(MEANT, start=1):
        classes.append({"id": f"c{number:03d}", "name": name, "query": name})
    values = {
        "classes": classes,
        "kind": kind,
        "limit": quota,
        "sources": ["bing"],
        "source_urls": {"bing": gallery.url},
        "allowed_private_hosts": [urlsplit(gallery.url).netloc],
        "min_side": MIN_SIDE,
    }
    collect(folder, CollectConfig.of(values))
    kept = []
    for line in (folder / "images.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["state"] == "kept":
            path = unquote(urlsplit(row["image_url"]).path)
            kept.append(gallery.collection.folder / path.removeprefix("/pictures/"))
    return kept


def scores(
    kept: Sequence[Path],
    held_out: Mapping[str, Sequence[Path]],
    seed: int,
    bundled: ClassifierNetwork,
) -> Scores:
    """Return how good a collection is, and what it teaches."""
    names = list(MEANT)
    labels = np.array([names.index(path.parent.name) for path in kept])
    samples = Samples(embedded(kept, bundled), labels, np.arange(len(kept)), len(names))
    head = fit_head(samples, seed, no_progress).head
    test_files: list[Path] = []
    test_labels: list[int] = []
    for label, name in enumerate(names):
        test_files += held_out[name]
        test_labels += [label] * len(held_out[name])
    predicted = head.logits(embedded(test_files, bundled)).argmax(axis=1)
    accuracy = balanced_accuracy(predicted, np.array(test_labels))
    right = sum("animals" in path.parts for path in kept) / len(kept)
    return Scores(right, accuracy)


def embedded(files: Sequence[Path], bundled: ClassifierNetwork) -> NDArray[np.float32]:
    """Return the embeddings [n, d] of image files."""
    images = [read_image(file) for file in files]
    return embed_images(bundled, images)


def measured(seed: int, bundled: ClassifierNetwork) -> dict[tuple[int, str], Scores]:
    """Return the scores of one gallery, by quota and kind."""
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        held_out = build_gallery(root / "gallery", seed)
        with GalleryServer(root / "gallery") as gallery:
            threading.Thread(target=gallery.serve_forever, daemon=True).start()
            for quota in QUOTAS:
                for kind in ("", KIND):
                    folder = root / f"{quota}{kind}"
                    kept = collected(folder, gallery, quota, kind)
                    found[quota, kind] = scores(kept, held_out, seed, bundled)
            gallery.shutdown()
    return found


def table(seeds: int) -> Table:
    """Measure and return the table."""
    runs = []
    bundled = network()
    for seed in track(range(seeds), "collecting", console=Console(stderr=True)):
        runs.append(measured(seed, bundled))
    title = f"Two meanings under each name, {seeds} seeds"
    columns = ("quota", "figure", "names alone", f"with “{KIND}”", "gain")
    result = Table(*columns, title=title)
    for quota in QUOTAS:
        for figure in ("right", "accuracy"):
            plain = np.array([getattr(run[quota, ""], figure) for run in runs])
            asked = np.array([getattr(run[quota, KIND], figure) for run in runs])
            gain = asked - plain
            result.add_row(str(quota), figure, mean(plain), mean(asked), mean(gain))
    return result


def mean(values: NDArray[np.float64]) -> str:
    """Return the mean in percent and its standard error."""
    error = 0.0
    if len(values) > 1:
        error = values.std(ddof=1) / math.sqrt(len(values))
    return f"{100 * values.mean():.1f} ± {100 * error:.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    Console().print(table(given.seeds))


if __name__ == "__main__":
    main()
