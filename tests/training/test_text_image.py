"""An optional text-image model: a second opinion on labels, and a baseline without training."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.training.example_text_image import (
    COLORS,
    LENGTH,
    graph_for_black_images,
    image_graph,
    text_graph,
    write_pair,
)
from training.__main__ import main
from training.fitting.off_topic import find_not_shown
from training.progress import no_progress
from training.run_folder import ImageRow, RunError, read_manifest
from training.text_image import FILES, OTHER_SENTENCES, TextImageModel

RED = (230, 20, 30)
BLUE = (20, 40, 220)
WHITE = (250, 250, 250)
WORDS = {**COLORS, "drawing": (1, 1, 1)}


@pytest.mark.parametrize("batch", ["n", 1])
def test_the_sentence_that_fits_an_image_gets_the_probability(
    tmp_path: Path, batch: int | str
) -> None:
    model = TextImageModel(write_pair(tmp_path, batch=batch))
    images = [Image.new("RGB", (40, 30), color) for color in (RED, BLUE, WHITE)] * 7
    found = model.probabilities(images, ["A photo of RED", "a photo of blue", "a screenshot"])
    assert found.shape == (21, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-9)
    np.testing.assert_array_equal(found.argmax(axis=1), [0, 1, 2] * 7)
    assert (model.name, model.license) == ("Mean colour", "CC0-1.0")


def test_a_long_text_is_cut_and_short_ones_are_padded(tmp_path: Path) -> None:
    model = TextImageModel(write_pair(tmp_path))
    image = [Image.new("RGB", (8, 8), RED)]
    late = " ".join(["word"] * LENGTH + ["red"])
    early = " ".join(["red"] + ["word"] * 50)
    found = model.probabilities(image, [late, early, "blue"])
    assert found[0].argmax() == 1


def test_pictures_are_squashed_or_cropped_as_the_config_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (300, 100), BLUE)
    image.paste(RED, (100, 0, 200, 100))  # the middle third
    for resize, first in (("squash", "blue"), ("crop", "red")):
        model = TextImageModel(write_pair(tmp_path / resize, resize=resize))
        found = model.probabilities([image], ["red", "blue"])
        assert ["red", "blue"][found[0].argmax()] == first


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def damaged(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(b"\x08\x07 no such file")


def configured(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        values = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in values.items() if value != "-"}))

    return change


def swapped(folder: Path) -> None:
    (folder / "image.onnx").rename(folder / "other")
    (folder / "text.onnx").rename(folder / "image.onnx")
    (folder / "other").rename(folder / "text.onnx")


def of_two_pictures(folder: Path) -> None:
    onnx.save(image_graph(2), folder / "image.onnx")


def of_more_numbers(folder: Path) -> None:
    onnx.save(text_graph("n", WORDS, 5), folder / "text.onnx")


def of_few_words(folder: Path) -> None:
    onnx.save(text_graph("n", {}), folder / "text.onnx")  # the tokenizer knows more words


def that_keeps_the_map(folder: Path) -> None:
    graph = image_graph()
    graph.graph.node[0].attribute[0].i = 1  # keepdims
    del graph.graph.output[0].type.tensor_type.shape.dim[:]
    onnx.save(graph, folder / "image.onnx")


BROKEN = {
    **{f"no {name}": (without(name), f"has no {name}.") for name in FILES},
    "image.onnx damaged": (damaged("image.onnx"), "image.onnx is damaged or not ONNX."),
    "text.onnx damaged": (damaged("text.onnx"), "text.onnx is damaged or not ONNX."),
    "tokenizer damaged": (damaged("tokenizer.json"), "tokenizer.json cannot be read."),
    "config damaged": (damaged("config.json"), "config.json is not JSON."),
    "no license": (configured(license="-"), "config.json names no license."),
    "blank license": (configured(license="  "), "config.json names no license."),
    "license no text": (configured(license=3), "holds no text as license."),
    "no mean": (configured(mean="-"), "holds no three numbers as mean."),
    "std of two": (configured(std=[1, 2]), "holds no three numbers as std."),
    "no scale": (configured(logit_scale="-"), "holds no usable number as logit_scale."),
    "odd length": (configured(context_length=-4), "holds no usable number as context_length."),
    "swapped": (swapped, "image.onnx does not take one float32 picture [n, 3, h, w]."),
    "two at once": (of_two_pictures, "image.onnx takes no single picture or text."),
    "other numbers": (of_more_numbers, "embeddings of 3 and 5 numbers."),
    "other words": (of_few_words, "does not run on a picture and a text."),
    "no embeddings": (that_keeps_the_map, "image.onnx does not answer with embeddings [n, d]."),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_folder_that_is_of_no_use_is_refused_in_a_sentence(case: str, tmp_path: Path) -> None:
    break_it, sentence = BROKEN[case]
    folder = write_pair(tmp_path / "pair", words=WORDS)
    TextImageModel(folder)
    break_it(folder)
    with pytest.raises(RunError) as refusal:
        TextImageModel(folder)
    assert refusal.value.reason.endswith(sentence) and refusal.value.reason.count(". ") == 0
    assert str(tmp_path) not in refusal.value.reason and not refusal.value.retry


def test_scores_of_a_run_pass_over_a_picture_that_has_gone(tmp_path: Path) -> None:
    model = TextImageModel(write_pair(tmp_path / "pair"))
    Image.new("RGB", (20, 20), BLUE).save(tmp_path / "blue.png")
    rows = [ImageRow("gone.png", "c001", "0"), ImageRow("blue.png", "c002", "1")]
    scores = model.score(tmp_path, rows, ["red", "blue"], no_progress)
    assert scores.probabilities.shape == (2, 2 + len(OTHER_SENTENCES))
    assert np.ptp(scores.probabilities[0]) == 0
    assert scores.predicted().tolist() == [0, 1]


def test_doubts_name_what_is_seen_and_spare_a_class_whose_name_is_not_known() -> None:
    others = len(OTHER_SENTENCES)
    sees_red = [0.9, 0.05, *[0.05 / others] * others]
    sees_blue = [0.05, 0.9, *[0.05 / others] * others]
    sees_page = [0.02, 0.02, 0.96, *[0.0] * (others - 1)]
    unsure = [0.4, 0.5, 0.1, *[0.0] * (others - 1)]
    probabilities = np.array([sees_red, sees_red, sees_blue, sees_page, sees_red, unsure])
    found = find_not_shown(probabilities, np.zeros(6, int), ("red", "blue"))
    assert [(one.index, one.kind, one.suggested) for one in found] == [
        (2, "label", 1),
        (3, "off_topic", None),
    ]
    assert found[0].reason == "A text-image model sees “blue” (90%) rather than “red” (5%)."
    assert found[1].reason == "A text-image model sees a web page (96%) rather than “red” (2%)."
    assert found[1].score == pytest.approx(0.97)
    assert find_not_shown(probabilities, np.ones(6, int), ("red", "blue")) == []


def colored(seed: int, color: tuple[int, int, int]) -> Image.Image:
    """Noise about a colour, so that no two are near-duplicates."""
    random = np.random.default_rng(seed)
    coarse = random.integers(-90, 90, (6, 6, 3)) + np.array(color)
    pixels = np.clip(coarse, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((120, 90), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run of 24 red and 24 blue pictures; two of the former are called blue."""
    folder = tmp_path_factory.mktemp("colors")
    number = 0
    for name, color, count in (("red", RED, 24), ("blue", BLUE, 22), ("blue", RED, 2)):
        (folder / "in" / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            number += 1
            colored(number, color).save(folder / "in" / name / f"{number}.png")
    arguments = ["fit", "--images", str(folder / "in"), "--out", str(folder / "run"), "--json"]
    arguments += ["--backbone", "efficientnet_lite0", "--finetune", "never"]
    arguments += ["--data-dir", str(folder)]
    pair = write_pair(folder / "pair")
    assert main([*arguments, "--text-image-model", str(pair)]) == 0
    return folder / "run"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_training_tells_what_the_names_alone_would_do_and_whose_model_said_so(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    zero_shot = metrics["zero_shot"]
    assert zero_shot["n"] == metrics["headline"]["n"] == 48
    assert (zero_shot["model"], zero_shot["license"]) == ("Mean colour", "CC0-1.0")
    table = rows_of(run / "predictions.csv")
    hits = sum(row["zero_shot"] == row["class"] for row in table)
    assert zero_shot["accuracy"] == pytest.approx(hits / 48) == pytest.approx(46 / 48)
    low, high = zero_shot["interval"]
    assert low < zero_shot["accuracy"] < high
    for name in ("README.md", "report.html"):
        text = (run / "model" / name).read_text().replace("\N{NO-BREAK SPACE}%", " %")
        assert "Names alone, without any training picture: 95.8 %; this model: " in text
        assert "Mean colour" in text and "CC0-1.0" in text
    config = (run / "model" / "config.json").read_text()
    assert "text_image" not in config, "a path of this machine"


def test_a_training_suspects_what_does_not_show_its_name_but_no_test_picture(run: Path) -> None:
    wrong = {row["file"] for row in rows_of(run / "predictions.csv")
             if row["zero_shot"] != row["class"] and row["split"] != "test"}  # fmt: skip
    rows = [json.loads(line) for line in (run / "suspects.jsonl").read_text().splitlines()]
    suspected = {row["file"]: row for row in rows if row["kind"]}
    assert wrong <= set(suspected)
    for file in wrong:
        assert suspected[file]["kind"] == "label" and suspected[file]["suggested"] == "red"
    assert {row["kind"] for row in rows if row["split"] == "test"} == {None}
    assert len(rows) == 48, "nothing is dropped"


def test_judgements_compare_the_names_on_the_pictures_of_the_new_headline(
    run: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    before = (copy / "metrics.json").read_bytes()
    tested = [row for row in read_manifest(copy) if row.split == "test"]
    lines = ["file,verified", *(f"{row.file},right" for row in tested)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    assert main(["verify", str(copy), str(tmp_path / "labels.csv")]) == 0
    metrics = json.loads((copy / "metrics.json").read_text())
    assert metrics["headline"]["how"] == "verified" and metrics["zero_shot"]["n"] == len(tested)
    lines = ["file,verified", *(f"{row.file}," for row in tested)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    assert main(["verify", str(copy), str(tmp_path / "labels.csv")]) == 0
    assert (copy / "metrics.json").read_bytes() == before


def test_a_bad_folder_stops_before_anything_is_computed(
    untrained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pair = write_pair(tmp_path / "pair")
    (pair / "LICENSE").unlink()
    monkeypatch.setenv("PICAISSO_TEXT_IMAGE_MODEL", str(pair))
    assert main(["fit", str(untrained_run)]) == 1
    said = capsys.readouterr().err
    assert "The folder of the text-image model has no LICENSE." in said
    assert not (untrained_run / "checkpoints" / "features").exists()
    assert main(["fit", str(untrained_run), "--text-image-model", str(tmp_path / "none")]) == 1
    assert "The folder of the text-image model is not there." in capsys.readouterr().err


def test_a_model_that_fails_on_the_pictures_costs_nothing_but_its_answers(
    run: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "result.json").unlink()
    pair = write_pair(tmp_path / "pair")
    onnx.save(graph_for_black_images(), pair / "image.onnx")
    assert main(["fit", str(copy), "--text-image-model", str(pair)]) == 0
    metrics = json.loads((copy / "metrics.json").read_text())
    assert metrics["zero_shot"] is None and metrics["verdict"] == "better"
    assert (
        "The text-image model failed on these pictures, so it says nothing." in metrics["notices"]
    )
    assert "zero_shot" not in rows_of(copy / "predictions.csv")[0]
    assert "Names alone" not in (copy / "model" / "report.html").read_text()
