"""What is said to be deleted is deleted, although a child was at work: on the whole site."""

import sqlite3
from pathlib import Path

import pytest

from requests_app.demo.visitor import Visitor
from tests.system.site import CLASSES, Site, running_site
from tests.system.test_survival import is_collector, missing

pytestmark = [
    pytest.mark.system,
    pytest.mark.browser,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}"),
]
TYPED = (*CLASSES, "ada@example.org")
SOON = 30  # seconds on a busy machine; the round that deletes old requests comes once an hour


@pytest.fixture
def site(tmp_path: Path):
    with running_site(tmp_path / "site", smtp_port=1) as running:
        running.stop()
        running.settings = {"PICAISSO_CONFIRM_EMAIL": "0", "EMAIL_URL": ""}
        running.start()
        yield running


def database(site: Site) -> str:
    with sqlite3.connect(site.folder / "data/db.sqlite3") as connection:
        return "\n".join(connection.iterdump())


def test_what_is_deleted_during_a_collection_is_gone_when_its_child_has_ended(site):
    path = site.submit(20)
    requests = site.folder / "data/requests"
    collector = site.wait_for("the collector", is_collector)[0]
    site.wait("a picture", lambda: any(requests.glob("*/collect/images/*.jpg")), 60)
    assert "mammal" in database(site)

    assert Visitor(site.url).send_form(f"{path}delete/") == f"{site.url}/"

    site.wait("the end of all files", lambda: not any(requests.iterdir()), SOON)
    assert collector.pid not in {process.pid for process in site.find(is_collector)}
    site.wait("the end of all rows", lambda: not words_in(database(site)), SOON)
    assert not words_in(site.log.read_text())
    site.wait("the end of all copies", lambda: not copies(site), SOON)


def copies(site: Site) -> list[Path]:
    """Return the files that hold what was typed, the database's own journal included."""
    files = [file for file in (site.folder / "data").rglob("*") if file.is_file()]
    return [file for file in files if words_in(file.read_bytes().decode(errors="replace"))]


def words_in(text: str) -> list[str]:
    """Return what a person typed that stands in a text."""
    return [word for word in TYPED if word in text]
