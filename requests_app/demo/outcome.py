"""What the demo's request delivered: fetched through its links, tried out, and put in words."""

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from requests_app import phrases
from requests_app.delivery import names
from requests_app.demo.visitor import DemoFailed, Visitor
from requests_app.models import Artifact, ClassifierRequest, Status

PREDICT_SECONDS = 120


@dataclass(frozen=True)
class Delivered:
    """One artifact, fetched through its link and checked against its sha256."""

    kind: str
    path: str
    url: str
    bytes: int
    sha256: str
    folder: str


@dataclass(frozen=True)
class Outcome:
    """What the demo shows at its end; ``--json`` prints it as one line.

    ``seconds`` has a key for each stage, ``waiting`` for the time between them, and ``total``.
    """

    verdict: str
    verdict_sentence: str
    accuracy: float
    """Of the headline, like the interval."""
    interval: tuple[float, float]
    majority_baseline: float
    split: dict[str, int]
    kept: dict[str, int]
    backbone: str
    notices: list[str]
    seconds: dict[str, float]
    dataset: Delivered
    model: Delivered
    mail: str
    page: str
    folder: str
    request_folder: str
    picture: str
    truth: str
    prediction: str
    probabilities: dict[str, float]

    @property
    def is_convincing(self) -> bool:
        """True when the model is better than guessing."""
        return self.verdict == "better"


def collect_outcome(visitor: Visitor, classifier: ClassifierRequest, folder: Path) -> Outcome:
    """Fetch what was delivered; read from it, not from the database, all that it tells."""
    version = classifier.versions.get()
    artifacts = {artifact.kind: artifact for artifact in version.artifacts.all()}
    downloads = folder / "downloads"
    downloads.mkdir()
    dataset = fetch(visitor, artifacts["dataset"], classifier, downloads)
    model = fetch(visitor, artifacts["model"], classifier, downloads)
    metrics = json.loads(Path(model.folder, "metrics.json").read_text())
    image, truth = find_test_image(Path(dataset.folder))
    probabilities = predict(Path(model.folder), image)
    mails = Path(settings.MAIL_DIR).glob("*.eml")
    newest_mail = max(mails, key=lambda file: file.stat().st_mtime_ns)
    return Outcome(
        verdict=metrics["verdict"],
        verdict_sentence=phrases.verdict(metrics),
        accuracy=metrics["headline"]["value"],
        interval=tuple(metrics["headline"]["interval"]),
        majority_baseline=metrics["majority_baseline"],
        split=metrics["split"],
        kept={image_class.name: image_class.kept for image_class in classifier.classes.all()},
        backbone=metrics["backbone"],
        notices=list(version.run.notices),
        seconds=stage_seconds(classifier),
        dataset=dataset,
        model=model,
        mail=str(newest_mail),
        page=visitor.base_url + classifier.get_absolute_url(),
        folder=str(folder),
        request_folder=str(classifier.folder),
        picture=str(image),
        truth=truth,
        prediction=max(probabilities, key=lambda name: probabilities[name]),
        probabilities=probabilities,
    )


def fetch(
    visitor: Visitor, artifact: Artifact, classifier: ClassifierRequest, folder: Path
) -> Delivered:
    """Download an artifact through its link, compare its checksum, and unzip it beside itself.

    :raises DemoFailed: the checksum is another one
    """
    link = f"{classifier.get_absolute_url()}download/{artifact.kind}/"
    target = folder / names.file_name(artifact)
    if visitor.download(link, target) != artifact.sha256:
        raise DemoFailed(
            f"The downloaded {artifact.kind} does not have the sha256 that was published."
        )
    with zipfile.ZipFile(target) as archive:
        archive.extractall(folder)
    return Delivered(
        kind=artifact.kind,
        path=str(target),
        url=visitor.base_url + link,
        bytes=artifact.bytes,
        sha256=artifact.sha256,
        folder=str(folder / names.top_folder(classifier, artifact.kind)),
    )


