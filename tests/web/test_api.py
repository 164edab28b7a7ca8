"""The API, called as a program calls it."""

import json
import threading
import time
import uuid
from pathlib import Path

import pytest
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext

from requests_app import curation, sharing
from requests_app.models import ClassifierRequest, ImageUrl, OutgoingMail, Status
from tests.web.conftest import STRANGER, delivered, keep_picture, running, stopped, submitted
from tests.web.delivered_model import deliver_model, export_model, write_pictures

__all__ = ["deliver_model", "export_model"]

REQUESTS = "/api/v1/requests"
CORGI = {"classes": ["corgi", "shiba inu"], "email": "ada@example.org"}


@pytest.fixture(autouse=True)
def unthrottled():
    cache.clear()


def of(classifier: ClassifierRequest, path: str = "") -> str:
    return f"{REQUESTS}/{classifier.token}{path}"


def send(client, path: str, body=None, method: str = "post", **headers):
    content = b"" if body is None else json.dumps(body)
    kind = "application/json"
    return client.generic(method.upper(), path, content, content_type=kind, headers=headers)


def error_of(response, status: int) -> dict:
    """Return what the envelope says, and prove that there is nothing else in it."""
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json"
    content = response.json()
    assert list(content) == ["error"] and set(content["error"]) == {"code", "message", "fields"}
    return content["error"]


def test_a_request_is_made_and_shown_as_the_contract_says(client):
    wishes = {
        **CORGI,
        "classes": ["corgi", {"name": "jaguar", "query": "jaguar cat animal"}],
        "images_per_class": 40,
        "license": "open",
        "sources": [settings.SOURCES[0]],
        "locale": "de-DE",
    }
    made = send(client, REQUESTS, wishes)
    assert made.status_code == 201
    shown = made.json()
    assert made.headers["Location"] == f"{settings.BASE_URL}{REQUESTS}/{shown['id']}"
    assert shown["status"] == "unconfirmed" and shown["stage"] == "confirm"
    jaguar = {"name": "jaguar", "query": "jaguar cat animal", "asked": 40, "found": 0, "kept": 0}
    assert shown["classes"][1] == jaguar | {"rejected": {}}
    classifier = ClassifierRequest.objects.get()
    assert (classifier.license, classifier.locale) == ("open", "de-DE")
    assert classifier.sources == [settings.SOURCES[0]]
    assert client.get(f"{REQUESTS}/{shown['id']}").json() == shown
    assert OutgoingMail.objects.get().to == "ada@example.org"


@pytest.mark.parametrize(
    ("changes", "field", "sentence"),
    [
        ({"email": "nobody"}, "email", "complete e-mail address"),
        ({"classes": ["corgi"]}, "classes.1.name", "Name a second class"),
        ({"classes": ["corgi", "CORGI"]}, "classes.1.name", "have the same name"),
        ({"classes": ["corgi", {"name": "a", "query": "x" * 201}]}, "classes.1.query", "200"),
        ({"images_per_class": 5}, "images_per_class", "from 20 to 500"),
        ({"images_per_class": "100"}, "images_per_class", "valid integer"),
        ({"license": "mine"}, "license", "licences"),
        ({"backbone": "vgg"}, "backbone", "networks"),
        ({"sources": ["altavista"]}, "sources", "no source of this site"),
        ({"locale": "../x"}, "locale", "no locale"),
        ({"colour": "red"}, "colour", "not permitted"),
    ],
)
def test_what_the_form_refuses_the_api_refuses_with_its_sentence(client, changes, field, sentence):
    error = error_of(send(client, REQUESTS, CORGI | changes), 400)
    assert error["code"] == "invalid" and sentence in error["fields"][field]
    assert error["message"].startswith(f"{field}: ")
    assert not ClassifierRequest.objects.exists()


def test_what_cannot_be_read_or_found_has_the_same_envelope(client):
    classifier = submitted()
    assert error_of(client.get(f"{REQUESTS}/{STRANGER}"), 404)["code"] == "not_found"
    assert error_of(client.get("/api/v2/nothing"), 404)["code"] == "not_found"
    assert error_of(client.get("/api/v1/nothing"), 404)["code"] == "not_found"
    refused = client.put(of(classifier), b"{}", content_type="application/json")
    assert error_of(refused, 405)["code"] == "method_not_allowed"
    assert {"GET", "DELETE"} <= set(refused.headers["Allow"].split(", "))
    text = client.post(REQUESTS, "classes=a", content_type="text/plain")
    assert error_of(text, 415)["code"] == "unsupported_media_type"
    broken = client.post(REQUESTS, "{", content_type="application/json")
    assert error_of(broken, 400)["message"] == "The request could not be read."
    large = client.post(REQUESTS, b" " * 3_000_000, content_type="application/json")
    assert error_of(large, 413)["code"] == "too_large"


