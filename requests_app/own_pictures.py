"""Pictures that a person adds: cleaned as every other one, learned from, and never tested on.

They lie beside the collection's, in ``collect/own``: a later collection may remove from its own
folder what it did not find. Each stands in the training split from the start, so that it can never
come into the test part; a copy of a test picture is refused, because a model that learned from it
would be measured wrongly.
"""

import threading
from functools import lru_cache
from pathlib import Path

from django.conf import settings
from django.db import transaction
from PIL import Image

from requests_app import curation, prediction, takedowns
from requests_app.models import (
    OWN_FOLDER,
    OWN_SOURCE,
    ClassifierRequest,
    Decision,
    ImageClass,
    ImageState,
    ImageUrl,
    sha256_hex,
)
from requests_app.prediction import BUSY, Refusal
from scraping.net.opt_out import header_objection
from scraping.reasons import Reason
from scraping.refused_digests import RefusedDigests
from scraping.screening.screen import (
    CleanImage,
    Judge,
    Rejection,
    ScreenSettings,
    file_name,
    screen,
    store,
)
from scraping.urls import normalized_url
from training.duplicates import DuplicateIndex, Fingerprint, fingerprint

LICENSE = "your own"
MOST = 2000  # of one request
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
DRAFT_SIDE = 192  # pixels: enough for a fingerprint, and quick to decode

HEIC = (
    "HEIC pictures cannot be read here. Save it as JPEG; an iPhone takes JPEG pictures when Camera,"
    " Formats is set to “Most Compatible”."
)
SENTENCES: dict[str, str] = {
    Reason.NOT_A_PICTURE: "This file is not a picture that can be read. Save it as JPEG or PNG.",
    Reason.TOO_LARGE: "This picture has too many pixels. Save it smaller.",
    Reason.BAD_SHAPE: "This picture is more than five times as long as it is wide.",
    Reason.OPTED_OUT: "Its file says that no model may be trained on it.",
    Reason.AI_MADE: "Its file says that AI made it, and such pictures are left out here.",
    Reason.NUDITY: "This site does not take pictures of this kind.",
    Reason.TAKEN_DOWN: "The operator of this site does not accept this picture.",
}
NO_CLASS = "Choose what the picture shows."
TOO_MANY_OWN = f"This request has {MOST} pictures of your own already; more are not taken."
COPY_OF_TEST = (
    "This is a copy of a test picture. A model that learned from it would be measured wrongly, so"
    " it was not added."
)
WITHHELD = "The site of this picture says that no model may be trained on it."

# One picture is decoded at a time: each may take some hundred MB.
_screening = threading.Lock()


def add(
    classifier: ClassifierRequest, number: int, data: bytes, actor: str, url: str = ""
) -> Decision | Refusal:
    """Add a picture as one of a class; it counts in the next version, for training only.

    :param number: of the class
    :param url: where it was fetched from, "" for a person's own file
    """
    image_class = classifier.classes.filter(number=number).first()
    if image_class is None:
        return Refusal(NO_CLASS)
    if len(data) > prediction.MAX_BYTES:
        return Refusal(prediction.TOO_LARGE)
    if not _screening.acquire(timeout=prediction.WAIT_SECONDS):
        return Refusal(BUSY)
    try:
        clean = screen(data, screen_settings(), _judge(settings.NUDITY_MODEL))
    finally:
        _screening.release()
    if isinstance(clean, Rejection):
        return Refusal(refusal_sentence(clean.reason, data[:32]))
    return add_clean(image_class, clean, actor, url)


def add_from_web(
    classifier: ClassifierRequest, number: int, url: str, actor: str
) -> Decision | Refusal:
    """Fetch a picture with the one guarded client, and add it unless its site withholds it."""
    fetched = prediction.fetch_picture(url)
    if isinstance(fetched, Refusal):
        return fetched
    address = prediction.full_address(url)
    digest = sha256_hex(normalized_url(address))
    if digest in takedowns.taken_down_digests()["urls"]:
        return Refusal(SENTENCES[Reason.TAKEN_DOWN])
    if header_objection(fetched.headers):
        return Refusal(WITHHELD)
    return add(classifier, number, bytes(fetched.body), actor, address)


def add_clean(
    image_class: ImageClass, clean: CleanImage, actor: str, url: str = ""
) -> Decision | Refusal:
    """Add a picture that was screened, unless there is one like it that forbids it."""
    classifier = image_class.request
    obstacle = _obstacle(classifier, clean)
    if obstacle:
        return Refusal(obstacle)
    with transaction.atomic():
        image = keep(image_class, clean, url)
        return curation.note_added(classifier, image_class, [image], actor)


