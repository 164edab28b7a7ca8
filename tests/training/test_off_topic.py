"""Pages among photographs are suspected, whatever the model thinks, and never in the test part."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import on_white, stamps
from tests.training.example_pages import page
from training.fitting.label_issues import Suspect
from training.fitting.off_topic import find_off_topic, one_suspicion_each

NAMES = ("corgi", "shiba inu")
REASON = "Looks like a page, screen, packet or drawing rather than a photograph."


def shares(*of_classes: list[float]) -> tuple[np.ndarray, np.ndarray]:
    labels = [label for label, values in enumerate(of_classes) for _ in values]
    return np.concatenate(of_classes), np.array(labels)


def test_a_page_among_photographs_is_suspected_with_its_share_as_score() -> None:
    found = find_off_topic(*shares([0.01, 0.9, 0.02], [0.03, 0.49, 0.0]), NAMES)
    assert found == [Suspect(1, 0.9, "off_topic", None, REASON)]


def test_a_class_whose_own_pictures_look_so_has_no_suspects_and_the_others_keep_theirs() -> None:
    found = find_off_topic(*shares([0.9, 0.8, 0.01], [0.03, 0.7, 0.0]), NAMES)
    assert [suspect.index for suspect in found] == [4]


@pytest.mark.parametrize("name", ["Comics", "web page screenshot", "LOGO", "menus", "a TV"])
def test_a_class_that_is_called_so_has_no_suspects(name: str) -> None:
    found = find_off_topic(*shares([0.9, 0.0, 0.01], [0.03, 0.7, 0.0]), (name, "corgi"))
    assert [suspect.index for suspect in found] == [4]


@pytest.mark.parametrize("name", ["mapache", "pageboy", "screech owl"])
def test_a_name_that_only_resembles_such_a_word_hides_nothing(name: str) -> None:
    found = find_off_topic(*shares([0.9, 0.0, 0.01], [0.03, 0.0, 0.0]), (name, "corgi"))
    assert [suspect.index for suspect in found] == [0]


def test_a_class_without_pictures_to_judge_does_no_harm() -> None:
    assert find_off_topic(*shares([], [0.1, 0.2]), NAMES) == []


def test_every_picture_is_suspected_once_and_a_page_is_no_wrong_label() -> None:
    label = Suspect(3, 0.99, "label", 1, "Looks like another.")
    twice = Suspect(3, 0.6, "off_topic", None, REASON)
    outlier = Suspect(4, 0.7, "outlier", None, "Looks unlike every other picture.")
    assert one_suspicion_each([label, outlier, twice]) == [outlier, twice]
    assert one_suspicion_each([]) == []


@pytest.fixture(scope="module")
def run_with_pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run of 24 photographs in each class and three pages among the mammals."""
    from training.__main__ import main

    folder = tmp_path_factory.mktemp("pages")
    for name, kind in (("mammal", "animals/mammals"), ("plant", "plants")):
        (folder / "in" / name).mkdir(parents=True)
        for path in stamps(kind)[:24]:
            on_white(path).save(folder / "in" / name / f"{path.stem}.jpg")
    for seed in range(5):
        page(seed).save(folder / "in" / "mammal" / f"page{seed}.png")
    run = folder / "run"
    arguments = ["fit", "--images", str(folder / "in"), "--out", str(run), "--json"]
    arguments += ["--data-dir", str(folder), "--backbone", "efficientnet_lite0"]
    assert main([*arguments, "--finetune", "never"]) == 0
    return run


def test_a_training_suspects_the_pages_outside_test(run_with_pages: Path) -> None:
    lines = (run_with_pages / "suspects.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    off_topic = [row for row in rows if row["kind"] == "off_topic"]
    metrics = json.loads((run_with_pages / "metrics.json").read_text())
    assert metrics["off_topic"] == len(off_topic) >= 3
    for row in off_topic:
        assert row["reason"] == REASON and row["class"] == "mammal" and row["suggested"] is None
        assert row["score"] >= 0.5 and row["split"] != "test"
    tested = [row for row in rows if row["split"] == "test"]
    assert {row["kind"] for row in tested} == {None}
    words = "outside the test part look like a page, screen, packet or drawing"
    assert words in (run_with_pages / "model" / "README.md").read_text()
    assert REASON in (run_with_pages / "model" / "report.html").read_text()


def test_judgements_that_change_the_verdict_leave_the_pages_suspected(
    run_with_pages: Path, tmp_path: Path
) -> None:
    from training.__main__ import main
    from training.run_folder import read_manifest, write_json

    run = shutil.copytree(run_with_pages, tmp_path / "run")
    before = json.loads((run / "metrics.json").read_text())
    # As with many test images, of which the verdict comes from them alone.
    write_json(run / "metrics.json", {**before, "cross_validated": None})
    other = {"c001": "plant", "c002": "mammal"}
    table = ["file,verified"]
    for row in read_manifest(run):
        if row.split == "test":
            table.append(f"{row.file},{other[row.class_id]}")
    (tmp_path / "labels.csv").write_text("\n".join(table))
    assert main(["verify", str(run), str(tmp_path / "labels.csv")]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    rows = [json.loads(line) for line in (run / "suspects.jsonl").read_text().splitlines()]
    kinds = [row["kind"] for row in rows if row["kind"]]
    assert before["verdict"] == "better" and metrics["verdict"] != "better"
    assert kinds == ["off_topic"] * before["off_topic"]
    assert metrics["curation"]["suspects"] == metrics["off_topic"] == before["off_topic"]
    page_now = (run / "model" / "report.html").read_text()
    assert page_now.count(REASON) == before["off_topic"] and "rather than its label" not in page_now
