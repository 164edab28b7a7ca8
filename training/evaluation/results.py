"""All that is known of a run's pictures and of its model after training, put together for metrics,
report and card.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.learning_curve import Sample, learning_curve
from training.evaluation.shortcuts import Labelled, shortcut_warning, shortcuts
from training.explanations import LearnedImage
from training.fitting.label_issues import Suspect, neighbour_votes, rank_suspects, suspicion
from training.fitting.linear_head import fit_strength
from training.metrics import Floats, Labels, balanced_accuracy, by_source, measure, softmax, unknown
from training.progress import Progress
from training.run_folder import SPLITS, ImageRow

if TYPE_CHECKING:
    from training.fitting.selection import Choice, SplitPictures  # which loads torch


@dataclass(frozen=True)
class Results:
    """What is known of a run's n usable pictures after training: what report, card and explanations
    are made from.
    """

    rows: list[ImageRow]
    """In the order of the manifest; a `split` of None means left out."""
    labels: Labels
    """Class numbers [n] in output order."""
    probabilities: Floats
    """[n, classes]: of test pictures by the delivered model, of all others out-of-fold; never by one that saw them."""
    novelty: Floats
    """[n], likewise unseen."""
    embeddings: NDArray[np.float32]
    """[n, d] by the delivered network."""
    suspects: list[Suspect]
    """The most suspicious first."""
    epochs: list[dict[str, Any]]
    """The fine-tuning's history: epoch, train_loss, val_loss, val_accuracy, rate, seconds; [] where there was none."""
    traits: NDArray[np.float32]
    """[n, 4], the columns of IMAGE_STATISTICS: pixels, pixels, mean 0..255, variance of the Laplacian."""
    metrics: dict[str, Any]
    """All of metrics.json."""

    def indices(self, *splits: str) -> NDArray[np.int64]:
        """Return the indices of the images in these splits, in the order of the manifest."""
        found = [index for index, row in enumerate(self.rows) if row.split in splits]
        return np.array(found, np.int64)

    def learned_indices(self) -> NDArray[np.int64]:
        """Return the indices of the images that the delivered model learned from.

        The linear head is fitted on val too.
        """
        if self.metrics["delivered"] == "head":
            return self.indices("train", "val")
        return self.indices("train")

    def learned_images(self) -> list[LearnedImage]:
        """Return the images that the delivered model learned from, as `learned_indices` has them."""
        names = list(self.metrics["per_class"])
        images = []
        for index in self.learned_indices():
            row = self.rows[index]
            label = names[self.labels[index]]
            images.append(LearnedImage(row.file, label, row.credit, row.page_url))
        return images


def collect_results(
    pictures: SplitPictures, choice: Choice, names: Sequence[str], report: Progress
) -> tuple[Results, Floats]:
    """The results of the delivered model, and how suspicious each picture's label is: 0..1 [n].

    What the run itself knows (weights, device, seconds) is not yet in the metrics.
    """
    opinions = _opinions(pictures, choice)
    judged = _judged_places(pictures)
    suspects = rank_suspects(
        opinions[judged], pictures.labels[judged], choice.strangeness[judged], names
    )
    metrics = _metrics(pictures, choice, names, report)
    results = Results(
        rows=pictures.rows,
        labels=pictures.labels,
        probabilities=_unseen_probabilities(pictures, choice),
        novelty=choice.model.novelty,
        embeddings=choice.model.embeddings,
        suspects=[_moved(suspect, judged) for suspect in suspects],
        epochs=choice.epochs,
        traits=pictures.traits,
        metrics=metrics | _curation(choice, suspects),
    )
    return results, suspicion(opinions, pictures.labels)


def suspects_as_lines(results: Results, scores: Floats, names: Sequence[str]) -> str:
    """`suspects.jsonl`: every picture that takes part, the most suspicious first; those in order
    have no reason.
    """
    suspects = {suspect.place: suspect for suspect in results.suspects}
    places = [place for place, row in enumerate(results.rows) if row.split]
    lines = [
        {
            "file": results.rows[place].file,
            "class": names[results.labels[place]],
            "split": results.rows[place].split,
            "score": round(
                max(float(scores[place]), suspects[place].score if place in suspects else 0.0), 4
            ),
            **_suspected_of(suspects.get(place), names),
        }
        for place in places
    ]
    ranked = sorted(lines, key=lambda line: -float(str(line["score"])))
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in ranked)


