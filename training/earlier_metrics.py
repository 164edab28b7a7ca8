"""Metrics of earlier versions, completed by the keys that came later.

Version 0.1.0 tested the accuracy on the test images against the share of the largest class, which
few test images cannot pass, however good the model: its "not better than chance" says little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ENOUGH = 100  # test images from which a model that fails can be called no better than guessing
_LEAST_USE = 0.2  # of the way from guessing to certainty, as in `training.metrics`

# What runs that have a verdict may lack.
_LATEST: dict[str, Any] = {
    "off_topic": 0,
    "zero_shot": None,
    "own_test": False,
    "strangers": None,
    "left_out_class": None,
    "view": {"chosen": "crop", "sentence": "The middle of each picture.", "losses": {}},
}


def completed(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics with every key that came later, from verdict and headline to suspects.

    Those that are there stay. Of an earlier version the headline is the figure of the test images.
    """
    added = {key: value for key, value in _LATEST.items() if key not in metrics}
    metrics = {**metrics, **added}
    if "verdict" in metrics and "headline" in metrics:
        return metrics
    tested = metrics["split"]["test"]
    accuracy = metrics["accuracy"]
    headline = {
        "value": accuracy,
        "interval": list(metrics["interval"]),
        "n": tested,
        "hits": round(accuracy * tested),
        "how": "test",
    }
    later: dict[str, Any] = {
        "verdict": _verdict(metrics),
        "headline": headline,
        "cross_validated": None,
        "verified": {"n": 0, "right": 0, "wrong": 0, "off_topic": 0},
        "label_noise": None,
        "unseen_source": [],
        "unseen_sources": None,
        "unseen_sentence": "",
        "shortcut_sentence": metrics.get("shortcut_warning") or "",
    }
    return {**later, **metrics}


def _verdict(metrics: Mapping[str, Any]) -> str:
    """Return the verdict that the figures of an earlier version allow."""
    if metrics["better_than_chance"]:
        return "better"
    if metrics["split"]["test"] < _ENOUGH:
        return "not_shown"
    balanced_accuracy = metrics.get("balanced_accuracy", metrics["accuracy"])
    chance = metrics["majority_baseline"]
    if "per_class" in metrics:
        chance = 1 / len(metrics["per_class"])
    of_use = chance + _LEAST_USE * (1 - chance)
    uncertainty = metrics["interval"][1] - metrics["accuracy"]
    return "no_better" if balanced_accuracy + uncertainty < of_use else "not_shown"
