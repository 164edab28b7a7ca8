"""``README.md`` of a dataset: its card, with the metadata that Hugging Face's hub reads."""

import json
import re
from collections import Counter
from collections.abc import Sequence

from django.template.loader import render_to_string

from picaisso_site import __version__
from requests_app import phrases
from requests_app.delivery.attribution import host_of
from requests_app.delivery.contents import GBIF, DatasetImage
from requests_app.models import DatasetVersion, ImageClass, ImageState, ImageUrl
from scraping.sources.catalogue import is_supplied
from scraping.sources.licenses import license_in_words
from scraping.sources.terms import TERMS, Terms

TOP_DOMAINS = 10
SPLITS = ("train", "val", "test")
# The licences that the hub lists, by its names, which are our name and version joined.
# https://huggingface.co/docs/hub/repositories-licenses
# fmt: off
HUB_LICENSES = {
    "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
}
# fmt: on


def dataset_card(
    version: DatasetVersion, classes: Sequence[ImageClass], images: Sequence[DatasetImage]
) -> bytes:
    """Return ``README.md``."""
    counts = Counter((entry.class_id, entry.split) for entry in images)
    licenses = Counter(_license(entry.image) for entry in images)
    sources = Counter(phrases.source_title(entry.image.source) for entry in images)
    rows = []
    for c in classes:
        row = {
            "class_id": c.class_id,
            "name": cell(c.name),
            "query": cell(c.search_words),
            "per_split": [counts[c.class_id, split] for split in SPLITS],
        }
        rows.append(row)
    context = {
        "pretty_name": json.dumps(title(classes), ensure_ascii=False),
        "version": version,
        "picaisso_version": __version__,
        "total": len(images),
        "size_category": _size_category(len(images)),
        "hub_licenses": hub_licenses(images),
        "rows": rows,
        "kind_note": cell(str(version.request.kind_found.get("sentence", ""))),
        "brought": version.request.supplied,
        "supplied": sum(is_supplied(entry.image.source) for entry in images),
        "licenses": licenses.most_common(),
        "sources": sources.most_common(),
        "domains": _top_domains(images),
        "terms": _terms(images),
        **_gbif(images),
        "left_out": left_out(classes),
    }
    return render_to_string("delivery/dataset_card.md", context).encode(errors="replace")


def title(classes: Sequence[ImageClass]) -> str:
    """Return what the dataset is called: “Pictures of corgi and shiba inu”."""
    names = [c.name for c in classes]
    return f"Pictures of {', '.join(names[:-1])} and {names[-1]}"


def cell(text: str) -> str:
    """Return text so that a cell of a Markdown table shows it literally."""
    one_line = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", one_line)


def _license(image: ImageUrl) -> str:
    words = license_in_words(image.license, image.license_version)
    return cell(words if image.license else "unknown")


def hub_licenses(images: Sequence[DatasetImage]) -> list[str]:
    """Return the licences by the hub's names, none unless it lists those of all images."""
    names = set()
    for entry in images:
        names.add(f"{entry.image.license}-{entry.image.license_version}")
    return sorted(names) if names <= HUB_LICENSES else []


def _size_category(count: int) -> str:
    if count < 1000:
        return "n<1K"
    return "1K<n<10K" if count < 10_000 else "10K<n<100K"


def _terms(images: Sequence[DatasetImage]) -> list[tuple[str, Terms]]:
    """Return the terms of each source, by what people call it."""
    names = Counter(entry.image.source for entry in images)
    known = [name for name, _ in names.most_common() if name in TERMS]
    return [(phrases.source_title(name), TERMS[name]) for name in known]


def _gbif(images: Sequence[DatasetImage]) -> dict[str, object]:
    """Return how many pictures are from GBIF, of how many the dataset is not known, and of any."""
    keys = [entry.image.dataset_key for entry in images if entry.image.source == GBIF]
    if not keys:
        return {}
    count = phrases.counted(len(keys), "picture is", "pictures are")
    unknown = keys.count("")
    words = phrases.counted(unknown, "picture") if unknown else ""
    has_keys = unknown < len(keys)
    return {"gbif_pictures": count, "gbif_unknown": words, "has_gbif_keys": has_keys}


def _top_domains(images: Sequence[DatasetImage]) -> list[tuple[str, int]]:
    """Return the hosts of most of the pages that the images were found on, with their counts."""
    domains: Counter[str] = Counter()
    for entry in images:
        host = host_of(entry.image.page_url or entry.image.image_url)
        if host:
            domains[cell(host.removeprefix("www."))] += 1
    return domains.most_common(TOP_DOMAINS)


def left_out(classes: Sequence[ImageClass]) -> list[str]:
    """Return what was found and left out, in words: “14 too small”."""
    rejected: Counter[str] = Counter()
    for c in classes:
        rejected += Counter(c.rejected)
    words = phrases.rejections_listed(rejected)
    removed = ImageUrl.objects.filter(image_class__in=classes, state=ImageState.REMOVED).count()
    if removed:
        words.append(f"{removed} removed by a person")
    return words
