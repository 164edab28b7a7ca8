"""Who made each image and under which licence, in one sentence that says each thing once."""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from django.template.loader import render_to_string

from requests_app import phrases
from requests_app.delivery.contents import DatasetImage
from requests_app.models import OWN_SOURCE, ImageUrl
from scraping.sources.catalogue import UPLOAD, is_supplied
from scraping.sources.licenses import license_in_words

# How a licence is known, where the source has not stated it for this very image. Requesters state
# none, so that one of theirs is known from the file.
BASES = {
    "filter": "as the search was filtered",
    "file": "as its file says",
    "requester": "as its file says",
}


def attribution(images: Sequence[DatasetImage]) -> bytes:
    """Return ``ATTRIBUTION.md``: a line per image with title, author, licence and its page."""
    text: str = render_to_string("delivery/ATTRIBUTION.md")
    for entry in images:
        text += f"- `{entry.file_name}`: {credit(entry.image)}\n"
    return text.encode(errors="replace")


def credit(image: ImageUrl) -> str:
    """Return the sentence that names an image's title, author, licence, page and source.

    The source's own line of credit comes first, and what it says already is not said again. It is
    on one line, whatever its source wrote.
    """
    if image.source == OWN_SOURCE:
        if not image.image_url:
            return "Their own picture, added by whoever made this dataset"
        return f"Added by whoever made this dataset, from <{image.image_url}>. Licence: unknown"
    if is_supplied(image.source):
        return _supplied_credit(image)
    page = image.page_url or image.image_url
    source = phrases.source_title(image.source)
    line = " ".join(image.attribution.split()) or _work(image)
    for place in (source, host_of(page)):
        line = line.removesuffix(f", via {place}")
    parts = [line.rstrip(".")]
    terms = _terms_left(line, image)
    if terms:
        parts.append(terms)
    found = f"Found by {source} at <{page}>"
    if image.dataset_key:
        found += f"; GBIF dataset {image.dataset_key}"
    if image.detail:  # kept although its file says that AI made it
        found += f"; {image.detail}"
    parts.append(found)
    return " ".join(". ".join(parts).split())


def _supplied_credit(image: ImageUrl) -> str:
    """Return the sentence for what the requester brought along, without any name of a file."""
    line = "Supplied by the requester"
    if image.creator:
        line += f", made by {image.creator}"
    is_of_web = image.source != UPLOAD
    if is_of_web:
        line += f", from <{image.image_url}>"
    if is_of_web or image.license or image.license_url:
        line += f". {_terms_left('', image)}"
    if image.detail:  # kept although its file says that AI made it
        line += f"; {image.detail}"
    return " ".join(line.split())


def _work(image: ImageUrl) -> str:
    work = f"“{image.title or 'untitled'}”"
    return f"{work} by {image.creator}" if image.creator else work


def _terms_left(line: str, image: ImageUrl) -> str:
    """Return what a line of credit does not say of the licence, "" where it says all."""
    if not image.license:
        return "" if "licence unknown" in line else "Licence: unknown"
    name = license_in_words(image.license, "")
    is_named = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", line, re.IGNORECASE)
    words = "" if is_named else license_in_words(image.license, image.license_version)
    address = image.license_url.partition("://")[2].rstrip("/")
    if address and address not in line:
        words += f" <{image.license_url}>"
    words = words.strip()
    basis = BASES.get(image.license_basis, "")
    if words and basis:
        return f"Licence: {words} ({basis})"
    if words:
        return f"Licence: {words}"
    return f"Licence {basis}" if basis else ""


def host_of(url: str) -> str:
    """Return the host of an address, "" where it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # an image's address may be any text
        return ""
