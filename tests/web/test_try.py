"""The try page and the report without a browser: who may see them, and what becomes of pictures."""

import base64
import io
import json
import pickle
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from PIL import Image

from requests_app import lifecycle, prediction, sharing
from requests_app.models import DatasetVersion, ImageUrl
from requests_app.views import uploads
from tests.web.conftest import STRANGER, add_artifact, delivered, post, running, words
from tests.web.delivered_model import (
    NAMES,
    deliver_model,  # noqa: F401
    export_model,  # noqa: F401
    write_pictures,
)
from training import run_folder
from training.images.decode import read_image
from training.predict import open_model

PLACES = ["try/", "try/model.onnx", "report/"]


def picture(width: int = 320, height: int = 200, kind: str = "PNG") -> bytes:
    rows = np.linspace(0, 255, height, dtype=np.uint8)
    columns = np.linspace(0, 255, width, dtype=np.uint8)
    red = np.repeat(rows[:, None], width, axis=1)
    green = np.repeat(columns[None], height, axis=0)
    file = io.BytesIO()
    Image.fromarray(np.dstack([red, green, red[::-1]])).save(file, kind)
    return file.getvalue()


def upload(name: str, content: bytes) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content, content_type="image/png")


def try_it(client, classifier, **fields):
    return post(client, f"{classifier.get_absolute_url()}try/", **fields)


def answers(client, classifier, **fields) -> list[dict]:
    """What a script gets."""
    address = f"{classifier.get_absolute_url()}try/"
    token = client.cookies["csrftoken"].value
    data = {**fields, "csrfmiddlewaretoken": token}
    response = client.post(address, data, headers={"Accept": "application/json"})
    assert response.status_code == 200
    return json.loads(response.content)["answers"]


# --- who may ---


@pytest.mark.parametrize("place", PLACES)
def test_the_holder_of_the_link_is_served_and_so_is_staff_with_it(client, with_model, place):
    address = with_model.get_absolute_url() + place
    assert client.get(address).status_code == 200
    client.force_login(User.objects.create_superuser("staff"))
    assert client.get(address).status_code == 200


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("is_staff", [False, True])
def test_a_stranger_gets_the_404_page(client, with_model, place, is_staff):
    if is_staff:
        client.force_login(User.objects.create_superuser("staff"))
    plain = client.get("/nothing/here/").content
    response = client.get(f"/r/{STRANGER}/{place}")
    assert (response.status_code, response.content) == (404, plain)


def test_a_stranger_cannot_have_a_picture_classified(holder, with_model):
    response = post(holder, f"/r/{STRANGER}/try/", pictures=upload("a.png", picture()))
    assert response.status_code == 404


def test_the_holder_and_staff_with_the_link_can_have_one_classified(holder, with_model):
    assert try_it(holder, with_model, pictures=upload("a.png", picture())).status_code == 200
    holder.force_login(User.objects.create_superuser("staff"))
    holder.get("/")
    assert try_it(holder, with_model, pictures=upload("a.png", picture())).status_code == 200


def test_a_foreign_page_can_have_none_classified(holder, with_model):
    address = f"{with_model.get_absolute_url()}try/"
    response = holder.post(address, {"pictures": upload("a.png", picture())})
    assert response.status_code == 403


@pytest.mark.parametrize("place", PLACES)
def test_of_what_was_deleted_nothing_can_be_tried(client, with_model, place):
    address = with_model.get_absolute_url() + place
    lifecycle.delete(with_model)
    assert client.get(address).status_code == 410


@pytest.mark.parametrize("place", PLACES)
def test_nothing_here_is_indexed_or_named_to_others(client, with_model, place):
    headers = client.get(with_model.get_absolute_url() + place).headers
    assert headers["X-Robots-Tag"] == "noindex, nofollow"
    assert headers["Referrer-Policy"] == "no-referrer"
    kept = "no-cache" if place == "try/model.onnx" else "no-store"
    assert headers["Cache-Control"] == f"private, {kept}"


