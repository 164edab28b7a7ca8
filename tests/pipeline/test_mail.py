"""The outbox against a real SMTP server: no mail is lost or seen twice by its receiver."""

import fcntl
import io
import re
from datetime import timedelta
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from django.utils import timezone
from django_q.models import OrmQ
from PIL import Image

from requests_app import mail, pipeline
from requests_app.delivery import contact_strip
from requests_app.models import (
    ClassifierRequest,
    ImageState,
    ImageUrl,
    MailState,
    OutgoingMail,
)
from tests.mail_servers import Recorder, silent_server, smtp_server

pytestmark = pytest.mark.django_db(transaction=True)


def opens(body: str, classifier: ClassifierRequest) -> bool:
    """Return whether the first confirmation link of a text opens this request.

    A link made now would bear another time.
    """
    found = re.search(r"/confirm/([^/\s\"<]+)/", body)
    signed = found[1]
    return pipeline.request_of_confirmation(signed) == classifier


@pytest.fixture
def smtp(smtpd, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST = smtpd.hostname
    settings.EMAIL_PORT = smtpd.port
    return smtpd


def test_a_mail_is_sent_once_with_text_and_html_and_its_body_is_then_emptied(submitted, smtp):
    assert mail.send_waiting() == 1
    assert mail.send_waiting() == 0
    (message,) = smtp.messages
    assert message["Message-ID"].startswith(f"<request.{submitted.pk}.confirm.")
    assert message["Message-ID"].endswith("@localhost>")
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["To"] == "ada@example.org"
    bodies = [
        part.get_payload(decode=True).decode() for part in message.walk() if not part.is_multipart()
    ]
    assert len(bodies) == 2 and all(opens(body, submitted) for body in bodies)
    row = OutgoingMail.objects.get()
    assert (row.state, row.text, row.html) == (MailState.SENT, "", "")


def test_a_server_that_is_down_loses_nothing(submitted, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST = "127.0.0.1"
    settings.EMAIL_PORT = 9  # nobody listens there
    assert mail.send_waiting() == 0
    row = OutgoingMail.objects.get()
    assert (row.state, row.attempts) == (MailState.WAITING, 1)
    assert row.error and row.not_before > timezone.now()
    OutgoingMail.objects.update(
        created=timezone.now() - mail.GIVE_UP_AFTER, not_before=timezone.now()
    )
    mail.send_waiting()
    assert OutgoingMail.objects.get().state == MailState.GIVEN_UP


def test_a_sender_that_died_is_replaced_and_the_message_keeps_its_id(submitted, smtp):
    mail.send_waiting()
    long_ago = timezone.now() - mail.sending_limit() - timedelta(seconds=1)
    OutgoingMail.objects.update(state=MailState.SENDING, text="again", not_before=long_ago)
    assert mail.send_waiting() == 0, "it is taken over, and sent after a pause"
    OutgoingMail.objects.update(not_before=timezone.now())
    mail.send_waiting()
    first, second = smtp.messages
    assert first["Message-ID"] == second["Message-ID"]


def test_no_message_id_comes_again_in_a_new_database(submitted, smtp):
    mail.send_waiting()
    OutgoingMail.objects.all().delete()
    link = pipeline.confirmation_link(submitted)
    first_again = mail.put(
        submitted, "confirm", f"request:{submitted.pk}:confirm", {"confirm_link": link}
    )
    assert first_again.state == MailState.WAITING
    mail.send_waiting()
    first, second = smtp.messages
    assert first["X-Picaisso-Key"] == second["X-Picaisso-Key"]
    assert first["Message-ID"] != second["Message-ID"]


def test_a_mail_whose_senders_keep_dying_is_given_up_after_a_day(submitted, smtp):
    long_ago = timezone.now() - mail.GIVE_UP_AFTER - timedelta(seconds=1)
    OutgoingMail.objects.update(state=MailState.SENDING, created=long_ago, not_before=long_ago)
    mail.send_waiting()
    assert OutgoingMail.objects.get().state == MailState.GIVEN_UP
    assert smtp.messages == []


def test_a_mail_that_cannot_be_written_does_not_hold_up_the_others(submitted, smtp):
    other = pipeline.submit(
        pipeline.Submission(classes=(("a", ""), ("b", "")), email="b@example.org")
    )
    OutgoingMail.objects.filter(request=submitted).update(to="a@" + 62 * "ä" + ".org")
    assert mail.send_waiting() == 1
    assert [message["To"] for message in smtp.messages] == [other.email]
    assert OutgoingMail.objects.get(request=submitted).state == MailState.WAITING


def use_server(settings, port: int) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST = "127.0.0.1"
    settings.EMAIL_PORT = port
    settings.EMAIL_TIMEOUT = 1


def submit_more(count: int) -> None:
    for number in range(count):
        classes = (("a", ""), ("b", ""))
        pipeline.submit(pipeline.Submission(classes=classes, email=f"b{number}@example.org"))


def test_a_round_ends_at_the_first_failure_of_the_connection(submitted, settings):
    submit_more(4)
    with silent_server() as server:
        use_server(settings, server.port)
        assert mail.send_waiting() == 0
        assert len(server.accepted) == 1
    rows = OutgoingMail.objects.order_by("pk")
    assert [row.attempts for row in rows] == [1, 0, 0, 0, 0]
    assert all(row.state == MailState.WAITING for row in rows)


def test_the_next_round_begins_with_another_mail_and_all_go_over_one_connection_at_last(
    submitted, settings
):
    submit_more(2)
    with silent_server() as server:
        use_server(settings, server.port)
        mail.send_waiting()
        mail.send_waiting()
    assert sorted(row.attempts for row in OutgoingMail.objects.all()) == [0, 1, 1]
    latest = OutgoingMail.objects.latest("not_before").not_before
    assert latest < timezone.now() + timedelta(seconds=5 * settings.REAP_SECONDS)
    OutgoingMail.objects.update(not_before=timezone.now())
    recorder = Recorder()
    with smtp_server(recorder) as port:
        use_server(settings, port)
        assert mail.send_waiting() == 3
    assert len(recorder.messages) == 3
    assert len(recorder.connections) == 1


def test_after_its_time_a_round_hands_over_to_the_next(submitted, smtp, monkeypatch):
    submit_more(2)
    monkeypatch.setattr(mail, "ROUND_SECONDS", 0.0)
    OrmQ.objects.all().delete()
    assert mail.send_waiting() == 0
    assert OrmQ.objects.filter(key="picaisso").count() == 1


def test_a_second_sender_leaves_the_mail_to_the_first(submitted, smtp, data_dir):
    with (data_dir / "mail.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert mail.send_waiting() == 0
    assert smtp.messages == []
    assert mail.send_waiting() == 1


def test_a_mail_that_the_server_refuses_does_not_hold_up_the_others(submitted, settings):
    submit_more(1)
    recorder = Recorder(refused="ada@example.org")
    with smtp_server(recorder) as port:
        use_server(settings, port)
        assert mail.send_waiting() == 1
    refused = OutgoingMail.objects.get(request=submitted)
    assert (refused.state, refused.attempts) == (MailState.WAITING, 1)
    assert "nobody of that name" in refused.error


def parts_of(message) -> list[str]:
    return [part.get_content_type() for part in message.walk()]


def test_the_result_mail_brings_its_picture_along_inside_the_html(delivered, smtp):
    mail.send_waiting()
    (message,) = [message for message in smtp.messages if "ready" in message["Subject"]]
    assert parts_of(message)[:6] == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/jpeg",
    ]
    (picture,) = [part for part in message.walk() if part.get_content_type() == "image/jpeg"]
    assert picture["Content-ID"] == "<pictures>"
    with Image.open(io.BytesIO(picture.get_payload(decode=True))) as image:
        assert image.size == (6 * contact_strip.SIDE + 5 * contact_strip.GAP, contact_strip.SIDE)


def test_a_mail_whose_pictures_are_gone_when_it_is_sent_shows_no_broken_one(delivered, smtp):
    assert "cid:pictures" in OutgoingMail.objects.get().html
    ImageUrl.objects.update(state=ImageState.REJECTED, reason="taken_down")
    mail.send_waiting()
    (message,) = smtp.messages
    assert "image/jpeg" not in parts_of(message)
    (html,) = [part for part in message.walk() if part.get_content_type() == "text/html"]
    text = html.get_payload(decode=True).decode()
    assert "<img" not in text
    assert "Try it" in text


def test_no_picture_that_is_suspected_is_shown(delivered):
    version = delivered.versions.get()
    first = contact_strip.chosen(version)
    assert len(first) == 6
    assert [image.image_class.number for image in first] == [1, 1, 1, 2, 2, 2]
    ImageUrl.objects.filter(pk=first[0].pk).update(suspect=0.9)
    second = contact_strip.chosen(version)
    assert first[0] not in second
    assert second[:2] == first[1:3]


def test_a_picture_that_a_person_relabelled_stands_with_its_new_class(delivered):
    version = delivered.versions.get()
    first = contact_strip.chosen(version)[0]
    second_class = delivered.classes.get(number=2)
    ImageUrl.objects.filter(pk=first.pk).update(label=second_class)
    numbers = [image.current_class.number for image in contact_strip.chosen(version)]
    assert numbers == [1, 1, 1, 2, 2, 2]
    assert first not in contact_strip.chosen(version)[:3]


def test_without_a_server_mails_are_files_that_a_mail_program_opens(submitted, settings):
    settings.EMAIL_BACKEND = "requests_app.mail.FolderBackend"
    assert mail.send_waiting() == 1
    (file,) = Path(settings.MAIL_DIR).glob("*.eml")
    message = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert opens(message.get_body(("plain",)).get_content(), submitted)
    assert message.get_body(("html",)) is not None
