"""A recipe is replayed: what is the same, what changed, what is gone, and what a stranger's recipe
may hold.
"""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from scraping import ConfigError
from scraping.__main__ import main
from scraping.collect import collect
from scraping.download import RetrySettings
from scraping.download_list import DownloadSettings
from scraping.net.http import FetchSettings
from scraping.recipe import (
    FORMAT,
    MAX_BYTES,
    RecipeClass,
    RecipeImage,
    read_recipe,
    recipe_document,
)
from scraping.replay import prepare, replay
from scraping.screening.screen import ScreenSettings
from tests.replicas.pictures import jpeg
from tests.replicas.pictures_host import PictureHost
from tests.scraping.collect_folder import Listing, classes, configuration, listed
from tests.scraping.conftest import environment, repository, wait_until
from training.duplicates import difference_hash
from training.run_folder import read_manifest

CLASSES = [RecipeClass("c001", "thing", "thing"), RecipeClass("c002", "other", "other things")]


def row(url: str, number: int, **changes: object) -> RecipeImage:
    """The row of the host's picture of this number, as a dataset's recipe has it."""
    data = jpeg(number)
    with Image.open(io.BytesIO(data)) as image:
        size = image.size
        known = difference_hash(image.convert("RGB"))
    values: RecipeImage = {
        "class_id": "c001",
        "split": "train",
        "group": None,
        "source": "openverse",
        "query": "thing",
        "image_url": url,
        "page_url": "https://pages.example/1",
        "sha256": "0" * 64,
        "source_sha256": hashlib.sha256(data).hexdigest(),
        "dhash": f"{known:016x}",
        "width": size[0],
        "height": size[1],
        "credit": {"title": "A thing", "creator": "Ada", "license": "cc0"},
    }
    return values | changes


def written(folder: Path, rows: list[object], **changes: object) -> Path:
    document = recipe_document(CLASSES, rows, (64, 1024), 1) | changes
    path = folder / "recipe.json"
    path.write_text(json.dumps(document))
    return path


def replayed(recipe: Path, out: Path, host: PictureHost, *flags: str) -> int:
    allowed = ("--allow-private-host", host.host)
    return main(["replay", str(recipe), "--out", str(out), *allowed, "--json", *flags])


def records(out: Path) -> dict[str, dict]:
    lines = (out / "images.jsonl").read_text().splitlines()
    return {record["image_url"]: record for record in map(json.loads, lines)}


def test_each_picture_is_the_same_stored_anew_changed_gone_or_refused(tmp_path, capsys):
    with PictureHost() as host:
        with Image.open(io.BytesIO(jpeg(2))) as image:
            again = io.BytesIO()
            image.resize((image.width * 2, image.height * 2)).save(again, "JPEG", quality=60)
        anew = host.add("/anew.jpg", again.getvalue())
        changed = host.add("/changed.jpg", jpeg(99))
        rows = [
            row(host.picture_url(1), 1, split="test"),
            row(anew, 2),
            row(changed, 3),
            row(f"{host.url}/gone", 4),
            row(f"{host.url}/html", 5),
            row(f"{host.url}/noai", 2),
            row("http://127.0.0.1:9/x.jpg", 6),
            row("", 7, source="own"),
            row("", 8, source="upload"),
            row(host.picture_url(9), 9, class_id="c009"),
        ]
        recipe = written(tmp_path, rows)
        assert replayed(recipe, tmp_path / "out", host) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["sentence"] == (
            "2 of 10 the same (1 of them the same picture, stored anew), 2 gone, 1 changed, 2 may "
            "not be taken, 2 cannot be fetched: whoever made the dataset supplied them, 1 "
            "malformed in the recipe."
        )
        assert result == json.loads((tmp_path / "out" / "result.json").read_text())
        assert result["malformed"] == {"10": "it is of no class of the recipe"}
        found = records(tmp_path / "out")
        verdicts = [found[entry["image_url"]]["verdict"] for entry in rows[:7]]
        assert verdicts == [
            *("same", "stored_anew", "changed", "gone", "gone", "refused", "refused")
        ]
        kept = {record["file"] for record in found.values() if record["state"] == "kept"}
        assert kept == {f"images/{path.name}" for path in (tmp_path / "out/images").iterdir()}
        assert len(list((tmp_path / "out/changed").iterdir())) == 1
        same = found[host.picture_url(1)]
        assert (same["split"], same["class"], same["creator"]) == ("test", "c001", "Ada")
        referers = {request.headers.get("Referer") for request in host.requests}
        assert referers <= {"https://pages.example/", "https://pages.example/1"}


def test_asked_again_it_fetches_only_what_may_have_come_back(tmp_path):
    with PictureHost() as host:
        changed = host.add("/changed.jpg", jpeg(99))
        rows = [row(host.picture_url(1), 1), row(changed, 3), row(f"{host.url}/flaky/9/503", 11)]
        recipe = prepare(written(tmp_path, rows), tmp_path / "out")
        fetching = FetchSettings(allowed_private_hosts=frozenset({host.host}))
        impatient = RetrySettings(times=0)
        settings = DownloadSettings(fetching, ScreenSettings(64), impatient)
        first = replay(recipe, tmp_path / "out", settings)
        assert first.sentence == "1 of 3 the same, 1 gone, 1 changed."
        before = len(host.requests)
        host.files["/flaky/9/503"] = jpeg(11)
        second = replay(recipe, tmp_path / "out", settings)
        assert second.sentence == "2 of 3 the same, 0 gone, 1 changed."
        assert [request.path for request in host.requests[before:]] == ["/flaky/9/503"]


