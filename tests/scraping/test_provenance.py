"""Licences in one spelling, lines of credit, and which of two is known better."""

import pytest

from scraping.records.provenance import attribution, is_open, license_of, license_rank
from scraping.sources.base import Candidate


def candidate(**values: str) -> Candidate:
    facts = {"page_url": "https://pages.example/1", "license_basis": "per-item"} | values
    return Candidate("https://pictures.example/1.jpg", "test", "corgi", 1, **facts)


@pytest.mark.parametrize(
    ("name", "version", "url", "expected"),
    [
        ("CC BY-SA 3.0", "", "", ("cc-by-sa", "3.0")),
        ("by-sa", "4.0", "", ("cc-by-sa", "4.0")),
        ("cc-by-nc", "2.0", "", ("cc-by-nc", "2.0")),
        ("CC0", "", "", ("cc0", "1.0")),
        ("", "", "https://creativecommons.org/licenses/by/2.0/de/", ("cc-by", "2.0")),
        ("Attribution", "", "http://creativecommons.org/licenses/by/4.0/", ("cc-by", "4.0")),
        ("GFDL", "1.2", "https://gnu.example/fdl", ("GFDL", "1.2")),
        ("", "", "", ("", "")),
    ],
)
def test_every_spelling_of_a_licence_becomes_one(name, version, url, expected):
    known = license_of(candidate(license=name, license_version=version, license_url=url))
    assert (known.name, known.version) == expected
    assert known.url == url or not url


def test_a_known_licence_gets_its_address():
    known = license_of(candidate(license="by", license_version="4.0"))
    assert known.url == "https://creativecommons.org/licenses/by/4.0/"


def test_a_filter_s_word_is_not_enough_to_be_open():
    assert is_open("cc-by", "per-item")
    assert not is_open("cc-by", "filter")
    assert not is_open("", "per-item")


def test_the_better_known_and_the_freer_licence_ranks_higher():
    ranked = [
        *[("cc0", "per-item"), ("cc-by-sa", "per-item"), ("cc-by-nd", "per-item"), ("", "filter")],
        ("", "unknown"),
    ]
    ranks = [license_rank(*each) for each in ranked]
    assert ranks == sorted(ranks, reverse=True) and len(set(ranks)) == len(ranks)


def test_the_line_of_credit_is_the_source_s_own_or_made_of_what_is_known():
    assert attribution(candidate(attribution="By Ada.")) == "By Ada."
    made = attribution(
        candidate(title="A corgi", creator="Ada", license="by", license_version="4.0")
    )
    deed = "https://creativecommons.org/licenses/by/4.0/"
    expected = f"“A corgi” by Ada, CC BY 4.0 ({deed}), via pages.example"
    assert made == expected
    assert (
        attribution(candidate(license_basis="unknown"))
        == "Untitled picture, licence unknown, via pages.example"
    )
