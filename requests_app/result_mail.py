"""What the mails about a result say: the figure, what to do with it, and until when it is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.urls import NoReverseMatch, reverse

from requests_app import mail, phrases
from requests_app.delivery import contact_strip, names
from requests_app.models import Artifact, ClassifierRequest, DatasetVersion, Kind, OutgoingMail
from training.earlier_metrics import completed

RARELY_RECOGNISED = 0.9  # recall of a class below which more pictures of it are suggested
GOOD_LOW_END = 0.8  # of the interval; the figure is shown in green from here on
# What to do with a file, since its name does not say it; mails name no others.
WHAT_TO_OPEN = {
    Kind.MODEL: (
        "Unzip it and open try.html in a browser: drop a picture on the page, and it says which"
        " class it is. report.html shows where the model fails. predict.py uses it in Python."
    ),
    Kind.DATASET: (
        "A folder for each class in train, val and test; images.csv has source and licence of"
        " every picture."
    ),
}


@dataclass(frozen=True)
class Suggestion:
    """The one thing that would bring most now, and the page where it is done."""

    text: str
    label: str
    link: str


def put_delivered(classifier: ClassifierRequest, version: DatasetVersion) -> OutgoingMail:
    """Write the mail that a version is ready; attach those of its files that fit into a mail."""
    artifacts = [file for file in version.artifacts.all() if file.kind in WHAT_TO_OPEN]
    attached = mail.fitting(artifacts)
    entries = [_file_entry(classifier, a, is_attached=a in attached) for a in artifacts]
    metrics = completed(version.run.metrics or {})
    compared = version.run.comparison
    context = {
        "run": version.run,
        "number": version.number,
        "compared": compared,
        "change": change(compared),
        "looked_at": classifier.looked_at,
        "artifacts": entries,
        "figure": short_figure(metrics),
        "colour": _colour(metrics),
        "bar": _bar(metrics["headline"]["interval"]),
        "suggestion": suggestion(classifier, metrics),
        "shown": contact_strip.shown_classes(classifier),
        "has_picture": bool(contact_strip.chosen(version)),
        "try_link": part_link(classifier, "try"),
        "review_link": part_link(classifier, "gallery"),
        "download_link": _download_link(classifier, artifacts),
    }
    key = f"request:{classifier.pk}:delivered:{version.number}"
    return mail.put(classifier, "delivered", key, context, attached)


def put_expiring(classifier: ClassifierRequest) -> OutgoingMail | None:
    """Write the mail that a result is deleted soon; None where it was written before.

    A result that was trained again later is kept for longer, and gets another mail.
    """
    key = f"request:{classifier.pk}:expiring:{classifier.moved:%Y%m%d}"
    if OutgoingMail.objects.filter(key=key).exists():
        return None
    version = classifier.versions.order_by("-number").first()
    files = version.artifacts.all() if version else ()
    artifacts = [file for file in files if file.kind in WHAT_TO_OPEN]
    entries = [_file_entry(classifier, artifact) for artifact in artifacts]
    return mail.put(classifier, "expiring", key, {"artifacts": entries})


def part_link(classifier: ClassifierRequest, name: str, *arguments: str) -> str:
    """Return the absolute address of a part of the request's page.

    Where the site has no such page it is that of the request.
    """
    try:
        path = reverse(name, args=[classifier.token, *arguments])
    except NoReverseMatch:
        return classifier.url
    return settings.BASE_URL + path


def short_figure(metrics: Mapping[str, Any]) -> str:
    """Return the first figure as a subject has room for it: ``94 of 100 right``."""
    if metrics["verdict"] == "no_better":
        return "no better than guessing"
    headline = metrics["headline"]
    return f"{headline['hits']:,} of {headline['n']:,} right"


def change(compared: Mapping[str, Any] | None) -> str:
    """Return before and after for a subject, "" where nothing was compared."""
    if compared and compared["images"]:
        return phrases.change(compared)
    return ""


def suggestion(classifier: ClassifierRequest, metrics: Mapping[str, Any]) -> Suggestion:
    """Return what would help this result most."""
    gallery = part_link(classifier, "gallery")
    if metrics["verdict"] == "no_better":
        text = "Look through the pictures: do they show what you meant?"
        return Suggestion(text, "See the pictures", gallery)
    doubtful = metrics.get("label_issues", 0)
    if doubtful:
        looks = "looks" if doubtful == 1 else "look"
        text = f"{phrases.counted(doubtful, 'picture')} {looks} mislabelled."
        label = "Review them" if doubtful > 1 else "Review it"
        return Suggestion(text, label, f"{gallery}?order=doubtful")
    figures = metrics["cross_validated"] or metrics
    per_class = figures["per_class"]
    name = min(per_class, key=lambda name: per_class[name]["recall"])
    recall = per_class[name]["recall"]
    if recall < RARELY_RECOGNISED:
        found = phrases.percent(recall)
        text = f"Of “{name}” only {found} are recognised: more pictures of it would help most."
        return Suggestion(text, "See the pictures", gallery)
    if not metrics["verified"]["n"]:
        tested = phrases.counted(metrics["split"]["test"], "test picture")
        text = f"Nobody has checked the labels of the {tested}, on which the figure rests."
        return Suggestion(text, "Check them", part_link(classifier, "review"))
    text = "Show it pictures of your own: those from the web may be easier than yours."
    return Suggestion(text, "Try it", part_link(classifier, "try"))


def _file_entry(
    classifier: ClassifierRequest, artifact: Artifact, *, is_attached: bool = False
) -> dict[str, Any]:
    """Return an artifact as a mail shows it."""
    return {
        "kind": artifact.kind,
        "label": artifact.get_kind_display(),
        "file_name": names.file_name(artifact),
        "bytes": artifact.bytes,
        "sha256": artifact.sha256,
        "url": part_link(classifier, "download", artifact.kind),
        "use": WHAT_TO_OPEN.get(Kind(artifact.kind), ""),
        "is_attached": is_attached,
    }


def _download_link(classifier: ClassifierRequest, artifacts: Sequence[Artifact]) -> str:
    """Return the link of the model's file, that of the page where there is none."""
    if any(artifact.kind == Kind.MODEL for artifact in artifacts):
        return part_link(classifier, "download", Kind.MODEL)
    return classifier.url


def _colour(metrics: Mapping[str, Any]) -> str:
    """Return the style of the figure: green only where even the interval's low end is good."""
    low, _ = metrics["headline"]["interval"]
    if metrics["verdict"] == "better":
        return "good" if low >= GOOD_LOW_END else "plain"
    return "warn" if metrics["verdict"] == "not_shown" else "bad"


def _bar(interval: Sequence[float]) -> dict[str, int]:
    """Return whole per cent before, inside and after the interval, for a bar made of cells."""
    low, high = interval
    before = int(100 * low)
    inside = max(1, round(100 * high) - before)
    return {"before": before, "inside": inside, "after": max(0, 100 - before - inside)}
