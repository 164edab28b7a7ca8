"""The forms: a submission and a retry. Every error names the field it belongs to."""

import re
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.datastructures import MultiValueDict
from django.utils.encoding import punycode
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

from requests_app import class_policy, limits, phrases, supplied
from requests_app.models import BACKBONES, ClassifierRequest, License
from requests_app.pipeline import Submission, sources_of
from requests_app.text_rules import casefold_key, find_problem, normalize
from scraping.kinds import search_words
from scraping.sources.catalogue import CATALOGUE
from scraping.sources.terms import TERMS, Terms

MIN_CLASSES = 2
MAX_CLASSES = 10
MAX_NAME_LENGTH = 64
MAX_QUERY_LENGTH = 200
MAX_EMAIL_LENGTH = 254  # octets as sent (RFC 5321, 4.5.3.1)
MAX_LOCAL_PART_LENGTH = 64  # octets before the @ (RFC 5321, 4.5.3.1.1)
MOST_ROWS = 100  # that are shown again; nobody types more
MOST_TYPED = 1000  # characters of a field that are shown again
MIN_IMAGES = 20
DEFAULT_IMAGES = 100
MAX_IMAGES = 500

# Said by the page too, while a person types; `{}` are numbers.
SAME_NAME = "Classes {first} and {second} have the same name."
TOO_MANY = f"At most {MAX_CLASSES} classes, please; these are {{count}}."
SECOND_CLASS = "Name a second class: a classifier decides between at least two."

# The last label of a domain: a typing error where it has one letter or begins with a digit.
TOP_LEVEL = re.compile(r"xn--[a-z0-9-]+|[a-z][a-z0-9-]*[a-z0-9]")
# The validator refuses ".local" and the like; inside a company mail does reach such domains.
SPECIAL_USE_DOMAIN_NAMES.clear()

FORM_TOKEN = re.compile(r"[0-9a-f]{32}")  # makes two presses of one button one request
FILE_FIELDS = ("own_pictures", "own_addresses")  # of what a person brings along

FormData = MultiValueDict[str, str]


class Problem(NamedTuple):
    """A sentence about one field, for the list above the form."""

    field_id: str
    label: str
    sentence: str


# --- class rows ---


@dataclass(frozen=True)
class ClassRow:
    """One class as typed, and what is wrong with it.

    ``focus`` is the id of the field that gets the cursor, wherever on the page that is.
    """

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
        typed = self.name + self.query
        return not typed.strip()

    @property
    def is_extra(self) -> bool:
        return self.index >= MIN_CLASSES

    @property
    def problems(self) -> list[Problem]:
        found = []
        if self.name_error:
            found.append(Problem(self.name_id, f"Class {self.number}", self.name_error))
        if self.query_error:
            label = f"Search words of class {self.number}"
            found.append(Problem(self.query_id, label, self.query_error))
        return found


def cut_texts(data: FormData) -> FormData:
    """Return what was sent with its texts cut: all of it is shown again where something is wrong.

    What is cut is longer than any field takes, and stays too long.
    """
    cut: FormData = MultiValueDict()
    for name in data:
        cut.setlist(name, [text[:MOST_TYPED] for text in data.getlist(name)])
    return cut


def typed_rows(data: FormData, at_least: int = MIN_CLASSES) -> list[ClassRow]:
    """Return the rows of a sent form: ``classes`` repeated, ``queries`` parallel to it (or
    absent).
    """
    names = data.getlist("classes")
    queries = data.getlist("queries")
    length = max(len(names), len(queries), at_least)
    rows = [ClassRow(index) for index in range(length)]
    for index, name in enumerate(names):
        rows[index] = replace(rows[index], name=name)
    for index, query in enumerate(queries):
        rows[index] = replace(rows[index], query=query)
    return rows