def test_the_same_call_with_the_same_key_makes_one_request(client):
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = send(client, REQUESTS, CORGI, **key)
    again = send(client, REQUESTS, CORGI, **key)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json() and ClassifierRequest.objects.count() == 1
    other = send(client, REQUESTS, CORGI | {"images_per_class": 30}, **key)
    assert error_of(other, 409)["code"] == "idempotency_key_reused"
    elsewhere = client.post(
        REQUESTS, json.dumps(CORGI), content_type="application/json", headers=key,
        REMOTE_ADDR="192.0.2.7",
    )  # fmt: skip
    assert elsewhere.json()["id"] != first.json()["id"], "no key opens what another caller made"
    short = send(client, REQUESTS, CORGI, **{"Idempotency-Key": "1"})
    assert "16 to 255" in error_of(short, 400)["message"]


def test_a_call_that_failed_can_be_tried_again_with_its_key(client):
    key = {"Idempotency-Key": str(uuid.uuid4())}
    classifier = submitted()
    assert error_of(send(client, of(classifier, "/finish"), **key), 409)["code"] == "wrong_state"
    cancelled = send(client, of(classifier, "/cancel"), **key)
    assert cancelled.status_code == 202 and cancelled.json()["status"] == "cancelled"
    assert send(client, of(classifier, "/cancel"), **key).status_code == 202
    assert error_of(send(client, of(classifier, "/cancel")), 409)["code"] == "wrong_state"


def test_every_call_is_for_the_holder_of_the_link_alone(client, admin_client):
    classifier = delivered("cat", "dog")
    assert sharing.switch_on(classifier, "person")
    document = client.get("/api/v1/openapi.json").json()
    tried = 0
    for path, calls in document["paths"].items():
        if "{token}" not in path:
            continue
        for method in calls:
            for token in (STRANGER, classifier.share_token):
                place = path.format(token=token, image_id=1, number=1)
                for caller in (client, admin_client):
                    body = {"state": "kept"} if method == "patch" else None
                    error_of(send(caller, place, body, method), 404)
                    tried += 1
    assert tried == 4 * 15
    assert admin_client.get(of(classifier)).json()["status"] == "delivered"


def test_a_running_request_says_how_far_it_is(client):
    shown = client.get(of(running())).json()
    assert shown["status"] == "running" and shown["stage"] == "collect"
    said = {"stage": "collect", "done": 20, "total": 80, "eta_seconds": 130}
    assert shown["progress"] == said | {"message": "Bing: 20 of 40"}


def test_a_delivered_request_has_versions_files_and_what_each_source_gave(client):
    classifier = delivered("cat", "dog")
    shown = client.get(of(classifier)).json()
    assert shown["status"] == "delivered" and shown["stage"] is None and shown["error"] is None
    [version] = shown["versions"]
    assert version["accuracy"] == 0.9 and version["interval"][0] < 0.9 < version["interval"][1]
    assert {source["outcome"] for source in shown["sources"]} == {"partial", "ok"}
    assert shown["classes"][0]["rejected"] == {"duplicate": 9, "unreachable": 5, "too_small": 1}
    for artifact in shown["artifacts"]:
        path = artifact["url"].removeprefix(settings.BASE_URL)
        file = client.get(path)
        assert len(b"".join(file)) == artifact["bytes"]
        assert file.headers["ETag"] == f'"{artifact["sha256"]}"'


def test_an_answer_that_is_known_is_not_sent_again_and_none_is_kept_on_the_way(client):
    classifier = submitted()
    shown = client.get(of(classifier))
    assert shown.headers["Cache-Control"] == "private, no-store"
    etag = shown.headers["ETag"]
    known = client.get(of(classifier), headers={"If-None-Match": etag})
    assert known.status_code == 304 and not known.content
    pictures = client.get(of(classifier, "/images"))
    assert pictures.headers["ETag"] != etag


