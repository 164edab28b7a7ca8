"""“On my own pictures”: give them, see how good the model is on them, train with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from django.contrib import messages
from django.core.exceptions import TooManyFilesSent
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods

from requests_app import lifecycle, own_check, phrases
from requests_app.models import ClassifierRequest, OwnCheck
from requests_app.prediction import MAX_TOGETHER_BYTES
from requests_app.views.access import SeeOther, require_token
from requests_app.views.gallery import actor_of
from requests_app.views.result import Bar, Cell, MatrixRow
from requests_app.views.uploads import HeldFile, MemoryUploadHandler
from scraping.picture_zip import (
    LARGEST_PICTURE,
    MOST_PICTURES,
    ZippedPicture,
    ZipRefusedError,
    folder_key,
    read_zip,
)
from training.comparison import mcnemar_p_value
from training.earlier_metrics import completed
from training.metrics import Metrics

PER_GO = 100  # files; as many as Django reads of one form
TOO_MANY_FILES = f"Only {PER_GO} files fit into one go. Put them into a zip, or send some first."
NOTHING_GIVEN = "Choose pictures first."
CALIBRATED = "The try page uses what suits your pictures from now on."
UNCALIBRATED = "The try page uses the model's own temperature and threshold again."
MEASURING = "Your pictures are being measured. Wait for that, then give others."
HELD_OUT = (
    "The half of your pictures that is held out measures your next versions. To measure others,"
    " delete it first."
)
NOT_NOW = "There is nothing to measure, or no model to measure with."


@dataclass(frozen=True)
class WebFigure:
    """The accuracy on the web's pictures, with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """How good a model is on a person's pictures, in words."""

    sentence: str
    """Beside the figure for the web's pictures."""
    compared: str
    few: str
    """That there are few pictures; "" where there are enough."""
    bar: Bar
    matrix: tuple[MatrixRow, ...]
    calibration: tuple[str, ...]
    calibrates: bool
    before_and_after: str
    version: int


