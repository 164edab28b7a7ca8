"""The pages for engineers name what exists: files, rooms and the commands of the Makefile."""

import re
from pathlib import Path

import pytest

from tests.test_architecture import FLOORS

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("CONTRIBUTING.md", "docs/architecture.md")
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


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    missing = [link for link in links if not ((ROOT / page).parent / link).is_file()]
    assert links and missing == []


@pytest.mark.parametrize("package", ["scraping", "training", "requests_app"])
def test_the_picture_shows_every_room(package):
    picture = (ROOT / "docs" / "architecture.svg").read_text()
    shown = set(re.findall(r"[\w]+", picture))
    assert set(FLOORS[package].split()) <= shown
