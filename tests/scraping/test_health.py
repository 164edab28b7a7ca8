"""`python -m scraping check`: one small question to each source, and what a person and a program
are told.
"""

import json
import os
import pty
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from scraping.health import check_sources
from tests.replicas.bing import BingReplica
from tests.replicas.commons import CommonsReplica
from tests.replicas.inaturalist import InaturalistReplica
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pictures_host import PictureHost
from tests.replicas.server import Replica, Request, Response
from tests.scraping.conftest import config_for, environment

pytestmark = pytest.mark.timeout(90)


class Broken(Replica):
    """Refuses whatever it is asked."""

    def respond(self, request: Request) -> Response:
        return Response(b"no", "text/plain", 403)


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "scraping", *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def on_a_terminal(*arguments: str, cwd: Path, **variables: str) -> tuple[int, str]:
    """Exit code and all that a terminal 160 characters wide showed."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "scraping", *arguments]
    values = environment(COLUMNS="160", TERM="xterm", **variables)
    process = subprocess.Popen(
        command, cwd=cwd, env=values, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # the other side is closed
        pass
    os.close(master)
    return process.wait(30), shown.decode()


def variables_for(**replicas: Replica) -> dict[str, str]:
    urls = {f"PICAISSO_{name.upper()}_URL": replica.url for name, replica in replicas.items()}
    hosts = ",".join(replica.host for replica in replicas.values())
    named = {"PICAISSO_SOURCES": ",".join(replicas), "PICAISSO_CONTACT": "operator@example.org"}
    return urls | named | {"PICAISSO_ALLOWED_PRIVATE_HOSTS": hosts}


def test_each_source_gets_one_small_question_and_a_row(tmp_path):
    with OpenverseReplica() as good, Broken() as bad, InaturalistReplica() as taxa:
        variables = variables_for(openverse=good, wikimedia=bad, inaturalist=taxa)
        done = run("check", "--json", cwd=tmp_path, **variables)
        assert done.returncode == 0, done.stderr
        found = {entry["name"]: entry for entry in map(json.loads, done.stdout.splitlines())}
        assert set(found) == {"openverse", "wikimedia", "inaturalist"}
        keys = {"name", "outcome", "found", "message", "seconds", "cool_down_seconds"}
        assert all(set(entry) == keys for entry in found.values())
        assert (found["openverse"]["outcome"], found["openverse"]["found"]) == ("ok", 5)
        assert found["openverse"]["cool_down_seconds"] is None
        assert (found["wikimedia"]["outcome"], found["wikimedia"]["cool_down_seconds"]) == (
            "blocked",
            3600.0,
        )
        assert len(good.requests) == 1
        assert list(tmp_path.iterdir()) == []


def test_when_no_source_answers_the_command_fails_in_a_sentence(tmp_path):
    with Broken() as bad:
        done = run("check", "--source", "openverse", cwd=tmp_path, **variables_for(openverse=bad))
        assert done.returncode == 1
        assert done.stderr == "No source answers.\n"


def test_a_person_sees_a_table_in_words(tmp_path):
    with OpenverseReplica() as good, Broken() as bad:
        code, shown = on_a_terminal(
            "check", cwd=tmp_path, **variables_for(openverse=good, wikimedia=bad)
        )
        assert code == 0
        assert "Openverse" in shown and "answered" in shown
        assert "Wikimedia Commons" in shown and "refused to answer" in shown


def test_a_closed_breaker_does_not_keep_a_source_from_being_checked():
    with OpenverseReplica() as site:
        config = config_for(
            {"openverse": site}, sources=["openverse"], closed_sources={"openverse": "closed"}
        )
        [health] = check_sources(config)
        assert health.outcome == "ok"


@pytest.mark.browser
def test_a_browser_source_is_asked_in_the_browser():
    with BingReplica() as site:
        [health] = check_sources(config_for({"bing": site}, sources=["bing"]))
        assert (health.outcome, health.found) == ("ok", 5)


def test_a_collection_shows_bars_and_names_each_source_s_end_in_words(tmp_path):
    with ExitStack() as stack:
        host = stack.enter_context(PictureHost())
        good = stack.enter_context(OpenverseReplica(host.url + "/pic/{}.jpg"))
        changed = stack.enter_context(CommonsReplica())
        variables = variables_for(wikimedia=changed, openverse=good)
        variables["PICAISSO_ALLOWED_PRIVATE_HOSTS"] += f",{host.host}"
        variables["PICAISSO_MIN_SIDE"] = "64"
        arguments = ("collect", "refused", "--out", "o", "--limit", "12", "--minimum", "30")
        code, shown = on_a_terminal(*arguments, cwd=tmp_path, **variables)
        assert code == 0, shown
        assert "12 of 12" in shown or "12/12" in shown, shown[-3000:]
        assert "━" in shown
        assert "gave an answer that could not be used" in shown and "answered" in shown
        assert "Wikimedia Commons cannot be asked for “refused”." in shown
        assert "changed its pages" not in shown, "only these words were refused"
