"""`fit --images` as a person uses it: mended, changed, killed and odd folders of pictures."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.test_folder import BAD_NAME, classes_of, picture
from tests.training.test_main import environment, run_training
from training.images.folder import import_folder
from training.run_folder import read_config, read_manifest, read_result, write_json

REFUSED_AFTER_IMPORT = {"PICAISSO_BACKBONE": "none"}  # so that no test waits for a training


def fit(home: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    command = ("fit", "--images", "in", "--out", "run", *more)
    return run_training(*command, home=home, **REFUSED_AFTER_IMPORT)


def test_a_refused_folder_can_be_mended_and_a_trained_one_is_not_passed_over(
    tmp_path: Path,
) -> None:
    folder = classes_of(tmp_path / "in", "cat", "dog")
    for path in (folder / "dog").iterdir():
        path.write_bytes(b"broken")
    ended = fit(tmp_path)
    assert ended.returncode == 1 and "The class “dog” has no usable picture." in ended.stderr
    assert "dog/0.png" in (tmp_path / "run" / "left_out.csv").read_text()

    for number in range(3):
        picture(folder / "dog" / f"{number}.png", 50 + number)
    ended = fit(tmp_path)
    assert ended.returncode == 1 and "“none” is not a backbone" in ended.stderr
    assert len(read_manifest(tmp_path / "run")) == 5

    picture(folder / "dog" / "more.png", 60)
    assert "“none” is not a backbone" in fit(tmp_path).stderr
    assert len(read_manifest(tmp_path / "run")) == 6, "nothing was finished, so it is taken up"
    late = fit(tmp_path, "--previous", "run")
    assert late.returncode == 2 and "--previous comes too late" in late.stderr

    write_json(tmp_path / "run" / "result.json", {"ok": True, "seconds": {}, "notices": []})
    picture(folder / "dog" / "yet more.png", 61)
    ended = fit(tmp_path)
    assert ended.returncode == 1
    assert "have changed since run was trained; it stays as it is." in ended.stderr
    assert "--images in --out ANOTHER_FOLDER --previous run" in ended.stderr
    assert len(read_manifest(tmp_path / "run")) == 6
    ended = fit(tmp_path, "--images", "elsewhere")
    assert ended.returncode == 1 and "elsewhere is no folder." in ended.stderr
    result = read_result(tmp_path / "run")
    assert result and result["ok"], "the old figures are untouched"


def test_an_import_that_was_killed_is_made_again(tmp_path: Path) -> None:
    classes_of(tmp_path / "in", "cat", "dog", count=150)
    stored = tmp_path / "run" / "images"
    process = subprocess.Popen(
        [sys.executable, "-m", "training", "fit", "--images", "in", "--out", "run"],
        env=environment(tmp_path), cwd=tmp_path, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (stored.is_dir() and len(list(stored.iterdir())) > 5):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    if (tmp_path / "run" / "manifest.jsonl").exists():
        pytest.skip("this machine had imported everything before it could be killed")
    shutil.rmtree(tmp_path / "in" / "dog")
    classes_of(tmp_path / "in", "cat", "fox")
    fit(tmp_path)
    _, rows, _ = import_folder(tmp_path / "in", tmp_path / "fresh")
    assert read_manifest(tmp_path / "run") == rows
    assert {f"images/{path.name}" for path in stored.iterdir()} == {row.file for row in rows}


def test_names_that_are_not_utf_8_go_through_every_file_and_the_terminal(tmp_path: Path) -> None:
    folder = classes_of(tmp_path / "in", BAD_NAME, "dog")
    (folder / BAD_NAME / os.fsdecode(b"\xff.jpg")).write_bytes(b"broken")
    for flags in ((), ("--json",)):
        ended = fit(tmp_path, *flags)
        assert ended.returncode == 1 and "“none” is not a backbone" in ended.stderr
        shutil.rmtree(tmp_path / "run", ignore_errors=bool(flags))
        if flags:
            assert json.loads(ended.stdout.splitlines()[0]) == {
                "left_out": {"b\ufffdume/\ufffd.jpg": "not a picture that can be read"}
            }
        else:
            assert "b\ufffdume/\ufffd.jpg: not a picture" in ended.stderr


def test_a_class_name_that_is_not_utf_8_stands_in_the_configuration(tmp_path: Path) -> None:
    classes_of(tmp_path / "in", BAD_NAME, "dog")
    fit(tmp_path)
    assert [label.name for label in read_config(tmp_path / "run").classes] == ["b\ufffdume", "dog"]


def test_the_run_folder_is_not_made_of_the_pictures_folder_itself(tmp_path: Path) -> None:
    folder = classes_of(tmp_path / "in", "cat", "dog")
    for out in (folder, folder.parent):
        images = folder if out == folder else out / "images"
        if images != folder:
            folder.rename(images)
        ended = run_training("fit", "--images", images, "--out", out, home=tmp_path)
        assert ended.returncode == 1
        assert "The run folder is the folder of pictures itself." in ended.stderr
        assert len(list(images.rglob("*.png"))) == 4
