"""recipe.json: how the pictures of a dataset are found again, so that they need not travel.

It holds names, queries, sources, addresses, digests, difference hashes and the split; `replay`
makes the dataset of it. A recipe comes from a stranger: it is read with bounds, and a row that
makes no sense gets a reason.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from scraping import ConfigError
from scraping.outside import address_fault, clean_address, clean_text, parsed_json
from scraping.urls import is_web_address
from training.class_names import find_problem, normalize

FILE_NAME = "recipe.json"
FORMAT = "picaisso-recipe"
FORMAT_VERSION = 1
MAX_BYTES = 128 << 20
MAX_CLASSES = 1000
MAX_IMAGES = 200_000
MAX_NAME_LENGTH = 64  # characters, as at the form
MAX_QUERY_LENGTH = 200
MAX_SIDE = 8192  # pixels
SPLITS = ("train", "val", "test")
CREDIT_COLUMNS = (
    "title",
    "creator",
    "license",
    "license_version",
    "license_url",
    "license_basis",
    "attribution",
)
CLASS_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
SHA256 = re.compile(r"[0-9a-f]{64}")
DIFFERENCE_HASH = re.compile(r"[0-9a-f]{16}")


class RecipeImage(TypedDict):
    """One picture: where it was found, and how to know it again."""

    class_id: str
    split: str | None
    """train, val or test; None before the first training."""
    group: int | None
    """Of near-duplicates, which are never in two splits."""
    source: str
    query: str
    image_url: str
    """Empty where whoever made the dataset supplied the picture."""
    page_url: str
    sha256: str
    """Of the stored bytes."""
    source_sha256: str
    """Of the bytes as they were received."""
    dhash: str
    """64-bit difference hash in hexadecimal."""
    width: int | None
    height: int | None
    credit: dict[str, str]
    """CREDIT_COLUMNS."""


@dataclass(frozen=True)
class RecipeClass:
    """A class: its id, its name, and what was searched for."""

    id: str
    name: str
    query: str


@dataclass(frozen=True)
class WantedImage:
    """A row of a recipe that can be asked for."""

    number: int
    """Of the row, from 1."""
    class_id: str
    split: str | None
    image_url: str
    page_url: str
    source: str
    query: str
    sha256: str
    source_sha256: str
    difference_hash: int | None
    shape: float | None
    """Width divided by height."""
    credit: Mapping[str, str]


@dataclass
class Recipe:
    """What a recipe asks for; `unusable` holds the reasons of rows by their number, from 1."""

    classes: list[RecipeClass] = field(default_factory=list)
    images: list[WantedImage] = field(default_factory=list)
    without_address: int = 0
    unusable: dict[int, str] = field(default_factory=dict)
    min_side: int | None = None
    max_side: int | None = None

    @property
    def rows(self) -> int:
        """Return how many pictures the dataset has."""
        return len(self.images) + self.without_address + len(self.unusable)


def recipe_document(
    classes: Sequence[RecipeClass],
    images: Sequence[RecipeImage],
    sides: tuple[int, int],
    version: int | None = None,
) -> dict[str, Any]:
    """Return what recipe.json holds. `sides` are the smallest accepted and the largest stored."""
    labels = [{"id": label.id, "name": label.name, "query": label.query} for label in classes]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "version": version,
        "min_side": sides[0],
        "max_side": sides[1],
        "classes": labels,
        "images": list(images),
    }


def collected_image(record: Mapping[str, Any]) -> RecipeImage:
    """Return the row of a picture that a collection kept, from its record in images.jsonl."""
    return {
        "class_id": record["class"],
        "split": record.get("split"),
        "group": None,
        "source": record["source"],
        "query": record["query"],
        "image_url": record["image_url"] if is_web_address(record["image_url"]) else "",
        "page_url": record["page_url"],
        "sha256": record["sha256"],
        "source_sha256": record["source_sha256"],
        "dhash": record.get("dhash", ""),
        "width": record["width"],
        "height": record["height"],
        "credit": {name: record[name] for name in CREDIT_COLUMNS},
    }


def read_recipe(path: Path) -> Recipe:
    """Read a recipe. Raises ConfigError with one sentence where it is none."""
    name = path.name
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{name} is larger than {MAX_BYTES >> 20} MiB: that is no recipe.")
    try:
        document = parsed_json(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{name} is not JSON.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ConfigError(f"{name} is no recipe: it lacks “format”: “{FORMAT}”.")
    if document.get("format_version") != FORMAT_VERSION:
        raise ConfigError(f"{name} was written by another version of Picaisso: update this one.")
    recipe = Recipe(
        min_side=_side(document.get("min_side")), max_side=_side(document.get("max_side"))
    )
    _read_classes(recipe, document.get("classes"), name)
    rows = document.get("images")
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{name} names no picture.")
    if len(rows) > MAX_IMAGES:
        raise ConfigError(f"{name} names more than {MAX_IMAGES:,} pictures.")
    _read_images(recipe, rows)
    return recipe


def _side(value: object) -> int | None:
    is_side = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_SIDE
    return int(str(value)) if is_side else None


def _read_classes(recipe: Recipe, entries: object, name: str) -> None:
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_CLASSES:
        raise ConfigError(f"{name} must name 1 to {MAX_CLASSES:,} classes.")
    for number, entry in enumerate(entries, start=1):
        values = entry if isinstance(entry, dict) else {}
        class_id = values.get("id")
        label = values.get("name")
        if not isinstance(class_id, str) or not CLASS_ID.fullmatch(class_id):
            raise ConfigError(f"Class {number} of {name} has no usable id.")
        if not isinstance(label, str) or find_problem(label, MAX_NAME_LENGTH):
            raise ConfigError(f"Class {number} of {name} has no usable name.")
        if class_id in {known.id for known in recipe.classes}:
            raise ConfigError(f"{name} has two classes with the id {class_id}.")
        shown = normalize(label)
        query = clean_text(values.get("query"), MAX_QUERY_LENGTH) or shown
        recipe.classes.append(RecipeClass(class_id, shown, query))


def _read_images(recipe: Recipe, rows: Sequence[object]) -> None:
    class_ids = {label.id for label in recipe.classes}
    addresses = set()
    for number, row in enumerate(rows, start=1):
        values = row if isinstance(row, dict) else {}
        address = clean_address(values.get("image_url"))
        fault = _fault(values, class_ids)
        if not fault and not address:
            recipe.without_address += 1
            continue
        fault = fault or address_fault(address)
        if not fault and address in addresses:
            fault = "its address stands in the recipe twice"
        if fault:
            recipe.unusable[number] = fault
            continue
        addresses.add(address)
        recipe.images.append(_wanted(number, values, address))


def _fault(values: Mapping[str, Any], class_ids: set[str]) -> str:
    """Return what is wrong with a row, as the end of a sentence; "" for nothing."""
    class_id = values.get("class_id")
    if not isinstance(class_id, str) or class_id not in class_ids:
        return "it is of no class of the recipe"
    split = values.get("split")
    if split is not None and split not in SPLITS:
        return "its split is none of train, val and test"
    if not (_matching(values, "sha256", SHA256) or _matching(values, "source_sha256", SHA256)):
        return "it has no digest"
    return ""


def _matching(values: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    """Return a text of a row that has the form it must have, else ""."""
    value = values.get(name)
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""


def _wanted(number: int, values: Mapping[str, Any], address: str) -> WantedImage:
    hash_text = _matching(values, "dhash", DIFFERENCE_HASH)
    width = _side(values.get("width"))
    height = _side(values.get("height"))
    given = values.get("credit")
    credit = given if isinstance(given, dict) else {}
    return WantedImage(
        number=number,
        class_id=values["class_id"],
        split=values.get("split"),
        image_url=address,
        page_url=clean_address(values.get("page_url")),
        source=clean_text(values.get("source"), 32),
        query=clean_text(values.get("query"), MAX_QUERY_LENGTH),
        sha256=_matching(values, "sha256", SHA256),
        source_sha256=_matching(values, "source_sha256", SHA256),
        difference_hash=int(hash_text, 16) if hash_text else None,
        shape=width / height if width and height else None,
        credit={name: clean_text(credit.get(name)) for name in CREDIT_COLUMNS},
    )
