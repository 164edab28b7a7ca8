"""`python -m training predict`, and what all commands print, on any console and model."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import onnx
import pytest
from PIL import Image

from tests.training import example_models
from training.export.model_folder import export_model
from training.predict import ModelError, open_explainer, open_model

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("猫", "Käse", "plant")
CONSOLES = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = example_models.network("efficientnet_lite0", NAMES)
    caches = tmp_path_factory.getbasetemp() / "caches"
    made = example_models.trained(network, caches, NAMES)
    folder = tmp_path_factory.mktemp("doors") / "model"
    export_model(made, folder, [], lambda done, total: None)
    return folder


def run(out: Path, *arguments: object, **variables: str) -> tuple[int, bytes, bytes]:
    """Run a command with its output led into a file; exit code, output, errors."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    with out.open("wb") as file:
        ended = subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=environment, cwd=ROOT, stdout=file, stderr=subprocess.PIPE, timeout=120,
        )  # fmt: skip
    assert b"Traceback" not in ended.stderr and b"codec" not in ended.stderr, ended.stderr
    return ended.returncode, out.read_bytes(), ended.stderr


@pytest.mark.parametrize("variables", CONSOLES.values(), ids=CONSOLES)
def test_predictions_are_printed_on_any_console(
    model: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "猫.png")
    latin1 = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xe4r.png"))
    shutil.copyfile(tmp_path / "猫.png", latin1)
    given = [tmp_path / "猫.png", latin1, tmp_path / "漢.png"]
    out = tmp_path / "out"
    code, shown, said = run(out, "-m", "training", "predict", model, *given, **variables)
    assert code == 1 and b"b?r.png" in shown.replace(b"\n", b"") and said.count(b".png: ") == 1
    code, shown, _ = run(out, "-m", "training", "predict", model, *given, "--json", **variables)
    answers = [json.loads(line) for line in shown.decode("ascii").splitlines()]
    assert code == 1 and [set(answer["probabilities"]) for answer in answers] == [set(NAMES)] * 2
    explained = [latin1, "--explain", tmp_path / "maps"]
    assert run(out, "-m", "training", "predict", model, *explained, **variables)[0] == 0


