"""One spelling for every licence."""

import pytest

from scraping.sources.licenses import read_license


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://creativecommons.org/licenses/by-sa/3.0/de/", ("cc-by-sa", "3.0")),
        ("http://creativecommons.org/publicdomain/mark/1.0/", ("pdm", "1.0")),
        ("CC0_1_0", ("cc0", "1.0")),
        ("CC BY-NC-ND 2.5", ("cc-by-nc-nd", "2.5")),
        ("cc-by", ("cc-by", "")),
        ("by-sa", ("cc-by-sa", "")),
        ("public domain", ("pdm", "1.0")),
        ("No known copyright restrictions", ("", "")),
        ("by", ("cc-by", "")),
        ("© 2020 by Anna", ("", "")),
        (None, ("", "")),
    ],
)
def test_a_licence_has_one_spelling(text, expected):
    found = read_license(text)
    assert (found.name, found.version) == expected