def checked_rows(rows: Sequence[ClassRow]) -> list[ClassRow]:
    """Return the rows with their errors; empty rows are ignored unless too few others are left."""
    checked = [_checked_row(row) for row in rows]
    checked = _with_duplicates_marked(checked)
    given = [row for row in checked if not row.is_empty]
    if len(given) > MAX_CLASSES:
        first_extra = given[MAX_CLASSES].index
        error = TOO_MANY.format(count=len(given))
        checked[first_extra] = replace(checked[first_extra], name_error=error)
    elif len(given) < MIN_CLASSES:
        first_empty = next(row.index for row in checked if row.is_empty)
        error = "Name this class."
        if given:
            error = SECOND_CLASS
        checked[first_empty] = replace(checked[first_empty], name_error=error)
    return checked


def words_problem(text: str, max_length: int) -> str:
    """Return why a name or search words are refused, "" where they are not."""
    return find_problem(text, max_length) or class_policy.problem_of(text)


def _refused_together(rows: Sequence[ClassRow], kind: str) -> str:
    """Return why names, search words and kind are refused that are right each for itself."""
    for row in rows:
        name = normalize(row.name)
        if name and not row.problems:
            together = search_words(name, normalize(row.query) or name, kind)
            if problem := class_policy.problem_of(together):
                return problem
    return ""


def _checked_row(row: ClassRow) -> ClassRow:
    name_error = words_problem(row.name, MAX_NAME_LENGTH)
    if not row.is_empty and not row.name.strip():
        name_error = "Name this class, or clear its search words."
    query_error = words_problem(row.query, MAX_QUERY_LENGTH)
    return replace(row, name_error=name_error, query_error=query_error)


def _with_duplicates_marked(rows: Sequence[ClassRow]) -> list[ClassRow]:
    first_with_key: dict[str, ClassRow] = {}
    checked = []
    for row in rows:
        key = casefold_key(row.name)
        first = first_with_key.setdefault(key, row)
        if key and first is not row and not row.name_error:
            error = SAME_NAME.format(first=first.number, second=row.number)
            row = replace(row, name_error=error)
        checked.append(row)
    return checked


# --- fields ---


class AddressField(forms.CharField):
    """One e-mail address that mail can reach from outside; nothing that could address a second
    person.
    """

    default_error_messages = {
        "required": "Type the address that the result is sent to.",
        "invalid": ("That is not a complete e-mail address; one looks like name@example.org."),
        "long": (
            f"An address has at most {MAX_EMAIL_LENGTH} characters,"
            f" of which {MAX_LOCAL_PART_LENGTH} before the @."
        ),
        "several": "Please give just one address.",
        "local": ("Our mail system cannot send to addresses with accented letters before the @."),
        "domain": (
            "Mail cannot reach what stands after the @."
            " A domain in other letters can be typed as “xn--…”."
        ),
    }

    def to_python(self, value: Any) -> str:
        """Return the address without outer spaces.

        Line breaks are refused at the ends too, where Django would drop them.
        """
        text = "" if value is None else str(value).strip(" ")
        if any(unicodedata.category(char).startswith("C") for char in text):
            raise self._error("invalid")
        return text

    def validate(self, value: str) -> None:
        super().validate(value)
        if len(value) > MAX_EMAIL_LENGTH:  # first: what follows takes long for long texts
            raise self._error("long")
        if value.count("@") > 1:
            raise self._error("several")
        local_part, _, domain = value.rpartition("@")
        if not local_part.isascii():
            raise self._error("local")
        try:
            sent_domain = punycode(domain)  # as Django's mails spell it
        except UnicodeError as error:
            raise self._error("domain") from error
        sent_length = len(local_part) + len("@") + len(sent_domain)
        if sent_length > MAX_EMAIL_LENGTH or len(local_part) > MAX_LOCAL_PART_LENGTH:
            raise self._error("long")
        try:
            address = validate_email(value, allow_smtputf8=False, check_deliverability=False)
        except EmailNotValidError as error:
            raise self._error("invalid") from error
        if TOP_LEVEL.fullmatch(address.ascii_domain.rpartition(".")[2]) is None:
            raise self._error("invalid")
        # Both comparisons find domains that would become another one on the way: the first where a
        # letter is replaced, the second where Django's older rules (IDNA 2003) spell it otherwise.
        typed_domain = unicodedata.normalize("NFC", domain).lower()
        if typed_domain not in (address.domain, address.ascii_domain):
            raise self._error("domain")
        if sent_domain.lower() != address.ascii_domain:
            raise self._error("domain")

    def _error(self, code: str) -> ValidationError:
        return ValidationError(self.error_messages[code], code=code)


