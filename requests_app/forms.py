"""What people type, checked: the submission and the retry. Every complaint names the field it
belongs to.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator
from django.utils.datastructures import MultiValueDict
from django.utils.encoding import punycode

from requests_app import phrases
from requests_app.models import Backbone, ClassifierRequest, License
from requests_app.pipeline import Submission

FEWEST_CLASSES, MOST_CLASSES = 2, 10
LONGEST_NAME, LONGEST_QUERY = 64, 200
LONGEST_ADDRESS, LONGEST_LOCAL_PART = 254, 64  # octets as sent (RFC 5321, 4.5.3.1)
FEWEST_IMAGES, DEFAULT_IMAGES, MOST_IMAGES = 20, 100, 500

# Characters that turn the direction of the text after them: they make a name look like another one.
DIRECTION_MARKS = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)

# Characters that nobody sees and no name needs: soft hyphens, zero-width spaces, byte order marks,
# fillers. They come along with copied text. After Unicode's list of default ignorable code points,
# without those that shape what is seen.
UNSEEN = re.compile(
    "[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a]"
)
# Tag characters spell the flags of regions after a black flag; elsewhere they are unseen.
FLAG_OR_TAGS = re.compile("(\U0001f3f4[\U000e0020-\U000e007f]+)|[\U000e0000-\U000e007f]+")
# Joiners bind emoji together and shape Arabic and Indic letters; beside anything else they are
# unseen.
JOINERS = re.compile("[\u200c\u200d]+")
SELECTORS = re.compile(
    "[\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)  # text or emoji look of the character before
SPACES = re.compile("[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000]+")


def tidy(text: str, longest: int) -> str:
    """The text in Unicode normal form C, with single spaces and without characters that nobody
    sees.

    :raises ValidationError: when it is too long or holds characters that cannot be seen for what
    they are
    """
    tidied = _without_unseen(text)
    if any(mark in tidied for mark in DIRECTION_MARKS):
        raise ValidationError(
            "Invisible characters that change the reading direction are not allowed here."
        )
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in tidied):
        raise ValidationError("Line breaks and other control characters are not allowed here.")
    if len(tidied) > longest:
        raise ValidationError(f"At most {longest} characters, please; this has {len(tidied)}.")
    if text.strip() and all(
        unicodedata.category(char)[0] in "CZ" for char in SELECTORS.sub("", tidied)
    ):
        raise ValidationError("This has no visible character.")
    return tidied


def folded(name: str) -> str:
    """What two names have in common when people would call them equal."""
    plain = SELECTORS.sub("", _without_unseen(name))
    return _without_unseen(plain.casefold())


def _without_unseen(text: str) -> str:
    seen = FLAG_OR_TAGS.sub(r"\1", UNSEEN.sub("", text))
    seen = JOINERS.sub(_needed_joiner, seen)
    return unicodedata.normalize("NFC", SPACES.sub(" ", seen).strip(" "))


def _needed_joiner(found: re.Match[str]) -> str:
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    return found.group(0) if _takes_joiners(before) and _takes_joiners(after) else ""


def _takes_joiners(char: str) -> bool:
    """Emoji with their modifiers, combining marks, and letters without capitals that are no
    ideographs or kana.
    """
    kind = unicodedata.category(char) if char else ""
    narrow_letter = kind in ("Lo", "Lm") and unicodedata.east_asian_width(char) not in "WFH"
    return narrow_letter or kind in ("So", "Sk", "Sm", "Mn", "Mc", "Me")


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
    names, queries = (
        values + [""] * (length - len(values)) for values in (list(names), list(queries))
    )
    return [
        ClassRow(i, name, query) for i, (name, query) in enumerate(zip(names, queries, strict=True))
    ]


def checked_rows(rows: Sequence[ClassRow]) -> list[ClassRow]:
    """The rows with their complaints; empty ones are ignored unless too few are left."""
    checked = _without_twins([_checked_alone(row) for row in rows])
    given = [row for row in checked if not row.is_empty]
    if len(given) > MOST_CLASSES:
        extra = given[MOST_CLASSES].index
        sentence = f"At most {MOST_CLASSES} classes, please; these are {len(given)}."
        checked[extra] = replace(checked[extra], name_error=sentence)
    elif len(given) < FEWEST_CLASSES:
        index = next(row.index for row in checked if row.is_empty)
        sentence = (
            "Name a second class: a classifier decides between at least two."
            if given
            else "Name this class."
        )
        checked[index] = replace(checked[index], name_error=sentence)
    return checked


def _checked_alone(row: ClassRow) -> ClassRow:
    name_error = _complaint(row.name, LONGEST_NAME)
    if not row.is_empty and not row.name.strip():
        name_error = "Name this class, or clear its search words."
    return replace(row, name_error=name_error, query_error=_complaint(row.query, LONGEST_QUERY))


def _without_twins(rows: Sequence[ClassRow]) -> list[ClassRow]:
    first: dict[str, ClassRow] = {}
    checked = []
    for row in rows:
        name = folded(row.name)
        twin = first.setdefault(name, row) if name else row
        if twin is not row and not row.name_error:
            sentence = (
                f"This is the same as class {twin.number}:"
                " capital letters, extra spaces and invisible characters make no difference."
            )
            row = replace(row, name_error=sentence)
        checked.append(row)
    return checked


def _complaint(text: str, longest: int) -> str:
    try:
        tidy(text, longest)
    except ValidationError as error:
        return str(error.messages[0])
    return ""


class AddressField(forms.CharField):
    """One e-mail address that mail can reach from outside; nothing that could address a second
    person.
    """

    default_error_messages = {
        "required": "Type the address that the result is sent to.",
        "invalid": "This is not an e-mail address. It looks like name@example.org.",
        "long": f"An address has at most {LONGEST_ADDRESS} characters, of which {LONGEST_LOCAL_PART} before the @.",
        "several": "One address only, please.",
        "local": "Before the @, only unaccented letters, digits and signs, please: our mails reach no other addresses.",
        "domain": "Mail cannot reach what stands after the @. A domain in other letters can be typed as “xn--…”.",
    }

    def to_python(self, value: Any) -> str:
        """The address without outer spaces; line breaks are refused even at the ends, where Django
        would drop them.
        """
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
        local_part, _, domain = value.rpartition("@")
        if not local_part.isascii():
            raise self._error("local")
        if len(local_part) > LONGEST_LOCAL_PART:
            raise self._error("long")
        EmailValidator(message=self.error_messages["invalid"], allowlist=[])(value)
        if len(f"{local_part}@{self._domain_as_sent(domain)}") > LONGEST_ADDRESS:
            raise self._error("long")

    def _domain_as_sent(self, domain: str) -> str:
        """The domain as Django's mails spell it; one that would become another domain on the way is
        refused.
        """
        try:
            sent = punycode(domain)
            arrives = sent.encode("ascii").decode("idna")
        except UnicodeError as error:
            raise self._error("domain") from error
        if not domain.isascii() and arrives != unicodedata.normalize("NFC", domain).lower():
            raise self._error("domain")
        return sent

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
    """The form of the first page. Field names are public: classes and queries (repeated), email,
    and the options.
    """

    use_required_attribute = False
    optional = ("images_per_class", "license", "backbone")

    email = AddressField(
        label="Your e-mail address",
        widget=forms.EmailInput(
            attrs={"class": "input", "autocomplete": "email", "aria-required": "true"}
        ),
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
        """Whether the folded options hold something the person must see: a complaint, or a choice
        of theirs.
        """
        usual = {
            "images_per_class": DEFAULT_IMAGES,
            "license": License.ANY,
            "backbone": settings.BACKBONE,
        }
        chosen = any(
            str(self[name].value() or value) != str(value) for name, value in usual.items()
        )
        return chosen or any(row.query for row in self.rows)

    @property
    def blank_row(self) -> ClassRow:
        """What "add a class" copies."""
        return ClassRow(FEWEST_CLASSES)

    @property
    def may_add(self) -> bool:
        return len(self.rows) < MOST_CLASSES

    def changed(self, *, add: bool = False, remove: str = "") -> "SubmissionForm":
        """The same form, not yet judged, with one class row more or less: "add a class" where
        scripts are off.
        """
        rows = [
            row for row in self.rows if str(row.index) != remove or len(self.rows) <= FEWEST_CLASSES
        ]
        if add and self.may_add:
            rows.append(ClassRow(len(rows)))
        fresh = SubmissionForm()
        fresh.initial = {
            **fresh.initial,
            **{name: self[name].value() for name in self.fields if name in self.data},
        }
        fresh.rows = [
            replace(row, index=i, name_error="", query_error="", focus="")
            for i, row in enumerate(rows)
        ]
        if add:
            fresh.rows = [replace(row, focus=fresh.rows[-1].name_id) for row in fresh.rows]
        return fresh

    def submission(self) -> Submission:
        """What the pipeline takes; only after ``is_valid``."""
        given = [row for row in self.rows if not row.is_empty]
        values = self.cleaned_data
        return Submission(
            classes=tuple(
                (tidy(row.name, LONGEST_NAME), tidy(row.query, LONGEST_QUERY)) for row in given
            ),
            email=values["email"],
            images_per_class=values["images_per_class"] or DEFAULT_IMAGES,
            license=values["license"] or License.ANY,
            backbone=values["backbone"] or settings.BACKBONE,
        )


class RetryForm(forms.Form):
    """Starting again after a stop: as before, or with fewer pictures, another wording, or what is
    there.
    """

    use_required_attribute = False

    images_per_class = images_field()
    license = forms.ChoiceField(
        label="Licence of the pictures",
        choices=License.choices,
        required=False,
        widget=forms.Select(attrs={"class": "input"}),
        error_messages={"invalid_choice": "Choose one of the licences offered."},
    )
    sources = forms.MultipleChoiceField(
        label="Sources",
        required=False,
        widget=forms.CheckboxSelectMultiple(attrs={"class": "check"}),
        error_messages={"invalid_choice": "Choose among the sources offered."},
    )
    # Boxes that are all empty look like boxes that were not on the page: this tells the two apart.
    sources_offered = forms.BooleanField(initial=True, required=False, widget=forms.HiddenInput)
    accept_fewer = forms.BooleanField(
        label="Train with the pictures that were found, even if they are few",
        required=False,
        widget=forms.CheckboxInput(attrs={"class": "check"}),
    )

    def __init__(
        self, request: ClassifierRequest, data: MultiValueDict[str, str] | None = None
    ) -> None:
        asked = request.sources or settings.SOURCES
        initial = {
            "images_per_class": request.images_per_class,
            "license": request.license,
            "sources": asked,
        }
        super().__init__(data, initial=initial)
        self.order = list(dict.fromkeys([*asked, *settings.SOURCES, *settings.KNOWN_SOURCES]))
        offered = cast(forms.MultipleChoiceField, self.fields["sources"])
        offered.choices = [(name, phrases.source_title(name)) for name in self.order]
        self.classes = list(request.classes.all())
        typed = [row.query for row in typed_rows(data, 0)] if data is not None else []
        typed += [image_class.query for image_class in self.classes[len(typed) :]]
        self.rows = [
            ClassRow(i, image_class.name, query)
            for i, (image_class, query) in enumerate(zip(self.classes, typed, strict=False))
        ]

    def clean(self) -> dict[str, Any]:
        if self.cleaned_data.get("sources_offered") and self.cleaned_data.get("sources") == []:
            self.add_error("sources", "Choose at least one source.")
        self.rows = [
            replace(row, query_error=_complaint(row.query, LONGEST_QUERY)) for row in self.rows
        ]
        for row in self.rows:
            if row.query_error:
                self.add_error(None, row.query_error)
        return self.cleaned_data

    @property
    def problems(self) -> list[tuple[str, str, str]]:
        """(field id, label, sentence) of every complaint, in the order of the page."""
        if not self.is_bound:
            return []
        fields = [
            (f"id_{name}", str(self[name].label), str(self.errors[name][0]))
            for name in ("images_per_class", "license", "sources")
            if name in self.errors
        ]
        return fields + [problem for row in self.rows for problem in row.problems]

    def changes(self) -> dict[str, Any]:
        """Keyword arguments for ``pipeline.retry``: only what differs from before; sources in the
        order of the page.
        """
        queries = {
            image_class.number: tidy(row.query, LONGEST_QUERY) or image_class.name
            for image_class, row in zip(self.classes, self.rows, strict=True)
            if (tidy(row.query, LONGEST_QUERY) or image_class.name) != image_class.query
        }
        chosen = self.cleaned_data["sources"]
        return {
            "images_per_class": self.cleaned_data["images_per_class"],
            "license": self.cleaned_data["license"] or None,
            "sources": [name for name in self.order if name in chosen] or None,
            "accept_fewer": self.cleaned_data["accept_fewer"],
            "class_queries": queries or None,
        }
