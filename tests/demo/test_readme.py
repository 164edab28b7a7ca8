"""The README's promises that a program can check."""

import re
import tomllib
from pathlib import Path

import pytest
from django.conf import settings

from scraping.sources.catalogue import credential_settings, url_setting

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
READERS = (
    "picaisso_site/settings.py",
    "scraping/__main__.py",
    "training/__main__.py",
    "training/environment.py",
)
SET_BY_UP = {"PICAISSO_CLUSTER", "PICAISSO_DIE_WITH_PARENT"}
NAME = r"PICAISSO_[A-Z_]*[A-Z]|DATABASE_URL|EMAIL_URL"


def names_read(path):
    """Return the settings that a module reads: names in quotes, and those of the sources."""
    text = (ROOT / path).read_text()
    found = set(re.findall(rf'"({NAME})"', text))
    if "url_setting(" in text or re.search(r'f"PICAISSO_\{[^}]*upper\(\)\}_URL"', text):
        found |= {url_setting(source) for source in settings.KNOWN_SOURCES}
    if "credential_settings(" in text:
        found |= set(credential_settings().values())
    return found


def names_in_the_table():
    return set(re.findall(rf"^\| `({NAME})` \|", README, re.MULTILINE))


def test_every_setting_that_is_read_stands_in_the_table():
    read = set().union(*(names_read(path) for path in READERS))
    assert {"PICAISSO_DATA_DIR", "PICAISSO_BING_URL", "DATABASE_URL"} <= read
    assert read - SET_BY_UP - names_in_the_table() == set()


def test_every_setting_in_the_table_is_read():
    read = set().union(*(names_read(path) for path in READERS))
    assert names_in_the_table() - read == set()


def test_every_row_of_the_table_has_a_default_and_a_meaning():
    rows = re.findall(rf"^\| `(?:{NAME})` \|.*$", README, re.MULTILINE)
    assert len(rows) > 20
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 3, row
        assert all(cells), row


def test_every_make_target_that_the_readme_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:`|^    )make ([a-z]+)", README, re.MULTILINE))
    assert named
    assert named <= targets


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)[^)]*\)", README))))
def test_every_local_link_of_the_readme_leads_somewhere(link):
    assert "://" in link or (ROOT / link).is_file()


def test_the_pictures_are_small_enough_to_load_at_once():
    pictures = re.findall(r"docs/\w+[.]webp", README)
    assert len(set(pictures)) == 5
    sizes = {picture: (ROOT / picture).stat().st_size for picture in pictures}
    moving = sizes.pop("docs/picaisso.webp")
    assert moving < 1_000_000 and all(size < 150_000 for size in sizes.values())


def test_every_runtime_dependency_is_in_the_licence_table():
    packages = []
    for name in ("requirements.txt", "requirements-mysql.txt"):
        listed = (ROOT / name).read_text()
        packages += re.findall(r"^([A-Za-z0-9-]+)[^#\n]*==", listed, re.MULTILINE)
    assert len(packages) > 20
    licences = README.split("## Licences")[1]
    table = licences.split("## ")[0]
    for package in packages:
        assert re.search(rf"\b{re.escape(package)}\b", table), package


def test_the_newest_released_version_of_the_changelog_is_the_installed_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    version = project["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (\S+)", changelog, re.MULTILINE)
    if headings[0] == "Unreleased":
        headings.pop(0)
    assert headings[0] == version
