"""Every line of a log says what it is about, in text or JSON, and names nobody."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training import log_lines
from training.log_lines import LineFormatter, about, add_about

ROOT = Path(__file__).resolve().parents[1]


def written(write, as_json: bool = False) -> str:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(LineFormatter(as_json))
    logger = logging.Logger("picaisso.test")
    logger.addHandler(handler)
    write(logger)
    return out.getvalue()


def test_a_line_names_what_it_is_about_as_long_as_that_lasts():
    def write(logger):
        with about(request=12, job=""):
            with about(job=34):
                logger.warning("one")
            logger.warning("two")
            add_about(visit="ab")
            logger.warning("three")
        logger.warning("four")

    ends = [line.partition(" WARNING ")[2] for line in written(write).splitlines()]
    assert ends == [
        "picaisso.test request=12 job=34: one",
        "picaisso.test request=12: two",
        "picaisso.test request=12 visit=ab: three",
        "picaisso.test: four",
    ]


def test_json_has_one_object_a_line_also_with_a_traceback():
    def write(logger):
        with about(request=12, job=34):
            try:
                raise ValueError("two\nlines of łoś \ud83d")
            except ValueError:
                logger.exception("it failed")

    text = written(write, as_json=True)
    (line,) = text.splitlines()
    found = json.loads(line)
    assert (found["request"], found["job"], found["message"]) == ("12", "34", "it failed")
    assert found["level"] == "ERROR" and found["time"].endswith("+00:00")
    assert found["exception"].startswith("Traceback") and "two" in found["exception"]
    assert text.encode()


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("said", "written_as"),
    [
        ("refused {'ada@example.org': (550, b'no')}", "refused {'(address)': (550, b'no')}"),
        ("no way to mysql://picaisso:pass:word!@db.local:3306/a", "mysql://(address):3306/a"),
        ("mail to ada.b+tag@xn--exmple-cua.org, later", "mail to (address), later"),
        ("a share @ 3 % and @decorator", "a share @ 3 % and @decorator"),
    ],
)
def test_no_line_holds_an_address_or_a_password(as_json, said, written_as):
    assert written_as in written(lambda logger: logger.error("%s", said), as_json)


CHILD = """
import logging, os, threading
from training import log_lines
log_lines.set_up(os.environ)
thread = threading.Thread(target=logging.getLogger("scraping").warning, args=("from a thread",))
thread.start(); thread.join()
"""


def said_by(code: str, **variables: str) -> str:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PICAISSO_")}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=own | variables, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def test_a_child_names_its_job_in_every_thread():
    told = {"PICAISSO_JOB": "34:2", "PICAISSO_REQUEST": "12"}
    assert "WARNING scraping request=12 job=34: from a thread" in said_by(CHILD, **told)
    line = json.loads(said_by(CHILD, PICAISSO_LOG="json", **told))
    assert (line["request"], line["job"], line["logger"]) == ("12", "34", "scraping")
    assert said_by(CHILD) == "WARNING scraping: from a thread\n"


VISIT = """
import io
from picaisso_site.wsgi import application
from django.core.management import call_command
from django.test.client import RequestFactory
call_command("migrate", verbosity=0)
from requests_app import pipeline
made = pipeline.Submission(classes=(("cat", ""), ("dog", "")), email="ada@example.org")
classifier = pipeline.submit(made)
for path in ("/nothing/", classifier.get_absolute_url() + "images/99/", "/nothing/"):
    environ = RequestFactory(SERVER_NAME="127.0.0.1").get(path).environ
    application(environ, lambda *answer: None)
"""


def test_lines_of_the_web_name_the_visit_and_the_request_that_was_opened(tmp_path):
    told = {"PICAISSO_DATA_DIR": str(tmp_path), "PICAISSO_ENV_FILE": os.devnull}
    told |= {"PICAISSO_LOG": "json", "DATABASE_URL": ""}
    told["DJANGO_SETTINGS_MODULE"] = "picaisso_site.settings"
    (tmp_path / "static").mkdir()
    text = said_by(VISIT, **told)
    lines = [json.loads(line) for line in text.splitlines()]
    found = [line for line in lines if line["logger"] == "django.request"]
    assert [line.get("request") for line in found] == [None, "1", None]
    assert len({line["visit"] for line in found}) == 3
    assert "ada@example.org" not in text


def test_the_formats_are_those_that_the_site_knows():
    assert log_lines.FORMATS == ("text", "json")
