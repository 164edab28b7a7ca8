"""What people type, checked: the submission and the retry. Every complaint names the field it belongs to."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator
from django.utils.datastructures import MultiValueDict

from requests_app import wording
from requests_app.models import Backbone, ClassifierRequest, License
from requests_app.pipeline import Submission

FEWEST_CLASSES, MOST_CLASSES = 2, 10
LONGEST_NAME, LONGEST_QUERY, LONGEST_ADDRESS = 64, 200, 254
FEWEST_IMAGES, DEFAULT_IMAGES, MOST_IMAGES = 20, 100, 500

# Characters that turn the direction of the text after them: they make a name look like another one.
DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def tidy(text: str, longest: int) -> str:
    """The text in Unicode normal form C without outer spaces.

    :raises ValidationError: when it is too long or holds characters that cannot be seen for what they are
    """
    tidied = unicodedata.normalize("NFC", text.strip(" \u00a0\u3000"))
    if any(mark in tidied for mark in DIRECTION_MARKS):
        raise ValidationError("Invisible characters that change the reading direction are not allowed here.")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in tidied):
        raise ValidationError("Line breaks and other control characters are not allowed here.")
    if len(tidied) > longest:
        raise ValidationError(f"At most {longest} characters, please; this has {len(tidied)}.")
    if tidied and all(unicodedata.category(char)[0] in "CZ" for char in tidied):
        raise ValidationError("This has no visible character.")
    return tidied


def folded(name: str) -> str:
    """What two names have in common when people would call them equal."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).strip().casefold())


@dataclass(frozen=True)
class ClassRow:
    """One class as typed: its place in the form, and what is wrong with it."""

    index: int
    name: str = ""
    query: str = ""
    name_error: str = ""
    query_error: str = ""
    focus: str = ""

    @property
    def number(self) -> int:
        return self.index + 1

    @property
    def name_id(self) -> str:
        return f"id_classes_{self.index}"

    @property
    def query_id(self) -> str:
        return f"id_queries_{self.index}"

    @property
    def is_empty(self) -> bool:
        return not self.name.strip() and not self.query.strip()

    @property
    def is_extra(self) -> bool:
        return self.index >= FEWEST_CLASSES

    @property
    def problems(self) -> list[tuple[str, str, str]]:
        """(field id, label, sentence) of each complaint about this row."""
        found = [
            (self.name_id, f"Class {self.number}", self.name_error),
            (self.query_id, f"Search words of class {self.number}", self.query_error),
        ]
        return [problem for problem in found if problem[2]]


def typed_rows(data: MultiValueDict[str, str], at_least: int = FEWEST_CLASSES) -> list[ClassRow]:
    """The rows of a sent form: ``classes`` repeated, ``queries`` parallel to it (or absent)."""
    names, queries = data.getlist("classes"), data.getlist("queries")
    length = max(len(names), len(queries), at_least)
    names, queries = (values + [""] * (length - len(values)) for values in (list(names), list(queries)))
    return [ClassRow(i, name, query) for i, (name, query) in enumerate(zip(names, queries, strict=True))]


def checked_rows(rows: Sequence[ClassRow]) -> list[ClassRow]:
    """The rows with their complaints; empty ones are ignored unless too few are left."""
    checked = [_without_twins(row, rows) for row in map(_checked_alone, rows)]
    given = [row for row in checked if not row.is_empty]
    if len(given) > MOST_CLASSES:
        extra = given[MOST_CLASSES].index
        sentence = f"At most {MOST_CLASSES} classes, please; these are {len(given)}."
        checked[extra] = replace(checked[extra], name_error=sentence)
    elif len(given) < FEWEST_CLASSES:
        index = next(row.index for row in checked if row.is_empty)
        sentence = "Name a second class: a classifier decides between at least two." if given else "Name this class."
        checked[index] = replace(checked[index], name_error=sentence)
    return checked


def _checked_alone(row: ClassRow) -> ClassRow:
    name_error = _complaint(row.name, LONGEST_NAME)
    if not row.is_empty and not row.name.strip():
        name_error = "Name this class, or clear its search words."
    return replace(row, name_error=name_error, query_error=_complaint(row.query, LONGEST_QUERY))


def _without_twins(row: ClassRow, rows: Sequence[ClassRow]) -> ClassRow:
    mine = folded(row.name)
    twin = next((other for other in rows[: row.index] if mine and folded(other.name) == mine), None)
    if twin is None or row.name_error:
        return row
    return replace(row, name_error=f"This is the same as class {twin.number}; capital letters do not matter.")


