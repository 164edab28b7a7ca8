"""The pages for engineers name what exists: files, rooms and the commands of the Makefile."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_architecture import FLOORS

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("CONTRIBUTING.md", "docs/architecture.md")
DOCS = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))
BASES = ("", "requests_app", "scraping", "training")
NAMED_AS_EXAMPLES = {"utils.py", "helpers.py", "common/", "scraping/sources/NAME.py"}


def named_paths(page: str) -> set[str]:
    text = (ROOT / page).read_text()
    return set(re.findall(r"`([\w./-]+(?:\.py|/))`", text)) - NAMED_AS_EXAMPLES


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page):
    """A path is whole, or relative to one of the packages."""
    named = named_paths(page)
    missing = [path for path in named if not any((ROOT / base / path).exists() for base in BASES)]
    assert named and missing == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", *DOCS])
def test_every_link_of_a_page_leads_somewhere(page):
    """Also to a heading, which a link names by its words in small letters."""
    missing = []
    for link, heading in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", (ROOT / page).read_text()):
        target = (ROOT / page).parent / link if link else ROOT / page
        if not target.is_file() or (heading and heading not in headings_of(target)):
            missing.append(link + heading)
    assert missing == []


def headings_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    words = [re.sub(r"[^\w -]", "", heading).lower() for heading in headings]
    return {each.replace(" ", "-") for each in words}


def test_the_front_page_leads_to_every_page():
    readme = (ROOT / "README.md").read_text()
    assert [page for page in DOCS if page not in readme] == []


def test_the_reference_is_as_the_code():
    command = [sys.executable, "scripts/reference.py", "--check"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("package", ["scraping", "training", "requests_app"])
def test_the_picture_shows_every_room(package):
    picture = (ROOT / "docs" / "architecture.svg").read_text()
    shown = set(re.findall(r"[\w]+", picture))
    assert set(FLOORS[package].split()) <= shown