def keep(image_class: ImageClass, clean: CleanImage, url: str = "") -> ImageUrl:
    """Store a screened picture and its row, whatever else there is."""
    folder = image_class.request.folder / "collect" / OWN_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    store(clean, folder)
    return _row(image_class, clean, url)


def screen_settings() -> ScreenSettings:
    """Return how every picture of this site is screened."""
    return ScreenSettings(
        min_side=settings.MIN_SIDE,
        max_side=settings.MAX_SIDE,
        taken_down=frozenset(takedowns.taken_down_digests()["hashes"]),
        ai_made=settings.AI_MADE,
    )


def refusal_sentence(reason: str, start: bytes = b"") -> str:
    """Say why a picture was refused, and what to do.

    :param start: the first bytes of its file
    """
    if reason == Reason.TOO_SMALL:
        return f"This picture is too small: its shorter side needs {settings.MIN_SIDE} pixels."
    if reason == Reason.NOT_A_PICTURE and start[8:12] in HEIC_BRANDS:
        return HEIC
    return SENTENCES.get(reason, SENTENCES[Reason.NOT_A_PICTURE])


@lru_cache(maxsize=1)
def _judge(model: str) -> Judge | None:
    """Return the operator's judge of nudity, None where there is none."""
    if not model:
        return None
    from scraping.screening.nudity import NudityModel

    return NudityModel(model).objection


def _obstacle(classifier: ClassifierRequest, clean: CleanImage) -> str:
    """Return the sentence that says why a screened picture must not be added, "" if it may be."""
    refused = RefusedDigests.read(settings.REFUSED_DIGESTS)
    if refused.has(clean.sha256, clean.source_sha256):
        return SENTENCES[Reason.TAKEN_DOWN]
    images = ImageUrl.objects.of_request(classifier).exclude(state=ImageState.REJECTED)
    if is_full(classifier):
        return TOO_MANY_OWN
    same = images.filter(sha256=clean.sha256).first()
    if same is not None:
        place = f"This picture is in the dataset already, as “{same.current_class.name}”."
        if same.state == ImageState.REMOVED:
            return f"{place} You removed it: take it in again among the pictures."
        return f"{place} It can be moved among the pictures."
    if is_copy_of_test(classifier, clean.fingerprint):
        return COPY_OF_TEST
    return ""


def is_full(classifier: ClassifierRequest) -> bool:
    """Return whether a request has as many pictures of a person's own as it may have."""
    own = ImageUrl.objects.of_request(classifier).filter(source=OWN_SOURCE)
    return own.count() >= MOST


def is_copy_of_test(classifier: ClassifierRequest, wanted: Fingerprint) -> bool:
    """Return whether a picture shows the same photograph as a test picture, a removed one too."""
    tested = ImageUrl.objects.of_request(classifier).filter(split="test")
    index = DuplicateIndex()
    for image in tested.exclude(state=ImageState.REJECTED).exclude(file=""):
        known = _fingerprint_of(classifier.folder / "collect" / image.file)
        if known is not None:
            index.add(str(image.pk), known)
    return index.find(wanted) is not None


@lru_cache(maxsize=4096)
def _fingerprint_of(path: Path) -> Fingerprint | None:
    """Return the fingerprint of a file that is called by its content, None where it is gone."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (DRAFT_SIDE, DRAFT_SIDE))
            return fingerprint(image.convert("RGB"))
    except OSError:
        return None


def _row(image_class: ImageClass, clean: CleanImage, url: str) -> ImageUrl:
    """Make the row of a stored picture; one that was taken back or rejected before comes back."""
    identity = sha256_hex(f"{OWN_SOURCE}:{clean.sha256}")
    image, _ = ImageUrl.objects.update_or_create(
        image_class=image_class,
        url_sha256=identity,
        defaults={
            "source": OWN_SOURCE,
            "query": image_class.query,
            "image_url": url,
            "license": "" if url else LICENSE,
            "license_basis": "unknown" if url else "person",
            "state": ImageState.KEPT,
            "reason": "",
            "detail": "",
            "file": f"{OWN_FOLDER}/{file_name(clean.sha256)}",
            "sha256": clean.sha256,
            "source_sha256": clean.source_sha256,
            "width": clean.width,
            "height": clean.height,
            "bytes": len(clean.jpeg),
            "mime": clean.mime,
            "split": "train",
            "label": None,
        },
    )
    return image
