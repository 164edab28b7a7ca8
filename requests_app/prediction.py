"""Classify a person's pictures with the model that was delivered to them.

Page and API both call this. Nothing of a picture is kept: it is decoded, classified and shown from
memory. A picture that cannot be classified is a value, a ``Refusal`` with a sentence for the
person, so that one bad picture of several loses nothing else.
"""

import base64
import hashlib
import io
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from django.conf import settings
from django.core.cache import cache
from PIL import Image

from requests_app import first_model
from requests_app.models import (
    OWN_FOLDER,
    Artifact,
    ClassifierRequest,
    DatasetVersion,
    ImageState,
    ImageUrl,
    Kind,
    OwnCheck,
    sha256_hex,
)
from scraping.net.http import Fetched, FetchFailure, FetchSettings, MalformedAddress, fetch_once
from scraping.reasons import Reason
from scraping.sources.catalogue import UPLOAD
from training.earlier_metrics import completed
from training.explanations import (
    NEIGHBOURS_FILE,
    LearnedImage,
    Neighbours,
    evidence,
    overlay,
    read_neighbours,
)
from training.predict import (
    BrokenImageError,
    Model,
    ModelError,
    Outputs,
    open_model,
    read_image,
    resize_side,
)
from training.run_folder import HEAD_FOLDER

logger = logging.getLogger(__name__)

MAX_PICTURES = 20  # in one form
MAX_BYTES = 20_000_000  # of one picture
MAX_TOGETHER_BYTES = 60_000_000  # of the files of one form, which are held in memory
MAX_PIXELS = 16_000_000  # larger pictures are halved until they fit: the network sees 224 x 224
PICTURES_A_MINUTE = 120  # for one link
SHOWN_SIDE = 640  # pixels of the longer side of pictures and maps on the page
SHOWN_QUALITY = 82
NEAREST = 3  # training pictures named with an answer

FETCH_SECONDS = 15.0  # for all of an answer
WAIT_SECONDS = 20.0  # for a turn, before the site is called busy
MODELS_IN_MEMORY = 3  # up to 100 MB each
THREADS = 2  # of the runtime, for one picture
_opening = threading.Lock()
_classifying = threading.BoundedSemaphore(2)  # each may take some hundred MB
_fetching = threading.BoundedSemaphore(8)

MODEL_FILE = Path("model", "model.onnx")  # in a run folder
FIRST_MODEL = (
    "This is the first model, made of the pictures that are there so far. It is trained again while"
    " pictures come in, and the finished one takes its place."
)
BEFORE_FINE_TUNING = (
    "This is version 1 as it is before fine-tuning. A better one may take its place soon."
)
BUSY = "This site is busy with other pictures. Wait a moment and try again."
TOO_MANY = (
    f"More than {PICTURES_A_MINUTE} pictures came within a minute. Wait a minute and try again."
)
TOO_LARGE = f"This file is larger than {MAX_BYTES // 1_000_000} MB."
DAMAGED = (
    "The model is damaged on this site and was not used. Remove or relabel a picture and train"
    " again: that builds a new one."
)
UNKNOWN_LICENSE = "not known"
NO_ADDRESS = "This is not a web address; one looks like https://example.org/picture.jpg."


@dataclass(frozen=True)
class NearImage:
    """A training picture like the one that was asked about, and whom to thank for it."""

    label: str
    similarity: float
    """Cosine of the two embeddings, 1 at most."""
    credit: str
    page_url: str
    license: str
    """ "" where the credit names it."""
    pk: int | None
    """Of its ``ImageUrl``, while its thumbnail may be shown."""
    is_own: bool = False
    """Whether it is a person's own file: nobody else is shown it."""


