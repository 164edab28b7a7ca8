"""Maps of the evidence, nearest images, and the choice of examples."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.example_results import results_of
from training.evaluation.results import Results
from training.explanations import (
    colour_scale,
    evidence,
    nearest_images,
    overlay,
    read_neighbours,
    write_neighbours,
)
from training.export.report_images import best, examples_of_each_class, worst

ROOT = Path(__file__).resolve().parents[2]


def write_neighbours_of(results: Results, folder: Path) -> None:
    embeddings = results.embeddings[results.learned_indices()]
    write_neighbours(folder, results.learned_images(), embeddings)


def one_cell(row: int, column: int) -> np.ndarray:
    cam = np.zeros((7, 7))
    cam[row, column] = 2.0
    return cam


def lightness(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"), np.float64)


@pytest.mark.parametrize(("width", "height"), [(400, 256), (256, 400), (256, 256), (1024, 700)])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 3), (6, 1)])
def test_a_map_is_brightest_where_its_cell_lies_in_the_middle_of_the_image(
    width: int, height: int, row: int, column: int
) -> None:
    shown = overlay(Image.new("RGB", (width, height), "grey"), one_cell(row, column), 256)
    assert shown.size == (width, height)
    side = 224 / 256 * min(width, height)  # of what the network sees
    y, x = np.argwhere(lightness(shown) >= lightness(shown).max() - 1).mean(axis=0)
    assert abs(y - ((height - side) / 2 + (row + 0.5) * side / 7)) < side / 14
    assert abs(x - ((width - side) / 2 + (column + 0.5) * side / 7)) < side / 14


@pytest.mark.parametrize(("resize_side", "side"), [(256, 224), (232, 247)])
def test_what_the_network_does_not_see_is_dimmed_and_without_colour(
    resize_side: int, side: int
) -> None:
    shown = np.asarray(
        overlay(Image.new("RGB", (600, 256), (200, 150, 100)), np.ones((7, 7)), resize_side),
        np.int64,
    )
    coloured = np.abs(shown[..., 0] - shown[..., 2]) > 10
    rows, columns = np.flatnonzero(coloured.any(axis=1)), np.flatnonzero(coloured.any(axis=0))
    assert len(rows) == len(columns) == side and coloured.sum() == side**2
    assert abs(columns[0] - (600 - side) / 2) <= 1 and abs(rows[0] - (256 - side) / 2) <= 1
    assert shown[~coloured].max() < 80


def test_the_map_of_a_whole_image_covers_it_and_nothing_of_its_padding() -> None:
    picture = Image.new("RGB", (700, 300), "grey")
    for column in (0, 6):
        shown = overlay(picture, one_cell(3, column), None)
        assert shown.size == (700, 300)
        y, x = np.argwhere(lightness(shown) >= lightness(shown).max() - 1).mean(axis=0)
        assert abs(x - (column + 0.5) * 100) < 50 and abs(y - 150) < 50
    padded = lightness(overlay(picture, one_cell(0, 3), None, height=1.0))
    assert padded.max() - padded.min() < 5, "the cell lies above the picture"


@pytest.mark.parametrize("resize_side", [256, None])
@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (2, 1)])
@pytest.mark.parametrize("cam", [np.zeros((7, 7)), -np.ones((7, 7)), one_cell(3, 3)])
def test_odd_images_and_maps_without_evidence_are_shown_too(
    size: tuple[int, int], cam: np.ndarray, resize_side: int | None
) -> None:
    assert overlay(Image.new("RGB", size, "white"), cam, resize_side).size == size


def test_two_maps_in_one_scale_can_be_compared() -> None:
    grey = Image.new("RGB", (256, 256), "grey")
    strong, weak = (
        overlay(grey, one_cell(3, 3), 256, height=2.0),
        overlay(grey, one_cell(3, 3) / 4, 256, height=2.0),
    )
    assert lightness(strong).max() > 1.3 * lightness(weak).max()
    assert np.array_equal(overlay(grey, one_cell(3, 3) / 4, 256), strong)


def test_the_colours_grow_evenly_in_lightness() -> None:
    colours = colour_scale() / 255
    assert colours.shape == (256, 3) and colours.min() >= 0 and colours.max() <= 1
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    lightness = (
        116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    )  # CIE L*, another measure than they are made by
    steps = np.diff(lightness[::16])
    assert (steps > 0).all() and steps.max() < 2.5 * steps.min()


def test_evidence_is_what_a_class_has_more_than_the_others() -> None:
    cams = np.random.default_rng(0).normal(size=(3, 7, 7))
    assert np.allclose(evidence(cams, 1), evidence(cams + 5 * np.ones((7, 7)), 1))
    assert np.allclose(sum(evidence(cams, number) for number in range(3)), 0)


def test_an_image_that_was_not_learned_from_has_its_embedding_and_is_nobodys_neighbour(
    imported_run: Path, tmp_path: Path
) -> None:
    results = results_of(imported_run)
    learned = results.learned_indices()
    other = np.arange(results.embeddings.shape[1], dtype=np.float32)
    embeddings = results.embeddings[learned]
    write_neighbours(tmp_path, results.learned_images(), embeddings, {"images/other.jpg": other})
    found = read_neighbours(tmp_path)
    assert found is not None
    read = found.embedding_of("other.jpg")
    assert read is not None and read.tolist() == other.tolist()
    assert found.embedding_of("nowhere.jpg") is None
    nearest = found.nearest(other, len(learned) + 1)
    assert len(nearest) == len(learned)
    name = Path(nearest[0][0].file).name
    assert found.embedding_of(name) is not None


def test_the_nearest_images_are_those_of_the_highest_cosine() -> None:
    random = np.random.default_rng(0)
    references, wanted = random.normal(size=(50, 8)), random.normal(size=8)
    cosines = references @ wanted / np.linalg.norm(references, axis=1) / np.linalg.norm(wanted)
    found = nearest_images(wanted, references, 4)
    assert [index for index, _ in found] == np.argsort(-cosines)[:4].tolist()
    assert np.allclose([cosine for _, cosine in found], np.sort(cosines)[::-1][:4], atol=1e-6)
    assert nearest_images(100 * references[7], references.astype(np.float16), 1)[0] == (
        7,
        pytest.approx(1, abs=1e-3),
    )
    assert nearest_images(wanted, references[:2], 5) == nearest_images(wanted, references[:2], 2)
    assert nearest_images(wanted, references[:0], 3) == [] == nearest_images(wanted, references, 0)
    assert nearest_images(np.zeros(8), references, 1)[0][1] == 0


def test_the_worst_are_the_surest_mistakes_and_the_best_the_surest_hits(imported_run: Path) -> None:
    results = results_of(imported_run)
    own = results.probabilities[np.arange(len(results.rows)), results.labels]
    right = results.probabilities.argmax(axis=1) == results.labels
    bad, good = worst(results), best(results)
    mistakes = [index for index in bad if not right[index]]
    tested = [index for index, row in enumerate(results.rows) if row.split == "test"]
    assert mistakes and bad[: len(mistakes)] == mistakes
    assert sorted(mistakes) == [index for index in tested if not right[index]]
    assert own[mistakes].tolist() == sorted(own[mistakes])
    assert own[good].tolist() == sorted(own[good], reverse=True) and right[good].all()
    assert not set(bad) & set(good) and set(bad) | set(good) == set(tested)
    assert worst(results, 1) == bad[:1] and best(results, 2) == good[:2]


def test_examples_are_of_their_class_and_predicted_right(imported_run: Path) -> None:
    results = results_of(imported_run)
    of_mammal, of_plant = examples_of_each_class(results, 2)
    assert len(of_mammal) == len(of_plant) == 2
    for number, indices in enumerate((of_mammal, of_plant)):
        assert all(results.labels[index] == number for index in indices)
        assert all(results.probabilities[index].argmax() == number for index in indices)
        assert all(results.rows[index].split == "test" for index in indices)


@pytest.mark.parametrize(
    ("delivered", "splits"), [("head", {"train", "val"}), ("network", {"train"})]
)
def test_learned_images_are_those_that_the_delivered_model_saw(
    imported_run: Path, delivered: str, splits: set[str]
) -> None:
    results = results_of(imported_run, delivered=delivered)
    assert {results.rows[index].split for index in results.learned_indices()} == splits


def test_the_neighbours_file_gives_back_file_class_credit_and_page(
    imported_run: Path, tmp_path: Path
) -> None:
    results = results_of(imported_run)
    write_neighbours_of(results, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["neighbours.npz"]
    neighbours = read_neighbours(tmp_path)
    assert neighbours
    indices = results.learned_indices()
    assert len(neighbours.images) == len(indices) and neighbours.embeddings.dtype == np.float16
    for index in (indices[0], indices[5]):
        row = results.rows[index]
        ((image, cosine),) = neighbours.nearest(results.embeddings[index], 1)
        assert (image.file, image.credit, image.page_url) == (
            row.file,
            row.credit,
            row.page_url,
        )
        assert image.label == ("mammal", "plant")[
            results.labels[index]
        ] and cosine == pytest.approx(1, abs=1e-3)


def test_neighbours_of_another_network_are_nobodys(imported_run: Path, tmp_path: Path) -> None:
    results = results_of(imported_run)
    write_neighbours_of(results, tmp_path)
    neighbours = read_neighbours(tmp_path)
    assert neighbours
    assert neighbours.nearest(results.embeddings[0][:5], 3) == []


def test_a_neighbours_file_that_is_missing_or_damaged_is_no_file(
    imported_run: Path, tmp_path: Path
) -> None:
    assert read_neighbours(tmp_path) is None
    write_neighbours_of(results_of(imported_run), tmp_path)
    path = tmp_path / "neighbours.npz"
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(damaged)
        assert read_neighbours(tmp_path) is None
    for arrays in (
        {"rows": np.zeros(3, np.uint8), "embeddings": np.zeros((1, 2), np.float16)},
        {"rows": np.frombuffer(b"[]", np.uint8), "embeddings": np.zeros((1, 2), np.float16)},
        {
            "rows": np.frombuffer(b'[{"file": "a"}]', np.uint8),
            "embeddings": np.zeros((1, 2), np.float16),
        },
        {"rows": np.frombuffer(b"[]", np.uint8)},
    ):
        np.savez(path, **arrays)
        assert read_neighbours(tmp_path) is None


@pytest.mark.parametrize(
    "module",
    [
        "explanations",
        "phrases",
        "metrics",
        "export.plots",
        "export.report",
        "export.model_card",
        "export.report_images",
    ],
)
def test_explanations_plots_and_report_load_no_torch_and_no_matplotlib(module: str) -> None:
    code = (
        f"import sys, training.{module};"
        "print([m for m in ('torch', 'matplotlib', 'django') if m in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout.strip() == "[]", ended.stderr
