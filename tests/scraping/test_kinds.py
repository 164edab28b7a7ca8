"""The word for the kind of things: how it joins a name, and what descriptions tell of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scraping.kinds import described_kind, is_living, is_other_name, with_kind
from scraping.search.class_kind import ClassKind, derived_kind


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("jaguar", "animal", "jaguar animal"),
        ("jaguar", "", "jaguar"),
        ("jaguar animal", "animal", "jaguar animal"),
        ("Sea Animals", "animal", "Sea Animals"),
        ("farm animal", "Animals", "farm animal"),
        ("animalier", "animal", "animalier animal"),
        ("Welsh dog breed", "dog breed", "Welsh dog breed"),
        ("dog", "dog breed", "dog dog breed"),
        ("ジャガー", "動物", "ジャガー 動物"),
        ("C++", "language", "C++ language"),
    ],
)
def test_the_kind_follows_the_name_unless_it_stands_there_already(name, kind, words):
    assert with_kind(name, kind) == words


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40), st.text(max_size=20))
def test_no_text_gets_the_kind_twice(name, kind):
    once = with_kind(name, kind)
    assert once.startswith(name)
    if kind.isalpha():
        assert with_kind(once, kind) == once


@pytest.mark.parametrize(
    ("description", "kind"),
    [
        ("species of large cat native to the Americas", "animal"),
        ("large cat native to Africa and Asia", "animal"),
        ("free-roaming horse of the Western United States", "animal"),
        ("common name of various venomous snakes", "animal"),
        ("Welsh dog breed", "animal"),
        ("British car brand", "car"),
        ("series of American automobiles", "car"),
        ("genus of flowering plants", "plant"),
        ("edible fungi", "mushroom"),
        ("fruit of the apple tree", "fruit"),
        ("Italian dish made of dough", "dish"),
        ("general-purpose programming language", ""),
        ("city in Spain", ""),
        ("", ""),
    ],
)
def test_a_short_description_tells_the_kind(description, kind):
    assert described_kind(description) == kind


def test_people_works_and_pages_do_not_compete_for_a_name():
    for description in ("family name", "1963 film by Luchino Visconti", "song by a band", " "):
        assert is_other_name(description)
    assert is_other_name("Wikimedia disambiguation page")
    assert not is_other_name("British car brand")


def test_living_kinds_are_known_by_their_last_word_in_either_number():
    for kind in ("animal", "Birds", "wild cat", "trees", "fungi", "wolves"):
        assert is_living(kind), kind
    for kind in ("", "car", "dish", "cat food", "tree house"):
        assert not is_living(kind), kind


JAGUAR = ["species of large cat native to the Americas", "British car brand"]


@pytest.mark.parametrize(
    ("descriptions", "word"),
    [
        ({"jaguar": JAGUAR, "leopard": ["large cat native to Africa and Asia"]}, "animal"),
        ({"jaguar": JAGUAR, "mini": ["British car model"]}, "car"),
        # Nothing is ambiguous; works of the same name do not count.
        ({"lion": ["species of big cat", "2016 film"], "tiger": ["species of big cat"]}, ""),
        # Two kinds are shared: nobody can tell which is meant.
        ({"jaguar": JAGUAR, "leopard": ["large cat of Africa", "Japanese car model"]}, ""),
        ({"jaguar": JAGUAR, "pizza": ["Italian dish"]}, ""),
        ({"jaguar": JAGUAR, "corgi": []}, ""),
        ({}, ""),
    ],
)
def test_a_kind_is_derived_only_where_it_is_shared_alone_and_needed(descriptions, word):
    assert derived_kind(descriptions, "Wikidata").word == word


def test_the_sentence_says_how_it_is_searched_and_why():
    leopard = ["large cat native to Africa and Asia"]
    kind = derived_kind({"leopard": leopard, "jaguar": JAGUAR}, "Wikidata")
    assert kind.how == "derived"
    assert kind.sentence == (
        "Searched as “jaguar animal”, because both names are animals in Wikidata."
    )
    three = derived_kind({"leopard": leopard, "jaguar": JAGUAR, "puma": leopard}, "Wikidata")
    assert "because all 3 names are animals" in three.sentence
    assert ClassKind.given("animal", ["jaguar"]).sentence == (
        "Searched as “jaguar animal”, as you asked."
    )
    assert ClassKind.given("", ["jaguar"]).sentence == ""


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=10), st.lists(st.text(max_size=60), max_size=4)))
def test_no_description_is_too_odd(descriptions):
    assert derived_kind(descriptions, "Wikidata").how in ("derived", "none")


def test_what_was_decided_is_read_again_and_a_damaged_file_is_none(tmp_path):
    kind = ClassKind.given("animal", ["jaguar"])
    kind.write(tmp_path)
    assert ClassKind.read(tmp_path) == kind
    for text in ("[]", "{", '{"word": "animal"}'):
        (tmp_path / "kind.json").write_text(text)
        assert ClassKind.read(tmp_path) is None
    (tmp_path / "kind.json").unlink()
    assert ClassKind.read(tmp_path) is None
