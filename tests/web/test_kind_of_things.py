"""The one question beside the names: what kind of things these are."""

import pytest

from requests_app import pipeline
from requests_app.models import ClassifierRequest, OutgoingMail, Status
from tests.web.conftest import delivered, page_of, post, running, stopped, submitted, words
from tests.web.test_forms import GOOD, complaints

SENTENCE = "Searched as “jaguar animal”, because both names are animals in Wikidata."
DERIVED = {"word": "animal", "how": "derived", "sentence": SENTENCE}
CATS = {"classes": ["jaguar", "leopard"], "email": "ada@example.org"}


def test_the_question_is_optional_and_its_answer_is_kept_in_normal_form(holder):
    assert b'name="kind"' in holder.get("/").content
    assert post(holder, "/", **GOOD).status_code == 303
    assert post(holder, "/", **CATS, kind=" big \u00a0cat ").status_code == 303
    latest, first = ClassifierRequest.objects.order_by("-pk")
    assert (first.kind, latest.kind) == ("", "big cat")
    assert [c.search_words for c in latest.classes.all()] == ["jaguar big cat", "leopard big cat"]


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("x" * 65, "At most 64 characters, please; this has 65."),
        ("car\nanimal", "Line breaks and other control characters are not allowed here."),
        ("car\x00", "Line breaks and other control characters are not allowed here."),
        ("\u202ecar", "Invisible characters that change the reading direction"),
        ("\ufe0f", "This has no visible character."),
    ],
)
def test_the_rules_for_names_hold_for_the_kind_too(holder, typed, sentence):
    response = post(holder, "/", **CATS, kind=typed)
    assert response.status_code == 400
    assert complaints(response.content.decode())["id_kind"].startswith(sentence)
    assert not ClassifierRequest.objects.exists()


def test_the_answer_stays_while_something_else_is_mended(holder):
    bad = post(holder, "/", classes=["jaguar", ""], email="ada@example.org", kind="wild <cat>")
    more = post(holder, "/", **CATS, kind="wild <cat>", add="1")
    for response in (bad, more):
        assert b'name="kind" value="wild &lt;cat&gt;"' in response.content


def test_page_and_mail_of_a_new_request_say_what_is_searched_for(holder):
    post(holder, "/", **CATS, queries=["", "leopard cub"], kind="animal")
    classifier = ClassifierRequest.objects.get()
    page = words(page_of(holder, classifier))
    assert "jaguar, searched for as “jaguar animal”" in page
    assert "leopard, searched for as “leopard cub”" in page
    assert "Kind of things animal" in page
    mail = OutgoingMail.objects.get()
    assert "- jaguar, searched for as “jaguar animal”" in mail.text
    assert "jaguar is searched for as “jaguar animal”" in mail.html


def test_the_page_says_which_kind_was_found_out_and_why(client):
    classifier = running("jaguar", "leopard")
    assert "kind-note" not in page_of(client, classifier)
    ClassifierRequest.objects.update(kind_found=DERIVED)
    page = words(page_of(client, classifier))
    assert SENTENCE in page
    assert "Searched for “leopard animal”." in page


def test_the_retry_form_shows_the_kind_and_another_one_wins(holder):
    classifier = stopped(Status.NEEDS_ATTENTION, kind_found=DERIVED)
    page = page_of(holder, classifier)
    assert 'name="kind" value="animal"' in page
    assert "You can change that under" in page
    path = f"/r/{classifier.token}/retry/"
    assert post(holder, path, kind="x" * 65).status_code == 400
    assert post(holder, path, kind="car").status_code == 303
    classifier.refresh_from_db()
    assert (classifier.kind, classifier.find_kind, classifier.kind_found) == ("car", False, {})
    assert classifier.status == Status.QUEUED


@pytest.mark.parametrize("fields", [{}, {"kind": "animal"}])
def test_a_retry_that_says_nothing_new_of_the_kind_changes_nothing(holder, fields):
    classifier = stopped(Status.NEEDS_ATTENTION, kind_found=DERIVED)
    post(holder, f"/r/{classifier.token}/retry/", **fields)
    classifier.refresh_from_db()
    assert (classifier.kind, classifier.find_kind, classifier.kind_found) == ("", True, DERIVED)


def test_the_mail_with_the_result_says_how_pictures_were_searched():
    def trained_cats() -> OutgoingMail:
        return OutgoingMail.objects.get(key__contains="delivered")

    classifier = delivered("jaguar", "leopard")
    assert "Searched" not in trained_cats().text
    classifier.kind_found = DERIVED
    context = {"error": {"reason": "Too few.", "remedy": "Try again."}}
    row = pipeline.mail.put(classifier, "needs_attention", "again", context)
    assert SENTENCE in row.text
    assert SENTENCE in row.html


def test_staff_see_and_find_the_kind(admin_client):
    classifier = submitted("jaguar", "leopard")
    ClassifierRequest.objects.update(kind="wild cat", kind_found=DERIVED)
    table = admin_client.get("/admin/requests_app/classifierrequest/?q=wild+cat")
    assert b"wild cat" in table.content and b"1 request" in table.content
    record = admin_client.get(f"/admin/requests_app/classifierrequest/{classifier.pk}/change/")
    assert SENTENCE in record.content.decode()
