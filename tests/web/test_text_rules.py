"""The Unicode rules of names and search words, without a form around them."""

import pytest

from requests_app.text_rules import casefold_key, find_problem, normalize


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (" shiba \u00a0 inu ", "shiba inu"),
        ("cafe\u0301", "café"),
        ("c\u200bat", "cat"),
        ("c\u200dat", "cat"),  # nothing to join between Latin letters
        ("👩\u200d🔬", "👩\u200d🔬"),
    ],
    ids=ascii,
)
def test_a_text_is_kept_in_normal_form_without_what_nobody_sees(typed, kept):
    assert normalize(typed) == kept
    assert normalize(kept) == kept


@pytest.mark.parametrize(
    "pair", [("Straße", "STRASSE"), ("Cat", " cat\ufe0f"), ("é", "E\u0301")], ids=ascii
)
def test_names_that_people_call_the_same_have_one_key(pair):
    one, other = pair
    assert casefold_key(one) == casefold_key(other)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x" * 65, "At most 64 characters"),
        ("a\tb", "control characters"),
        ("abc\u202egnp", "reading direction"),
        ("\u2800\ufe0f", "no visible character"),
    ],
    ids=["long", "tab", "turned", "blank"],
)
def test_a_refused_text_is_answered_with_a_sentence(text, words):
    assert words in find_problem(text, 64)


@pytest.mark.parametrize(
    "text", ["", "  ", "x" * 64, "x" * 64 + "\u200b", "🐶", "می\u200cخواهم"], ids=ascii
)
def test_other_texts_are_accepted(text):
    assert find_problem(text, 64) == ""
