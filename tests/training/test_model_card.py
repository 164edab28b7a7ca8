"""The model card: the figures of the report, in Markdown that no class name can break."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training.example_results import CURVE, NETWORK, results_of, tuned
from training.evaluation.results import Results
from training.export.model_card import model_card, suspects_in_words
from training.networks.backbones import BACKBONES
from training.phrases import figure_on_test, interval, percent, verdict

HOSTILE = ("a | b\n# c", "<script>*x*</script> [y](z) `w`")


def card_of(results: Results, backbone: str = "efficientnet_lite0") -> str:
    config: dict[str, Any] = {
        "label_names": list(results.metrics["per_class"]),
        "architecture": BACKBONES[backbone].architecture,
        "num_classes": 2,
        "pretrained_cfg": {"input_size": [3, 224, 224]},
        "picaisso_version": "0.1.0",
        "temperature": results.metrics["temperature"],
    }
    return model_card(config, results.metrics, BACKBONES[backbone])


def table(card: str, head: str) -> list[str]:
    """The lines of the table whose head begins so."""
    lines = card.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(head))
    return lines[start : lines.index("", start)]


def test_the_card_begins_with_what_model_hubs_read_and_then_the_verdict(imported_run: Path) -> None:
    results = results_of(imported_run, verdict="better")
    _, front, body = card_of(results).split("---\n", 2)
    read = yaml.safe_load(front)
    assert read["pipeline_tag"] == "image-classification" and read["library_name"] == "timm"
    (result,) = read["model-index"][0]["results"]
    headline = results.metrics["headline"]
    assert headline["how"] == "cross_validated"
    (accuracy,) = result["metrics"]
    assert accuracy["value"] == round(headline["value"], 4)
    counts = f"{headline['hits']} of 76 pictures"
    assert accuracy["name"] == f"Right by cross-validation: {counts}"
    assert "cross-validated" in result["dataset"]["split"]
    assert f"On the test pictures alone it is right on {figure_on_test(results.metrics)}." in body
    assert body.strip().splitlines()[2] == verdict(results.metrics)


def test_the_card_has_the_figures_of_the_report(imported_run: Path) -> None:
    results = tuned(
        results_of(
            imported_run, notices=["Weights were missing."], shortcut_sentence="Size tells it."
        )
    )
    card, metrics = card_of(results), results.metrics
    for row in metrics["per_class"].values():
        assert (
            f"| {percent(row['precision'])} | {percent(row['recall'])} | {row['support']} |" in card
        )
    for row in metrics["by_source"].values():
        assert (
            f"| {percent(row['accuracy'])} | {interval(row['interval'])} | {row['support']} |"
            in card
        )
    head = metrics["head"]
    assert f"| linear head | {percent(head['accuracy'])} |" in card
    assert f"| {head['val_loss']:.3f} |" in card
    accuracy = percent(NETWORK["accuracy"])
    bounds = interval(NETWORK["interval"])
    assert f"| fine-tuned network | {accuracy} | {bounds} | 0.234 |" in card
    assert all(percent(share) in card for share in metrics["shortcuts"].values())
    for words in (
        "> Weights were missing.",
        "The network is better.",
        "Size tells it.",
        CURVE["sentence"],
    ):
        assert words in card
    assert (
        f"refused {metrics['unknown']['refused']} of 12" in card
        and "above 0.700 is called unknown" in card
    )
    assert suspects_in_words(metrics) in card
    assert "fine-tuned EfficientNet-Lite0" in card and "computed in float32" in card


def test_the_card_calls_c_the_inverse_of_the_regularisation(imported_run: Path) -> None:
    card = card_of(results_of(imported_run, regularisation=0.01))
    assert "the inverse regularisation of the linear head (C = 0.01)" in card
    assert "the regularisation of the linear head" not in card


def test_a_head_alone_without_a_learning_curve_is_told_as_such(imported_run: Path) -> None:
    card = card_of(results_of(imported_run))
    assert (
        "| fine-tuned network |" not in card
        and "trained a linear classifier on the features of" in card
    )
    assert "can be measured from 300 on" in card and "No sign of a shortcut" in card


def test_class_names_cannot_break_tables_headings_or_lines(imported_run: Path) -> None:
    card = card_of(results_of(imported_run, HOSTILE, choice=f"It is better at {HOSTILE[1]}."))
    assert [line for line in card.splitlines() if line.startswith("# ")] == [
        r"# Picture classifier: a \| b \# c, \<script\>\*x\*\</script\> \[y\](z) \`w\`"
    ]
    for head in ("| class |", "|  | a "):
        lines = table(card, head)
        assert len(lines) == 4
        assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
    assert "<script" not in card.replace(r"\<script", "")


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_the_card_says_how_to_load_each_backbone(imported_run: Path, backbone: str) -> None:
    card = card_of(results_of(imported_run), backbone)
    library = "timm.create_model" if backbone == "efficientnet_lite0" else "torchvision.models"
    assert f"model = {library}" in card and 'load_file("model.safetensors")' in card
    assert ("local-dir:." in card) is BACKBONES[backbone].in_timm
    assert (
        f"shorter side to {BACKBONES[backbone].resize}" in card
        and "python predict.py --check" in card
    )


def test_no_card_blames_the_time_where_there_are_too_few_images_for_a_curve(
    imported_run: Path,
) -> None:
    card = card_of(results_of(imported_run, split={"train": 20, "val": 5, "test": 5}))
    assert "can be measured from 300 on" in card
    assert "no time left" not in card
