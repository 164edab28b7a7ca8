"""The table of verdicts as metrics of a whole run, for every place that says one."""

from __future__ import annotations

from typing import Any, cast

from tests.training.test_phrases import VERDICTS
from training.metrics import Metrics

CASES = tuple(VERDICTS)


def sentences(case: str) -> str:
    """What every place must say."""
    return VERDICTS[case][1]


def whole(base: Metrics, case: str) -> Metrics:
    """Metrics of a run of two classes, changed to the figures of the case."""
    given, expected = VERDICTS[case]
    changed: dict[str, Any] = {**base, **given, **figures(base, given)}
    changed["verified"] = {"right": 0, "wrong": 0, "off_topic": 0, **given["verified"]}
    changed["split"] = {**base["split"], "test": given["split"]["test"]}
    if given["cross_validated"]:
        validated = given["cross_validated"]
        changed["cross_validated"] = {**changed, **validated, **figures(base, validated)}
    changed["better_than_chance"] = given["verdict"] == "better"
    changed["verdict_sentence"] = expected
    return cast(Metrics, changed)


def figures(base: Metrics, given: dict[str, Any]) -> dict[str, Any]:
    """The figures of each class; one that the case does not name has no images."""
    per_class = {}
    for name, (label, row) in zip("ab", base["per_class"].items(), strict=True):
        per_class[label] = {**row, **given["per_class"].get(name, {"support": 0})}
    return {"per_class": per_class, "confusion": base["confusion"]}
