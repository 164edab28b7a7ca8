"""Every crash point: a site is ended before and after each of its operations, one after the other,
and whatever it was about, its books balance when the next start has come to rest.
"""

import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from requests_app.workers.processes import PROJECT
from tests.system.mariadb import INSTALLER, SERVER, mariadb

MEMORY = Path("/dev/shm")  # flushing to a disk is what takes longest
FEWEST_POINTS = 60  # of one request; far more, unless nothing is counted any more
ACTIONS = ("cancel", "retry", "retrain", "delete", "expire", "takedown")

pytestmark = [pytest.mark.system, pytest.mark.timeout(1500)]


@pytest.fixture
def folder() -> Iterator[Path]:
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    made = Path(tempfile.mkdtemp(prefix="crash-points-", dir=where))
    yield made
    shutil.rmtree(made)


def tear(folder: Path, scenarios: tuple[str, ...], database_url: str = "", stride: int = 1) -> str:
    """End sites at all crash points of these scenarios; return what was printed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PICAISSO_")}
    own |= {
        "DJANGO_SETTINGS_MODULE": "picaisso_site.settings",
        "DATABASE_URL": database_url,
        "PICAISSO_ENV_FILE": os.devnull,
        "PICAISSO_DATA_DIR": str(folder / "data"),
        "PICAISSO_SECRET_KEY": secrets.token_urlsafe(64),
        "PICAISSO_SOURCES": "bing",
        "PICAISSO_MIN_IMAGES": "9",
        "PICAISSO_FIRST_MODEL": "0",
    }
    command = [sys.executable, "-m", "tests.crash_points", "--folder", str(folder / "bench")]
    command += ["--stride", str(stride)]
    for scenario in scenarios:
        command += ["--scenario", scenario]
    answer = subprocess.run(
        command, cwd=PROJECT, env=own, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, f"{answer.stdout}\n{answer.stderr[-3000:]}"
    return answer.stdout


def test_a_request_is_delivered_whatever_operation_was_the_last_before_a_crash(folder, capsys):
    said = tear(folder, ("request",))
    with capsys.disabled():
        print(f"\nSQLite: {said}", end="")
    assert int(said.split(" points")[0].split()[-1]) >= FEWEST_POINTS


def test_whatever_happens_to_a_request_may_be_torn_apart_anywhere(folder, capsys):
    said = tear(folder, ACTIONS)
    with capsys.disabled():
        print(f"\n{said}", end="")


@pytest.mark.mariadb
@pytest.mark.skipif(
    not (SERVER and INSTALLER) or importlib.util.find_spec("MySQLdb") is None,
    reason="needs mariadb-server and mysqlclient",
)
def test_a_request_is_delivered_after_a_crash_at_any_operation_with_mariadb(folder, capsys):
    with mariadb(folder / "mariadb") as url:
        said = tear(folder, ("request",), url)
    with capsys.disabled():
        print(f"\nMariaDB: {said}", end="")