def _suspected_of(suspect: Suspect | None, names: Sequence[str]) -> dict[str, Any]:
    if suspect is None:
        return {"kind": None, "suggested": None, "reason": None}
    suggested = None if suspect.suggested is None else names[suspect.suggested]
    return {"kind": suspect.kind, "suggested": suggested, "reason": suspect.reason}


def _judged_places(pictures: SplitPictures) -> Any:
    """Numbers of the pictures that take part: int64 [m]."""
    return pictures.part(*SPLITS)


def _opinions(pictures: SplitPictures, choice: Choice) -> Floats:
    """What others say about each picture's class [n, classes]; pictures left out of all parts get
    no say and none.

    Test pictures have no part in what is said about others, so that nothing learned here has seen
    them.
    """
    head, learned = choice.head, pictures.samples("train", "val")
    opinions = np.full((len(pictures.rows), pictures.classes), 1 / pictures.classes)
    opinions[pictures.part("train", "val")] = head.opinions
    test = pictures.samples("test")
    predicted = softmax(head.fitted.head.logits(test.embeddings) / head.fitted.temperature)
    opinions[pictures.part("test")] = (predicted + neighbour_votes(learned, test)) / 2
    return opinions


def _unseen_probabilities(pictures: SplitPictures, choice: Choice) -> Floats:
    """[n, classes]: of test pictures by the delivered model, of the others out-of-fold."""
    fitted = choice.head.fitted
    probabilities = np.full((len(pictures.rows), pictures.classes), 1 / pictures.classes)
    probabilities[pictures.part("train", "val")] = softmax(fitted.out_of_fold / fitted.temperature)
    probabilities[pictures.part("test")] = softmax(
        choice.model.test_logits / choice.model.temperature
    )
    return probabilities


def _metrics(
    pictures: SplitPictures, choice: Choice, names: Sequence[str], report: Progress
) -> dict[str, Any]:
    model, test = choice.model, pictures.part("test")
    labels, predicted = pictures.labels[test], model.test_logits.argmax(axis=1)
    return measure(model.test_logits, labels, names, model.temperature) | {
        "temperature": model.temperature,
        "reject_threshold": model.reject,
        "split": {part: len(pictures.part(part)) for part in SPLITS},
        "near_duplicate_leaks": 0,  # a split with leaks is refused
        "regularisation": choice.head.fitted.strength,
        "seed": pictures.seed,
        "delivered": choice.name,
        "choice": choice.sentence,
        "head": choice.head_figures,
        "network": choice.network_figures,
        "by_source": by_source(predicted, labels, [pictures.rows[i].source for i in test]),
        "unknown": unknown(model.novelty[test], model.reject),
        "learning_curve": _learning_curve(pictures, choice, report),
        **_shortcuts(pictures, choice),
    }


def _learning_curve(
    pictures: SplitPictures, choice: Choice, report: Progress
) -> dict[str, Any] | None:
    learned = pictures.samples("train", "val")
    sample = Sample(
        learned.embeddings, learned.labels, learned.groups.tolist(), learned.classes, pictures.seed
    )
    strength = choice.head.fitted.strength

    def fit(places: Any) -> Any:
        return fit_strength(
            learned.embeddings[places], learned.labels[places], learned.classes, strength
        )

    return learning_curve(sample, fit, report)


def _shortcuts(pictures: SplitPictures, choice: Choice) -> dict[str, Any]:
    """Whether something else than what the pictures show tells their classes, judged on the
    pictures learned from.
    """
    places, learned = pictures.part("train", "val"), pictures.samples("train", "val")
    labelled = Labelled(learned.labels, learned.groups.tolist(), learned.classes, pictures.seed)
    figures = shortcuts(
        pictures.traits[places], [pictures.rows[i].source for i in places], labelled
    )
    model = balanced_accuracy(choice.head.fitted.out_of_fold.argmax(axis=1), learned.labels)
    warning = shortcut_warning(figures, model, learned.labels, learned.classes)
    return {"shortcuts": figures, "shortcut_warning": warning}


def _curation(choice: Choice, suspects: Sequence[Suspect]) -> dict[str, Any]:
    labels = sum(1 for suspect in suspects if suspect.kind == "label")
    treatment = choice.head.treatment
    curation = {
        "suspects": len(suspects),
        "treatment": treatment.name,
        "pictures": treatment.pictures,
        "sentence": treatment.sentence,
    }
    return {"label_issues": labels, "curation": curation}


def _moved(suspect: Suspect, places: Any) -> Suspect:
    """The suspect under its number among all pictures."""
    return Suspect(
        int(places[suspect.place]), suspect.score, suspect.kind, suspect.suggested, suspect.reason
    )
