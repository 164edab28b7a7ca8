"""Numbers in words, so that report, card, plots, command line and site say the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from training.earlier_metrics import completed

_FEW_TEST_IMAGES = 100  # below this a linear head is judged by cross-validation
_LEAST_PERCENT = 0.1  # what is more than nothing, and less than all, is not rounded to it


def percent(share: float) -> str:
    """Return a share in [0, 1] as a percentage with at most one decimal: `94.2 %`.

    Only a share of 1 is 100 %, and only one of 0 is 0 %.
    """
    rounded = f"{_not_all_or_nothing(share):.1f}".removesuffix(".0")
    return f"{rounded} %"


def whole_percent(share: float) -> str:
    """Return a share in [0, 1] in whole per cent without the sign: `94`.

    What would wrongly be 100 or 0 gets a decimal: `99.7`.
    """
    rounded = f"{100 * share:.0f}"
    if rounded in ("0", "100"):
        return percent(share).removesuffix(" %")
    return rounded


def _not_all_or_nothing(share: float) -> float:
    """Return per cent that one decimal keeps apart from 0 and 100."""
    if share <= 0 or share >= 1:
        return 100 * share
    return min(max(100 * share, _LEAST_PERCENT), 100 - _LEAST_PERCENT)


def interval(bounds: Sequence[float]) -> str:
    """Return two shares as `88.1 % to 97.6 %`."""
    low, high = bounds
    return f"{percent(low)} to {percent(high)}"


def duration(seconds: float) -> str:
    """Return seconds as a person says them: `0.4 s`, `12 s`, `3 min 20 s`, `1 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if not minutes:
        return f"{rest} s"
    if not hours:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if not minutes_left:
        return f"{hours} h"
    return f"{hours} h {minutes_left} min"


def counted(count: int, one: str, several: str = "") -> str:
    """Return a number with its noun: `1 picture`, `3 pictures`, `no picture`."""
    if count == 0:
        return f"no {one}"
    if count == 1:
        return f"1 {one}"
    return f"{count:,} {several or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """Return words as a list: `corgi`, `corgi and fox`, `corgi, fox and wolf`."""
    if len(words) == 1:
        return words[0]
    beginning = ", ".join(words[:-1])
    return f"{beginning} and {words[-1]}"


def shortened(text: str, columns: int) -> str:
    """Return the text cut to so many columns, with an ellipsis where something is missing.

    Wide characters count two columns.
    """
    width = 0
    for index, character in enumerate(text):
        wide = unicodedata.east_asian_width(character) in "WF"
        width += 2 if wide else 1
        if width > columns:
            return text[: max(1, index - 1)] + "…"
    return text


def verdict(metrics: Mapping[str, Any]) -> str:
    """Return whether a model is better than guessing, and how often it is right, in sentences.

    Where a text-image model is right more often by the classes' names alone, the first sentence
    says so. From the figures of `metrics.json`, of earlier versions too. Page, mail, model card,
    report, command line, admin and demo all say this.
    """
    metrics = completed(metrics)
    first = opening(metrics).removesuffix(".")
    first += _below_names_alone(metrics)
    sentences = [f"{first}: {_headline_clause(metrics)}."]
    beside = _beside_headline(metrics)
    if beside:
        sentences.append(beside)
    sentences.append(_baseline_sentence(metrics))
    if not metrics["verified"]["n"]:
        sentences.append("Labels not checked.")
    return " ".join(sentences)


def opening(metrics: Mapping[str, Any]) -> str:
    """Return the verdict alone, as one short sentence."""
    metrics = completed(metrics)
    judged = metrics["headline"]["n"]
    verdict = metrics["verdict"]
    sentence = _OPENINGS[verdict]
    if verdict == "not_shown" and judged >= _MANY_IMAGES:
        sentence = _NOT_SHOWN_BY_MANY
    return f"{sentence}."


def names_alone(metrics: Mapping[str, Any]) -> str:
    """Return how often the classes' names alone are right, by a text-image model; "" without."""
    measured = completed(metrics)["zero_shot"]
    if not measured:
        return ""
    alone = percent(measured["accuracy"])
    ours = percent(metrics["headline"]["value"])
    pictures = counted(measured["n"], "picture")
    bounds = interval(measured["interval"])
    return (
        f"Names alone, without any training picture: {alone}; this model: {ours}. The names were"
        f" compared with the same {pictures} (95 % interval {bounds}) by the text-image model"
        f" {measured['model']}, whose licence is {measured['license']}."
    )


def refusal(metrics: Mapping[str, Any]) -> str:
    """Return how many of ten unrelated pictures are refused; "" where it was not measured.

    Report, model card, command line, page and mail all say this.
    """
    strangers = completed(metrics)["strangers"]
    if not strangers:
        return ""
    of_ten = round(10 * strangers["refused"] / strangers["n"])
    return f"Refuses about {of_ten} of 10 unrelated pictures."


def refusal_measured(metrics: Mapping[str, Any]) -> str:
    """Return the counts behind `refusal`, and those of the classes left out; "" without any."""
    metrics = completed(metrics)
    sentences = []
    strangers = metrics["strangers"]
    if strangers:
        sentences.append(f"{strangers['refused']} of {strangers['n']} were refused.")
        sentences.append(strangers["how"])
    left_out = metrics["left_out_class"]
    if left_out:
        pictures = counted(left_out["n"], "picture")
        sentences.append(
            f"With each of {left_out['classes']} classes left out in turn, {left_out['refused']:,}"
            f" of {pictures} of the class that was left out were refused."
        )
    return " ".join(sentences)


def _below_names_alone(metrics: Mapping[str, Any]) -> str:
    """Return the clause for a model that the names alone surpass, "" for others."""
    measured = metrics["zero_shot"]
    if not measured or metrics["headline"]["value"] >= measured["accuracy"]:
        return ""
    alone = percent(measured["accuracy"])
    return f", and the names alone, without any training picture, do better ({alone})"


def baseline(metrics: Mapping[str, Any]) -> float:
    """Return how often naming the largest class is right, on the images that are judged.

    That is on all images where they were cross-validated, else on the test images.
    """
    cross_validated = completed(metrics)["cross_validated"]
    if not cross_validated:
        return float(metrics["majority_baseline"])
    supports = [row["support"] for row in cross_validated["per_class"].values()]
    return float(max(supports) / sum(supports))


def headline_title(metrics: Mapping[str, Any]) -> str:
    """Return what the first figure is, as a title: `Right by cross-validation`."""
    metrics = completed(metrics)
    how = metrics["headline"]["how"]
    if how == "test" and metrics["own_test"]:
        return _TITLE_OF_OWN
    return _TITLES[how]


def headline_counts(metrics: Mapping[str, Any]) -> str:
    """Return the counts behind the first figure: `38 of 40 pictures`."""
    headline = completed(metrics)["headline"]
    hits = headline["hits"]
    pictures = counted(headline["n"], "picture")
    return f"{hits:,} of {pictures}"


def headline_figure(metrics: Mapping[str, Any]) -> str:
    """Return the first figure whole: `95 % (38 of 40 pictures; 95 % interval 83.5 % to 98.6 %)`."""
    headline = completed(metrics)["headline"]
    share = percent(headline["value"])
    bounds = interval(headline["interval"])
    return f"{share} ({headline_counts(metrics)}; 95 % interval {bounds})"


def figure_on_test(metrics: Mapping[str, Any]) -> str:
    """Return the figure of the test pictures: `100 % (6 of 6 pictures; 95 % interval ...)`."""
    tested = metrics["split"]["test"]
    hits = round(metrics["accuracy"] * tested)
    share = percent(metrics["accuracy"])
    bounds = interval(metrics["interval"])
    pictures = counted(tested, "picture")
    return f"{share} ({hits:,} of {pictures}; 95 % interval {bounds})"


_OPENINGS = {
    "better": "This model tells the classes apart",
    "not_shown": "With so few pictures it is not shown that this model is better than guessing",
    "no_better": "This model is no better than guessing",
}
_TITLES = {
    "test": "Right on the test pictures",
    "cross_validated": "Right by cross-validation",
    "verified": "Right on test pictures with checked labels",
}
_TITLE_OF_OWN = "Right on the requester's own test pictures"
_MANY_IMAGES = 1000  # from so many on it is not for want of images
_NOT_SHOWN_BY_MANY = "It is not shown that this model is better than guessing"
_UNEQUAL = 0.1  # by how much the largest class exceeds its fair share, for classes to be unequal


def _headline_clause(metrics: Mapping[str, Any]) -> str:
    headline = metrics["headline"]
    hits = f"{headline['hits']:,}"
    judged = headline["n"]
    share = percent(headline["value"])
    bounds = interval(headline["interval"])
    figure = f"({share}; 95 % interval {bounds})"
    if headline["how"] == "verified":
        pictures = counted(judged, "test picture")
        checked = metrics["verified"]["n"]
        if checked > judged:  # others show none of the classes, or it is not said which
            whose = f"whose class a person named, of {checked:,} checked"
        else:
            whose = f"whose {'label' if judged == 1 else 'labels'} a person checked"
        return f"right on {hits} of the {pictures} {whose} {figure}"
    if headline["how"] == "cross_validated":
        pictures = counted(judged, "picture")
        return (
            f"right on {hits} of {pictures} {figure} by cross-validation,"
            " each judged by a model that never saw it or a copy of it"
        )
    tested = counted(judged, "test picture")
    if metrics["own_test"]:
        return f"right on {hits} of the requester's own {tested}, which it never saw {figure}"
    return f"right on {hits} of {tested} that it never saw {figure}"


def _beside_headline(metrics: Mapping[str, Any]) -> str:
    """Return a sentence about the figures that the headline stands beside, "" without any."""
    how = metrics["headline"]["how"]
    tested = metrics["split"]["test"]
    hits = round(metrics["accuracy"] * tested)
    cross_validated = metrics["cross_validated"]
    if how == "cross_validated":
        pictures = counted(tested, "test picture")
        return f"On the {pictures} held out from the start it is right on {hits:,}."
    if how == "verified" and cross_validated:
        judged = cross_validated["n"]
        judged_hits = round(cross_validated["accuracy"] * judged)
        pictures = counted(judged, "picture")
        return (
            "With labels as they were found, cross-validation is right on"
            f" {judged_hits:,} of {pictures}."
        )
    if how == "verified":
        pictures = counted(tested, "test picture")
        return f"With labels as they were found, it is right on {hits:,} of {pictures}."
    if metrics.get("delivered") == "network" and tested < _FEW_TEST_IMAGES:
        return (
            "Cross-validation judges linear classifiers only, so this figure of the fine-tuned"
            " network comes from its test pictures."
        )
    return ""


def _baseline_sentence(metrics: Mapping[str, Any]) -> str:
    """Return how often the largest class alone is right; of unequal classes the mean recall too."""
    figures = metrics["cross_validated"] or metrics
    largest = baseline(metrics)
    sentence = f"Always naming the largest class would be right on {percent(largest)}."
    fair_share = 1 / len(figures.get("per_class") or [1])
    if largest > fair_share + _UNEQUAL:
        balanced = percent(figures["balanced_accuracy"])
        sentence += f" When every class counts the same, the model is right on {balanced}."
    return sentence