def find_test_image(dataset: Path) -> tuple[Path, str]:
    """Return an image of the test split, and the name of its class."""
    classes_file = dataset / "classes.json"
    class_names = json.loads(classes_file.read_text())
    images = dataset.glob("test/*/*.jpg")
    image = min(images, key=lambda path: path.name)
    class_id = image.parent.name
    return image, class_names[class_id]


def predict(model: Path, image: Path) -> dict[str, float]:
    """Run the delivered ``predict.py`` in its own folder, as a receiver would.

    :returns: class -> probability
    :raises DemoFailed: it fails, or prints no probabilities
    """
    command = [sys.executable, "predict.py", str(image)]
    done = subprocess.run(
        command,
        cwd=model,
        capture_output=True,
        text=True,
        timeout=PREDICT_SECONDS,
        check=False,
    )
    if done.returncode:
        last_words = done.stderr.strip()[-500:]
        raise DemoFailed(f"The delivered predict.py failed: {last_words}")
    return read_probabilities(done.stdout)


def read_probabilities(output: str) -> dict[str, float]:
    """Return class -> probability from the lines of ``predict.py``, such as ``  97.3%  mammal``.

    :raises DemoFailed: there are none
    """
    lines = re.findall(r"^ +(\d+\.\d)%  (.+)$", output, re.MULTILINE)
    if not lines:
        raise DemoFailed("The delivered predict.py printed no probabilities.")
    return {name: float(percent) / 100 for percent, name in lines}


def stage_seconds(classifier: ClassifierRequest) -> dict[str, float]:
    """Return what each stage took, and ``total`` from the submission to the delivery.

    What the stages leave of the total is ``waiting``.
    """
    moments = {event.new: event.at for event in classifier.events.all()}
    until_confirmed = moments[Status.QUEUED] - classifier.created
    until_delivered = moments[Status.DELIVERED] - classifier.created
    seconds = {"confirm": until_confirmed.total_seconds()}
    for job in classifier.jobs.all():
        seconds[job.stage] = job.seconds or 0.0
    total = until_delivered.total_seconds()
    working = sum(seconds.values())
    seconds["waiting"] = max(0.0, total - working)
    seconds["total"] = total
    return seconds


def describe(outcome: Outcome) -> Iterator[str]:
    """Yield the lines that the demo ends with.

    The site stops after them, so that they name files, which stay, and no page.
    """
    yield f"verdict     {outcome.verdict_sentence}"
    for notice in outcome.notices:
        yield f"notice      {notice}"
    shares = [f"{name} {share:.3f}" for name, share in outcome.probabilities.items()]
    all_shares = ", ".join(shares)
    picture = Path(outcome.picture).name
    yield f"prediction  {all_shares} for {picture} of the test split"
    verdict = "right" if outcome.prediction == outcome.truth else "wrong"
    yield f"            which is: {outcome.truth} (so the model is {verdict})"
    times = [f"{stage} {seconds:.1f} s" for stage, seconds in outcome.seconds.items()]
    all_times = ", ".join(times)
    yield f"time        {all_times}"
    for item in (outcome.dataset, outcome.model):
        size = phrases.size(item.bytes)
        yield f"{item.kind:11} {item.path} ({size}, sha256 checked)"
    yield f"mail        {Path(outcome.mail).as_uri()}"
    yield f"report      {file_link(outcome, 'report.html')}"
    yield f"try it      {file_link(outcome, 'try.html')}"
    yield "            open it in a browser and drop a picture on it"


def file_link(outcome: Outcome, name: str) -> str:
    """Return the address of a file of the unzipped model, which a terminal or browser opens.

    :raises DemoFailed: the model came without it
    """
    found = sorted(Path(outcome.model.folder).rglob(name))
    if not found:
        raise DemoFailed(f"The delivered model has no {name}.")
    return found[0].as_uri()
