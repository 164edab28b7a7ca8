"""Other words for the same thing."""

import pytest

from scraping.search.query_variants import other_number, query_variants, without_known


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("corgi", "corgis"),
        ("red fox", "red foxes"),
        ("berry", "berries"),
        ("monkey", "monkeys"),
        ("peach", "peaches"),
        ("house", "houses"),
        ("glass", "glasses"),
        ("grey wolf", "grey wolves"),
        ("tie", "ties"),
    ],
)
def test_the_last_word_changes_its_number_both_ways(one, many):
    assert other_number(one) == many
    assert other_number(many) == one


@pytest.mark.parametrize("words", ["fish", "sheep", "猫", "Audi A4", "C++"])
def test_words_without_another_number_stay(words):
    assert other_number(words) == words


def test_one_thing_that_ends_in_s_is_no_plural():
    assert [other_number(word) for word in ("iris", "cactus", "axis")] == [
        "irises",
        "cactuses",
        "axises",
    ]


def test_photographs_are_asked_for_once():
    assert query_variants("tiger", "en-GB") == ["tigers", "tiger photo"]
    assert query_variants("tiger photo", "en-US") == ["tiger photos"]
    assert query_variants("fish", "en-US") == ["fish photo"]


def test_no_english_grammar_for_other_languages():
    assert query_variants("Katze", "de-DE") == []


def test_variants_that_differ_only_in_case_and_spaces_are_one():
    assert without_known(["Corgi ", "corgis", "CORGIS", " "], ["corgi"]) == ["corgis"]
