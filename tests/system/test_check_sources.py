"""``manage.py check_sources`` as an operator runs it: real questions, against replicas on
loopback.
"""

import json
import os
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from requests_app.workers.processes import PROJECT
from tests.replicas.commons import CommonsReplica
from tests.replicas.openverse import OpenverseReplica

pytestmark = pytest.mark.system


@pytest.fixture
def manage(tmp_path):
    """Runs a command of the site with a data folder of its own."""
    with OpenverseReplica() as openverse, CommonsReplica() as commons:
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PICAISSO_", "DJANGO_"))
        }
        own |= {
            "PICAISSO_ENV_FILE": os.devnull,
            "PICAISSO_DATA_DIR": str(tmp_path),
            "PICAISSO_SOURCES": "openverse,wikimedia",
            "PICAISSO_OPENVERSE_URL": openverse.url,
            "PICAISSO_WIKIMEDIA_URL": commons.url,
            "PICAISSO_ALLOWED_PRIVATE_HOSTS": f"{urlsplit(openverse.url).netloc},{urlsplit(commons.url).netloc}",
            "DATABASE_URL": "",
        }

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "manage.py", *words]
            return subprocess.run(
                command,
                cwd=PROJECT,
                env=own,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )

        assert run("migrate", "-v0").returncode == 0
        yield run


def test_the_operator_sees_how_every_source_answers_and_the_site_remembers_it(manage):
    answer = manage("check_sources")
    assert answer.returncode == 0, answer.stderr
    assert "Openverse" in answer.stdout and " ok " in answer.stdout
    assert "Wikimedia Commons" in answer.stdout and "not_applicable" in answer.stdout, (
        "it needs a contact, and says so"
    )
    code = "from requests_app.models import SourceHealth as S; print(list(S.objects.values_list('name', 'outcome')))"
    remembered = manage("shell", "-v0", "-c", code).stdout
    assert "('openverse', 'ok')" in remembered and "wikimedia" not in remembered


def test_json_gives_a_row_per_source_and_an_unknown_name_is_refused(manage):
    rows = [
        json.loads(line)
        for line in manage("check_sources", "openverse", "--json").stdout.splitlines()
    ]
    assert [(row["name"], row["outcome"]) for row in rows] == [("openverse", "ok")]
    refused = manage("check_sources", "altavista")
    assert refused.returncode == 1
    assert "No such source: altavista" in refused.stderr
