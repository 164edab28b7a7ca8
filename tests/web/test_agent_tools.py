"""The door for agents: the protocol's own client speaks to `manage.py mcp`, and that to a real
server.
"""

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from mcp import Client, StdioServerParameters, stdio_client
from PIL import Image

from picaisso_client import Picaisso, PicaissoError
from requests_app.agent_tools import AgentTools, server_for
from requests_app.models import ClassifierRequest, ImageState, ImageUrl, Status
from tests.web.conftest import delivered, stopped, submitted
from tests.web.delivered_model import deliver_model, export_model, write_pictures

__all__ = ["deliver_model", "export_model"]
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.django_db(transaction=True)
Calls = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def site_url(live_server, settings) -> str:
    settings.BASE_URL = live_server.url
    cache.clear()
    return live_server.url


def command(*arguments: str) -> StdioServerParameters:
    environment = {"PICAISSO_ENV_FILE": os.devnull, "PICAISSO_DATA_DIR": "data"}
    program = [str(ROOT / "manage.py"), "mcp", *arguments]
    return StdioServerParameters(
        command=sys.executable, args=program, env={**os.environ, **environment}, cwd=ROOT
    )


def ask(site: str, data: Path, calls: Calls) -> list[Any]:
    """Return the answers to these calls of an agent, and before them the list of tools."""
    server = command("--site", site)
    server.env = {**(server.env or {}), "PICAISSO_DATA_DIR": str(data / "agent")}

    async def talk() -> list[Any]:
        async with Client(stdio_client(server), read_timeout_seconds=120) as agent:
            answers: list[Any] = [await agent.list_tools()]
            for name, arguments in calls:
                answers.append(await agent.call_tool(name, arguments))
            return answers

    return asyncio.run(talk())


def text(answer: Any) -> str:
    return answer.content[0].text


def test_an_agent_orders_and_is_told_that_a_person_confirms(site_url, tmp_path):
    order = {"classes": ["corgi", "shiba inu"], "email": "a@example.org", "images_per_class": 30}
    listed, ordered, refused = ask(
        site_url,
        tmp_path,
        [("order_classifier", order), ("order_classifier", order | {"classes": ["corgi"]})],
    )
    names = {tool.name for tool in listed.tools}
    assert {"order_classifier", "wait_for_result", "list_suspects", "correct_picture"} <= names
    assert {"classify", "download"} <= names
    assert all(tool.description for tool in listed.tools)
    classifier = ClassifierRequest.objects.get()
    assert (classifier.status, classifier.images_per_class) == (Status.UNCONFIRMED, 30)
    assert ordered.structured_content["id"] == classifier.token
    assert "Ask the person to open it" in ordered.structured_content["next"]
    assert refused.is_error and "Name a second class" in text(refused)


def test_an_agent_waits_looks_corrects_predicts_and_downloads(site_url, with_model, tmp_path):
    doubtful = ImageUrl.objects.filter(image_class__request=with_model).earliest("pk")
    ImageUrl.objects.filter(pk=doubtful.pk).update(suspect=0.9, suspect_reason="Looks like b.")
    picture = write_pictures(tmp_path / "pictures")[0]
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    token = {"id": with_model.token}
    calls: Calls = [
        ("wait_for_result", token),
        ("list_suspects", token),
        ("look_at_picture", {**token, "image_id": doubtful.pk}),
        ("correct_picture", {**token, "image_id": doubtful.pk, "state": "removed"}),
        ("classify", {**token, "picture": str(picture)}),
        ("classify", {**token, "picture": str(secret)}),
        ("classify", {**token, "picture": str(tmp_path / "gone.jpg")}),
        ("download", {**token, "folder": str(tmp_path / "out")}),
        ("classify", {"id": "A" * 32, "picture": str(picture)}),
    ]
    answers = ask(site_url, tmp_path, calls)[1:]
    waited, suspects, looked, corrected, said, no_picture, gone, files, stranger = answers
    assert waited.structured_content["status"] == "delivered"
    assert waited.structured_content["versions"][0]["accuracy"] > 0
    found = suspects.structured_content
    assert (found["count"], found["pictures"][0]["reason"]) == (1, "Looks like b.")
    assert looked.content[0].mime_type == "image/jpeg"
    assert Image.open(io.BytesIO(b64decode(looked.content[0].data))).format == "JPEG"
    assert corrected.structured_content["state"] == ImageState.REMOVED
    assert said.structured_content["label"] in said.structured_content["probabilities"]
    assert no_picture.is_error and "is not named as a picture" in text(no_picture)
    assert gone.is_error and "cannot be read" in text(gone)
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert [name.rpartition("-")[2] for name in names] == ["dataset.zip", "model.zip"]
    assert len(files.structured_content["result"]) == 2
    assert stranger.is_error and "Traceback" not in text(stranger)


