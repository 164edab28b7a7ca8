"""``manage.py check_sources`` as an operator runs it: real questions, against replicas on
loopback.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import psutil
import pytest

from requests_app.workers.processes import PROJECT
from tests.replicas.commons import CommonsReplica
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pixabay import KEY, PixabayReplica
from tests.replicas.server import Replica, Request

pytestmark = pytest.mark.system


class SlowReplica(OpenverseReplica):
    """Never answers before the test is over."""

    def answer(self, request: Request, handler: BaseHTTPRequestHandler) -> None:
        time.sleep(20)


def environment(data_dir: Path, **replicas: Replica) -> dict[str, str]:
    """Return the environment of a site that asks these replicas: source -> replica."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PICAISSO_", "DJANGO_"))
    }
    own |= {
        "PICAISSO_ENV_FILE": os.devnull,
        "PICAISSO_DATA_DIR": str(data_dir),
        "PICAISSO_SOURCES": ",".join(replicas),
        "PICAISSO_ALLOWED_PRIVATE_HOSTS": ",".join(r.host for r in replicas.values()),
        "DATABASE_URL": "",
    }
    for source, replica in replicas.items():
        own[f"PICAISSO_{source.upper()}_URL"] = replica.url
    return own


def manage(own: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the site."""
    return subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=PROJECT,
        env=own,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def site(tmp_path):
    """Runs a command of a site with a data folder of its own."""
    with OpenverseReplica() as openverse, CommonsReplica() as commons:
        own = environment(tmp_path, openverse=openverse, wikimedia=commons)
        assert manage(own, "migrate", "-v0").returncode == 0
        yield partial(manage, own)


def asking_processes(data_dir: Path) -> list[psutil.Process]:
    """Return what runs ``scraping check`` for a site, its supervisor not counted."""
    found = []
    for process in psutil.process_iter():
        try:
            is_asking = process.cmdline()[1:4] == ["-m", "scraping", "check"]
            if is_asking and process.environ().get("PICAISSO_DATA_DIR") == str(data_dir):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(holds: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_operator_sees_how_every_source_answers_and_the_site_remembers_it(site):
    answer = site("check_sources")
    assert answer.returncode == 0, answer.stderr
    assert "Openverse" in answer.stdout and " ok " in answer.stdout
    assert "Wikimedia Commons" in answer.stdout and "not_applicable" in answer.stdout, (
        "it needs a contact, and says so"
    )
    code = """
from requests_app.models import SourceHealth
print(list(SourceHealth.objects.values_list("name", "outcome")))
"""
    remembered = site("shell", "-v0", "-c", code).stdout
    assert "('openverse', 'ok')" in remembered and "wikimedia" not in remembered


def test_json_gives_a_row_per_source_and_an_unknown_name_is_refused(site):
    rows = [
        json.loads(line)
        for line in site("check_sources", "openverse", "--json").stdout.splitlines()
    ]
    assert [(row["name"], row["outcome"]) for row in rows] == [("openverse", "ok")]
    refused = site("check_sources", "altavista")
    assert refused.returncode == 1
    assert "No such source: altavista" in refused.stderr


def test_the_child_that_asks_knows_no_secrets_and_dies_with_the_command(tmp_path):
    with SlowReplica() as slow:
        own = environment(tmp_path, openverse=slow) | {
            "PICAISSO_SECRET_KEY": secrets.token_urlsafe(64)
        }
        assert manage(own, "migrate", "-v0").returncode == 0
        command = subprocess.Popen(
            [sys.executable, "manage.py", "check_sources", "openverse"], cwd=PROJECT, env=own
        )
        try:
            wait_until(lambda: slow.requests)
            (child,) = asking_processes(tmp_path)
            assert child.environ()["PICAISSO_DATA_DIR"] == str(tmp_path)
            assert "PICAISSO_SECRET_KEY" not in child.environ()
        finally:
            command.kill()
            command.wait()
        wait_until(lambda: asking_processes(tmp_path) == [])


def test_a_credential_from_a_file_reaches_the_child_that_asks(tmp_path):
    key_file = tmp_path / "pixabay_key"
    key_file.write_text(KEY)
    with PixabayReplica() as pixabay:
        own = environment(tmp_path, pixabay=pixabay)
        own["PICAISSO_PIXABAY_KEY_FILE"] = str(key_file)
        assert manage(own, "migrate", "-v0").returncode == 0
        answer = manage(own, "check_sources", "--json")
        assert json.loads(answer.stdout)["outcome"] == "ok", answer.stderr
