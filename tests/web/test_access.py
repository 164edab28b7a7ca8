"""The one gate: who may see and do what below a token."""

import re

import pytest

from requests_app import lifecycle
from requests_app.models import ClassifierRequest, ImageUrl, Status
from tests.web.conftest import STRANGER, delivered, page_of, post, running, stopped, submitted

PLACES = [
    "",
    "progress/",
    "delete/",
    "images/1.jpg",
    "download/model/",
    "download/dataset/",
    "images/",
    "images/1/",
    "images/1/picture/",
    "review/",
    "versions/",
]
ACTIONS = [
    "leave-out/",
    "confirmation/",
    "cancel/",
    "finish/",
    "retry/",
    "delete/",
    "images/decide/",
    "images/undo/",
    "review/judge/",
    "review/count/",
    "versions/train/",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_stranger_gets_the_same_404_everywhere(client, place):
    delivered()
    plain = client.get("/nothing/here/").content
    response = client.get(f"/r/{STRANGER}/{place}")
    assert response.status_code == 404
    assert response.content == plain


@pytest.mark.parametrize("action", ACTIONS)
def test_a_stranger_can_do_nothing(holder, action):
    delivered()
    assert post(holder, f"/r/{STRANGER}/{action}").status_code == 404
    assert ClassifierRequest.objects.get().status == Status.DELIVERED


def test_one_wrong_character_makes_a_stranger(client):
    token = delivered().token
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert client.get(f"/r/{wrong}/").status_code == 404


@pytest.mark.parametrize("place", PLACES)
def test_what_was_deleted_is_gone(client, place):
    classifier = delivered()
    address = classifier.get_absolute_url()
    lifecycle.delete(classifier)
    response = client.get(address + place)
    assert response.status_code == 410
    assert b"This request is gone" in response.content


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_can_be_done_with_what_is_gone(holder, action):
    classifier = delivered()
    lifecycle.delete(classifier)
    assert post(holder, f"{classifier.get_absolute_url()}{action}").status_code == 410


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("who", ["holder", "stranger"])
def test_nothing_below_a_token_is_indexed_or_named_to_others(client, place, who):
    classifier = delivered()
    pk = ImageUrl.objects.values_list("pk", flat=True)[0]
    token = classifier.token if who == "holder" else STRANGER
    response = client.get(f"/r/{token}/{place}".replace("images/1", f"images/{pk}"))
    assert response.headers["X-Robots-Tag"] == "noindex, nofollow"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"].startswith("private")
    assert "no-store" in response.headers["Cache-Control"] or "images" in place


def test_the_policy_against_foreign_scripts_is_on_every_page(client):
    classifier = running()
    for path in ("/", classifier.get_absolute_url(), f"/r/{STRANGER}/", "/admin/login/"):
        policy = client.get(path).headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize(
    "make", [submitted, running, delivered, lambda: stopped("needs_attention")]
)
def test_no_page_has_scripts_or_styles_inside(client, make):
    page = page_of(client, make())
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)  # nothing from a third party


def test_a_class_name_is_text_on_every_page(client):
    name = "<script>alert(1)</script>"
    for classifier in (
        submitted(name, "dog"),
        running(name, "dog"),
        delivered(name, "{{ 7|add:7 }}"),
    ):
        for place in ("", "progress/", "delete/"):
            page = client.get(classifier.get_absolute_url() + place).content.decode()
            assert "<script>alert" not in page
            assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7|add:7 }}" in page


@pytest.mark.parametrize("place", [*PLACES[:2], "download/model/"])
def test_a_method_that_a_page_does_not_take_gets_a_finished_page(holder, place):
    classifier = delivered()
    response = post(holder, f"{classifier.get_absolute_url()}{place}")
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")
    assert b"That does not work here" in response.content
    assert post(holder, f"/r/{STRANGER}/{place}").status_code == 404


@pytest.mark.parametrize("action", ACTIONS)
def test_a_foreign_page_can_do_nothing(holder, action):
    classifier = running()
    assert holder.post(f"{classifier.get_absolute_url()}{action}").status_code == 403
    classifier.refresh_from_db()
    assert classifier.status == Status.RUNNING