@pytest.mark.parametrize("place", PLACES[1:])
def test_what_is_only_read_takes_no_post(holder, with_model, place):
    assert post(holder, with_model.get_absolute_url() + place).status_code == 405


# --- before there is a model ---


@pytest.mark.parametrize("make", [running, delivered])
def test_without_a_model_the_page_says_so_and_leads_back(client, make):
    classifier = make()
    page = client.get(f"{classifier.get_absolute_url()}try/").content.decode()
    assert "There is no model yet" in page
    assert f'href="{classifier.get_absolute_url()}"' in page
    report = client.get(f"{classifier.get_absolute_url()}report/").content.decode()
    assert "There is no report yet" in report
    assert client.get(f"{classifier.get_absolute_url()}try/model.onnx").status_code == 404


def test_a_picture_for_no_model_is_told_so(holder):
    response = try_it(holder, running(), pictures=upload("a.png", picture()))
    assert response.status_code == 409
    assert "There is no model yet" in response.content.decode()


@pytest.mark.parametrize("content", [b"torn", pickle.dumps(print)])
def test_f27_a_replaced_model_is_not_loaded_and_the_page_says_what_helps(
    client, with_model, content
):
    prediction.model_file(prediction.usable_model(with_model)).write_bytes(content)
    page = client.get(f"{with_model.get_absolute_url()}try/").content.decode()
    assert "The model is damaged" in page and "train again" in page
    address = f"/api/v1/requests/{with_model.token}/predict"
    sent = client.post(address, {"image": upload("a.png", picture())})
    assert sent.status_code == 400
    message = sent.json()["error"]["message"]
    assert "damaged" in message and "train again" in message
    assert str(with_model.folder) not in message + page


def test_while_a_later_version_is_trained_the_delivered_one_answers(client, with_model):
    DatasetVersion.objects.create(request=with_model, number=2)
    version = prediction.usable_model(with_model)
    assert version is not None and version.number == 1


def test_a_version_whose_folder_is_gone_gives_way_to_the_one_before(with_model):
    newer = DatasetVersion.objects.create(request=with_model, number=2)
    add_artifact(newer, "model", b"newer")
    version = prediction.usable_model(with_model)
    assert version is not None and version.number == 1


def test_whoever_has_the_link_for_others_tries_the_same_model(client, with_model):
    sharing.switch_on(with_model, "person")
    address = f"/s/{with_model.share_token}/try/"
    page = client.get(address).content.decode()
    assert 'id="give"' in page and with_model.token not in page
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    picture.seek(0)
    picture.name = "red.png"
    answer = client.post(address, {"pictures": picture}, headers={"Accept": "application/json"})
    (shown,) = json.loads(answer.content)["answers"]
    assert shown["bars"] and with_model.token not in answer.content.decode()
    assert client.get(f"{address}model.onnx").status_code == 200
    sharing.switch_off(with_model, "person")
    assert client.get(address).status_code == 404


def test_before_the_first_delivery_the_first_model_answers(client, with_model):
    version = with_model.versions.get()
    folder = with_model.folder / "first" / "20"
    folder.parent.mkdir()
    version.folder.rename(folder)
    version.delete()
    result = {"images": 40, "hits": 36, "n": 40, "accuracy": 0.9, "interval": [0.77, 0.96]}
    run_folder.write_json(folder / "first.json", result)
    page = client.get(f"{with_model.get_absolute_url()}try/").content.decode()
    assert "This is the first model" in page and 'id="give"' in page
    usable = prediction.usable_model(with_model)
    assert usable is not None and usable.number == 0
    response = client.get(f"{with_model.get_absolute_url()}try/model.onnx")
    content = b"".join(response.streaming_content)
    assert content == prediction.model_file(usable).read_bytes()


# --- pictures ---