class KindField(forms.CharField):
    """What kind of things the classes are: optional, by the rules for their names."""

    def to_python(self, value: Any) -> str:
        text = "" if value is None else str(value)
        if problem := words_problem(text, MAX_NAME_LENGTH):
            raise ValidationError(problem)
        return normalize(text)


def kind_field() -> KindField:
    """Return the field for the kind of things, the same in every form."""
    attributes = {
        "class": "input",
        "autocomplete": "off",
        "autocapitalize": "none",
        "placeholder": "animal",
    }
    return KindField(
        label="What kind of things are these?",
        required=False,
        strip=False,
        widget=forms.TextInput(attrs=attributes),
    )


def within(text: str, *, default: int, least: int, most: int) -> int:
    """Return a typed number brought inside its limits, the default where it is none."""
    if not text.isdecimal():
        return default
    digits = text[:6]
    number = int(digits)
    number = min(most, number)
    return max(least, number)


def images_field(**options: Any) -> forms.IntegerField:
    """Return the field for images per class, whose limits are the same in every form."""
    sentence = f"A whole number from {MIN_IMAGES} to {MAX_IMAGES}, please."
    return forms.IntegerField(
        min_value=MIN_IMAGES,
        max_value=MAX_IMAGES,
        required=False,
        label="Pictures per class",
        error_messages={"invalid": sentence, "min_value": sentence, "max_value": sentence},
        widget=forms.NumberInput(attrs={"class": "input short", "inputmode": "numeric"}),
        **options,
    )


def license_field(**options: Any) -> forms.ChoiceField:
    """Return the field for the licence of the images."""
    return forms.ChoiceField(
        label="Licence of the pictures",
        choices=License.choices,
        required=False,
        widget=forms.Select(attrs={"class": "input"}),
        error_messages={"invalid_choice": "Choose one of the licences offered."},
        **options,
    )


def _field_problems(form: forms.Form, names: Sequence[str]) -> list[Problem]:
    """Return the first error of each of these fields, in this order."""
    problems = []
    for name in names:
        if name in form.errors:
            bound = form[name]
            field_id = bound.id_for_label or bound.auto_id
            problems.append(Problem(field_id, str(bound.label), str(form.errors[name][0])))
    return problems


# --- forms ---


