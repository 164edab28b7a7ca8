"""The mails' words: rendered by the outbox itself, from the templates that lie beside each
other.
"""

import re

import pytest

from requests_app import mail, pipeline
from requests_app.models import ClassifierRequest, OutgoingMail
from requests_app.workers import jobs
from tests.web.conftest import NOTICE, delivered, running, submitted

SECRET = "a name nobody should read in a subject"


def result_mail(classifier: ClassifierRequest) -> OutgoingMail:
    """The mail that the delivery wrote."""
    return OutgoingMail.objects.get(key=f"request:{classifier.pk}:delivered:1")


def mails(name: str = SECRET) -> list[OutgoingMail]:
    """One of each kind."""
    submitted(name, "dog")
    confirm = OutgoingMail.objects.get()
    result = result_mail(delivered(name, "dog"))
    stuck = running()
    failure = jobs.StageFailed("Too few pictures & more.", "Try another wording.")
    pipeline.report_failure(stuck.jobs.get(), failure)
    stuck.refresh_from_db()
    failed = OutgoingMail.objects.get(request=stuck, key__contains="failed")
    attention = mail.put(stuck, "needs_attention", "attention", {"error": stuck.error})
    return [confirm, result, attention, failed]


def test_subjects_are_one_line_and_name_no_class():
    subjects = [row.subject for row in mails()]
    assert len(set(subjects)) == 4
    assert all(subject and "\n" not in subject and SECRET not in subject for subject in subjects)


def test_the_confirmation_mail_carries_a_link_that_belongs_to_its_request():
    row = mails()[0]
    # Taken from the mail: a link signed now differs when the second has changed meanwhile.
    link, signed = re.search(r"http://127\.0\.0\.1:8000/confirm/(\S+)/", row.text).group(0, 1)
    assert pipeline.request_of_confirmation(signed) == row.request
    assert f'href="{link}"' in row.html


def test_the_other_mails_carry_the_link_of_their_request():
    for row in mails()[1:]:
        assert row.request.url in row.text
        assert f'href="{row.request.url}"' in row.html


def test_nothing_in_a_mail_is_unfinished():
    for row in mails():
        for text in (row.text, row.html):
            assert not re.search(r"\{[{%#]|[%#}]\}|None|Traceback", text)


def test_names_are_plain_in_text_and_escaped_in_html():
    for row in mails("<script>alert(1)</script> & co")[:2]:
        assert "<script>alert(1)</script> & co" in row.text
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in row.html
        assert "<script" not in row.html


def test_the_html_brings_everything_along_and_asks_nobody():
    for row in mails():
        assert not re.search(r"<(img|link|script|style)\b|url\(", row.html)
        assert row.html.lstrip().startswith("<!doctype html>")


@pytest.mark.parametrize("form", ["text", "html"])
def test_the_result_mail_has_one_number_its_interval_and_the_verdict(form, settings):
    settings.MAIL_ATTACH_MB = 0
    row = result_mail(delivered())
    text = " ".join(re.sub(r"<[^>]*>", " ", getattr(row, form)).split())
    assert "90 %" in text
    assert text.count("95 % interval 69.9 % to 97.2 %") == 1
    assert "This model tells the classes apart: right on 18 of 20 test pictures" in text
    assert "18 of 20 pictures" in text
    assert NOTICE in text
    assert "found 20, kept 2; left out: 9 duplicates, 5 unreachable, 1 too small" in text
    assert "attached" not in text


def test_the_result_mail_has_two_buttons_and_every_file_with_its_checksum():
    classifier = delivered()
    row = result_mail(classifier)
    assert "See the result" in row.html
    assert "Download the model" in row.html
    assert "also attached" in row.html
    assert "also attached" in row.text
    for artifact in classifier.versions.get().artifacts.all():
        assert artifact.sha256 in row.html
        assert artifact.sha256 in row.text
        assert f"{classifier.url}download/{artifact.kind}/" in row.text


def test_a_model_that_learned_nothing_is_called_so_in_the_mail():
    row = result_mail(delivered(better=False))
    assert "This model is no better than guessing" in row.text
    assert max(map(len, row.text.splitlines())) <= 130  # long lines break badly in mail programs
    assert "This model is no better than guessing" in row.html


def test_a_mail_about_a_stop_has_reason_and_remedy():
    for row in mails()[2:]:
        assert "Too few pictures & more.\nTry another wording." in row.text
        assert "Too few pictures &amp; more." in row.html