@pytest.mark.django_db(transaction=True)
def test_a_call_that_waits_is_answered_when_something_changes(client):
    classifier = running()
    etag = client.get(of(classifier)).headers["ETag"]

    def move_on() -> None:
        time.sleep(1.2)
        classifier.jobs.update(progress={"done": 30, "total": 80})
        connection.close()

    mover = threading.Thread(target=move_on)
    mover.start()
    shown = client.get(of(classifier, "?wait=30"), headers={"If-None-Match": etag})
    mover.join()
    assert shown.status_code == 200 and shown.json()["progress"]["done"] == 30
    late = client.get(of(classifier, "?wait=30"), headers={"If-None-Match": etag})
    assert late.json()["progress"]["done"] == 30, "what has changed already is not waited for"
    assert client.get(of(stopped(Status.FAILED), "?wait=30")).status_code == 200, "it ends nowhere"
    assert error_of(client.get(of(classifier, "?wait=3600")), 400)["fields"]["wait"]


def test_a_deleted_request_is_gone(client):
    classifier = delivered()
    assert client.delete(of(classifier)).status_code == 204
    assert error_of(client.get(of(classifier)), 410)["code"] == "gone"
    assert error_of(client.delete(of(classifier)), 410)["code"] == "gone"
    assert error_of(send(client, of(classifier, "/retry"), {}), 410)["code"] == "gone"


def test_a_stopped_request_goes_on_with_other_words_or_without_a_class(client):
    classifier = stopped(Status.FAILED, ("cat", "dog", "fox"))
    told = client.get(of(classifier)).json()["error"]
    assert told["stage"] == "collect" and told["remedy"] == "Try another wording."
    unknown = error_of(send(client, of(classifier, "/retry"), {"leave_out": ["cow"]}), 400)
    assert "“cow” is no class" in unknown["fields"]["leave_out.0"]
    both = {"leave_out": ["fox"], "accept_fewer": True}
    assert "first" in error_of(send(client, of(classifier, "/retry"), both), 400)["message"]
    words = {"classes": [{"name": "dog", "query": "dog portrait"}], "images_per_class": 30}
    started = send(client, of(classifier, "/retry"), words)
    assert started.status_code == 202 and started.json()["status"] == "queued"
    queries = [row["query"] for row in started.json()["classes"]]
    assert queries == ["cat", "dog portrait", "fox"] and started.json()["images_per_class"] == 30
    assert error_of(send(client, of(classifier, "/retry"), {}), 409)["code"] == "wrong_state"
    other = stopped(Status.FAILED, ("cat", "dog", "fox"))
    left = send(client, of(other, "/retry"), {"leave_out": ["fox"]})
    assert [row["name"] for row in left.json()["classes"]] == ["cat", "dog"]
    assert left.json()["status"] == "queued"


def test_pictures_are_listed_by_the_hundred_and_decided_about_one_by_one(client):
    classifier = delivered("cat", "dog")
    cat = classifier.classes.first()
    for number in range(100):
        keep_picture(cat, 10 + number)
    found = client.get(of(classifier, "/images?class=cat&state=kept&page=2")).json()
    assert (found["count"], found["page"], found["pages"]) == (102, 2, 2)
    assert len(found["items"]) == 2 and found["items"][0]["class"] == "cat"
    thumbnail = found["items"][0]["thumbnail"].removeprefix(settings.BASE_URL)
    assert client.get(thumbnail).headers["Content-Type"] == "image/jpeg"
    assert client.get(of(classifier, "/images?page=9")).json()["items"] == []
    assert "no class" in error_of(client.get(of(classifier, "/images?class=cow")), 400)["message"]

    image = ImageUrl.objects.filter(image_class=cat).first()
    place = of(classifier, f"/images/{image.pk}")
    removed = send(client, place, {"state": "removed"}, "patch").json()
    assert removed["state"] == "removed" and removed["id"] == image.pk
    relabelled = send(client, place, {"class": "dog"}, "patch").json()
    assert (relabelled["class"], relabelled["state"]) == ("dog", "kept")
    assert error_of(send(client, place, {"class": "cow"}, "patch"), 400)["fields"]["class"]
    assert error_of(send(client, place, {"state": "rejected"}, "patch"), 400)["fields"]["state"]
    assert curation.undo(classifier) and curation.undo(classifier)
    ImageUrl.objects.filter(pk=image.pk).update(state="rejected", reason="too_small")
    item = client.get(of(classifier, "/images?state=rejected")).json()["items"][0]
    assert item["reason"] == "too_small" and item["thumbnail"] is None
    assert error_of(send(client, place, {"state": "kept"}, "patch"), 409)["code"] == "wrong_state"
    missing = send(client, of(classifier, "/images/999999"), {"state": "kept"}, "patch")
    assert error_of(missing, 404)["message"] == "This request has no such picture."