def test_a_narrow_terminal_cuts_no_answer_off(model: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    out = tmp_path / "out"
    code, shown, _ = run(out, "-m", "training", "predict", model, picture, COLUMNS="20")
    first, *shares = shown.decode().splitlines()
    assert code == 0 and first.startswith(f"{picture}: ")
    assert [line.split()[1] for line in shares] == list(NAMES)


def test_a_reader_that_has_enough_and_a_closed_input_end_quietly(
    model: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    command = [sys.executable, "-m", "training", "predict", str(model)]
    shell = f"{shlex.join([*command, str(picture), '--json'])} | true"
    ended = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, check=False)
    assert ended.stderr == b""
    shell = f"{shlex.join([*command, '-'])} <&-"
    ended = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == b"The list on standard input cannot be read: it is closed.\n"


@pytest.mark.parametrize("variables", CONSOLES.values(), ids=CONSOLES)
def test_other_commands_print_on_any_console(tmp_path: Path, variables: dict[str, str]) -> None:
    out = tmp_path / "out"
    (tmp_path / "list").write_text("http://[猫\n", "utf-8")
    download = ["download", tmp_path / "list", "--out", tmp_path / "漢"]
    code, shown, _ = run(out, "-m", "scraping", *download, "--json", **variables)
    assert code == 0 and all(json.loads(line) for line in shown.decode("ascii").splitlines())
    pictures = tmp_path / "classes"
    (pictures / "猫").mkdir(parents=True)
    (pictures / "猫" / "漢.png").write_bytes(b"bad")
    fit = ["-m", "training", "fit", "--images", pictures, "--out", tmp_path / "run"]
    assert run(out, *fit, **variables)[0] == 1
    assert run(out, *fit, "--json", **variables)[0] == 1
    for command in (["-m", "training", "--help"], ["-m", "scraping", "--help"]):
        assert run(out, *command, **variables)[0] == 0
    assert run(out, "manage.py", "check_sources", "漢", "--json", **variables)[0] == 1


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_a_model_is_found_in_folders_zips_and_through_links(model: Path, tmp_path: Path) -> None:
    data = (model / "model.onnx").read_bytes()
    deep = {"../../model.onnx": b"", "a/b/c/d/model.onnx": b"", "x/model.onnx": data}
    (tmp_path / "link").symlink_to(model)
    (tmp_path / "link.zip").symlink_to(zipped(tmp_path / "deep.zip", deep))
    for path in (model, tmp_path / "link", tmp_path / "link.zip"):
        assert open_model(path, threads=1).classes == NAMES
    assert not (tmp_path.parent.parent / "model.onnx").exists()


def test_a_model_that_cannot_be_used_is_refused_in_a_sentence(model: Path, tmp_path: Path) -> None:
    whole = onnx.load(model / "model.onnx")
    whole.ir_version = 99
    (tmp_path / "new").mkdir()
    onnx.save(whole, tmp_path / "new" / "model.onnx")
    whole.ir_version = 8
    for entry in whole.metadata_props:
        if entry.key == "classes":
            entry.value = '"abc"'
    (tmp_path / "odd").mkdir()
    onnx.save(whole, tmp_path / "odd" / "model.onnx")
    data = (model / "model.onnx").read_bytes()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "model.onnx").write_bytes(data[: len(data) // 2])
    bomb = zipped(tmp_path / "bomb.zip", {"model.onnx": bytes(1_100_000_000)})
    refused = {
        tmp_path / "new": "needs a newer onnxruntime",
        tmp_path / "odd": "damaged or not Picaisso's",
        tmp_path / "torn": "damaged or not Picaisso's",
        bomb: "larger than any model",
        zipped(tmp_path / "empty.zip", {}): "has no model.onnx",
        tmp_path / "nothing": "is neither a finished run folder nor",
    }
    for path, words in refused.items():
        with pytest.raises(ModelError, match=words):
            open_model(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("classes", '["a", "a"]'), ("classes", "[" * 100_000), ("reject", "NaN"), ("reject", '"x"')],
)
def test_names_and_a_limit_that_no_model_has_are_refused(
    key: str, value: str, model: Path, tmp_path: Path
) -> None:
    changed = onnx.load(model / "model.onnx")
    for entry in changed.metadata_props:
        if entry.key == key:
            entry.value = value
    onnx.save(changed, tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="damaged or not Picaisso's"):
        open_model(tmp_path)


def test_a_zip_is_read_past_what_macos_packs_beside_and_an_incomplete_one_is_said(
    model: Path, tmp_path: Path
) -> None:
    data = (model / "model.onnx").read_bytes()
    packed = {"__MACOSX/model.onnx": b"junk", "a/long/way/model.onnx": data}
    whole = zipped(tmp_path / "whole.zip", packed)
    assert open_model(whole, threads=1).classes == NAMES
    torn = tmp_path / "torn.zip"
    torn.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(ModelError, match="is an incomplete zip: download or copy it again"):
        open_model(torn)


@pytest.mark.parametrize("share", [0, -1, 1e9, 1e-9, float("nan"), 10**400, "x", None])
def test_explanations_want_a_configuration_that_can_be_one(
    share: object, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    config = {"pretrained_cfg": {"crop_pct": share}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="damaged or not Picaisso's"):
        open_explainer(folder, tmp_path / "maps")


def test_an_empty_list_and_an_empty_folder_are_said(model: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("\n# none\n")
    (tmp_path / "empty").mkdir()
    command = ["-m", "training", "predict", model]
    code, _, said = run(tmp_path / "out", *command, "--list", tmp_path / "list")
    assert code == 1 and said.decode().strip() == "The list names no picture."
    code, _, said = run(tmp_path / "out", *command, tmp_path / "empty")
    assert code == 1 and b"a folder without a picture that can be read" in said