def _complaint(text: str, longest: int) -> str:
    try:
        tidy(text, longest)
    except ValidationError as error:
        return str(error.messages[0])
    return ""


class AddressField(forms.CharField):
    """One e-mail address that mail can reach from outside; nothing that could address a second person."""

    default_error_messages = {
        "required": "Type the address that the result is sent to.",
        "invalid": "This is not an e-mail address. It looks like name@example.org.",
        "long": f"An e-mail address has at most {LONGEST_ADDRESS} characters.",
        "several": "One address only, please.",
    }

    def to_python(self, value: Any) -> str:
        """The address without outer spaces; line breaks are refused even at the ends, where Django would drop them."""
        text = "" if value is None else str(value).strip(" ")
        if any(unicodedata.category(char).startswith("C") for char in text):
            raise self._error("invalid")
        return text

    def validate(self, value: str) -> None:
        super().validate(value)
        if len(value) > LONGEST_ADDRESS:
            raise self._error("long")
        if value.count("@") > 1 or any(char in value for char in ",; "):
            raise self._error("several" if value.count("@") > 1 else "invalid")
        if any(char in value for char in '"<>[]'):
            raise self._error("invalid")
        EmailValidator(message=self.error_messages["invalid"], allowlist=[])(value)

    def _error(self, code: str) -> ValidationError:
        return ValidationError(self.error_messages[code], code=code)


def images_field(**options: Any) -> forms.IntegerField:
    """The field for pictures per class, with the limits said the same way everywhere."""
    sentence = f"A whole number from {FEWEST_IMAGES} to {MOST_IMAGES}, please."
    return forms.IntegerField(
        min_value=FEWEST_IMAGES,
        max_value=MOST_IMAGES,
        required=False,
        label="Pictures per class",
        error_messages={"invalid": sentence, "min_value": sentence, "max_value": sentence},
        widget=forms.NumberInput(attrs={"class": "input short", "inputmode": "numeric"}),
        **options,
    )


class SubmissionForm(forms.Form):
    """The form of the first page. Field names are public: classes and queries (repeated), email, and the options."""

    use_required_attribute = False
    optional = ("images_per_class", "license", "backbone")

    email = AddressField(
        label="Your e-mail address",
        widget=forms.EmailInput(attrs={"class": "input", "autocomplete": "email", "aria-required": "true"}),
    )
    images_per_class = images_field(initial=DEFAULT_IMAGES)
    license = forms.ChoiceField(
        label="Licence of the pictures",
        choices=License.choices,
        initial=License.ANY,
        required=False,
        widget=forms.Select(attrs={"class": "input"}),
        error_messages={"invalid_choice": "Choose one of the licences offered."},
    )
    backbone = forms.ChoiceField(
        label="Network to start from",
        choices=Backbone.choices,
        required=False,
        widget=forms.Select(attrs={"class": "input"}),
        error_messages={"invalid_choice": "Choose one of the networks offered."},
    )

    def __init__(self, data: MultiValueDict[str, str] | None = None) -> None:
        super().__init__(data, initial={"backbone": settings.BACKBONE})
        self.rows = typed_rows(MultiValueDict() if data is None else data)

    def full_clean(self) -> None:
        super().full_clean()
        if self.is_bound:
            self._focus_first_problem()

    def clean(self) -> dict[str, Any]:
        self.rows = checked_rows(self.rows)
        for row in self.rows:
            for _, _, sentence in row.problems:
                self.add_error(None, sentence)
        return self.cleaned_data

    @property
    def problems(self) -> list[tuple[str, str, str]]:
        """(field id, label, sentence) of every complaint, in the order of the page."""
        if not self.is_bound:
            return []
        names = [row.problems[0] for row in self.rows if row.name_error]
        fields = [
            (self[name].id_for_label, str(self[name].label), str(self.errors[name][0]))
            for name in ("email", *self.optional)
            if name in self.errors
        ]
        return names + fields + [row.problems[-1] for row in self.rows if row.query_error]

    def _focus_first_problem(self) -> None:
        if not self.problems:
            return
        target = self.problems[0][0]
        self.rows = [replace(row, focus=target) for row in self.rows]
        for name, field in self.fields.items():
            if self[name].id_for_label == target:
                field.widget.attrs["autofocus"] = True

    @property
    def options_open(self) -> bool:
        """Whether the folded options hold something the person must see: a complaint, or a choice of theirs."""
        usual = {"images_per_class": DEFAULT_IMAGES, "license": License.ANY, "backbone": settings.BACKBONE}
        chosen = any(str(self[name].value() or value) != str(value) for name, value in usual.items())
        return chosen or any(row.query for row in self.rows)

    @property
    def blank_row(self) -> ClassRow:
        """What "add a class" copies."""
        return ClassRow(FEWEST_CLASSES)

    @property
    def may_add(self) -> bool:
        return len(self.rows) < MOST_CLASSES

    def changed(self, *, add: bool = False, remove: int | None = None) -> "SubmissionForm":
        """The same form, not yet judged, with one class row more or less: "add a class" where scripts are off."""
        rows = [row for row in self.rows if row.index != remove or len(self.rows) <= FEWEST_CLASSES]
        if add and self.may_add:
            rows.append(ClassRow(len(rows)))
        fresh = SubmissionForm()
        fresh.initial = {**fresh.initial, **{name: self[name].value() for name in self.fields if name in self.data}}
        fresh.rows = [replace(row, index=i, name_error="", query_error="", focus="") for i, row in enumerate(rows)]
        if add:
            fresh.rows = [replace(row, focus=fresh.rows[-1].name_id) for row in fresh.rows]
        return fresh

    def submission(self) -> Submission:
        """What the pipeline takes; only after ``is_valid``."""
        given = [row for row in self.rows if not row.is_empty]
        values = self.cleaned_data
        return Submission(
            classes=tuple((tidy(row.name, LONGEST_NAME), tidy(row.query, LONGEST_QUERY)) for row in given),
            email=values["email"],
            images_per_class=values["images_per_class"] or DEFAULT_IMAGES,
            license=values["license"] or License.ANY,
            backbone=values["backbone"] or settings.BACKBONE,
        )