def test_the_number_of_queries_does_not_grow_with_the_pictures(client):
    classifier = delivered("cat", "dog")

    def count(path: str) -> int:
        client.get(of(classifier, path))
        with CaptureQueriesContext(
            connection,
        ) as queries:
            client.get(of(classifier, path))
        return len(queries)

    few = [count(path) for path in ("", "/images", "/versions")]
    for number in range(60):
        keep_picture(classifier.classes.first(), 10 + number)
    assert [count(path) for path in ("", "/images", "/versions")] == few


def test_versions_say_what_a_training_would_change(client):
    classifier = delivered("cat", "dog")
    listed = client.get(of(classifier, "/versions")).json()
    [version] = listed["items"]
    assert version["number"] == 1 and version["comparison"] is None
    assert client.get(of(classifier, "/versions/1")).json() == version
    assert error_of(client.get(of(classifier, "/versions/2")), 404)
    refused = error_of(send(client, of(classifier, "/retrain")), 409)
    assert refused["message"] == listed["obstacle"] != ""


def test_a_picture_is_classified_by_upload_and_the_report_read(client, with_model, tmp_path: Path):
    file = write_pictures(tmp_path / "pictures")[0]
    with file.open("rb") as picture:
        said = client.post(of(with_model, "/predict"), {"image": picture})
    assert said.status_code == 200, said.content
    answer = said.json()
    assert set(answer) == {"label", "known", "probabilities", "version", "elapsed_ms"}
    assert abs(sum(answer["probabilities"].values()) - 1) < 1e-4
    assert answer["label"] in answer["probabilities"] and answer["version"] == 1
    with file.open("rb") as picture:
        of_one = client.post(of(with_model, "/predict?version=1"), {"image": picture})
    assert of_one.json()["probabilities"] == answer["probabilities"]
    with file.open("rb") as picture:
        missing = client.post(of(with_model, "/predict?version=7"), {"image": picture})
    assert error_of(missing, 409)["code"] == "wrong_state"
    text = tmp_path / "notes.txt"
    text.write_text("no picture")
    with text.open("rb") as notes:
        assert error_of(client.post(of(with_model, "/predict"), {"image": notes}), 400)["fields"]
    assert error_of(client.post(of(with_model, "/predict"), {"picture": "x"}), 400)["fields"]
    inside = send(client, of(with_model, "/predict"), {"url": "http://127.0.0.1/picture.jpg"})
    assert error_of(inside, 400)["fields"]["url"]
    assert error_of(send(client, of(with_model, "/predict"), {"uri": "x"}), 400)["fields"]["url"]
    report = client.get(of(with_model, "/versions/1/report"))
    assert "sandbox" in report.headers["Content-Security-Policy"]
    assert b"Right on 12 of 12" in b"".join(report)


def test_nothing_is_classified_before_there_is_a_model(client):
    refused = send(client, of(submitted(), "/predict"), {"url": "https://example.org/a.jpg"})
    assert error_of(refused, 409)["message"] == "There is no model yet."


def test_the_link_for_others_opens_no_call(client):
    classifier = delivered("cat", "dog")
    assert client.get(of(classifier, "/share")).json() == {"url": None}
    made = send(client, of(classifier, "/share"))
    assert made.status_code == 201
    assert send(client, of(classifier, "/share")).json() == made.json()
    classifier.refresh_from_db()
    assert made.json()["url"] == classifier.share_url
    assert error_of(client.get(f"{REQUESTS}/{classifier.share_token}"), 404)
    assert client.delete(of(classifier, "/share")).status_code == 204
    assert not sharing.switch_off(classifier, "person"), "it is revoked"
    assert error_of(send(client, of(submitted(), "/share")), 409)["code"] == "wrong_state"


def test_too_many_calls_are_told_when_to_come_again(client):
    for _ in range(60):
        send(client, f"{REQUESTS}/{STRANGER}/cancel")
    refused = send(client, f"{REQUESTS}/{STRANGER}/cancel")
    assert error_of(refused, 429)["code"] == "too_many_requests"
    assert 1 <= int(refused.headers["Retry-After"]) <= 61
    assert client.get(of(submitted())).status_code == 200, "looking is still allowed"


def test_the_document_names_every_call_and_its_page_needs_no_other_site(client):
    document = client.get("/api/v1/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert len(document["paths"]) == 14
    page = client.get("/api/v1/docs")
    assert "unsafe-inline" not in page.headers["Content-Security-Policy"]
    assert (
        "cdn" not in page.content.decode() and "ninja/swagger-ui-bundle.js" in page.content.decode()
    )