def test_without_scripts_the_answers_come_with_the_page(holder, with_model):
    pictures = [upload("one.png", picture()), upload("two.jpg", picture(kind="JPEG"))]
    response = try_it(holder, with_model, pictures=pictures)
    page = response.content.decode()
    text = words(page)
    assert "one.png" in text and "two.jpg" in text
    assert page.count('class="view-map" src="data:image/jpeg;base64,') == 2
    assert page.count("<progress") == 2 * len(NAMES) + 2  # and those of a template and the loading
    assert "Most alike among the training pictures" in text
    assert "Ada. Licence: CC BY 4.0" in text
    assert "https://pictures.example/page/" in page
    assert "Unfamiliarity" in text


def test_the_answer_is_that_of_the_delivered_model(holder, with_model, tmp_path):
    model = open_model(with_model.versions.get().folder)
    for file in write_pictures(tmp_path / "given"):
        (answer,) = answers(holder, with_model, pictures=upload(file.name, file.read_bytes()))
        expected = model.predict(read_image(file))
        found = {bar["name"]: bar["share"] for bar in answer["bars"]}
        assert found == pytest.approx(expected.probabilities, abs=1e-6)
        assert sum(found.values()) == pytest.approx(1, abs=1e-4)
        assert answer["known"] == expected.known
        assert answer["title"] == (expected.label if expected.known else "None of these")


def test_what_is_unlike_all_classes_is_named_with_the_closest(holder, with_model, tmp_path):
    model = open_model(with_model.versions.get().folder)
    given = [file.read_bytes() for file in write_pictures(tmp_path / "given")]
    given.append(picture())
    unknown = next(data for data in given if not model.predict(read_image(data)).known)
    (answer,) = answers(holder, with_model, pictures=upload("odd.png", unknown))
    assert answer["title"] == "None of these"
    label = model.predict(read_image(unknown)).label
    assert answer["reason"].startswith(f"Closest class: {label} (")


def test_one_bad_file_of_five_loses_not_the_other_four(holder, with_model):
    files = [upload(f"good-{number}.png", picture(60 + number)) for number in range(4)]
    files.insert(2, upload("letter.txt", b"Dear Ada"))
    found = answers(holder, with_model, pictures=files)
    assert [answer["name"] for answer in found][2] == "letter.txt"
    assert found[2]["problem"] == "This file cannot be used: not a picture that can be read."
    assert [bool(answer["title"]) for answer in found] == [True, True, False, True, True]
    page = words(try_it(holder, with_model, pictures=reread(files)).content.decode())
    assert "This file cannot be used: not a picture that can be read." in page
    assert "good-3.png" in page


def reread(files: list[SimpleUploadedFile]) -> list[SimpleUploadedFile]:
    for file in files:
        file.seek(0)
    return files


