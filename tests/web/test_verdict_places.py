"""Page, mail and admin say the sentences of the table, letter for letter."""

import html
import re

import pytest
from django.contrib import admin
from django.utils import timezone

from requests_app import pipeline, tasks
from requests_app.models import OutgoingMail, TrainingRun
from requests_app.workers import jobs
from tests.training.example_verdicts import CASES, sentences, whole
from tests.web.conftest import metrics, page_of, trained, words
from training.phrases import headline_counts, percent


@pytest.mark.parametrize("case", CASES)
def test_page_mail_and_admin_say_the_verdict(client, case):
    measured = whole(metrics(["cat", "dog"], [[9, 1], [1, 9]]), case)
    shown = shown_of(client, measured)
    for place, text in shown.items():
        assert sentences(case) in text, place
        assert not re.search(r"\b(None|nan|null)\b", text), place
    figure = percent(measured["headline"]["value"])
    for place in ("page", "mail", "mail as HTML"):
        assert figure in shown[place] and headline_counts(measured) in shown[place], place


@pytest.mark.parametrize("refused", [None, 3])
def test_page_and_mail_say_how_many_unrelated_pictures_are_refused(client, refused):
    measured = metrics(["cat", "dog"], [[9, 1], [1, 9]])
    strangers = {"refused": refused, "n": 10, "how": "Shown 10 pictures."}
    measured["strangers"] = strangers if refused else None
    shown = shown_of(client, measured)
    for place in ("page", "mail", "mail as HTML"):
        said = "Refuses about 3 of 10 unrelated pictures." in shown[place]
        assert said == bool(refused), place
        assert ("unrelated" in shown[place]) == bool(refused), place


def shown_of(client, measured):
    """What page, mail and admin show of a delivered run, by place."""
    classifier = trained("cat", "dog")
    run = TrainingRun.objects.get()
    run.metrics = measured
    run.finished = timezone.now()
    run.save()
    jobs.enqueue(classifier, pipeline.DELIVER.name, pipeline.DELIVER.queue)
    tasks.drain(pipeline.DELIVER.queue)
    classifier.refresh_from_db()
    mail = OutgoingMail.objects.get(key=f"request:{classifier.pk}:delivered:1")

    return {
        "page": html.unescape(words(page_of(client, classifier))),
        "mail": " ".join(mail.text.split()),
        "mail as HTML": html.unescape(words(mail.html)),
        "admin": admin.site.get_model_admin(TrainingRun).verdict(run),
    }
