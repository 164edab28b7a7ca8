"""How to cite a dataset and what it was taken from: ``CITATION.cff`` and the tables for GBIF."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from picaisso_site import __version__
from requests_app import phrases
from requests_app.delivery.contents import GBIF, DatasetImage
from requests_app.delivery.dataset_card import hub_licenses, title
from requests_app.models import DatasetVersion
from scraping.sources.terms import TERMS

GBIF_DATASET = "https://www.gbif.org/dataset/{}"


def citation(version: DatasetVersion, images: Sequence[DatasetImage]) -> bytes:
    """Return ``CITATION.cff``, in version 1.2.0 of the Citation File Format.

    https://github.com/citation-file-format/citation-file-format/blob/main/schema-guide.md
    """
    classes = list(version.request.classes.all())
    lines = [
        "cff-version: 1.2.0",
        "message: If you use this dataset, cite it and what it was taken from.",
        "type: dataset",
        f"title: {_quoted(title(classes))}",
        "authors:",
        f"  - name: {_quoted(f'Collected with Picaisso {__version__}')}",
        f'version: "{version.number}"',
        f"date-released: {version.created.date().isoformat()}",
        "keywords:",
        *[f"  - {_quoted(name)}" for name in dict.fromkeys(c.name for c in classes)],
    ]
    licenses = hub_licenses(images)
    if licenses:
        lines.append("license:")
        lines += [f"  - {name.upper()}" for name in licenses]
    references = [*_sources(images), *_gbif_datasets(images)]
    if references:
        lines += ["references:", *references]
    return ("\n".join(lines) + "\n").encode(errors="replace")


def derived_dataset(images: Sequence[DatasetImage]) -> bytes:
    """Return the table that GBIF's form for derived datasets takes: key and count, no titles."""
    rows = [f"{key},{count}\n" for key, count in dataset_keys(images)]
    return "".join(rows).encode()


def keys_of_pictures(images: Sequence[DatasetImage]) -> bytes:
    """Return the table that names for each picture of GBIF the dataset that it belongs to."""
    rows = ["file_name,datasetKey\n"]
    for entry in images:
        if entry.image.source == GBIF:
            rows.append(f"{entry.file_name},{entry.image.dataset_key}\n")
    return "".join(rows).encode()


def dataset_keys(images: Sequence[DatasetImage]) -> list[tuple[str, int]]:
    """Return the keys of GBIF's datasets with how many pictures are from each, the most first."""
    keys: Counter[str] = Counter()
    for entry in images:
        if entry.image.source == GBIF and entry.image.dataset_key:
            keys[entry.image.dataset_key] += 1
    return sorted(keys.items(), key=lambda item: (-item[1], item[0]))


def _sources(images: Sequence[DatasetImage]) -> Iterator[str]:
    """Yield a reference for each source, in the order of its pictures."""
    counts = Counter(entry.image.source for entry in images)
    for name, count in counts.most_common():
        terms = TERMS.get(name)
        if terms is None:  # a person's own pictures
            continue
        label = phrases.source_title(name)
        notes = f"{phrases.counted(count, 'picture')}. {terms.sentence} These terms: {terms.when}."
        yield "  - type: website"
        yield f"    title: {_quoted(label)}"
        yield "    authors:"
        yield f"      - name: {_quoted(label)}"
        yield f"    url: {_quoted(terms.url)}"
        yield f"    notes: {_quoted(notes)}"


def _gbif_datasets(images: Sequence[DatasetImage]) -> Iterator[str]:
    """Yield a reference for each dataset of GBIF."""
    for key, count in dataset_keys(images):
        yield "  - type: dataset"
        yield f"    title: {_quoted(f'GBIF dataset {key}')}"
        yield "    authors:"
        yield "      - name: GBIF.org"
        yield f"    url: {_quoted(GBIF_DATASET.format(key))}"
        yield f"    notes: {_quoted(phrases.counted(count, 'picture'))}"


def _quoted(text: str) -> str:
    """Return text as YAML; what JSON quotes YAML reads."""
    return json.dumps(text, ensure_ascii=False)