@csrf_exempt  # or the form would be read before its handler is set; what follows is protected
@require_token
@require_http_methods(["GET", "HEAD", "POST"])
def own(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponseBase:
    """Show the page, or only how far it is to its script; a POST does one of the things on it."""
    if request.method != "POST":
        if "X-Fragment" in request.headers:
            return render(request, "own/_waiting.html", _waiting(own_check.newest(classifier)))
        return _page(request, classifier)
    request.upload_handlers = [MemoryUploadHandler(request, MAX_TOGETHER_BYTES)]
    try:
        return _act(request, classifier)
    except TooManyFilesSent:
        return _page(request, classifier, {"files": TOO_MANY_FILES})


@csrf_protect
def _act(request: HttpRequest, classifier: ClassifierRequest) -> HttpResponse:
    action = request.POST.get("do", "")
    if action in ("give", "measure"):
        return _give(request, classifier, starts=action == "measure")
    check = own_check.newest(classifier)
    if check is not None and action == "again":
        _say(request, "" if own_check.ask(check) else NOT_NOW)
    elif check is not None and action == "forget":
        own_check.forget(check)
        messages.success(request, _what_is_deleted(check))
    elif check is not None and action in ("calibrate", "uncalibrate"):
        is_on = action == "calibrate"
        if own_check.calibrate(check, is_on):
            messages.success(request, CALIBRATED if is_on else UNCALIBRATED)
    elif check is not None and action == "train":
        return _train(request, classifier, check)
    return _back(classifier)


def _what_is_deleted(check: OwnCheck) -> str:
    if not check.trained:
        return "Your pictures and their figures are deleted."
    added = phrases.counted(check.trained, "picture")
    return (
        "The held-out pictures and the figures are deleted."
        f" {added} of yours that were added stay in the dataset; the gallery removes them."
    )


def _give(request: HttpRequest, classifier: ClassifierRequest, *, starts: bool) -> HttpResponse:
    """Take the files of a form, and measure them if that was asked for."""
    newest = own_check.newest(classifier)
    has_files = any(request.FILES.values())
    if newest is not None and own_check.is_waiting(newest):
        return _page(request, classifier, {"files": MEASURING})
    if newest is not None and own_check.holds_out(newest):
        return _page(request, classifier, {"files": HELD_OUT})
    if not has_files and (newest is None or not own_check.is_draft(newest)):
        return _page(request, classifier, {"files": NOTHING_GIVEN})
    check = own_check.open_check(classifier)
    problems = {}
    if has_files:
        problems = _receive(request, check)
    if request.accepts("text/html"):
        if problems:
            return _page(request, classifier, problems)
        if starts:
            _say(request, "" if own_check.ask(check) else NOT_NOW)
        return _back(classifier)
    if starts:
        own_check.ask(check)
    return JsonResponse({"received": check.received, "problem": " ".join(problems.values())})


def _receive(request: HttpRequest, check: OwnCheck) -> dict[str, str]:
    """Take every file; return the sentences that belong beside a field."""
    problems = {}
    for image_class in check.request.classes.all():
        for file in _files(request, f"pictures-{image_class.number}"):
            if file.problem:
                own_check.refuse(check, file.name or "", file.problem)
            else:
                own_check.receive(check, image_class.number, file.name or "", file.read())
    for file in _files(request, "zip"):
        problem = file.problem or _receive_zip(check, file.read())
        if problem:
            problems["zip"] = problem
    return problems


def _receive_zip(check: OwnCheck, data: bytes) -> str:
    """Take the pictures of a zip; return why none was taken, "" where some were."""
    numbers: dict[str, int] = {}
    for image_class in check.request.classes.all():
        for name in (image_class.name, image_class.class_id, str(image_class.number)):
            numbers.setdefault(folder_key(name), image_class.number)

    def take(picture: ZippedPicture) -> None:
        own_check.receive(check, picture.class_number, picture.name, picture.content)

    try:
        found = read_zip(data, numbers, take)
    except ZipRefusedError as error:
        return str(error)
    for name, sentence in found.refused:
        own_check.refuse(check, name, sentence)
    if found.taken:
        return ""
    names = ", ".join(image_class.name for image_class in check.request.classes.all())
    return f"No picture was found in it. Make a folder for each class, called as it is: {names}."


def _files(request: HttpRequest, field: str) -> list[HeldFile]:
    files = request.FILES.getlist(field)
    return cast(list[HeldFile], files)


def _train(request: HttpRequest, classifier: ClassifierRequest, check: OwnCheck) -> HttpResponse:
    """Add one half of the pictures, and begin the training if nothing is in its way."""
    actor = actor_of(request)
    added = own_check.train_with(check, actor)
    if not added:
        _say(request, own_check.obstacle_to_training(check) or "They are added already.")
        return _back(classifier)
    pictures = phrases.counted(added, "picture")
    if lifecycle.retrain(classifier, actor):
        messages.success(request, f"{pictures} of yours added, and the training has begun.")
        return SeeOther(classifier.get_absolute_url())
    obstacle = lifecycle.obstacle_to_training(classifier)
    messages.warning(request, f"{pictures} of yours added. {obstacle}")
    return _back(classifier)


def _say(request: HttpRequest, problem: str) -> None:
    if problem:
        messages.warning(request, problem)


def _back(classifier: ClassifierRequest) -> SeeOther:
    return SeeOther(reverse("own", args=[classifier.token]))


# --- the page ---


def _page(
    request: HttpRequest, classifier: ClassifierRequest, problems: Mapping[str, str] | None = None
) -> HttpResponse:
    check = own_check.newest(classifier)
    is_waiting = check is not None and own_check.is_waiting(check)
    is_draft = check is not None and own_check.is_draft(check)
    latest = own_check.versions_to_measure(classifier)
    held_out = 0
    if check is not None and check.trained and not check.removed:
        held_out = len(list((check.folder / "clean").glob("*/*.jpg")))
    context = {
        **_waiting(check),
        "classifier": classifier,
        "token": classifier.token,
        "classes": list(classifier.classes.all()),
        "has_model": latest is not None,
        "is_open": classifier.is_open,
        "check": check,
        "is_waiting": is_waiting,
        "is_draft": is_draft,
        "holds_out": check is not None and own_check.holds_out(check),
        "held_out_note": HELD_OUT,
        "counts": own_check.counts(check) if check is not None and is_draft else (),
        "was_interrupted": check is not None and bool(check.asked and not check.measured),
        "outcome": _outcome(classifier, check),
        "held_out": held_out,
        "may_measure_again": held_out and check is not None and latest != check.version_number,
        "latest": latest,
        "problems": problems or {},
        "enough": own_check.ENOUGH,
        "most": MOST_PICTURES,
        "per_go": PER_GO,
        "go_bytes": MAX_TOGETHER_BYTES,
        "largest": LARGEST_PICTURE // 1_000_000,
        "together": MAX_TOGETHER_BYTES // 1_000_000,
    }
    return render(request, "own/page.html", context)


def _waiting(check: OwnCheck | None) -> dict[str, Any]:
    """Return how far the measuring is, as the fragment shows it."""
    if check is None or not own_check.is_waiting(check):
        return {"is_waiting": False}
    job = check.request.jobs.filter(stage=own_check.STAGE).latest("pk")
    message = job.progress.get("message", "Starting")
    if job.ahead:
        tasks = phrases.counted(job.ahead, "task")
        message = f"Waiting: {tasks} before this one"
    return {
        "is_waiting": True,
        "message": message,
        "done": job.progress.get("done", 0),
        "total": job.progress.get("total", 0),
    }


def _outcome(classifier: ClassifierRequest, check: OwnCheck | None) -> Outcome | None:
    """Return the figures of a measured check; None while there are none."""
    if check is None or not check.result or check.version_number is None:
        return None
    result = check.result
    figures = result["figures"]
    if figures is None:
        return None
    count = len(result["pictures"])
    right = len(_right(result))
    low, high = figures["interval"]
    web = _figure_of_web(classifier, check.version_number)
    where = f"{_whole(low)} to {_whole(high)} %"
    counts = f"{right} of {count}"
    own = _whole(figures["accuracy"])
    of_web = _whole(web.value)
    return Outcome(
        sentence=f"{of_web} % on the web's pictures, {own} % on yours ({counts}; {where}).",
        compared=_compared(web, low, high),
        few=_few(figures["per_class"]),
        bar=Bar(
            start=_per_cent(low),
            width=_per_cent(high - low),
            at=_per_cent(figures["accuracy"]),
            chance=_per_cent(web.value),
            words=where,
        ),
        matrix=_matrix(classifier, figures["confusion"]),
        calibration=_calibration(result, count, figures["accuracy"]),
        calibrates=check.calibrates,
        before_and_after=_before_and_after(check),
        version=check.version_number,
    )


def _right(result: Mapping[str, Any]) -> set[str]:
    """Return the files of the pictures that the model has right."""
    right = set()
    for row in result["pictures"]:
        if row["class_id"] == row["predicted"]:
            right.add(row["file"])
    return right


def _per_cent(share: float) -> str:
    return f"{100 * share:.2f}"


def _whole(share: float) -> str:
    return phrases.whole_percent(share)


def _figure_of_web(classifier: ClassifierRequest, number: int) -> WebFigure:
    """Return the headline of a version, which no picture of the person's own has a part in."""
    version = classifier.versions.get(number=number)
    metrics = cast(Metrics, completed(version.run.metrics or {}))
    headline = metrics["headline"]
    low, high = headline["interval"]
    return WebFigure(headline["value"], low, high)


def _compared(web: WebFigure, low: float, high: float) -> str:
    of_web = f"On the web's pictures the range is {_whole(web.low)} to {_whole(web.high)} %"
    if high < web.low:
        return f"{of_web}, all of it above: yours are harder for it."
    if low > web.high:
        return f"{of_web}, all of it below: yours are easier for it."
    return f"{of_web}. The two overlap, so it may be as good on yours."


def _few(per_class: Mapping[str, Mapping[str, Any]]) -> str:
    short = []
    for name, one in per_class.items():
        if one["support"] < own_check.ENOUGH:
            short.append(f"“{name}”")
    if not short:
        return ""
    names = ", ".join(short)
    return (
        f"Fewer than {own_check.ENOUGH} pictures of {names}: the figure may be anywhere in this"
        " range. More pictures make it narrower."
    )


def _calibration(result: Mapping[str, Any], count: int, accuracy: float) -> tuple[str, ...]:
    """Return what temperature and threshold of these pictures change, in sentences."""
    fitted = result["calibration"]
    if fitted is None:
        return ()
    before, after = fitted["confidence"]
    refused_before, refused_after = fitted["refused"]
    sentences = [
        f"It is right on {_whole(accuracy)} % of them, and on average {_whole(before)} % sure now;"
        f" with the temperature of your pictures {_whole(after)} %.",
        f"“None of these”: it refuses {refused_before} of your {count} pictures now, and"
        f" {refused_after} with their threshold.",
    ]
    strangers = fitted["strangers"]
    if strangers:
        sentences.append(
            f"Of {strangers['n']} pictures of other things it refuses {strangers['before']} now,"
            f" and {strangers['after']} with that threshold."
        )
    return tuple(sentences)


def _before_and_after(check: OwnCheck) -> str:
    """Return how two models compare on the pictures that were held out; "" without two."""
    if not check.earlier or not check.result:
        return ""
    judged = {row["file"] for row in check.result["pictures"]}
    before = judged.intersection(check.earlier["right"])
    after = _right(check.result)
    mended = len(after - before)
    broken = len(before - after)
    change = phrases.mended_and_broken(mended, broken, mcnemar_p_value(mended, broken))
    return (
        f"On the {len(judged)} pictures of yours that were held out, version"
        f" {check.version_number} has {len(after)} right; version {check.earlier['version']} had"
        f" {len(before)}; {change}"
    )


def _matrix(classifier: ClassifierRequest, confusion: Mapping[str, Any]) -> tuple[MatrixRow, ...]:
    """Return the rows of the confusion matrix; no cell leads anywhere."""
    labels: Sequence[str] = confusion["labels"]
    numbers = dict(classifier.classes.values_list("name", "number"))
    rows = []
    for truth, counts in enumerate(confusion["matrix"]):
        label = labels[truth]
        cells = _cells(truth, counts, labels)
        row = MatrixRow(numbers.get(label, truth + 1), label, cells)
        rows.append(row)
    return tuple(rows)


def _cells(truth: int, counts: Sequence[int], labels: Sequence[str]) -> tuple[Cell, ...]:
    whole = max(1, sum(counts))
    cells = []
    for predicted, count in enumerate(counts):
        pictures = phrases.counted(count, "picture")
        cell = Cell(
            count=count,
            heat=round(10 * count / whole),
            right=truth == predicted,
            title=f"{pictures} of {labels[truth]} called {labels[predicted]}",
            query="",
        )
        cells.append(cell)
    return tuple(cells)
