"""The second link of a request: it shows result, try page and credit, and can change nothing."""

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from django.db import transaction
from PIL import Image, ImageDraw, ImageFont

from requests_app import phrases
from requests_app.delivery import thumbnails
from requests_app.models import (
    OWN_SOURCE,
    ClassifierRequest,
    Event,
    ImageQuerySet,
    ImageUrl,
    sha256_hex,
)
from requests_app.versions import finished_versions, kept_images
from scraping.sources.catalogue import UPLOAD
from training.metrics import Metrics

CARD_SIZE = (1200, 630)  # pixels, as link previews show it
CARD_PICTURES = 6
PAPER = "#f6f5f1"
INK = "#1d2033"
SOFT = "#5a5f73"
ACCENT = "#3448c5"
MARGIN = 64


@transaction.atomic
def switch_on(classifier: ClassifierRequest, actor: str) -> bool:
    """Make a link for others; return False if there is one, or nothing to show yet."""
    if not finished_versions(classifier):
        return False
    unshared = ClassifierRequest.objects.filter(pk=classifier.pk, share_sha256=None)
    classifier.share_version += 1
    digest = sha256_hex(classifier.share_token)
    if not unshared.update(share_version=classifier.share_version, share_sha256=digest):
        return False
    classifier.share_sha256 = digest
    _note(classifier, "shared", actor)
    return True


@transaction.atomic
def switch_off(classifier: ClassifierRequest, actor: str) -> bool:
    """Revoke the link for others, for good; return False if there is none."""
    shared = ClassifierRequest.objects.filter(pk=classifier.pk).exclude(share_sha256=None)
    if not shared.update(share_sha256=None):
        return False
    classifier.share_sha256 = None
    _note(classifier, "not shared any more", actor)
    return True


def _note(classifier: ClassifierRequest, reason: str, actor: str) -> None:
    status = classifier.status
    Event.objects.create(request=classifier, old=status, new=status, reason=reason, actor=actor)


def credited_images(classifier: ClassifierRequest) -> ImageQuerySet:
    """Return the kept images of the web: what a person added themselves others never see."""
    return kept_images(classifier).exclude(source__in=(OWN_SOURCE, UPLOAD))


def open_images(classifier: ClassifierRequest) -> ImageQuerySet:
    """Return the kept images whose licence is known: others may be named, and not shown on."""
    images = credited_images(classifier)
    return images.exclude(license="").exclude(license="unknown")


def social_card(classifier: ClassifierRequest, metrics: Metrics) -> bytes:
    """Draw the PNG that a link preview shows: names, figure, and some openly licensed pictures."""
    card = Image.new("RGB", CARD_SIZE, PAPER)
    draw = ImageDraw.Draw(card)
    names = [image_class.name for image_class in classifier.classes.all()]
    draw.rectangle((0, 0, CARD_SIZE[0], 12), fill=ACCENT)
    draw.text((MARGIN, 56), "Picaisso", font=_font(34, bold=True), fill=ACCENT)
    title = _fitting(draw, _heading(names), _font(64, bold=True), CARD_SIZE[0] - 2 * MARGIN)
    draw.text((MARGIN, 130), title, font=_font(64, bold=True), fill=INK)
    figure = phrases.percent(metrics["headline"]["value"]).replace("\N{NO-BREAK SPACE}", " ")
    draw.text((MARGIN, 226), figure, font=_font(96, bold=True), fill=ACCENT)
    counts = f"right: {phrases.headline_counts(metrics)}"
    line = _fitting(draw, counts, _font(30), CARD_SIZE[0] - 2 * MARGIN)
    draw.text((MARGIN, 350), line, font=_font(30), fill=SOFT)
    _draw_pictures(card, list(open_images(classifier).order_by("?")[: 3 * CARD_PICTURES]))
    file = io.BytesIO()
    card.save(file, "PNG", optimize=True)
    return file.getvalue()


def _heading(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]}?"
    return f"{', '.join(names[:-1])} or {names[-1]}?"


def _fitting(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return the text, cut with an ellipsis where it is wider than ``width`` pixels."""
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(f"{text}…", font=font) > width:
        text = text[:-1]
    return f"{text}…"


def _draw_pictures(card: Image.Image, images: Sequence[ImageUrl]) -> None:
    side = (CARD_SIZE[0] - 2 * MARGIN - 5 * 16) // CARD_PICTURES
    left = MARGIN
    for image in images:
        path = thumbnails.thumbnail(image)
        if path is None or left + side > CARD_SIZE[0]:
            continue
        with Image.open(path) as picture:
            half = min(picture.size) // 2
            middle_x = picture.width // 2
            middle_y = picture.height // 2
            box = (middle_x - half, middle_y - half, middle_x + half, middle_y + half)
            square = picture.convert("RGB").resize((side, side), box=box)
        card.paste(square, (left, CARD_SIZE[1] - side - MARGIN // 2))
        left += side + 16


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib; matplotlib itself is not loaded."""
    spec = find_spec("matplotlib")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(folders[0], "mpl-data", "fonts", "ttf", name)
    return ImageFont.truetype(str(path), size)