def test_a_wait_that_comes_to_nothing_ends_and_what_stopped_says_why(site_url, tmp_path):
    waiting = {"id": submitted().token, "seconds": 2}
    failed = {"id": stopped(Status.FAILED).token}
    nothing = {"id": waiting["id"], "folder": str(tmp_path)}
    calls: Calls = [
        ("wait_for_result", waiting),
        ("wait_for_result", failed),
        ("download", nothing),
        ("go_on", failed),
        ("cancel", failed),
    ]
    waited, told, empty, again, cancelled = ask(site_url, tmp_path, calls)[1:]
    assert waited.structured_content["status"] == "unconfirmed"
    assert told.structured_content["error"]["remedy"] == "Try another wording."
    assert "nothing to download" in text(empty)
    assert again.structured_content["status"] == "queued"
    assert cancelled.structured_content["status"] == "cancelled"


class NewerSite(BaseHTTPRequestHandler):
    """A site that knows a state more, and whose answers break off where an id is `broken`."""

    def do_GET(self) -> None:
        body = json.dumps({"id": "x", "status": "paused", "url": "https://a.example/r/x/"}).encode()
        self.send_response(200)
        missing = 100 if self.path.endswith("/broken") else 0
        self.send_header("Content-Length", str(len(body) + missing))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_a_newer_site_and_an_answer_that_breaks_off_are_told_in_sentences():
    with ThreadingHTTPServer(("127.0.0.1", 0), NewerSite) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tools = AgentTools(Picaisso(f"http://127.0.0.1:{server.server_port}"))
        shown = tools.request_status("x")
        assert shown["status"] == "paused" and "open `url`" in shown["next"]
        with pytest.raises(PicaissoError, match="broke off"):
            tools.request_status("broken")
        server.shutdown()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.jpg"), "a.jpg: No such file"),
        (OSError(28, "No space left on device"), "That failed: No space left on device."),
        (TimeoutError("timed out"), "That failed: timed out."),
        (OSError(), "That failed: it did not go through."),
    ],
)
def test_what_fails_on_this_machine_is_told_in_a_sentence(error, sentence):
    class Failing(Picaisso):
        def show(self, request_id: str, wait: int = 0) -> dict[str, Any]:
            raise error

    async def talk() -> Any:
        async with Client(server_for(Failing())) as agent:
            return await agent.call_tool("request_status", {"id": "x"})

    answer = asyncio.run(talk())
    assert answer.is_error and sentence in text(answer)


def test_without_its_package_the_command_says_how_to_install_it(tmp_path):
    (tmp_path / "mcp.py").write_text("raise ModuleNotFoundError('no mcp', name='mcp')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PICAISSO_DATA_DIR": str(tmp_path)}
    ended = _run(environment, "mcp")
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert "-r requirements-agents.txt" in ended.stderr


def test_its_help_has_an_example_and_its_package_is_that_of_the_tests(tmp_path):
    ended = _run({**os.environ, "PICAISSO_DATA_DIR": str(tmp_path)}, "mcp", "--help")
    assert '"args": ["/path/to/picaisso/manage.py", "mcp"' in ended.stdout
    pin = (ROOT / "requirements-agents.txt").read_text().splitlines()[-1]
    assert pin in (ROOT / "requirements-dev.txt").read_text()


def _run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, str(ROOT / "manage.py"), *arguments]
    return subprocess.run(program, env=environment, capture_output=True, text=True, check=False)


def test_language_models_find_what_the_site_is(client, settings):
    settings.BASE_URL = "https://picaisso.example"
    response = client.get("/llms.txt")
    page = response.content.decode()
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert page.startswith("# Picaisso\n\n> ") and "manage.py mcp --site https://picaisso." in page
    assert "opened the link in the mail" in page
    token = delivered().token
    assert token not in client.get("/llms.txt").content.decode()
    for link in ("/api/v1/openapi.json", "/api/v1/docs"):
        assert f"https://picaisso.example{link}" in page and client.get(link).status_code == 200
