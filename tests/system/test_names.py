"""F25: names that are no ordinary names are refused with a sentence, or come back as they were."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from requests_app.workers.processes import PROJECT
from tests.system.mariadb import INSTALLER, SERVER, mariadb

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

lacking = [] if SERVER and INSTALLER else ["mariadb-server"]
if importlib.util.find_spec("MySQLdb") is None:
    lacking.append("mysqlclient")
NEEDS_MARIADB = [
    pytest.mark.mariadb,
    pytest.mark.skipif(bool(lacking), reason=f"needs {', '.join(lacking)}"),
]

# Sends names to the API of a site and says what came of each, by the rows of its database.
SEND = r"""
import json
from django.conf import settings
from django.test import Client
from requests_app import lifecycle
from requests_app.models import ClassifierRequest, Job, Status
settings.SUBMISSIONS_PER_HOUR = settings.SUBMISSIONS_PER_DAY = settings.MAILS_PER_DAY = 0
settings.WAITING_PER_ADDRESS = 0
settings.ALLOWED_HOSTS = ["*"]

def send(classes):
    body = {"classes": classes, "email": "ada@example.org"}
    answer = Client().post("/api/v1/requests", json.dumps(body), content_type="application/json")
    said = answer.json()
    if answer.status_code != 201:
        return [answer.status_code, said["error"]["message"]]
    classifier = ClassifierRequest.objects.by_token(said["id"])
    page = Client().get(classifier.get_absolute_url()).content.decode()
    return [201, [each.name for each in classifier.classes.all()], "<script>al" in page]

def reworded(words):
    classifier = ClassifierRequest.create(
        class_queries=[("a", words[0]), ("b", "")], email="ada@example.org", status=Status.FAILED
    )
    Job.objects.create(request=classifier, stage="collect", queue="collect", state="failed")
    lifecycle.retry(classifier, class_queries={1: words[1]})
    return classifier.classes.get(number=1).query

def patched(names):
    from requests_app.api.endpoints import _class_named
    classifier = ClassifierRequest.create(
        class_queries=[(name, "") for name in names], email="ada@example.org"
    )
    return [_class_named(classifier, name).number for name in names]

wished = json.loads(WISHED)
found = {
    "names": [send(classes) for classes in wished["names"]],
    "words": [reworded(words) for words in wished["words"]],
    "patched": patched(wished["patched"]),
}
print("FOUND", json.dumps(found))
"""
REFUSED = ["a\x00b", 300 * "x", 65 * "🐶", "gnp\u202eexe", "n4k3d w0m3n", "P-0-R-N", "a\nb"]
TAKEN = [
    "../../etc", "..", "CON", 64 * "🐶", "<script>alert(1)</script>", "{{7*7}}", "狗",
    "'; DROP TABLE x", "cafe", "café", "🐶",
]  # fmt: skip
SAME = [("cat", "Cat"), ("cat", " cat "), ("\u00e9", "e\u0301")]
OTHER = [("cafe", "café"), ("🐶", "🐱"), ("é", "e"), ("狗", "猫")]
WORDS = [("cafe", "café"), ("🐶", "🐱"), ("jaguar", "Jaguar"), ("naïve art", "naive art")]
PATCHED = ["🐶", "🐱", "cafe", "café", "strasse", "straße"]


def environment(folder: Path, database_url: str) -> dict[str, str]:
    """Return the environment of a site of its own, without that of the tests."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PICAISSO_", "DJANGO_"))
    }
    return own | {
        "PICAISSO_ENV_FILE": os.devnull,
        "PICAISSO_DATA_DIR": str(folder / "data"),
        "DATABASE_URL": database_url,
        "EMAIL_URL": "",
        "PICAISSO_DEBUG": "1",  # static files under their plain names
    }


def outcomes(folder, database_url: str) -> dict:
    wished = {
        "names": [[name, "another"] for name in [*REFUSED, *TAKEN]] + [*SAME, *OTHER],
        "words": WORDS,
        "patched": PATCHED,
    }
    own = environment(folder, database_url)

    def manage(*words: str) -> str:
        command = [sys.executable, "manage.py", *words]
        done = subprocess.run(
            command, cwd=PROJECT, env=own, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    manage("migrate", "-v0")
    script = f"WISHED = {json.dumps(wished)!r}\n{SEND}"
    shown = manage("shell", "-v0", "-c", script)
    return json.loads(shown.rpartition("FOUND")[2])


@pytest.mark.parametrize("database", ["sqlite", pytest.param("mariadb", marks=NEEDS_MARIADB)])
def test_f25_names_are_refused_with_a_sentence_or_come_back_as_they_were(database, tmp_path):
    if database == "sqlite":
        found = outcomes(tmp_path, "")
    else:
        with mariadb(tmp_path / "mariadb") as url:
            found = outcomes(tmp_path, url)
    names = iter(found["names"])
    for name in REFUSED:
        status, sentence = next(names)
        assert (status, sentence[-1]) == (400, "."), name
    for name in TAKEN:
        assert next(names) == [201, [name, "another"], False]
    for pair in SAME:
        assert next(names)[0] == 400, pair
    for pair in OTHER:
        assert next(names) == [201, list(pair), False]
    assert found["words"] == [after for _, after in WORDS]
    assert found["patched"] == [1, 2, 3, 4, 5, 6]


@pytest.mark.mariadb
@pytest.mark.skipif(bool(lacking), reason=f"needs {', '.join(lacking)}")
def test_f25_a_database_that_cannot_hold_every_name_is_refused_at_start(tmp_path):
    with mariadb(tmp_path / "mariadb") as url:
        own = environment(tmp_path, url)

        def check() -> subprocess.CompletedProcess:
            command = [sys.executable, "manage.py", "check", "--database", "default"]
            return subprocess.run(
                command, cwd=PROJECT, env=own, capture_output=True, text=True, check=False
            )

        assert check().returncode == 0
        alter = "ALTER DATABASE picaisso CHARACTER SET latin1"
        sql = f"from django.db import connection as c; c.cursor().execute('{alter}')"
        command = [sys.executable, "manage.py", "shell", "-v0", "-c", sql]
        subprocess.run(command, cwd=PROJECT, env=own, check=True)
        refused = check()
        assert refused.returncode == 1
        assert "picaisso.E009" in refused.stderr
        assert "utf8mb4" in refused.stderr