class RetryForm(forms.Form):
    """Starting again after a stop: as before, or with fewer pictures, another wording, or what is there."""

    use_required_attribute = False

    images_per_class = images_field()
    license = forms.ChoiceField(label="Licence", choices=License.choices, required=False)
    sources = forms.MultipleChoiceField(
        label="Sources",
        choices=[(name, wording.SOURCES[name]) for name in settings.KNOWN_SOURCES],
        required=False,
        widget=forms.CheckboxSelectMultiple(attrs={"class": "check"}),
    )
    accept_fewer = forms.BooleanField(
        label="Train with the pictures that were found, even if they are few",
        required=False,
        widget=forms.CheckboxInput(attrs={"class": "check"}),
    )

    def __init__(self, request: ClassifierRequest, data: MultiValueDict[str, str] | None = None) -> None:
        initial = {
            "images_per_class": request.images_per_class,
            "license": request.license,
            "sources": request.sources or settings.SOURCES,
        }
        super().__init__(data, initial=initial)
        self.classes = list(request.classes.all())
        typed = [row.query for row in typed_rows(data, 0)] if data is not None else []
        typed += [image_class.query for image_class in self.classes[len(typed) :]]
        self.rows = [
            ClassRow(i, image_class.name, query)
            for i, (image_class, query) in enumerate(zip(self.classes, typed, strict=False))
        ]

    def clean(self) -> dict[str, Any]:
        self.rows = [replace(row, query_error=_complaint(row.query, LONGEST_QUERY)) for row in self.rows]
        for row in self.rows:
            if row.query_error:
                self.add_error(None, row.query_error)
        return self.cleaned_data

    @staticmethod
    def _in_order(names: list[str]) -> list[str] | None:
        """The chosen sources, those of the site first and in its order; None where nothing was chosen."""
        order = [*settings.SOURCES, *(name for name in settings.KNOWN_SOURCES if name not in settings.SOURCES)]
        return [name for name in order if name in names] or None

    def changes(self) -> dict[str, Any]:
        """Keyword arguments for ``pipeline.retry``: only what differs from before."""
        queries = {
            image_class.number: tidy(row.query, LONGEST_QUERY) or image_class.name
            for image_class, row in zip(self.classes, self.rows, strict=True)
            if (tidy(row.query, LONGEST_QUERY) or image_class.name) != image_class.query
        }
        return {
            "images_per_class": self.cleaned_data["images_per_class"],
            "license": self.cleaned_data["license"] or None,
            "sources": self._in_order(self.cleaned_data["sources"]),
            "accept_fewer": self.cleaned_data["accept_fewer"],
            "class_queries": queries or None,
        }