class SubmissionForm(forms.Form):
    """The form of the first page.

    Field names are public: classes and queries (repeated), kind, email, and the options.
    """

    use_required_attribute = False

    email = AddressField(
        label="Your e-mail address",
        widget=forms.EmailInput(
            attrs={"class": "input", "autocomplete": "email", "aria-required": "true"}
        ),
    )
    kind = kind_field()
    images_per_class = images_field(initial=DEFAULT_IMAGES)
    license = license_field(initial=License.ANY)
    backbone = forms.ChoiceField(
        label="Network to start from",
        choices=BACKBONES,
        required=False,
        widget=forms.Select(attrs={"class": "input"}),
        error_messages={"invalid_choice": "Choose one of the networks offered."},
    )

    own_pictures = forms.FileField(
        label="Your own pictures",
        required=False,
        widget=forms.FileInput(attrs={"class": "input", "accept": ".zip,application/zip"}),
    )
    own_addresses = forms.FileField(
        label="Your own addresses of pictures",
        required=False,
        widget=forms.FileInput(attrs={"class": "input", "accept": ".csv,.tsv,.txt,text/csv"}),
    )
    own_as_test = forms.BooleanField(
        label="Test on these, and on nothing else",
        required=False,
        widget=forms.CheckboxInput(attrs={"class": "check"}),
    )
    own_alone = forms.BooleanField(
        label="Use these alone, without a search",
        required=False,
        widget=forms.CheckboxInput(attrs={"class": "check"}),
    )

    def __init__(
        self,
        data: FormData | None = None,
        draft: supplied.Draft | None = None,
        problems: Mapping[str, str] | None = None,
    ) -> None:
        """:param draft: what the person brings along
        :param problems: why files were not taken, by their field
        """
        super().__init__(data, initial={"backbone": settings.BACKBONE})
        self.draft = draft
        sent_token = "" if data is None else data.get("form_token", "")
        self.token = sent_token if FORM_TOKEN.fullmatch(sent_token) else secrets.token_hex(16)
        self._upload_problems = dict(problems or {})
        backbone = cast(forms.ChoiceField, self.fields["backbone"])
        backbone.choices = phrases.backbone_choices(settings.BACKBONE)
        if data is None:
            data = MultiValueDict()
        self.rows = typed_rows(data)

    @classmethod
    def prefilled(cls, data: FormData) -> "SubmissionForm":
        """Return an unchecked form with the classes and the kind of an address's query."""
        form = cls()
        form.rows = typed_rows(data)[:MAX_CLASSES]
        form.initial["kind"] = data.get("kind", "")
        return form

    def full_clean(self) -> None:
        super().full_clean()
        if self.is_bound and self.problems:
            self._set_focus(self.problems[0].field_id)

    def _set_focus(self, field_id: str) -> None:
        self.rows = [replace(row, focus=field_id) for row in self.rows]
        for bound in self:
            if bound.id_for_label == field_id:
                bound.field.widget.attrs["autofocus"] = True

    def refuse(self, field: str, sentence: str) -> None:
        """Put a sentence beside a field of a form that is right but cannot be taken now."""
        self.add_error(field, sentence)
        self._set_focus(self.problems[0].field_id)

    def clean(self) -> dict[str, Any]:
        self.rows = checked_rows(self.rows)[:MOST_ROWS]
        for row in self.rows:
            for problem in row.problems:
                self.add_error(None, problem.sentence)
        if refusal := _refused_together(self.rows, self.cleaned_data.get("kind", "")):
            self.add_error("kind", refusal)
        images = self.cleaned_data.get("images_per_class") or DEFAULT_IMAGES
        if problem_of_size := limits.problem_of_size(self.named_classes, images):
            self.add_error("images_per_class", problem_of_size)
        for field, sentence in self._problems_of_files().items():
            self.add_error(field, sentence)
        return self.cleaned_data

    def _problems_of_files(self) -> dict[str, str]:
        """Return what is wrong with what the person brings along, by field."""
        if self._upload_problems or any(row.problems for row in self.rows):
            return self._upload_problems
        wishes = self._wishes_of_files()
        if self.draft is None or not self.draft.names:
            if self.draft is not None and not self.draft.folder.is_dir():
                return {"own_pictures": supplied.GONE}
            self.draft = None
            return {"own_pictures": supplied.NOTHING} if any(wishes.values()) else {}
        names = [name for name, _query in self._class_queries()]
        problems = supplied.check(self.draft, names, **wishes)
        return {f"own_{kind}": sentence for kind, sentence in problems.items()}

    def _wishes_of_files(self) -> dict[str, bool]:
        values = self.cleaned_data
        return {"as_test": bool(values["own_as_test"]), "alone": bool(values["own_alone"])}

    @property
    def held_files(self) -> dict[str, str]:
        """The files that are held, as they are called at home, by kind."""
        return self.draft.names if self.draft is not None else {}

    @property
    def problems(self) -> list[Problem]:
        """Every error, in the order of the page."""
        if not self.is_bound:
            return []
        of_names = []
        of_queries = []
        for row in self.rows:
            if row.name_error:
                of_names.append(row.problems[0])
            if row.query_error:
                of_queries.append(row.problems[-1])
        of_fields = _field_problems(
            self,
            ("kind", "email", "images_per_class", "license", "backbone", *FILE_FIELDS),
        )
        return of_names + of_fields + of_queries

    @property
    def options_open(self) -> bool:
        """True when the folded options hold what the person must see: an error or a choice of
        theirs.
        """
        defaults = {
            "images_per_class": DEFAULT_IMAGES,
            "license": License.ANY,
            "backbone": settings.BACKBONE,
        }
        if self.held_files or any(self[name].errors for name in FILE_FIELDS):
            return True
        for name, default in defaults.items():
            value = self[name].value() or default
            if str(value) != str(default):
                return True
        return any(row.query for row in self.rows)

    @property
    def blank_row(self) -> ClassRow:
        """The row that the button "add a class" copies."""
        return ClassRow(MIN_CLASSES)

    @property
    def named_classes(self) -> int:
        """Return how many classes have a name, at least as many as there must be."""
        count = 0
        for row in self.rows:
            if row.name.strip():
                count += 1
        count = min(MAX_CLASSES, count)
        return max(MIN_CLASSES, count)

    @property
    def images_typed(self) -> int:
        """Return the pictures per class that were typed, the default where that is no number."""
        bound = self["images_per_class"]
        return within(
            str(bound.value()),
            default=DEFAULT_IMAGES,
            least=MIN_IMAGES,
            most=MAX_IMAGES,
        )

    @property
    def rules(self) -> dict[str, object]:
        """Return the limits and sentences that the page's script says while a person types."""
        return {
            "fewest": MIN_CLASSES,
            "most": MAX_CLASSES,
            "longest": MAX_NAME_LENGTH,
            "same": SAME_NAME,
            "many": TOO_MANY,
            "second": SECOND_CLASS,
        }

    @property
    def may_add(self) -> bool:
        return len(self.rows) < MAX_CLASSES

    def with_row_added(self) -> "SubmissionForm":
        """Return the form with one more class, for pages without scripts."""
        rows = self.rows
        if self.may_add:
            rows = [*rows, ClassRow(len(rows))]
        changed = self._with_rows(rows)
        changed._set_focus(changed.rows[-1].name_id)
        return changed

    def with_row_removed(self, index: str) -> "SubmissionForm":
        """Return the form without one class, for pages without scripts."""
        rows = self.rows
        if len(rows) > MIN_CLASSES:
            rows = [row for row in rows if str(row.index) != index]
        return self._with_rows(rows)

    def _with_rows(self, rows: Sequence[ClassRow]) -> "SubmissionForm":
        """Return an unchecked form with the same values and these classes."""
        changed = SubmissionForm(draft=self.draft)
        for name in self.fields:
            if name in self.data:
                changed.initial[name] = self[name].value()
        changed.rows = []
        for index, row in enumerate(rows):
            changed.rows.append(ClassRow(index, row.name, row.query))
        return changed

    def submission(self) -> Submission:
        """Return what the pipeline takes; only after ``is_valid``."""
        values = self.cleaned_data
        classes = self._class_queries()
        brought = {}
        if self.draft is not None:
            names = [name for name, _query in classes]
            brought = supplied.facts(self.draft, names, **self._wishes_of_files())
        return Submission(
            classes=tuple(classes),
            email=values["email"],
            images_per_class=values["images_per_class"] or DEFAULT_IMAGES,
            license=values["license"] or License.ANY,
            backbone=values["backbone"] or settings.BACKBONE,
            kind=values["kind"],
            draft=self.draft,
            brought=brought,
        )

    def _class_queries(self) -> list[tuple[str, str]]:
        """Return name and search words of each class that is not empty."""
        classes = []
        for row in self.rows:
            if not row.is_empty:
                classes.append((normalize(row.name), normalize(row.query)))
        return classes


