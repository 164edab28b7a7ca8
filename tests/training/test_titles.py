"""What a picture's title and page say of its class: weak evidence, compared by Unicode rules."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.example_results import NAMES, choice_of, split_images
from tests.training.example_rows import row
from tests.training.test_results import RUN_METRICS
from training.class_names import names_in
from training.evaluation.results import collect_results, suspects_as_lines
from training.fitting.label_issues import Suspect
from training.fitting.titles import Clue, find_by_clues, read_clues, weighed_scores, with_clues
from training.images.provenance import Provenance
from training.progress import no_progress
from training.run_folder import ImageRow

DOGS = ("corgi", "shiba inu")


@pytest.mark.parametrize(
    ("text", "names", "named"),
    [
        ("My Corgi, asleep", DOGS, [0]),
        ("File:Shiba Inu.jpg", DOGS, [1]),
        ("two corgis", DOGS, [0]),
        ("Corgi’s bed", DOGS, [0]),
        ("corgidae, incorgi", DOGS, []),
        ("shiba", DOGS, []),
        ("shiba inu and corgi", DOGS, [1, 0]),
        ("a hot dog with mustard", ("dog", "hot dog"), [1]),
        ("a dog that eats a hot dog", ("dog", "hot dog"), [1, 0]),
        ("STRASSE", ("straße", "weg"), [0]),
        ("cafe\u0301 in Rome", ("café", "bar"), [0]),
        ("cafe\u0301", ("cafe", "bar"), []),
        ("可愛い柴犬の写真", ("柴犬", "猫"), [0]),
        ("รูปแมวน่ารัก", ("แมว", "หมา"), [0]),
        ("यह हाथी है", ("हाथी", "शेर"), [0]),
        ("हाथियों", ("हाथ", "शेर"), []),
        ("C++ book", ("C++", "C"), [0]),
        ("a ❤️ of stone", ("❤", "stone"), [0, 1]),
        ("", DOGS, []),
    ],
)
def test_names_are_found_as_words(text: str, names: tuple[str, str], named: list[int]) -> None:
    assert sorted(names_in(text, names)) == sorted(named)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60), st.lists(st.text(max_size=6), min_size=2, max_size=4))
def test_any_text_can_be_searched_for_any_names(text: str, names: list[str]) -> None:
    found = names_in(text, names)
    assert len(found) == len(set(found)) and set(found) <= set(range(len(names)))


def titled(title: str, page_url: str = "", class_id: str = "c001") -> ImageRow:
    return dataclasses.replace(row(class_id, 1), title=title, page_url=page_url)


PAGE = "https://photos.example/shiba-inu/12?q=corgi"


@pytest.mark.parametrize(
    ("image", "clue"),
    [
        (titled("A shiba inu"), Clue(1, own=False, where="Its title")),
        (titled("A corgi"), Clue(0, own=True, where="Its title")),
        (titled("A corgi and a shiba inu"), None),
        (titled("IMG_0001"), None),
        (titled("IMG_0001", PAGE), Clue(1, own=False, where="Its page’s address")),
        (titled("A corgi", PAGE), Clue(0, own=True, where="Its title")),
        (titled("", "https://corgi.example/?q=shiba+inu"), None),
        (titled("", "https://p.example/File:Shiba_Inu.jpg"), Clue(1, False, "Its page’s address")),
        (titled("", "https://photos.example/%73hiba%20inu"), Clue(1, False, "Its page’s address")),
        (titled("", "http://[bad"), None),
    ],
)  # fmt: skip
def test_the_title_counts_first_and_then_the_path_of_the_page(
    image: ImageRow, clue: Clue | None
) -> None:
    found = read_clues([image], np.array([0]), DOGS)
    assert found == ({} if clue is None else {0: clue})


def test_titles_come_with_the_tables_of_a_collection() -> None:
    assert Provenance.of({"title": "  A shiba\n inu "}).title == "A shiba inu"
    assert Provenance.of({"title": 7}).title == ""


def test_a_clue_shifts_a_score_and_never_to_the_full() -> None:
    other = Clue(1, own=False, where="Its title")
    own = Clue(0, own=True, where="Its title")
    scores = np.array([0.0, 0.02, 0.5, 0.99, 1.0])
    raised = weighed_scores(scores, dict.fromkeys(range(5), other))
    lowered = weighed_scores(scores, dict.fromkeys(range(5), own))
    assert (raised[1:4] > scores[1:4]).all() and (lowered[1:4] < scores[1:4]).all()
    assert raised[1] < 0.06 and raised[3] < 1 and lowered[3] > 0.9
    np.testing.assert_array_equal(scores[[0, 4]], raised[[0, 4]])
    np.testing.assert_array_equal(weighed_scores(scores, {}), scores)


def test_the_reason_of_a_suspect_tells_of_its_title() -> None:
    suspects = [Suspect(0, 0.5, "label", 1, "Looks odd."), Suspect(1, 0.5, "outlier", None, "Odd.")]
    told = with_clues(suspects, {0: Clue(1, False, "Its title")}, DOGS)
    assert told[0].reason == "Looks odd. Its title speaks of “shiba inu”."
    assert told[0].score == pytest.approx(0.75) and told[1] == suspects[1]


def test_a_title_alone_suspects_nothing_but_with_some_doubt_it_does() -> None:
    pred_probs = np.array([[0.95, 0.05], [0.7, 0.3], [0.7, 0.3], [0.7, 0.3]])
    other = Clue(1, own=False, where="Its title")
    clues = {0: other, 1: other, 2: Clue(0, own=True, where="Its title")}
    (found,) = find_by_clues(pred_probs, np.zeros(4, int), clues, DOGS)
    assert (found.index, found.kind, found.suggested) == (1, "label", 1)
    assert 0.5 <= found.score < 0.6
    assert found.reason == (
        "Looks like its label “corgi” (70%), but also like “shiba inu” (30%)."
        " Its title speaks of “shiba inu”."
    )


def test_titles_change_the_ranking_outside_test_alone(imported_run: Path) -> None:
    images = split_images(imported_run, NAMES)
    truth = np.eye(2)[images.labels]
    random = np.random.default_rng(0)
    embeddings = 8 * truth.repeat(8, axis=1) + random.normal(size=(len(truth), 16))
    images = dataclasses.replace(images, embeddings=embeddings.astype(np.float32))
    choice = choice_of(
        images, 3 * truth + random.normal(size=truth.shape), random.random(len(truth))
    )
    shown = [int(np.flatnonzero(truth[i] == 0)[0]) for i in range(len(truth))]
    rows = [
        dataclasses.replace(image, title=f"A {NAMES[shown[number]]}")
        for number, image in enumerate(images.rows)
    ]
    ranked = []
    for titled_rows in (images.rows, rows):
        changed = dataclasses.replace(images, rows=titled_rows)
        results, scores = collect_results(changed, choice, NAMES, RUN_METRICS, no_progress)
        lines = [
            json.loads(line) for line in suspects_as_lines(results, scores, NAMES).splitlines()
        ]
        ranked.append({line["file"]: line for line in lines})
    plain, with_titles = ranked
    for file, line in plain.items():
        if line["split"] == "test":
            assert with_titles[file] == line
        else:
            assert with_titles[file]["score"] >= line["score"]
    reasons = [line["reason"] for line in with_titles.values() if line["reason"]]
    assert reasons and all("Its title speaks of" in reason for reason in reasons)
    assert sum(with_titles[file]["score"] > line["score"] for file, line in plain.items()) > 40
