"""The link for others: what it shows, that it changes nothing, and that it can be revoked."""

import io
import json
import re

import pytest
from PIL import Image

from requests_app import lifecycle, sharing
from requests_app.models import ClassifierRequest, ImageUrl, Status
from tests.web.conftest import STRANGER, delivered, page_of, post, running, words

READ_PLACES = ["", "credits/", "card.png", "app.webmanifest", "worker.js", "try/"]
OWN_PLACES = [
    "", "progress/", "images/", "images/groups/", "review/", "versions/", "share/", "report/",
    "download/model/", "download/dataset/", "delete/",
]  # fmt: skip
ACTIONS = [
    "cancel/", "delete/", "images/decide/", "images/groups/decide/", "images/groups/fill-up/",
    "review/judge/", "versions/train/", "share/",
]  # fmt: skip


@pytest.fixture
def shared() -> ClassifierRequest:
    classifier = delivered("cat", "dog")
    ImageUrl.objects.filter(image_class__number=1).update(license="by-sa", creator="Ada")
    assert sharing.switch_on(classifier, "person")
    return classifier


def place(classifier: ClassifierRequest, path: str = "") -> str:
    return f"/s/{classifier.share_token}/{path}"


def test_it_is_off_until_somebody_switches_it_on_and_a_new_link_is_another(holder):
    classifier = delivered("cat", "dog")
    assert holder.get(place(classifier)).status_code == 404
    own = f"{classifier.get_absolute_url()}share/"
    assert "Make a link for others" in holder.get(own).content.decode()
    post(holder, own, share="on")
    classifier.refresh_from_db()
    first = place(classifier)
    assert classifier.share_url in holder.get(own).content.decode()
    assert holder.get(first).status_code == 200
    post(holder, own, share="off")
    assert holder.get(first).status_code == 404
    post(holder, own, share="on")
    classifier.refresh_from_db()
    assert place(classifier) != first
    assert holder.get(first).status_code == 404
    assert holder.get(place(classifier)).status_code == 200
    reasons = [event.reason for event in classifier.events.all()]
    assert reasons[-3:] == ["shared", "not shared any more", "shared"]


@pytest.mark.parametrize("path", READ_PLACES)
def test_a_stranger_and_whoever_has_a_link_of_another_kind_see_nothing(client, shared, path):
    assert client.get(f"/s/{STRANGER}/{path}").status_code == 404
    assert client.get(f"/s/{shared.token}/{path}").status_code == 404
    response = client.get(place(shared, path))
    assert response.status_code == 200
    assert response.headers["X-Robots-Tag"] == "noindex, nofollow"
    assert response.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("path", OWN_PLACES)
def test_the_link_for_others_opens_none_of_the_request_s_own_pages(client, shared, path):
    assert client.get(f"/r/{shared.share_token}/{path}").status_code == 404
    if path not in ("",):
        assert client.get(place(shared, path)).status_code == 404


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_can_be_changed_with_it(holder, shared, action):
    for prefix in ("r", "s"):
        response = post(holder, f"/{prefix}/{shared.share_token}/{action}", share="off")
        assert response.status_code == 404
    shared.refresh_from_db()
    assert shared.status == Status.DELIVERED and shared.share_sha256


def test_the_page_shows_result_and_credit_and_not_the_request_s_own_link(client, shared):
    page = client.get(place(shared)).content.decode()
    assert "Which is it:" in words(page) and "This model tells the classes apart" in words(page)
    assert shared.token not in page and "/r/" not in page
    assert f'property="og:image" content="{shared.share_url}card.png"' in page
    credits = words(client.get(place(shared, "credits/")).content.decode())
    assert "by Ada" in credits and credits.count("Licence:") == 4
    assert "The terms of the sources" in credits and "2026-" in credits


def test_a_person_s_own_pictures_are_neither_counted_nor_credited(client, shared):
    ImageUrl.objects.filter(pk=ImageUrl.objects.first().pk).update(source="own")
    page = words(client.get(place(shared)).content.decode())
    assert "3 pictures by many authors." in page
    credits = words(client.get(place(shared, "credits/")).content.decode())
    assert credits.count("Licence:") == 3


def test_pictures_without_a_known_licence_are_named_and_not_shown(client, shared):
    known, unknown = ImageUrl.objects.order_by("image_class__number")[1:3]
    assert client.get(place(shared, f"images/{known.pk}.jpg")).status_code == 200
    assert client.get(place(shared, f"images/{unknown.pk}.jpg")).status_code == 404
    page = client.get(place(shared)).content.decode()
    assert f"images/{known.pk}.jpg" in page and f"images/{unknown.pk}.jpg" not in page


def test_the_card_is_a_picture_of_the_size_that_previews_show(client, shared):
    response = client.get(place(shared, "card.png"))
    assert response.headers["Content-Type"] == "image/png"
    card = Image.open(io.BytesIO(response.content))
    assert card.size == (1200, 630)
    assert len(card.getcolors(1 << 20) or []) > 50  # text and pictures


def test_the_card_cuts_names_that_are_too_long():
    classifier = delivered("a" * 64, "b" * 64)
    sharing.switch_on(classifier, "person")
    run = classifier.versions.get().run
    assert sharing.social_card(classifier, run.metrics)


def test_it_can_be_installed(client, shared):
    manifest = json.loads(client.get(place(shared, "app.webmanifest")).content)
    assert manifest["start_url"] == manifest["scope"] == place(shared)
    worker = client.get(place(shared, "worker.js"))
    assert worker.headers["Content-Type"].startswith("text/javascript")
    assert b"addEventListener" in worker.content


def test_without_a_model_there_is_nothing_to_share(holder):
    classifier = running()
    own = f"{classifier.get_absolute_url()}share/"
    assert "nothing to share yet" in words(holder.get(own).content.decode())
    post(holder, own, share="on")
    classifier.refresh_from_db()
    assert classifier.share_url == ""


def test_a_deleted_request_is_gone_for_others_too(client, shared):
    lifecycle.delete(shared)
    assert client.get(place(shared)).status_code == 410


def test_a_new_secret_key_ends_old_links_and_the_page_has_the_new_one(client, shared, settings):
    old = place(shared)
    settings.SECRET_KEY = "another"
    ClassifierRequest.objects.renew_tokens()
    assert client.get(old).status_code == 404
    assert client.get(place(shared)).status_code == 200


def test_the_result_page_leads_to_sharing(client, shared):
    page = page_of(client, shared)
    assert re.search(r'href="/r/[^"]+/share/"', page)
