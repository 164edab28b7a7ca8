"""A person's judgements of test images, counted into a finished run's figures without training.

What the model said of each image stands in `predictions.csv`, what the person said in
`verified.csv`. The figures follow from both, and all files that show them are written again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from training.class_names import shown_name
from training.evaluation.shortcuts import independent_counts, shortcuts_in_words
from training.export.model_card import model_card
from training.export.report_page import (
    KeptSuspect,
    ReportContext,
    read_context,
    render_page,
    with_metrics,
    write_context,
)
from training.fitting.label_issues import muted_curation
from training.judgements import Judgement, State, read_judgements, read_labels, write_judgements
from training.metrics import (
    Headline,
    Judged,
    LabelNoise,
    Metrics,
    Shortcuts,
    Verdict,
    Verified,
    ZeroShot,
    grouped_interval,
    judge,
    measured_headline,
    read_metrics,
    zero_shot,
)
from training.networks.catalogue import CATALOGUE
from training.phrases import verdict
from training.predictions import (
    FIT_AGAIN,
    PREDICTIONS_FILE,
    SUSPECTS_FILE,
    SUSPICION_KEYS,
    PredictedImage,
    read_predictions,
    read_suspects,
)
from training.run_folder import (
    RunError,
    exclusive,
    read_config,
    read_json,
    read_manifest,
    read_result,
    write_json,
    write_text,
)

# Judged test images from which on the figure is theirs, where not all are judged: right on all of
# them means 89 % at least.
_ENOUGH_VERIFIED = 30


def verify(run_dir: Path, table: Path) -> Metrics:
    """Take over a table of judgements, and return the figures that follow from all judgements.

    Nothing is changed where the table or the run folder cannot be used, or another process is
    writing the figures: RunError says why. Killed anywhere and started again it ends the same.
    """
    with exclusive(run_dir):
        run = _FinishedRun(run_dir)
        changes = read_labels(table, run.rows, run.classes)
        judgements = read_judgements(run_dir)
        for file, judgement in changes.items():
            if judgement is None:
                judgements.pop(file, None)
            else:
                judgements[file] = judgement
        write_judgements(run_dir, judgements)
        return run.publish(judgements)


def count_again(run_dir: Path) -> Metrics:
    """Count the judgements of a finished run again, after images have left it."""
    run = _FinishedRun(run_dir)
    judgements = read_judgements(run_dir)
    return run.publish(judgements)


def with_judgements(
    metrics: Metrics,
    predicted: Sequence[PredictedImage],
    judgements: Mapping[str, Judgement],
    class_ids: Sequence[str],
) -> Metrics:
    """Return the metrics with what follows from the judgements of test images.

    Judgements of other images have no part in it. `class_ids` are in output order.
    """
    judged = []
    tested = [image for image in predicted if image.split == "test"]
    for image in tested:
        judgement = judgements.get(image.file)
        if judgement and judgement.label in ("", *class_ids):
            judged.append(_JudgedImage(image, judgement))
    changed = metrics.copy()
    changed["verified"] = _verified(judged)
    changed["label_noise"] = _label_noise(judged)
    changed["headline"] = _verified_headline(judged, len(tested)) or measured_headline(metrics)
    usable = {one.image.file: one.judgement for one in judged}
    changed["verdict"] = _judge_again(metrics, predicted, usable, class_ids)
    changed["better_than_chance"] = changed["verdict"] == "better"
    changed.update(_shortcuts(changed, predicted, class_ids))
    changed["zero_shot"] = _names_alone(changed, predicted, usable, class_ids)
    changed["verdict_sentence"] = verdict(changed)
    return changed


def update_checksums(folder: Path, names: Sequence[str]) -> None:
    """Write the digests of these files into the SHA256SUMS beside them."""
    sums = folder / "SHA256SUMS"
    lines = []
    for line in sums.read_text(encoding="utf-8").splitlines():
        name = line.partition("  ")[2]
        if name in names:
            content = (folder / name).read_bytes()
            line = f"{hashlib.sha256(content).hexdigest()}  {name}"
        lines.append(f"{line}\n")
    write_text(sums, "".join(lines))


class _FinishedRun:
    """A run whose figures can be written again."""

    def __init__(self, folder: Path) -> None:
        """Read all that is needed, so that nothing is missing once writing has begun."""
        _check_finished(folder)
        self.rows = read_manifest(folder)
        self.classes = read_config(folder).classes
        self._class_ids = [label.id for label in self.classes]
        self._predicted = read_predictions(folder, self._class_ids)
        self._folder = folder
        self._metrics = read_metrics(folder)
        self._config = read_json(folder / "model" / "config.json")
        self._suspects = read_suspects(folder)
        context = _read_context(folder)
        backbone = CATALOGUE.get(self._config.get("backbone", ""))
        predicted_files = {image.file for image in self._predicted}
        for row in self.rows:
            if row.split and row.file not in predicted_files:
                reason = f"The run folder's {PREDICTIONS_FILE} lacks pictures of the run."
                raise RunError("evaluate", reason, FIT_AGAIN, retry=False)
        if context is None or backbone is None:
            reason = "The run folder lacks what its report and card are written from."
            raise RunError("evaluate", reason, FIT_AGAIN, retry=False)
        self._context = context
        self._backbone = backbone

    def publish(self, judgements: Mapping[str, Judgement]) -> Metrics:
        """Write every file again that shows the figures, and return the metrics."""
        metrics = with_judgements(self._metrics, self._predicted, judgements, self._class_ids)
        context = _with_kept_suspects(self._context, self._metrics, self._suspects)
        metrics = _with_suspects_counted(metrics, context)
        context = with_metrics(context, metrics)
        card = model_card(self._config, metrics, self._backbone)
        page = render_page(context)
        model = self._folder / "model"
        # First: what leaves the list of suspects now can be put back later.
        write_context(self._folder, context)
        _write_suspects(self._folder, self._suspects, metrics, context)
        write_text(model / "README.md", card)
        write_text(model / "report.html", page)
        write_json(model / "metrics.json", metrics)
        update_checksums(model, ("README.md", "report.html", "metrics.json"))
        write_json(self._folder / "metrics.json", metrics)
        return metrics


@dataclass(frozen=True)
class _JudgedImage:
    image: PredictedImage
    judgement: Judgement


def _verified(judged: Sequence[_JudgedImage]) -> Verified:
    counts: Counter[State] = Counter(one.judgement.state for one in judged)
    return Verified(
        n=len(judged),
        right=counts["right"],
        wrong=counts["other class"],
        off_topic=counts["off-topic"],
    )


def _label_noise(judged: Sequence[_JudgedImage]) -> LabelNoise | None:
    """Return the share of wrong labels among those that were checked; None where none was."""
    if not judged:
        return None
    wrong = np.array([one.judgement.state != "right" for one in judged])
    groups = np.array([one.image.group for one in judged])
    interval = grouped_interval(wrong, groups)
    return LabelNoise(share=float(wrong.mean()), interval=list(interval))


def _verified_headline(judged: Sequence[_JudgedImage], tested: int) -> Headline | None:
    """Return the accuracy on the images of which it is known which class they show.

    None where too few of the test images are judged to say more than all of them do unchecked.
    """
    known = [one for one in judged if one.judgement.label]
    is_enough = len(judged) == tested or len(known) >= _ENOUGH_VERIFIED
    if not known or not is_enough:
        return None
    hits = np.array([one.image.predicted == one.judgement.label for one in known])
    groups = np.array([one.image.group for one in known])
    interval = grouped_interval(hits, groups)
    return Headline(
        value=float(hits.mean()),
        interval=list(interval),
        n=len(known),
        hits=int(hits.sum()),
        how="verified",
    )


def _names_alone(
    metrics: Metrics,
    predicted: Sequence[PredictedImage],
    judgements: Mapping[str, Judgement],
    class_ids: Sequence[str],
) -> ZeroShot | None:
    """Return the figures of the text-image model on the images that the headline comes from."""
    measured = metrics["zero_shot"]
    how = metrics["headline"]["how"]
    said = []
    labels = []
    groups = []
    for image in predicted:
        label = image.class_id
        if how == "verified":
            judgement = judgements.get(image.file)
            label = judgement.label if judgement else ""
        elif how == "test" and image.split != "test":
            continue
        if label and image.zero_shot:
            said.append(class_ids.index(image.zero_shot))
            labels.append(class_ids.index(label))
            groups.append(image.group)
    if measured is None or not said:
        return measured
    return zero_shot(
        np.array(said), np.array(labels), np.array(groups), measured["model"], measured["license"]
    )


def _judge_again(
    metrics: Metrics,
    predicted: Sequence[PredictedImage],
    judgements: Mapping[str, Judgement],
    class_ids: Sequence[str],
) -> Verdict:
    """Return the verdict with test labels as far as a person has corrected them.

    The evidence stays as wide as it was: who has checked five images has not made the others say
    less.
    """
    evidence = list(predicted)
    if metrics["cross_validated"] is None:
        predicted = [dataclasses.replace(image, cross_validated=None) for image in predicted]
        evidence = [image for image in predicted if image.split == "test"]
    corrected = _corrected(evidence, judgements, class_ids)
    everything = _corrected(predicted, judgements, class_ids)
    return judge(corrected, everything, metrics["seed"])


def _corrected(
    images: Sequence[PredictedImage],
    judgements: Mapping[str, Judgement],
    class_ids: Sequence[str],
) -> Judged:
    """Return what was said of the images of a known class, with their labels corrected."""
    number_of = {class_id: number for number, class_id in enumerate(class_ids)}
    said = []
    labels = []
    groups = []
    for image in images:
        label = image.class_id
        if image.file in judgements:
            label = judgements[image.file].label
        if not label:
            continue
        likeliest = number_of[image.predicted]
        if image.cross_validated is not None:
            likeliest = int(image.cross_validated.argmax())
        said.append(likeliest)
        labels.append(number_of[label])
        groups.append(image.group)
    return Judged(
        np.array(said, np.int64),
        np.array(labels, np.int64),
        np.array(groups, np.int64),
        len(class_ids),
    )


def _shortcuts(
    metrics: Metrics, predicted: Sequence[PredictedImage], class_ids: Sequence[str]
) -> Shortcuts:
    """Return what is said of shortcuts beside the verdict of these metrics.

    Attributes and model predict the labels as they were found.
    """
    labels = []
    groups = []
    for image in predicted:
        if image.split != "test":
            labels.append(class_ids.index(image.class_id))
            groups.append(image.group)
    counts = independent_counts(
        np.array(labels, np.int64), np.array(groups, np.int64), len(class_ids)
    )
    figures = metrics["cross_validated"] or metrics
    return shortcuts_in_words(
        metrics["shortcuts"],
        figures["balanced_accuracy"],
        counts,
        metrics["better_than_chance"],
    )


def _read_context(folder: Path) -> ReportContext | None:
    """Return what the report is written from; None where that or the checksums are not there."""
    if not (folder / "model" / "SHA256SUMS").is_file():
        return None
    try:
        return read_context(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _check_finished(folder: Path) -> None:
    """Raise RunError for what is no run folder, or a run that has not ended well."""
    if not (folder / "config.json").exists() or not (folder / "manifest.jsonl").exists():
        reason = f"{shown_name(str(folder))} is no run folder."
        remedy = "Give the folder that `python -m training fit` trained in."
        raise RunError("evaluate", reason, remedy, retry=False)
    result = read_result(folder)
    if result is None or not result["ok"]:
        reason = "This run is not finished, so it has no figures yet."
        remedy = f"Finish it: python -m training fit {shown_name(str(folder))}"
        raise RunError("evaluate", reason, remedy, retry=False)


def _with_kept_suspects(
    context: ReportContext, metrics: Metrics, rows: Sequence[Mapping[str, Any]]
) -> ReportContext:
    """Return the context with all suspects that training found, and how it treated them.

    They are kept once: a later verdict may take them from the list, and a still later one put them
    back.
    """
    if "suspects" in context:
        return context
    suspects: list[KeptSuspect] = []
    for row in rows:
        if row["kind"]:
            suspect = {key: row[key] for key in ("file", *SUSPICION_KEYS)}
            suspects.append(cast(KeptSuspect, suspect))
    kept = context.copy()
    kept["suspects"] = suspects
    kept["curation"] = metrics["curation"]
    return kept


def _with_suspects_counted(metrics: Metrics, context: ReportContext) -> Metrics:
    """Return the metrics with the suspects that their verdict allows to list."""
    counted = metrics.copy()
    kinds = Counter(suspect["kind"] for suspect in context["suspects"])
    if metrics["verdict"] != "better":
        counted["label_issues"] = 0
        counted["curation"] = muted_curation(context["curation"], kinds["off_topic"])
        return counted
    curation = context["curation"].copy()
    curation["suspects"] = kinds.total()
    counted["curation"] = curation
    counted["label_issues"] = kinds["label"]
    return counted


def _write_suspects(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    metrics: Metrics,
    context: ReportContext,
) -> None:
    """Write `suspects.jsonl` with the kept suspects.

    Where the verdict is not "better", with those alone that were found without the model.
    """
    kept = {}
    for suspect in context["suspects"]:
        if metrics["verdict"] == "better" or suspect["kind"] == "off_topic":
            kept[suspect["file"]] = suspect
    nothing = dict.fromkeys(SUSPICION_KEYS)
    lines = []
    for row in rows:
        suspected = kept.get(row["file"], nothing)
        line = json.dumps({**row, **suspected}, ensure_ascii=False)
        lines.append(f"{line}\n")
    write_text(folder / SUSPECTS_FILE, "".join(lines))