def is_set_up(source: str) -> bool:
    """Return False for a source that this site would skip: it lacks a key, or the operator's word.

    A source that always comes last is one whose rules forbid programs.
    """
    info = CATALOGUE.get(source)
    if info is None:
        return True
    if info.needs_contact and not settings.CONTACT:
        return False
    if info.always_last and settings.ROBOTS == "respect":
        return False
    return all(settings.SOURCE_CREDENTIALS.get(key) for key in info.required_credentials)


def _typed_queries(data: FormData, numbers: Sequence[int]) -> dict[int, str]:
    """Return the search words that were sent, by the number of their class.

    Without ``numbers`` parallel to them they are in the order of the classes.
    """
    queries = data.getlist("queries")
    sent = data.getlist("numbers") or [str(number) for number in numbers]
    typed = {}
    for number, query in zip(sent, queries, strict=False):
        if number.isdecimal() and len(number) < 4:
            typed[int(number)] = query
    return typed


class SourceBox(NamedTuple):
    """A box of the retry form: a source that may be asked."""

    name: str
    title: str
    field_id: str
    is_checked: bool
    is_set_up: bool
    terms: Terms | None


class RetryForm(forms.Form):
    """Start again after a stop: as before, or with other limits, search words or sources."""

    use_required_attribute = False

    kind = kind_field()
    images_per_class = images_field()
    license = license_field()
    sources = forms.MultipleChoiceField(
        label="Sources",
        required=False,
        error_messages={"invalid_choice": "Choose among the sources offered."},
    )
    # Without this field, boxes that are all empty look like boxes that were not on the page.
    sources_offered = forms.BooleanField(initial=True, required=False, widget=forms.HiddenInput)
    # Set by the button "train with what was found", in a form of its own.
    accept_fewer = forms.BooleanField(required=False)

    def __init__(self, classifier: ClassifierRequest, data: FormData | None = None) -> None:
        chosen = sources_of(classifier)
        initial = {
            "images_per_class": classifier.images_per_class,
            "license": classifier.license,
            "sources": chosen,
            "kind": classifier.search_kind,
        }
        super().__init__(data, initial=initial)
        in_order = [*chosen, *settings.SOURCES]
        self.offered = list(dict.fromkeys(in_order))
        sources = cast(forms.MultipleChoiceField, self.fields["sources"])
        sources.choices = [(name, phrases.source_title(name)) for name in self.offered]
        self.chosen = chosen
        self.classes = list(classifier.classes.all())
        self.rows = [
            ClassRow(image_class.number - 1, image_class.name, image_class.query)
            for image_class in self.classes
        ]
        if data is not None:
            typed = _typed_queries(data, [row.number for row in self.rows])
            self.rows = [replace(row, query=typed.get(row.number, row.query)) for row in self.rows]

    def clean(self) -> dict[str, Any]:
        images = self.cleaned_data.get("images_per_class")
        if images and (problem := limits.problem_of_size(len(self.classes), images)):
            self.add_error("images_per_class", problem)
        if self.cleaned_data.get("sources_offered") and self.cleaned_data.get("sources") == []:
            self.add_error("sources", "Choose at least one source.")
        self.rows = [_checked_row(row) for row in self.rows]
        if refusal := _refused_together(self.rows, self.cleaned_data.get("kind", "")):
            self.add_error("kind", refusal)
        for row in self.rows:
            for one in row.problems:
                self.add_error(None, one.sentence)
        return self.cleaned_data

    @property
    def problems(self) -> list[Problem]:
        """Every error, in the order of the page."""
        if not self.is_bound:
            return []
        problems = _field_problems(self, ("kind", "images_per_class", "license", "sources"))
        for row in self.rows:
            problems += row.problems
        return problems

    @property
    def boxes(self) -> list[SourceBox]:
        """Return the sources in their order, with what this site has not set up."""
        checked = self["sources"].value() or []
        boxes = []
        for index, name in enumerate(self.offered):
            box = SourceBox(
                name=name,
                title=phrases.source_title(name),
                field_id=f"id_sources_{index}",
                is_checked=name in checked,
                is_set_up=is_set_up(name),
                terms=TERMS.get(name),
            )
            boxes.append(box)
        return boxes

    def changes(self) -> dict[str, Any]:
        """Return keyword arguments for ``lifecycle.retry``: only what differs from before, sources
        in the order of the page.
        """
        queries = {}
        for image_class, row in zip(self.classes, self.rows, strict=True):
            query = normalize(row.query) or image_class.name
            if query != image_class.query:
                queries[image_class.number] = query
        values = self.cleaned_data
        sources: list[str] | None = [name for name in self.offered if name in values["sources"]]
        # A box that is disabled is not sent, and its source would be skipped anyway.
        usual = [name for name in self.chosen if is_set_up(name)]
        if not sources or sources == usual:
            sources = None
        return {
            "images_per_class": values["images_per_class"],
            "license": values["license"] or None,
            "sources": sources,
            "accept_fewer": values["accept_fewer"],
            "class_queries": queries or None,
            # A form without the field, such as a page of the version before, changes nothing.
            "kind": values["kind"] if "kind" in self.data else None,
        }
