"""The one gate: who may see and do what below a token."""

import re

import pytest
from django.urls import URLPattern

from requests_app import lifecycle, sharing
from requests_app.models import ClassifierRequest, ImageUrl, Status
from requests_app.urls import urlpatterns
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
    "images/groups/",
    "review/",
    "versions/",
    "stored/",
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
    "images/groups/decide/",
    "images/groups/fill-up/",
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
    loaded = r'(?:src|<link[^>]*\shref)="(?:https?:)?//'  # a link in the text loads nothing
    assert not re.search(loaded, page)


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


# --- every path of the site, and who may use it ---

OPEN = {"home", "estimate", "words", "robots", "favicon", "llms", "healthz"}  # for everybody
OPEN |= {"privacy"}
OPEN |= {"links"}
OPEN |= {"confirm"}  # whose link is signed
READ = {  # below a request's own link: what a GET shows, and below the link for others (s/)
    "request": "", "progress": "progress/", "delete": "delete/", "gallery": "images/",
    "image": "images/{pk}/", "thumbnail": "images/{pk}.jpg", "picture": "images/{pk}/picture/",
    "try": "try/", "try_model": "try/model.onnx", "report": "report/", "review": "review/",
    "versions": "versions/", "download": "download/model/", "share": "share/",
    "groups": "images/groups/", "own": "own/", "stored": "stored/",
}  # fmt: skip
SHARED = {
    "shared": "", "shared_try": "try/", "shared_try_model": "try/model.onnx",
    "shared_credits": "credits/", "shared_card": "card.png",
    "shared_thumbnail": "images/{pk}.jpg", "shared_manifest": "app.webmanifest",
    "shared_worker": "worker.js",
}  # fmt: skip
DO = {  # what a POST does
    "send-again": "confirmation/", "cancel": "cancel/", "retry": "retry/",
    "leave-out": "leave-out/", "delete": "delete/", "decide": "images/decide/",
    "undo": "images/undo/", "judge": "review/judge/", "count": "review/count/",
    "train-again": "versions/train/", "share": "share/", "try": "try/", "finish": "finish/",
    "decide-groups": "images/groups/decide/", "fill-up": "images/groups/fill-up/", "own": "own/",
    "correct": "try/correct/",
}  # fmt: skip
DO_SHARED = {"shared_try": "try/"}


def shared_result() -> ClassifierRequest:
    """A delivered request with a link for others, and the files of its model."""
    classifier = delivered()
    ImageUrl.objects.update(license="by-sa")
    model = classifier.versions.get().folder / "model"
    model.mkdir(parents=True)
    for name in ("model.onnx", "report.html"):
        (model / name).write_text("<p>it")
    sharing.switch_on(classifier, "person")
    return classifier


def test_every_path_stands_in_the_tables_of_who_may_use_it():
    # Those of the API: `test_api.py`.
    names = {pattern.name for pattern in urlpatterns if isinstance(pattern, URLPattern)}
    listed = OPEN | set(READ) | set(SHARED) | set(DO) | set(DO_SHARED)
    assert names - listed == set(), "say who may use these"
    assert listed - names == set()


def test_only_the_holder_of_its_link_sees_a_page_and_staff_need_it_too(client, admin_client):
    classifier = shared_result()
    pk = ImageUrl.objects.earliest("pk").pk
    for room, pages, opens, others in (
        ("r", READ, classifier.token, (classifier.share_token, STRANGER)),
        ("s", SHARED, classifier.share_token, (classifier.token, STRANGER)),
    ):
        for name, path in pages.items():
            below = path.format(pk=pk)
            for browser in (client, admin_client):
                assert browser.get(f"/{room}/{opens}/{below}").status_code in (200, 286), name
                for token in others:
                    assert browser.get(f"/{room}/{token}/{below}").status_code == 404, name


@pytest.mark.parametrize("name", DO)
def test_only_the_holder_of_its_link_can_do_something(client, admin_client, name):
    classifier = shared_result()
    for browser in (client, admin_client):
        for token in (classifier.share_token, STRANGER):
            assert browser.post(f"/r/{token}/{DO[name]}").status_code == 404
    classifier.refresh_from_db()
    assert (classifier.status, classifier.decisions.count()) == (Status.DELIVERED, 0)
    assert client.post(f"/r/{classifier.token}/{DO[name]}").status_code in (200, 303, 409)
    if name != "delete":  # for whoever comes second it is gone
        assert admin_client.post(f"/r/{classifier.token}/{DO[name]}").status_code in (200, 303, 409)


def test_the_link_for_others_lets_them_try_the_model_and_nothing_else(client, admin_client):
    classifier = shared_result()
    for browser in (client, admin_client):
        assert browser.post(f"/s/{classifier.share_token}/try/").status_code in (200, 409)
        assert browser.post(f"/s/{STRANGER}/try/").status_code == 404
        for path in set(DO.values()) - {"try/"}:
            assert browser.post(f"/s/{classifier.share_token}/{path}").status_code == 404, path