@dataclass(frozen=True)
class Answer:
    """What the model says of one picture."""

    label: str
    known: bool
    """False when the picture looks like none of the classes."""
    probabilities: dict[str, float]
    """Class name to probability, in output order; they sum to 1."""
    novelty: float
    reject: float
    """Novelty above which a picture is none of the classes."""
    elapsed_ms: float
    version: int
    picture: str = ""
    """A data: URL of the picture, small."""
    map: str = ""
    """A data: URL of the same with what spoke for the label in colour."""
    nearest: tuple[NearImage, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """Why there is no answer, in a sentence that says what to do."""

    sentence: str


@dataclass(frozen=True)
class OpenedModel:
    """A model in memory, with what explains its answers."""

    model: Model
    resize_side: int | None
    neighbours: Neighbours | None


@dataclass(frozen=True)
class UsableModel:
    """A model that pictures can be tried on: that of a version, or the first one of a request."""

    request: ClassifierRequest
    folder: Path
    """The run folder, which has the model in ``model/``."""
    number: int
    """Of the version; 0 for a first model, which has none."""
    warning: str = ""
    """What a person should know before trusting it."""
    sharpness: float = 1.0
    """Power of the probabilities that suits a person's own pictures."""
    reject: float | None = None
    """The threshold that suits them; None for the model's own."""


def usable_model(classifier: ClassifierRequest) -> UsableModel | None:
    """Return the newest delivered model, else the newest first model; None while there is none."""
    version = delivered_version(classifier)
    if version is not None:
        return _model_of(version)
    folder = first_model.newest_folder(classifier)
    if folder is None:
        return None
    if folder.parent.name == HEAD_FOLDER:
        return UsableModel(classifier, folder.parent, 1, BEFORE_FINE_TUNING)
    return UsableModel(classifier, folder.parent, 0, FIRST_MODEL)


def model_of_version(classifier: ClassifierRequest, number: int) -> UsableModel | None:
    """Return the delivered model of one version; None where there is none, or it is gone."""
    version = delivered_version_of(classifier, number)
    return None if version is None else _model_of(version)


def _model_of(version: DatasetVersion) -> UsableModel:
    metrics = completed(version.run.metrics or {})
    warning = "" if metrics["verdict"] == "better" else metrics["verdict_sentence"]
    return UsableModel(version.request, version.folder, version.number, warning)


def calibrated(usable: UsableModel) -> UsableModel:
    """Return the model with what was fitted on the person's own pictures, if that is switched on.

    It counts for the version that it was fitted for.
    """
    checks = OwnCheck.objects.filter(request=usable.request, calibrates=True)
    check = checks.filter(version_number=usable.number).last()
    fitted = None if check is None else (check.result or {}).get("calibration")
    if not fitted:
        return usable
    return replace(usable, sharpness=fitted["sharpness"], reject=fitted["reject"])


def sharpened(probabilities: dict[str, float], sharpness: float) -> dict[str, float]:
    """Return probabilities raised to a power, so that they sum to 1 again."""
    if sharpness == 1.0:
        return probabilities
    powers = {name: share**sharpness for name, share in probabilities.items()}
    whole = sum(powers.values())
    return {name: power / whole for name, power in powers.items()}


def delivered_version(classifier: ClassifierRequest) -> DatasetVersion | None:
    """Return the newest version whose model was delivered and is still on disk."""
    artifacts = Artifact.objects.filter(version__request=classifier, kind=Kind.MODEL)
    newest_first = artifacts.order_by("-version__number").select_related("version__request")
    for artifact in newest_first:
        if (artifact.version.folder / MODEL_FILE).is_file():
            return artifact.version
    return None


def delivered_version_of(classifier: ClassifierRequest, number: int) -> DatasetVersion | None:
    """Return the version of this number, if its model was delivered and is still on disk."""
    artifacts = Artifact.objects.filter(version__request=classifier, kind=Kind.MODEL)
    artifact = artifacts.filter(version__number=number).select_related("version__request").first()
    if artifact is None or not (artifact.version.folder / MODEL_FILE).is_file():
        return None
    return artifact.version


def model_file(usable: UsableModel) -> Path:
    """Return the path of the network, the same file as in ``model.zip``."""
    return usable.folder / MODEL_FILE


def model_digest(usable: UsableModel) -> str:
    """Return the sha256 of the network.

    :raises OSError: it is not there
    """
    path = model_file(usable)
    return _digest(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, written: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def opened_model(usable: UsableModel) -> OpenedModel:
    """Return a model, from memory where it was used lately.

    :raises ModelError: there is no usable model
    """
    neighbours = usable.folder / NEIGHBOURS_FILE
    try:
        written = model_file(usable).stat().st_mtime_ns
        # A takedown removes the neighbours, and they must not be shown from memory.
        neighbours_written = neighbours.stat().st_mtime_ns if neighbours.exists() else 0
    except OSError as error:
        raise ModelError("The model is not on this site any more.") from error
    with _opening:  # two that come at once do not open it twice
        return _open(usable.folder, written, neighbours_written)


@lru_cache(maxsize=MODELS_IN_MEMORY)
def _open(folder: Path, written: int, neighbours_written: int) -> OpenedModel:
    model = open_model(folder, threads=THREADS)
    return OpenedModel(model, resize_side(folder), read_neighbours(folder))


def classify_url(usable: UsableModel, url: str, *, explained: bool = True) -> Answer | Refusal:
    """Fetch a picture from the web, with the one guarded client, and classify it."""
    fetched = fetch_picture(url)
    if isinstance(fetched, Refusal):
        return fetched
    return classify(usable, bytes(fetched.body), explained=explained)


def fetch_picture(url: str) -> Fetched | Refusal:
    """Fetch what lies at an address that a person gave, with the one guarded client."""
    with _turn(_fetching) as has_turn:
        if not has_turn:
            return Refusal(BUSY)
        fetched = fetch_once(full_address(url), _fetch_settings())
    if isinstance(fetched, FetchFailure):
        return Refusal(_fetch_sentence(fetched))
    return fetched


def full_address(url: str) -> str:
    """Return an address with its scheme, which people leave out."""
    address = url.strip()
    return address if "://" in address else f"https://{address}"


def _fetch_settings() -> FetchSettings:
    return FetchSettings(
        contact=settings.CONTACT,
        allowed_private_hosts=frozenset(settings.ALLOWED_PRIVATE_HOSTS),
        max_bytes=MAX_BYTES,
        deadline_seconds=FETCH_SECONDS,
    )


def _fetch_sentence(failure: FetchFailure) -> str:
    """Say why a picture could not be fetched; of a refused address no more than of a dead one."""
    if isinstance(failure, MalformedAddress):
        return NO_ADDRESS
    advice = "Check it, or save the picture and upload the file."
    if failure.reason == Reason.TOO_LARGE:
        return f"The file at this address is larger than {MAX_BYTES // 1_000_000} MB."
    if failure.reason == Reason.HTTP_ERROR and failure.status is not None:
        return f"The server at this address answered {failure.status}. {advice}"
    return f"{failure.message} {advice}"


def classify(usable: UsableModel, data: bytes, *, explained: bool = True) -> Answer | Refusal:
    """Classify the bytes of a picture file.

    :param explained: with the picture, its map and the nearest training pictures, which take as
        long again as the answer
    """
    if len(data) > MAX_BYTES:
        return Refusal(TOO_LARGE)
    with _turn(_classifying) as has_turn:
        if not has_turn:
            return Refusal(BUSY)
        try:
            opened = opened_model(usable)
            image = _of_bounded_size(read_image(data))
            prediction = opened.model.predict(image)
        except BrokenImageError as error:
            return Refusal(f"This file cannot be used: {error}.")
        except ModelError:  # its sentence names folders of this machine
            logger.exception("a model cannot be used")
            return Refusal(DAMAGED)
        image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    reject = opened.model.reject if usable.reject is None else usable.reject
    answer = Answer(
        label=prediction.label,
        known=prediction.novelty <= reject,
        probabilities=sharpened(prediction.probabilities, usable.sharpness),
        novelty=prediction.novelty,
        reject=reject,
        elapsed_ms=prediction.elapsed_ms,
        version=usable.number,
    )
    if not explained:
        return answer
    outputs = prediction.outputs
    cam = evidence(outputs.cam, int(outputs.probabilities.argmax()))
    coloured = overlay(image, cam, opened.resize_side)
    return replace(
        answer,
        picture=_data_url(image),
        map=_data_url(coloured),
        nearest=_nearest(usable, opened, outputs),
    )


def _of_bounded_size(image: Image.Image) -> Image.Image:
    factor = 1
    while image.width * image.height > MAX_PIXELS * factor * factor:
        factor *= 2
    return image if factor == 1 else image.reduce(factor)


def _data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=SHOWN_QUALITY)
    encoded = base64.b64encode(file.getvalue()).decode()
    return f"data:image/jpeg;base64,{encoded}"


def _nearest(usable: UsableModel, opened: OpenedModel, outputs: Outputs) -> tuple[NearImage, ...]:
    """Return the nearest training pictures, nearest first."""
    if opened.neighbours is None:
        return ()
    found = opened.neighbours.nearest(outputs.embedding, NEAREST)
    files = [learned.file for learned, _ in found]
    rows = ImageUrl.objects.filter(image_class__request=usable.request, file__in=files)
    image_of = {row.file: row for row in rows}
    nearest = []
    for learned, similarity in found:
        nearest.append(_near_image(learned, similarity, image_of.get(learned.file)))
    return tuple(nearest)


def _near_image(learned: LearnedImage, similarity: float, row: ImageUrl | None) -> NearImage:
    is_own = learned.file.startswith(f"{OWN_FOLDER}/")
    if row is not None and row.source == UPLOAD:
        is_own = True
    if row is None or row.state == ImageState.REJECTED:
        return NearImage(
            label=learned.label,
            similarity=similarity,
            credit=learned.credit,
            page_url=learned.page_url,
            license="",
            pk=None,
            is_own=is_own,
        )
    is_known = row.license not in ("", "unknown")
    terms = f"{row.license} {row.license_version}".strip() if is_known else UNKNOWN_LICENSE
    is_shown = row.state == ImageState.KEPT
    return NearImage(
        label=learned.label,
        similarity=similarity,
        credit=row.creator or row.title,
        page_url=row.page_url or learned.page_url,
        license=terms,
        pk=row.pk if is_shown else None,
        is_own=is_own,
    )


@contextmanager
def _turn(turns: threading.BoundedSemaphore) -> Iterator[bool]:
    """Hold one of few turns; False where none was free in time."""
    has_turn = turns.acquire(timeout=WAIT_SECONDS)
    try:
        yield has_turn
    finally:
        if has_turn:
            turns.release()


def take_from_rate(classifier: ClassifierRequest) -> bool:
    """Count one picture of this link; False when it has had as many as a minute allows."""
    minute = int(time.time() // 60)
    key = sha256_hex(f"try:{classifier.pk}:{minute}")
    count = cache.get(key, 0) + 1
    cache.set(key, count, timeout=120)
    return count <= PICTURES_A_MINUTE
