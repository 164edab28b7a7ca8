"""The mails' words: rendered by the outbox itself, from the templates that lie beside each
other.
"""

import re
from datetime import timedelta

import pytest
from django.conf import settings as site_settings
from django.urls import reverse

from requests_app import mail, pipeline, result_mail
from requests_app.delivery import names
from requests_app.models import ClassifierRequest, OutgoingMail
from requests_app.workers import jobs
from tests.web.conftest import NOTICE, delivered, running, submitted, trained, words

SECRET = "a name nobody should read in a subject"


def delivery_mail(classifier: ClassifierRequest) -> OutgoingMail:
    """The mail that the delivery wrote."""
    return OutgoingMail.objects.get(key=f"request:{classifier.pk}:delivered:1")


def mails(name: str = SECRET) -> list[OutgoingMail]:
    """One of each kind."""
    submitted(name, "dog")
    confirm = OutgoingMail.objects.get()
    result = delivery_mail(delivered(name, "dog"))
    stuck = running()
    failure = jobs.StageFailed("Too few pictures & more.", "Try another wording.")
    pipeline.report_failure(stuck.jobs.get(), failure)
    stuck.refresh_from_db()
    failed = OutgoingMail.objects.get(request=stuck, key__contains="failed")
    attention = mail.put(stuck, "needs_attention", "attention", {"error": stuck.error})
    return [confirm, result, attention, failed, expiring(result.request)]


def expiring(classifier: ClassifierRequest) -> OutgoingMail:
    row = result_mail.put_expiring(classifier)
    assert row is not None
    return row


def test_the_subject_of_a_mail_to_an_unproven_address_names_no_class():
    submitted(SECRET, "dog")
    assert OutgoingMail.objects.get().subject == "Confirm your Picaisso request"


def test_subjects_name_the_classes_and_what_happened():
    subjects = [row.subject for row in mails("corgi & pug")[1:]]
    assert subjects[:3] == [
        "corgi & pug, dog: your classifier is ready (18 of 20 right)",
        "cat, dog: we need your decision",
        "cat, dog: your request failed",
    ]
    assert re.fullmatch(r"corgi & pug, dog: your result is deleted on \d+ \w+", subjects[3])


def test_subjects_are_one_short_line_however_long_the_names_are():
    long_names = [f"{number} {'very ' * 11}long" for number in range(10)]
    row = result_mail.put_expiring(delivered(*long_names))
    assert len(row.subject) < 120
    assert "… and 9 more: your result is deleted on" in row.subject
    broken = names.short_names(["a\r\nBcc: b@example.org", "c\u2028d"])
    assert broken == "a Bcc: b@example.org, c d"


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
        assert not re.search(r"<(link|script|iframe)\b|url\(|@import", row.html)
        sources = re.findall(r'\b(?:src|srcset|background)="([^"]*)"', row.html)
        assert set(sources) <= {"cid:pictures"}
        assert row.html.lstrip().startswith("<!doctype html>")


def test_only_the_result_mail_has_a_picture_and_its_words_stand_for_it():
    pictures = [re.findall(r"<img\b[^>]*>", row.html) for row in mails("corgi")]
    assert [len(images) for images in pictures] == [0, 1, 0, 0, 0]
    assert 'alt="A few pictures of your dataset: corgi, dog"' in pictures[1][0]


@pytest.mark.parametrize("form", ["text", "html"])
def test_the_result_mail_has_one_number_its_interval_and_the_verdict(form, settings):
    settings.MAIL_ATTACH_MB = 0
    row = delivery_mail(delivered())
    text = " ".join(re.sub(r"<[^>]*>", " ", getattr(row, form)).split())
    assert "90 %" in text
    assert text.count("95 % interval 69.9 % to 97.2 %") == 1
    assert "This model tells the classes apart: right on 18 of 20 test pictures" in text
    assert "18 of 20 pictures" in text
    assert NOTICE in text
    assert "found 20, kept 2; left out: 9 duplicates, 5 unreachable, 1 too small" in text
    assert "attached" not in text


def buttons(row: OutgoingMail) -> dict[str, str]:
    """Return words -> address of the buttons of a mail."""
    found = re.findall(r'<a href="([^"]*)" class="(?:button|outline)"[^>]*>([^<]*)</a>', row.html)
    return {label: address for address, label in found}


def test_the_result_mail_has_three_buttons_and_every_file_with_its_checksum():
    classifier = delivered()
    row = delivery_mail(classifier)
    assert buttons(row) == {
        "Try it": result_mail.part_link(classifier, "try"),
        "Review the pictures": result_mail.part_link(classifier, "gallery"),
        "Download the model": f"{classifier.url}download/model/",
    }
    assert "See the result" in row.html
    assert "also attached" in row.html
    assert "also attached" in row.text
    for artifact in classifier.versions.get().artifacts.all():
        assert artifact.sha256 in row.html
        assert artifact.sha256 in row.text
        assert f"{classifier.url}download/{artifact.kind}/" in row.text