BAD_FILES = {
    "cut.png": picture()[:200],
    "page.html": b"<!doctype html><title>no picture</title>",
    "photo.heic": b"\0\0\0\x18ftypheic" + bytes(40),
    "bomb.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\1\0\0\x08\x02\0\0\0" + bytes(30),
    "large.png": bytes(prediction.MAX_BYTES + 1),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_picture_has_its_reason(holder, with_model, name):
    (answer,) = answers(holder, with_model, pictures=upload(name, BAD_FILES[name]))
    assert answer["problem"].startswith("This file ")
    assert answer["problem"].endswith(".")
    assert answer["title"] == ""


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n"
HOSTILE_FILES = {
    "f22": {"wide.png": (20_000, 20_000), "bomb.png": (8000, 8000), "strip.png": (1, 50_000)},
    "f23": {"a.svg": SVG, "a.eps": EPS, "empty.jpg": b"", "cut.jpg": picture(kind="JPEG")[:-2000]},
}


def of_size(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel; 8000 x 8000 are a few kilobytes."""
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("case", HOSTILE_FILES)
def test_f22_and_f23_hostile_files_have_their_reason_on_the_page_and_in_the_api(
    client, holder, with_model, case
):
    client.handler.enforce_csrf_checks = False
    address = f"/api/v1/requests/{with_model.token}/predict"
    for name, file in HOSTILE_FILES[case].items():
        content = file if isinstance(file, bytes) else of_size(*file)
        (answer,) = answers(holder, with_model, pictures=upload(name, content))
        sent = client.post(address, {"image": upload(name, content)})
        if name == "strip.png" and answer["title"]:  # odd, and harmless
            assert sent.status_code == 200
            continue
        assert answer["problem"].startswith("This file "), name
        assert sent.status_code == 400, name
        assert sent.json()["error"]["message"] == answer["problem"]


def test_f23_a_script_behind_a_picture_is_not_shown_again(holder, with_model):
    polyglot = picture(kind="JPEG") + b"<script>alert(1)</script>"
    (answer,) = answers(holder, with_model, pictures=upload("a.jpg", polyglot))
    assert answer["title"]
    shown = base64.b64decode(answer["picture"].partition(",")[2])
    assert shown.startswith(b"\xff\xd8\xff") and b"<script" not in shown


def test_more_files_than_fit_are_refused_by_name_and_the_first_twenty_answered(holder, with_model):
    files = [upload(f"{number}.png", picture(32, 32)) for number in range(22)]
    found = answers(holder, with_model, pictures=files)
    assert [bool(answer["problem"]) for answer in found] == [False] * 20 + [True] * 2
    assert found[-1]["problem"].startswith("Only 20 pictures")


def test_more_files_than_the_site_reads_at_all_get_the_page_with_the_reason(holder, with_model):
    files = [upload(f"{number}.png", b"x") for number in range(101)]
    page = words(try_it(holder, with_model, pictures=files).content.decode())
    assert "Only 20 pictures fit into one go." in page


def test_files_that_are_too_much_together_are_refused_one_by_one(holder, with_model, monkeypatch):
    data = picture()
    monkeypatch.setattr(uploads, "MAX_TOGETHER_BYTES", int(2.5 * len(data)))
    files = [upload(f"{number}.png", data) for number in range(3)]
    found = answers(holder, with_model, pictures=files)
    assert [bool(answer["problem"]) for answer in found] == [False, False, True]


def test_a_form_without_anything_says_what_to_give(holder, with_model):
    page = words(try_it(holder, with_model).content.decode())
    assert "Choose a picture, or give the web address of one." in page


def test_an_enormous_picture_is_classified_small(holder, with_model):
    (answer,) = answers(holder, with_model, pictures=upload("huge.png", picture(6000, 4000)))
    assert answer["title"]


def test_nothing_of_a_picture_is_written_to_the_disk(holder, with_model, site):
    before = {path for path in site.rglob("*") if path.is_file()}
    large = upload("large.png", picture(2600, 2000) + bytes(3_000_000))
    try_it(holder, with_model, pictures=large, url="")
    assert {path for path in site.rglob("*") if path.is_file()} == before


def test_a_name_is_text_on_the_page(holder, with_model):
    name = "<script>alert(1)<img>.png"
    page = try_it(holder, with_model, pictures=upload(name, picture())).content.decode()
    assert "<script>alert" not in page
    assert NAMES[2] not in page  # a class with markup in its name


def test_the_page_has_no_scripts_or_styles_inside_and_nothing_of_others(client, with_model):
    page = client.get(f"{with_model.get_absolute_url()}try/").content.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)


def test_too_many_pictures_in_a_minute_are_told_to_wait(holder, with_model, monkeypatch):
    monkeypatch.setattr(prediction, "PICTURES_A_MINUTE", 2)
    files = [upload(f"{number}.png", picture(32, 32)) for number in range(3)]
    found = answers(holder, with_model, pictures=files)
    assert [answer["problem"] for answer in found] == ["", "", prediction.TOO_MANY]


def test_a_picture_taken_down_is_not_shown_beside_an_answer(holder, with_model):
    (before,) = answers(holder, with_model, pictures=upload("a.png", picture()))
    assert before["nearest"]
    (with_model.versions.get().folder / "neighbours.npz").unlink()
    (after,) = answers(holder, with_model, pictures=upload("a.png", picture()))
    assert after["nearest"] == []


def test_the_thumbnails_beside_an_answer_open(holder, with_model):
    (answer,) = answers(holder, with_model, pictures=upload("a.png", picture()))
    assert len(answer["nearest"]) == 3
    for near in answer["nearest"]:
        assert holder.get(near["thumbnail"]).status_code == 200


# --- addresses ---


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of those who hang up in the middle of a large file."""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.path == "/inwards":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/secret.png")
            self.end_headers()
        else:
            super().do_GET()


@pytest.fixture
def host(tmp_path: Path, settings) -> Iterator[str]:
    """A picture host on this machine, which the operator allows."""
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "good.png").write_bytes(picture())
    (folder / "page.html").write_text("<!doctype html><title>a page</title>")
    (folder / "large.png").write_bytes(bytes(prediction.MAX_BYTES + 1))
    server = QuietServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name = f"127.0.0.1:{server.server_port}"
    settings.ALLOWED_PRIVATE_HOSTS = [name]
    yield f"http://{name}"
    server.shutdown()
    server.server_close()


def test_a_picture_is_fetched_from_its_address(holder, with_model, host):
    page = try_it(holder, with_model, url=f" {host}/good.png ").content.decode()
    assert page.count('class="view-map" src="data:') == 1
    assert f"{host}/good.png" in words(page)


def test_an_address_gives_the_same_answer_as_the_file(holder, with_model, host):
    (fetched,) = answers(holder, with_model, url=f"{host}/good.png")
    (uploaded,) = answers(holder, with_model, pictures=upload("good.png", picture()))
    assert fetched["bars"] == uploaded["bars"]


PRIVATE = [
    "http://127.0.0.1/a.png",
    "http://localhost/a.png",
    "http://[::1]/a.png",
    "http://2130706433/a.png",
    "http://0x7f.1/a.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/a.png",
    "http://192.168.1.1/a.png",
    "http://[::ffff:127.0.0.1]/a.png",
    "http://user:secret@example.org/a.png",
    "http://example.org:22/a.png",
    "127.0.0.1/a.png",
]


@pytest.mark.parametrize("url", PRIVATE)
def test_a_private_address_is_refused_as_one_that_is_dead(holder, with_model, url):
    (answer,) = answers(holder, with_model, url=url)
    expected = "This address could not be fetched. Check it, or save the picture and upload the"
    assert answer["problem"].startswith(expected)


def test_a_public_looking_address_that_leads_inwards_is_refused(holder, with_model, host):
    (answer,) = answers(holder, with_model, url=f"{host}/inwards")
    assert answer["problem"].startswith("This address could not be fetched.")


WRONG = {
    "/missing.png": "The server at this address answered 404.",
    "/page.html": "This file cannot be used: not a picture that can be read, but a web page",
    "/large.png": "The file at this address is larger than 20 MB.",
}


@pytest.mark.parametrize("path", WRONG)
def test_an_address_without_a_picture_has_its_reason(holder, with_model, host, path):
    (answer,) = answers(holder, with_model, url=host + path)
    assert answer["problem"].startswith(WRONG[path])


@pytest.mark.parametrize(
    "text", ["file:///etc/passwd", "ftp://example.org/a.png", "data:,x", "a b"]
)
def test_what_is_no_web_address_is_told_what_one_looks_like(holder, with_model, text):
    (answer,) = answers(holder, with_model, url=text)
    assert answer["problem"].startswith("This ")
    assert "/etc" not in answer["problem"]


def test_a_bad_address_stays_in_its_field_beside_its_reason_and_loses_no_file(holder, with_model):
    fields = {"url": "http://127.0.0.1/a.png", "pictures": upload("good.png", picture())}
    page = try_it(holder, with_model, **fields).content.decode()
    assert 'value="http://127.0.0.1/a.png"' in page
    assert "This address could not be fetched." in page
    assert page.count('class="view-map" src="data:') == 1


# --- the model file and the report ---


def test_the_model_comes_whole_in_parts_and_not_twice(client, with_model):
    address = f"{with_model.get_absolute_url()}try/model.onnx"
    content = prediction.model_file(prediction.usable_model(with_model)).read_bytes()
    whole = client.get(address)
    assert b"".join(whole.streaming_content) == content
    part = client.get(address, headers={"Range": "bytes=100-199"})
    assert part.status_code == 206
    assert b"".join(part.streaming_content) == content[100:200]
    again = client.get(address, headers={"If-None-Match": whole.headers["ETag"]})
    assert again.status_code == 304


def test_the_report_is_shown_in_a_sandbox(client, with_model):
    response = client.get(f"{with_model.get_absolute_url()}report/")
    assert b"Right on 12 of 12" in b"".join(response.streaming_content)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "sandbox allow-popups allow-popups-to-escape-sandbox" in policy
    assert "script" not in policy
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"


def test_the_report_can_be_downloaded(client, with_model):
    response = client.get(f"{with_model.get_absolute_url()}download/report/")
    assert b"Right on 12 of 12" in b"".join(response.streaming_content)
    assert response.headers["Content-Disposition"].startswith("attachment;")


def test_the_runtime_of_the_try_page_is_among_the_collected_static_files(settings, tmp_path):
    storage = {"BACKEND": "picaisso_site.static_files.HashedStaticFiles"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": storage}
    settings.STATIC_ROOT = tmp_path / "static"
    call_command("collectstatic", "--noinput", verbosity=0)
    for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm.gz"):
        path = staticfiles_storage.path(staticfiles_storage.stored_name(f"onnxruntime-web/{name}"))
        original = Path(settings.BASE_DIR, "training/export/assets/onnxruntime-web", name)
        assert Path(path).read_bytes() == original.read_bytes()
        assert Path(path).name != name


def test_web_assembly_is_allowed_on_the_try_page_alone(client, with_model):
    address = with_model.get_absolute_url()
    policy = client.get(f"{address}try/").headers["Content-Security-Policy"]
    assert "script-src 'self' 'wasm-unsafe-eval'" in policy
    assert "unsafe-inline" not in policy
    for place in ("", "report/"):
        assert "wasm" not in client.get(address + place).headers["Content-Security-Policy"]


def test_others_see_nothing_of_what_the_requester_has_uploaded(holder, with_model):
    sharing.switch_on(with_model, "person")
    ImageUrl.objects.of_request(with_model).update(license="unknown", license_version="")
    (own,) = answers(holder, with_model, pictures=upload("a.png", picture()))
    found = re.search(r"(\d+)\.jpg", own["nearest"][0]["thumbnail"])
    assert found is not None
    nearest = ImageUrl.objects.filter(pk=found[1])
    nearest.update(source="upload", creator="Jane of the family", license="cc0")
    (own,) = answers(holder, with_model, pictures=upload("a.png", picture()))
    assert "Jane of the family" in own["nearest"][0]["credit"]
    address = f"/s/{with_model.share_token}/try/"
    token = holder.cookies["csrftoken"].value
    data = {"pictures": upload("a.png", picture()), "csrfmiddlewaretoken": token}
    shown = holder.post(address, data, headers={"Accept": "application/json"})
    assert shown.status_code == 200 and "Jane of the family" not in shown.content.decode()
    (seen,) = shown.json()["answers"]
    assert len(seen["nearest"]) == 2
    assert [near["thumbnail"] for near in seen["nearest"]] == ["", ""], "they would answer 404"
