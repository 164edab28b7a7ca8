"""What a program wishes, checked by the rules of the forms."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import NON_FIELD_ERRORS
from django.utils.datastructures import MultiValueDict

from requests_app import supplied
from requests_app.api.errors import ApiError, message_of
from requests_app.api.schemas import ClassWish, NewRequest, RetryWishes
from requests_app.forms import FILE_FIELDS, ClassRow, RetryForm, SubmissionForm
from requests_app.models import ClassifierRequest
from requests_app.pipeline import Submission, sources_of

LOCALE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?", re.ASCII)
FLAGS = ("own_as_test", "own_alone")  # there or not, in a form
NOT_OFFERED = "“{name}” is no source of this site. It offers: {offered}."
NO_LOCALE = "That is no locale; one looks like en-US."
NO_CLASS = "“{name}” is no class of this request."


def submission_of(
    wishes: NewRequest, draft: supplied.Draft | None = None, visitor: str | None = None
) -> Submission:
    """Return what the pipeline takes. Raises ApiError 400 with a sentence for each wrong field.

    :param draft: what is brought along
    :param visitor: the address of the machine that calls
    """
    form = SubmissionForm(_form_data(wishes.classes, _fields(wishes)), draft)
    fields = _problems(form, form.rows) if not form.is_valid() else {}
    sources = tuple(wishes.sources or ())
    if problem := _problem_of_sources(sources):
        fields["sources"] = problem
    locale = wishes.locale or settings.LOCALE
    if not LOCALE.fullmatch(locale):
        fields["locale"] = NO_LOCALE
    if fields:
        raise ApiError(400, message_of(fields), fields)
    return replace(form.submission(), sources=sources, locale=locale, visitor=visitor)


def retry_of(classifier: ClassifierRequest, wishes: RetryWishes) -> dict[str, Any]:
    """Return the keyword arguments of `lifecycle.retry`. Raises ApiError 400 as above."""
    numbers = {row.name: row.number for row in classifier.classes.all()}
    fields = {}
    data = _form_data([], _fields(wishes))
    for index, wish in enumerate(wishes.classes or ()):
        name = _name(wish)
        if name not in numbers:
            fields[f"classes.{index}"] = NO_CLASS.format(name=name)
        elif isinstance(wish, ClassWish):
            data.appendlist("numbers", str(numbers[name]))
            data.appendlist("queries", wish.query)
    if not wishes.classes:
        data.setlist("numbers", ["0"])  # else no words would be those of the first classes
    data.setlist("sources", wishes.sources or sources_of(classifier))
    if wishes.kind is None:
        data["kind"] = classifier.search_kind
    form = RetryForm(classifier, data)
    if not form.is_valid():
        fields |= _problems(form, form.rows)
    fields |= left_out_problems(wishes, numbers)
    if fields:
        raise ApiError(400, message_of(fields), fields)
    return form.changes()


def left_out_problems(wishes: RetryWishes, numbers: Mapping[str, int]) -> dict[str, str]:
    """Return a sentence for each class to leave out that there is not."""
    problems = {}
    for index, name in enumerate(wishes.leave_out):
        if name not in numbers:
            problems[f"leave_out.{index}"] = NO_CLASS.format(name=name)
    others = wishes.model_fields_set - {"leave_out"}
    if wishes.leave_out and others:
        problems["leave_out"] = f"Leave classes out first; then send {', '.join(sorted(others))}."
    return problems


def _problem_of_sources(sources: Sequence[str]) -> str:
    for name in sources:
        if name not in settings.SOURCES:
            return NOT_OFFERED.format(name=name, offered=", ".join(settings.SOURCES))
    if len(set(sources)) < len(sources):
        return "Name each source once."
    return ""


def _name(wish: str | ClassWish) -> str:
    return wish if isinstance(wish, str) else wish.name


def _fields(wishes: NewRequest | RetryWishes) -> dict[str, str]:
    """Return the simple fields that were given, as a form sends them."""
    fields = {}
    names = ("email", "images_per_class", "license", "backbone", "kind", "accept_fewer")
    for name in (*names, *FLAGS):
        value = getattr(wishes, name, None)
        if value is not None and (name not in FLAGS or value):
            fields[name] = str(value)
    return fields


def _form_data(
    classes: Sequence[str | ClassWish], fields: Mapping[str, str]
) -> MultiValueDict[str, str]:
    data: MultiValueDict[str, str] = MultiValueDict()
    for wish in classes:
        data.appendlist("classes", _name(wish))
        data.appendlist("queries", "" if isinstance(wish, str) else wish.query)
    for name, value in fields.items():
        data[name] = value
    return data


def _problems(form: forms.Form, rows: Sequence[ClassRow]) -> dict[str, str]:
    """Return the form's sentences by the names that the API gives its fields."""
    problems = {}
    for row in rows:
        place = f"classes.{row.index}"
        if row.name_error:
            problems[f"{place}.name"] = row.name_error
        if row.query_error:
            problems[f"{place}.query"] = row.query_error
    for name, errors in form.errors.items():
        if name != NON_FIELD_ERRORS:
            problems[name.removeprefix("own_") if name in FILE_FIELDS else name] = str(errors[0])
    return problems
