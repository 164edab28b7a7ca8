"""The commands as a person runs them, in processes of their own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from PIL import Image

from tests.training.conftest import LoopbackServer
from tests.training.test_run import measured, read
from training.__main__ import ListError, find_images, load_image, main
from training.predict import ModelError, _delivered_network, _open_torch, open_model, read_image
from training.run_folder import read_manifest, write_manifest

ROOT = Path(__file__).resolve().parents[2]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Without CI, under which ONNX Runtime keeps quiet anyway, and with a home that shows what is
    written there.
    """
    kept = {
        name: value for name, value in os.environ.items() if name != "CI" and "PICAISSO" not in name
    }
    return {
        **kept,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "PYTHONPATH": str(ROOT),
        **more,
    }


def run(*arguments: object, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command,
        env=environment(home, **more),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )


def run_training(*arguments: object, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "training", *arguments, home=home, **more)


def start(folder: Path, home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "training", "fit", str(folder), "--json"]
    return subprocess.Popen(
        command,
        env=environment(home),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(stream: IO[str] | None, stage: str, done: int) -> None:
    assert stream is not None
    for line in stream:
        row = json.loads(line)
        if row["stage"] == stage and row["done"] >= done:
            return
    raise AssertionError(f"the run ended before stage {stage}")


@pytest.mark.parametrize(
    "module",
    [
        "training",
        "training.run_folder",
        "training.duplicates",
        "training.predict",
        "training.__main__",
    ],
)
def test_these_modules_load_neither_torch_nor_django(module: str, tmp_path: Path) -> None:
    heavy = ("torch", "django", "sklearn", "onnx")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    assert run("-c", code, home=tmp_path).stdout.strip() == "[]"


def test_a_run_that_is_stopped_and_killed_goes_on_and_ends_the_same(
    trained_run: Path, untrained_run: Path, tmp_path: Path
) -> None:
    process = start(untrained_run, tmp_path)
    wait_for(process.stderr, "features", 16)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1 and "stopped" in errors and "Traceback" not in errors
    assert read(untrained_run / "result.json")["error"]["retry"] is True
    for stage, done in (("features", 32), ("export", 2)):
        process = start(untrained_run, tmp_path)
        wait_for(process.stderr, stage, done)
        process.kill()
        process.communicate(timeout=30)
        assert not (untrained_run / "result.json").exists()
        assert not (untrained_run / "model").exists()
    process = start(untrained_run, tmp_path)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and json.loads(output.splitlines()[-1])["ok"] is True
    assert measured(untrained_run) == measured(trained_run)
    assert read_manifest(untrained_run) == read_manifest(trained_run)
    assert not [path for path in untrained_run.iterdir() if path.name.startswith(".")]


def test_a_folder_of_pictures_is_refused_with_one_sentence_when_a_class_is_too_small(
    photographs: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    for name, count in (("mammal", 12), ("plant", 2)):
        (few / name).mkdir(parents=True)
        for path in sorted((photographs / name).iterdir())[:count]:
            shutil.copy(path, few / name)
    (few / "mammal" / "broken.jpg").write_bytes(b"broken")
    out = tmp_path / "run"
    backbone = {"PICAISSO_BACKBONE": "efficientnet_lite0"}
    ended = run_training("fit", "--images", few, "--out", out, "--json", home=tmp_path, **backbone)
    assert ended.returncode == 1
    assert (
        ended.stderr.strip().splitlines()[-1].startswith("The class “plant” has 2 usable pictures")
    )
    assert json.loads(ended.stdout.splitlines()[0]) == {
        "left_out": {"mammal/broken.jpg": "not a picture that can be read"}
    }
    assert "mammal/broken.jpg" in (tmp_path / "run" / "left_out.csv").read_text()
    assert read(tmp_path / "run" / "result.json")["error"]["stage"] == "split"
    assert read(tmp_path / "run" / "config.json")["backbone"] == "efficientnet_lite0"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("fit",),
        ("fit", "a", "--images", "b"),
        ("fit", "a", "--seed", "x"),
        ("fit", "a", "--backbone", "vgg"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    ended = run_training(*arguments, home=tmp_path)
    assert ended.returncode == 2 and "usage: python -m training" in ended.stderr


def test_settings_come_from_the_env_file_and_the_environment_wins(
    untrained_run: Path, tmp_path: Path
) -> None:
    config = read(untrained_run / "config.json")
    del config["backbone"]
    (untrained_run / "config.json").write_text(json.dumps(config))
    (tmp_path / ".env").write_text('# mine\nPICAISSO_BACKBONE="from the file"\n')
    for more, words in (
        ({}, "“from the file” is not"),
        ({"PICAISSO_BACKBONE": "set"}, "“set” is not"),
    ):
        ended = run_training("fit", untrained_run, home=tmp_path, **more)
        assert ended.returncode == 1 and words in ended.stderr


def test_a_folder_that_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    ended = run_training("fit", tmp_path / "nothing", home=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"The run folder {tmp_path / 'nothing'} does not exist.")
    assert not (tmp_path / "nothing").exists()


def test_nothing_is_written_into_a_folder_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    ended = run_training("fit", tmp_path / "pictures", home=tmp_path)
    assert ended.returncode == 1
    assert "pictures is no run folder" in ended.stderr and "fit --images" in ended.stderr
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["cat"]


@pytest.mark.parametrize("flag", ["--threads", "--seed"])
def test_a_number_below_zero_is_wrong_usage(flag: str, tmp_path: Path) -> None:
    ended = run_training("fit", tmp_path, flag, "-1", home=tmp_path)
    assert ended.returncode == 2
    assert f"argument {flag}: must be a whole number, 0 or more, not -1" in ended.stderr


def test_the_delivered_predict_proves_itself_without_picaisso(
    trained_run: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained_run / "model", tmp_path / "unzipped")
    command = [sys.executable, "-I", str(folder / "predict.py")]
    home = tmp_path / "home"
    home.mkdir()
    check = subprocess.run(
        [*command, "--check"], env=environment(home), capture_output=True, text=True
    )
    assert check.returncode == 0, check.stderr
    assert check.stdout.startswith("6 pictures") and check.stdout.strip().endswith("same")
    assert not list(home.rglob("*")), "ONNX Runtime wrote usage data"
    row = next(
        row for row in read_manifest(trained_run) if row.split == "test" and row.class_id == "c002"
    )
    answer = subprocess.run(
        [*command, str(trained_run / row.file)],
        env=environment(home),
        capture_output=True,
        text=True,
    )
    name, first, *_ = answer.stdout.splitlines()
    assert name.endswith(".jpg: plant") and first.endswith("%  plant")
    Image.effect_noise((300, 200), 90).save(tmp_path / "stranger.png")
    answer = subprocess.run(
        [*command, str(tmp_path / "stranger.png")],
        env=environment(home),
        capture_output=True,
        text=True,
    )
    assert answer.stdout.splitlines()[0].endswith("stranger.png: none of these")
    reference = read(folder / "reference_predictions.json")
    for changed in ("probabilities", "novelty"):
        other = json.loads(json.dumps(reference))
        other[0][changed] = np.add(other[0][changed], 0.01).tolist()
        (folder / "reference_predictions.json").write_text(json.dumps(other))
        check = subprocess.run(
            [*command, "--check"], env=environment(home), capture_output=True, text=True
        )
        assert check.returncode == 1 and "DIFFERENT" in check.stdout
    shown = subprocess.run(
        [*command, "--help"], env=environment(home), capture_output=True, text=True
    )
    assert shown.returncode == 0 and "python predict.py PICTURE_OR_URL" in shown.stdout


def test_predict_reads_run_folders_model_folders_and_zips_and_files_folders_and_urls(
    trained_run: Path, tmp_path: Path, server: LoopbackServer
) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for path in (trained_run / "model").iterdir():
            archive.write(path, f"picaisso-mammal-plant-model/{path.name}")
    picture = trained_run / next(r.file for r in read_manifest(trained_run) if r.class_id == "c001")
    server.files["/a%20picture"] = picture.read_bytes()
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.open(picture).save(folder / "one.png")
    (folder / "two.jpg").write_bytes(picture.read_bytes())
    answers = []
    for model, location in (
        (trained_run, picture),
        (trained_run / "model", folder),
        (tmp_path / "model.zip", f"{server.url}/a%20picture"),
    ):
        ended = run_training("predict", model, location, "--json", home=tmp_path)
        assert ended.returncode == 0, ended.stderr
        answers += [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(answers) == 4
    assert all(answer["label"] == "mammal" and answer["known"] for answer in answers)
    assert all(abs(sum(answer["probabilities"].values()) - 1) < 1e-4 for answer in answers)
    assert (
        len(
            {(round(answer["probabilities"]["mammal"], 4), answer["novelty"]) for answer in answers}
        )
        == 1
    )


def test_predict_names_what_it_cannot_read_and_goes_on(trained_run: Path, tmp_path: Path) -> None:
    good = trained_run / read_manifest(trained_run)[0].file
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    ended = run_training(
        "predict", trained_run, tmp_path / "bad.jpg", "none.jpg", good, home=tmp_path
    )
    assert ended.returncode == 1
    assert "bad.jpg: not a picture that can be read" in ended.stderr
    assert "none.jpg: cannot be read (No such file or directory)" in ended.stderr
    assert "mammal" in ended.stdout


def test_predict_without_a_model_says_so(tmp_path: Path) -> None:
    ended = run_training("predict", tmp_path, "a.jpg", home=tmp_path)
    assert ended.returncode == 1
    assert "is neither a finished run folder nor a model folder or zip" in ended.stderr


def damaged_zip(path: Path, content: bytes = b"a" * 999) -> Path:
    """A zip with a model.onnx whose content is not what its checksum says."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.onnx", content)
    path.write_bytes(path.read_bytes().replace(content, b"b" * len(content)))
    return path


def junk_models(folder: Path) -> dict[str, Path]:
    """Paths that hold no model, by what is wrong with them."""
    import onnx

    for name, data in (("junk", b"junk" * 99), ("empty", b"")):
        (folder / name).mkdir()
        (folder / name / "model.onnx").write_bytes(data)
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", ["x"], ["y"])], "g", values[:1], values[1:]
    )
    foreign = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    (folder / "foreign").mkdir()
    onnx.save(foreign, folder / "foreign" / "model.onnx")
    (folder / "no.zip").write_bytes(b"no zip")
    (folder / "end.zip").write_bytes(b"PK\x05\x06" + b"\x09" * 16 + b"\0\0")
    (folder / "folder" / "model.onnx").mkdir(parents=True)
    return {
        "a model.onnx that is damaged or not Picaisso's": folder / "junk",
        "model.onnx that is damaged or not Picaisso's": folder / "empty",
        "onnx that is damaged or not Picaisso's": folder / "foreign",
        "Bad CRC-32": damaged_zip(folder / "crc.zip"),
        "neither a finished run folder nor": folder / "no.zip",
        "model.onnx of": folder / "end.zip",
        "nor a model folder or zip": folder / "folder",
    }


def test_predict_says_in_one_line_what_is_wrong_with_a_model(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, model in junk_models(tmp_path).items():
        assert main(["predict", str(model), "a.jpg"]) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert words in line, line


def test_a_torch_model_that_is_damaged_is_refused_in_words(
    trained_run: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained_run / "model", tmp_path / "model"))
    assert _delivered_network(folder)[0]["num_classes"] == 2
    damaged = {"model.safetensors": b"junk" * 99, "novelty.safetensors": b"", "config.json": b"{}"}
    for name, data in (*damaged.items(), ("config.json", b"{")):
        (folder / name).write_bytes(data)
        with pytest.raises(ModelError, match=rf"{name} that is damaged"):
            _delivered_network(folder)
        (folder / "SHA256SUMS").unlink()
        with pytest.raises(
            ModelError,
            match=r"config.json, model.safetensors or novelty.safetensors that is damaged",
        ):
            _delivered_network(folder)
        for restored in (name, "SHA256SUMS"):
            shutil.copyfile(trained_run / "model" / restored, folder / restored)


def test_the_torch_path_answers_as_the_onnx_file_does(trained_run: Path) -> None:
    one = open_model(trained_run, threads=1)
    other = _open_torch(trained_run, "cpu")
    assert (one.classes, one.reject) == (other.classes, other.reject)
    for row in read_manifest(trained_run)[:2]:
        picture = read_image(trained_run / row.file)
        first = one.predict(picture)
        second = other.predict(picture)
        assert first.known == second.known and first.novelty == pytest.approx(
            second.novelty, abs=1e-3
        )
        assert first.probabilities == pytest.approx(second.probabilities, abs=1e-3)
        assert np.allclose(first.outputs.cam, second.outputs.cam, atol=1e-2)
        assert np.allclose(first.outputs.embedding, second.outputs.embedding, atol=1e-3)


def test_an_address_that_is_none_is_named_and_not_fatal() -> None:
    for address in ("http://127.0.0.1:1/a b", "http://[", "https://127.0.0.1:none/"):
        (location,) = find_images([address])
        image, reason = load_image(location)
        assert location == address and image is None and reason.startswith("cannot be read")


def test_an_image_behind_a_url_is_read_up_to_30_megabytes(
    server: LoopbackServer, trained_run: Path
) -> None:
    file = trained_run / read_manifest(trained_run)[0].file
    server.files["/image.jpg"] = file.read_bytes()
    server.files["/large.jpg"] = file.read_bytes() + bytes(30_000_000)
    image, reason = load_image(f"{server.url}/image.jpg")
    assert image and image.tobytes() == read_image(file).tobytes() and reason == ""
    assert load_image(f"{server.url}/large.jpg") == (None, "larger than 30 MB")
    assert load_image(f"{server.url}/none.jpg") == (None, "the server answered 404")


def test_pictures_come_from_files_folders_and_lists_in_the_order_given(tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/c.webp"):
        (tmp_path / "folder" / name).touch()
    folder = str(tmp_path / "folder")
    inside = [str(tmp_path / "folder" / name) for name in ("a.PNG", "b.jpg", "deep/c.webp")]
    (tmp_path / "list.txt").write_text(
        f"\n  HTTP://one.example/p.jpg \n{folder}\n\n", encoding="utf-8"
    )
    listed = ["HTTP://one.example/p.jpg", *inside]
    named = f"@{tmp_path / 'list.txt'}"
    assert find_images(["x.jpg", named, folder], [str(tmp_path / "list.txt")]) == [
        "x.jpg",
        *listed,
        *inside,
        *listed,
    ]
    with pytest.raises(ListError, match=r"^The list .*none cannot be read"):
        find_images(["@none"])


def test_a_list_comes_from_standard_input_too(trained_run: Path, tmp_path: Path) -> None:
    rows = read_manifest(trained_run)[:2]
    ended = subprocess.run(
        [sys.executable, "-m", "training", "predict", str(trained_run), "-", "--json"],
        input="".join(f"{trained_run / row.file}\n" for row in rows),
        env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    answers = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [answer["picture"] for answer in answers] == [
        str(trained_run / row.file) for row in rows
    ]


def test_predict_without_pictures_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["predict", "model"])
    assert ended.value.code == 2 and "give pictures" in capsys.readouterr().err


def test_answers_are_explained_with_a_map_and_the_nearest_training_pictures(
    trained_run: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = read_manifest(trained_run)
    learned = next(row for row in rows if row.split == "train" and row.class_id == "c002")
    (tmp_path / "other").mkdir()
    for file in ("picture.jpg", "other/picture.jpg"):
        shutil.copyfile(trained_run / learned.file, tmp_path / file)
    arguments = ["picture.jpg", "other", "--explain", "maps"]
    assert main(["predict", str(trained_run), *arguments, "--json"]) == 0
    answers = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [answer["map"] for answer in answers] == [
        str(Path("maps", f"picture{end}.png")) for end in ("", "-2")
    ]
    picture = Image.open("picture.jpg")
    explained = Image.open(answers[0]["map"])
    assert (
        explained.size == picture.size and explained.tobytes() != picture.convert("RGB").tobytes()
    )
    nearest = answers[0]["nearest"]
    assert (
        len(nearest) == 3 and nearest[0]["file"] == learned.file and nearest[0]["label"] == "plant"
    )
    assert (
        nearest[0]["cosine"] == pytest.approx(1, abs=1e-2)
        and nearest[0]["cosine"] > nearest[1]["cosine"]
    )
    assert main(["predict", str(trained_run), *arguments]) == 0
    assert f"like {learned.file} (plant, " in capfd.readouterr().out
    assert main(["predict", str(trained_run / "model"), *arguments, "--json"]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[0])["nearest"] == [], (
        "a model alone has no pictures"
    )
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [
        "picture-2.png",
        "picture.png",
    ]


def test_a_progress_bar_on_the_terminal_leaves_the_answers_alone(
    trained_run: Path, tmp_path: Path
) -> None:
    import pty

    ours, theirs = pty.openpty()
    pictures = [str(trained_run / row.file) for row in read_manifest(trained_run)[:3]]
    ended = subprocess.run(
        [sys.executable, "-m", "training", "predict", str(trained_run), *pictures, "--json"],
        env=environment(tmp_path, TERM="xterm"), stdout=subprocess.PIPE, stderr=theirs, text=True,
    )  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "Classifying pictures" in shown
    assert [json.loads(line)["picture"] for line in ended.stdout.splitlines()] == pictures


def test_square_brackets_in_names_are_no_markup(
    trained_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnx

    folder = Path(shutil.copytree(trained_run / "model", tmp_path / "[bold]model"))
    model = onnx.load(folder / "model.onnx")
    onnx.helper.set_model_props(
        model, {"classes": '["[b]a", "[/x]"]', "reject": "9", "backbone": "", "temperature": "1"}
    )
    onnx.save(model, folder / "model.onnx")
    (folder / "SHA256SUMS").unlink()  # they are those of the model as it was delivered
    picture = tmp_path / "[red].jpg"
    shutil.copyfile(trained_run / read_manifest(trained_run)[0].file, picture)
    assert main(["predict", str(folder), str(picture)]) == 0
    shown = capfd.readouterr().out
    assert "[b]a" in shown and "[/x]" in shown and "[red]" in "".join(shown.split())


def test_an_out_folder_that_cannot_be_written_is_named_in_one_line(
    photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = run_training(
        "fit", "--images", photographs, "--out", tmp_path / "file" / "run", home=tmp_path
    )
    (line,) = ended.stderr.splitlines()
    assert (
        ended.returncode == 1 and line.startswith("The disk refused") and "Not a directory" in line
    )


@pytest.mark.parametrize("name", ["config.json", "manifest.jsonl", "progress.jsonl", "result.json"])
def test_a_run_folder_that_cannot_be_read_or_written_is_named_in_one_line(
    untrained_run: Path, tmp_path: Path, name: str
) -> None:
    (untrained_run / name).unlink(missing_ok=True)
    (untrained_run / name).mkdir()
    ended = run_training("fit", untrained_run, "--json", home=tmp_path)
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 1 and name in line and str(tmp_path) not in line
    if name != "result.json":
        assert read(untrained_run / "result.json")["ok"] is False


def test_a_finished_run_without_sensible_metrics_is_named_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text('{"classes": []}')
    (folder / "result.json").write_text('{"ok": true, "seconds": {}, "notices": []}')
    (folder / "metrics.json").write_text("{}")
    ended = run_training("fit", folder, "--json", home=tmp_path)
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 1 and line.lower().count("metrics.json") == 1


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_budget_that_is_no_time_is_wrong_usage(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fit", "run", f"--time-budget={value}"])
    assert ended.value.code == 2
    assert (
        f"must be a number of seconds above 0, not {value}"
        in capsys.readouterr().err.splitlines()[-1]
    )


def test_the_data_folder_is_given_by_flag_or_environment(
    untrained_run: Path, tmp_path: Path
) -> None:
    rows = read_manifest(untrained_run)
    config = read(untrained_run / "config.json")
    del config["weights_cache"]
    for flags, folder in (([], "by environment"), (["--data-dir", "by flag"], "by flag")):
        (untrained_run / "config.json").write_text(json.dumps(config))
        write_manifest(
            untrained_run, rows[:1]
        )  # too few, so that it ends right after the configuration
        run_training(
            "fit", untrained_run, *flags, home=tmp_path, PICAISSO_DATA_DIR="by environment"
        )
        assert read(untrained_run / "config.json")["weights_cache"] == str(
            Path(folder, "cache", "weights")
        )


def test_pictures_are_scaled_as_flag_or_environment_say(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.new("RGB", (400, 300), name.replace("a", "red").replace("b", "blue")).save(
            tmp_path / "in" / name / "p.png"
        )
    command = ("fit", "--images", "in", "--device", "cuda", "--out")
    for out, flags, setting, width in (
        ("default", [], "", 400),
        ("environment", [], "200", 200),
        ("flag", ["--max-side", "100"], "200", 100),
    ):
        settings = {"PICAISSO_MAX_SIDE": setting, "PICAISSO_BACKBONE": "none"}
        ended = run_training(*command, out, *flags, home=tmp_path, **settings)
        assert ended.returncode == 1 and "“none” is not a backbone" in ended.stderr
        assert {
            Image.open(tmp_path / out / row.file).width for row in read_manifest(tmp_path / out)
        } == {width}


@pytest.mark.parametrize(
    ("arguments", "setting", "words"),
    [
        (
            ["--images", "in", "--out", "run", "--max-side", "63"],
            "",
            "must be 64 to 8192 pixels, not 63",
        ),
        (
            ["--images", "in", "--out", "run", "--max-side", "wide"],
            "",
            "must be a whole number of pixels, not wide",
        ),
        (
            ["--images", "in", "--out", "run"],
            "9000",
            "PICAISSO_MAX_SIDE must be 64 to 8192 pixels, not 9000",
        ),
        (["run", "--max-side", "500"], "", "--max-side is for --images"),
    ],
)
def test_a_longer_side_without_sense_is_wrong_usage(
    arguments: list[str], setting: str, words: str, tmp_path: Path
) -> None:
    ended = run_training("fit", *arguments, home=tmp_path, PICAISSO_MAX_SIDE=setting)
    assert ended.returncode == 2 and words in ended.stderr.splitlines()[-1]
