"""What is said of a URL without fetching it."""

import hashlib

import pytest

from scraping.urls import normalized_url, origin_of, url_digest


def test_spellings_of_one_url_are_equal_and_others_are_not():
    same = ["HTTP://A.example:80/x?b=1&utm_source=z#f", "http://a.example/x?b=1"]
    assert len({normalized_url(url) for url in same}) == 1
    different = [
        "http://a.example/x?b=1",
        "http://a.example/X?b=1",
        "https://a.example/x?b=1",
        "http://a.example/x?b=2",
    ]
    assert len({normalized_url(url) for url in different}) == 4


@pytest.mark.parametrize(
    ("url", "normalized"),
    [
        ("https://[2001:DB8::1]:443/", "https://[2001:db8::1]/"),
        ("http://a.example:8080", "http://a.example:8080/"),
        ("http://a.example/?q=a+b&gclid=1", "http://a.example/?q=a+b"),
        ("http://a.example/?q=a%20b", "http://a.example/?q=a%20b"),
        (" http://a.example:port/ ", "http://a.example:port/"),
    ],
)
def test_normalizing_changes_only_what_makes_no_difference(url, normalized):
    assert normalized_url(url) == normalized


def test_a_digest_is_that_of_the_normalized_url_even_for_text_that_is_not_unicode():
    expected = hashlib.sha256(b"http://a.example/x").hexdigest()
    assert url_digest("HTTP://a.example:80/x#part") == expected
    assert len(url_digest("http://a.example/\udcff")) == 64


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://a.example/page?q=1", "https://a.example/"),
        ("http://a.example:8080/page", "http://a.example:8080/"),
        ("ftp://a.example/", None),
        ("no url", None),
        ("http://[bad", None),
    ],
)
def test_an_origin_is_scheme_host_and_port(url, origin):
    assert origin_of(url) == origin
