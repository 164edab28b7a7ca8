"""What is told of labels: nothing of test images, and nothing by a model that tells nothing."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.example_results import NAMES, choice_of, split_images
from training.evaluation.results import Results, RunMetrics, collect_results, suspects_as_lines
from training.export.model_card import suspects_in_words
from training.fitting.label_issues import SampleWeighting, muted_curation
from training.metrics import Curation, Floats
from training.progress import no_progress

RUN_METRICS = RunMetrics(
    weights="ImageNet",
    backbone="efficientnet_lite0",
    device="cpu",
    arithmetic="float32",
    notices=[],
    seconds={},
)


def collected(
    run: Path, strength: float, names: Sequence[str] = NAMES, own_test: bool = False
) -> tuple[Results, Floats]:
    """Results of a model that knows what images show so well; every twelfth is mislabelled."""
    random = np.random.default_rng(1)
    images = dataclasses.replace(split_images(run, names), own_test=own_test)
    truth = np.eye(len(names))[images.labels]
    mislabelled = np.zeros(len(images.rows), bool)
    for split in ("train", "val", "test"):
        mislabelled[images.indices(split)[::12]] = True
    shown = np.where(mislabelled[:, None], truth[:, ::-1], truth)
    logits = strength * shown + random.normal(size=truth.shape)
    embeddings = strength * shown.repeat(8, axis=1) + random.normal(size=(len(truth), 16))
    images = dataclasses.replace(images, embeddings=embeddings.astype(np.float32))
    novelty = np.where(np.arange(len(truth)) % 9, 0.2, 5.0) + 0.01 * random.random(len(truth))
    choice = choice_of(images, logits, novelty)
    return collect_results(images, choice, names, RUN_METRICS, no_progress)


def ranked(found: tuple[Results, Floats]) -> list[dict[str, Any]]:
    results, scores = found
    return [json.loads(line) for line in suspects_as_lines(results, scores, NAMES).splitlines()]


def test_test_images_are_ranked_but_never_called_suspect(imported_run: Path) -> None:
    found = collected(imported_run, strength=8.0)
    metrics = found[0].metrics
    rows = ranked(found)
    tested = [row for row in rows if row["split"] == "test"]
    assert metrics["verdict"] == "better" and len(tested) == metrics["split"]["test"]
    assert max(row["score"] for row in tested) > 0.7, "one of them is mislabelled"
    for key in ("kind", "suggested", "reason"):
        assert {row[key] for row in tested} == {None}
    kinds = [row["kind"] for row in rows if row["kind"]]
    assert set(kinds) == {"label", "outlier"}
    assert metrics["label_issues"] == kinds.count("label") > 0
    assert metrics["curation"]["suspects"] == len(kinds) == len(found[0].suspects)
    assert f"{metrics['label_issues']} pictures outside the test part" in suspects_in_words(metrics)


def test_a_model_that_tells_nothing_apart_calls_no_label_doubtful(imported_run: Path) -> None:
    found = collected(imported_run, strength=0.0)
    metrics = found[0].metrics
    rows = ranked(found)
    assert metrics["verdict"] != "better"
    assert metrics["label_issues"] == metrics["curation"]["suspects"] == 0
    assert found[0].suspects == [] and {row["kind"] for row in rows} == {None}
    assert {row["reason"] for row in rows} == {row["suggested"] for row in rows} == {None}
    assert len(rows) == sum(metrics["split"].values()) and rows[0]["score"] > rows[-1]["score"]
    assert "says nothing about the labels" in suspects_in_words(metrics)


def test_the_figure_is_that_of_the_test_images_where_somebody_has_chosen_them(
    imported_run: Path,
) -> None:
    usual = collected(imported_run, strength=8.0)[0].metrics
    own = collected(imported_run, strength=8.0, own_test=True)[0].metrics
    assert usual["headline"]["how"] == "cross_validated" and not usual["own_test"]
    assert own["headline"]["how"] == "test" and own["own_test"]
    assert own["cross_validated"] is None and own["headline"]["n"] == own["split"]["test"]
    assert "of the requester's own" in own["verdict_sentence"]


@pytest.mark.parametrize("name", ["none", "down-weighted"])
def test_a_weighting_that_was_shown_to_help_is_still_told(name: Any) -> None:
    weighting = SampleWeighting(name, np.full(4, 0.25), "It helped.")
    curation = Curation(
        suspects=3, treatment=name, pictures=weighting.lighter, sentence=weighting.sentence
    )
    muted = muted_curation(curation)
    assert muted["suspects"] == 0 and curation["suspects"] == 3
    assert (muted["sentence"] == "It helped.") == (name == "down-weighted")