def test_a_part_of_the_page_that_the_site_lacks_is_looked_for_on_the_page_itself():
    classifier = delivered()
    assert result_mail.part_link(classifier, "no_such_page") == classifier.url
    delete = site_settings.BASE_URL + reverse("delete", args=[classifier.token])
    assert result_mail.part_link(classifier, "delete") == delete


def test_the_result_mail_says_what_to_open_and_until_when_its_links_work():
    classifier = delivered()
    row = delivery_mail(classifier)
    until = classifier.moved + timedelta(days=site_settings.RETENTION_DAYS)
    for text in (row.text, row.html):
        assert f"Download them by {until.day} {until:%B %Y, %H:%M} UTC" in text
        assert "open try.html in a browser" in " ".join(text.split())
        assert "report.html" in text


def suggested(classifier: ClassifierRequest, **changes) -> str:
    figures = {**classifier.versions.get().run.metrics, **changes}
    return result_mail.suggestion(classifier, figures).text


def test_the_one_suggestion_is_what_would_help_most():
    classifier = delivered()
    one_class_is_weak = {"cat": {"recall": 1.0}, "dog": {"recall": 0.6}}
    all_are_good = {"cat": {"recall": 1.0}, "dog": {"recall": 0.95}}
    text = suggested(classifier, label_issues=24, per_class=one_class_is_weak)
    assert text == "24 pictures look mislabelled."
    assert suggested(classifier, label_issues=1) == "1 picture looks mislabelled."
    text = suggested(classifier, label_issues=0, per_class=one_class_is_weak)
    assert text.startswith("Of “dog” only 60 % are recognised: more pictures of it")
    text = suggested(classifier, label_issues=0, per_class=all_are_good)
    assert text.startswith("Nobody has checked the labels of the 20 test pictures")
    checked = {"n": 20, "right": 20, "wrong": 0, "off_topic": 0}
    text = suggested(classifier, label_issues=0, per_class=all_are_good, verified=checked)
    assert text.startswith("Show it pictures of your own")
    text = suggested(classifier, verdict="no_better", label_issues=24)
    assert text.startswith("Look through the pictures")


def test_a_figure_is_green_only_where_even_the_low_end_of_its_interval_is_good():
    unsure = delivery_mail(delivered())  # 18 of 20: 69.9 % at least
    assert 'class="ink" style="margin:0;font-size:34px' in unsure.html
    row = delivery_mail(delivered(better=False))
    assert 'class="bad" style="margin:0;font-size:34px' in row.html


def test_a_model_that_learned_nothing_is_called_so_in_the_mail():
    row = delivery_mail(delivered(better=False))
    assert "This model is no better than guessing" in row.text
    assert max(map(len, row.text.splitlines())) <= 130  # long lines break badly in mail programs
    assert "This model is no better than guessing" in row.html


def test_a_mail_about_a_stop_has_reason_and_remedy():
    for row in mails()[2:4]:
        assert "Too few pictures & more.\nTry another wording." in row.text
        assert "Too few pictures &amp; more." in row.html
        assert "kept until" in row.text
        assert "kept until" in row.html


def test_a_mail_about_a_failure_has_a_button_to_try_again():
    failed = mails()[3]
    assert buttons(failed) == {"Try again": failed.request.url}


def test_the_confirmation_mail_names_the_button_that_its_page_has(client):
    row = mails()[0]
    page = client.get(pipeline.confirmation_link(row.request))
    assert "Yes, start" in words(page.content.decode())
    assert "press “Yes, start”" in row.text
    assert "press “Yes, start”" in row.html


def test_a_mail_about_a_result_that_is_deleted_soon_has_its_date_and_every_file():
    classifier = delivered()
    row = expiring(classifier)
    until = classifier.moved + timedelta(days=site_settings.RETENTION_DAYS)
    for text in (row.text, row.html):
        assert f"deleted on {until.day} {until:%B %Y}" in text
        for kind in ("model", "dataset"):
            assert f"{classifier.url}download/{kind}/" in text
    assert set(buttons(row)) == {"Download the dataset", "Download the model"}


def test_a_delivery_without_a_model_file_still_has_its_buttons():
    classifier = trained()
    version = classifier.versions.get()
    version.artifacts.filter(kind="model").delete()
    row = result_mail.put_delivered(classifier, version)
    assert buttons(row)["Download the model"] == classifier.url