def test_a_killed_replay_goes_on_where_it_was(tmp_path):
    with PictureHost(pace=0.05) as host:
        rows = [row(host.picture_url(number), number) for number in range(1, 41)]
        recipe = written(tmp_path, rows)
        out = tmp_path / "out"
        command = [sys.executable, "-m", "scraping", "replay", str(recipe), "--out", str(out)]
        command += ["--allow-private-host", host.host]
        given = {"cwd": repository(), "env": environment(), "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, **given)
        log = out / "images.jsonl"
        wait_until(lambda: log.exists() and len(log.read_text().splitlines()) > 8)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        decided = set(records(out))
        before = len(host.requests)
        ended = subprocess.run(command, capture_output=True, cwd=repository(), env=environment())
        assert ended.stdout.decode() == "40 of 40 the same, 0 gone, 0 changed.\n", ended.stderr
        again = {host.url + request.path for request in host.requests[before:]}
        assert len(decided) > 8 and not again & decided


def test_control_c_prints_one_line(tmp_path):
    with PictureHost(pace=0.2) as host:
        rows = [row(host.picture_url(number), number) for number in range(1, 41)]
        recipe = written(tmp_path, rows)
        command = [sys.executable, "-m", "scraping", "replay", str(recipe)]
        command += ["--out", str(tmp_path / "out"), "--allow-private-host", host.host]
        given = {"cwd": repository(), "env": environment(), "text": True}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **given
        )
        wait_until(lambda: len(host.requests) > 2)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 130
        assert errors == "Stopped before the end; the same command goes on from here.\n"


def test_what_was_collected_is_replayed_and_trains_to_the_split_of_its_recipe(tmp_path, capsys):
    with PictureHost() as host:
        found = [listed(host.picture_url(number)) for number in range(1, 21)]
        items = {"a": found[:10], "b": found[10:]}
        with Listing(items) as site:
            known = {"openverse": site}
            config = configuration(known, [host], sources=["openverse"], classes=classes("a", "b"))
            collect(tmp_path / "collected", config)
        recipe = json.loads((tmp_path / "collected" / "recipe.json").read_text())
        for number, image in enumerate(recipe["images"]):
            image["split"] = ("train", "train", "val", "test", "train")[number % 5]
        path = tmp_path / "recipe.json"
        path.write_text(json.dumps(recipe))
        assert replayed(path, tmp_path / "again", host) == 0
        result = json.loads(capsys.readouterr().out)
    assert result["sentence"] == "20 of 20 the same, 0 gone, 0 changed."
    command = [sys.executable, "-m", "training", "fit", "--images", str(tmp_path / "again")]
    command += ["--out", str(tmp_path / "run")]
    # Refused right after the folder is read: what a training costs is paid elsewhere.
    given = environment(PICAISSO_BACKBONE="none")
    subprocess.run(command, env=given, cwd=tmp_path, capture_output=True, check=False)
    rows = read_manifest(tmp_path / "run")
    wanted = {image["sha256"][:16]: image["split"] for image in recipe["images"]}
    assert {Path(row.file).stem: row.split for row in rows} == wanted
    assert {row.source for row in rows} == {"openverse"}


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    with PictureHost() as host:
        recipe = written(tmp_path, [row(host.picture_url(1), 1)])
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "mine.txt").write_text("mine")
        assert replayed(recipe, tmp_path / "full", host) == 1
        assert "is not empty" in capsys.readouterr().err
        assert replayed(recipe, tmp_path / "out", host) == 0
        other = written(tmp_path, [row(host.picture_url(2), 2)])
        assert replayed(other, tmp_path / "out", host) == 1
        assert "another recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is no recipe"),
        (b'{"format": "other"}', "is no recipe"),
        ({"format_version": 2}, "another version"),
        ({"classes": []}, "must name 1 to 1,000 classes"),
        ({"classes": [{"id": "../..", "name": "x"}]}, "Class 1 of recipe.json has no usable id"),
        (
            {"classes": [{"id": "c001", "name": "\x00"}]},
            "Class 1 of recipe.json has no usable name",
        ),
        ({"classes": [{"id": "a", "name": "x"}] * 2}, "two classes with the id a"),
        ({"images": {}}, "names no picture"),
        ({"images": [0] * 200_001}, "names more than 200,000 pictures"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_sentence(tmp_path, capsys, content, words):
    path = tmp_path / "recipe.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        written(tmp_path, [row("https://a.example/1.jpg", 1)], **content)
    assert main(["replay", str(path), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and not said.out
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "recipe.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ConfigError, match="larger than 128 MiB"):
        read_recipe(path)


def test_every_bad_row_has_its_reason(tmp_path):
    good = "https://a.example/1.jpg"
    rows = [
        row(good, 1),
        "no row",
        row(good, 2),
        row("file:///etc/passwd", 3),
        row("https://a.example/4.jpg", 4, split="../test"),
        row("https://a.example/5.jpg", 5, sha256="x", source_sha256=7),
        row("https://a.example/6.jpg", 6, class_id=["c001"]),
        row("https://a.example/7.jpg", 7, dhash="zz", width=10**30, height=-1, credit="?"),
    ]
    recipe = read_recipe(written(tmp_path, rows, min_side=True, max_side=10**9))
    assert recipe.rows == 8 and (recipe.min_side, recipe.max_side) == (None, None)
    assert recipe.unusable == {
        2: "it is of no class of the recipe",
        3: "its address stands in the recipe twice",
        4: "not a web address",
        5: "its split is none of train, val and test",
        6: "it has no digest",
        7: "it is of no class of the recipe",
    }
    odd = recipe.images[1]
    assert (odd.difference_hash, odd.shape, odd.credit["title"]) == (None, None, "")
    assert FORMAT == "picaisso-recipe", "readers elsewhere know it by this name"
