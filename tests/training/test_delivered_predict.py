"""The predict.py of a model folder, run as its receiver runs it: by itself, with other pythons."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.training import example_models
from tests.training.conftest import LoopbackServer
from training.export.model_card import PYTHON, REQUIREMENTS
from training.export.model_folder import export_model

NAMES = ("猫", "Käse", "plant")
NEWEST_FIRST = [f"3.{minor}" for minor in range(15, 8, -1)]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose classes have names in several scripts."""
    base = tmp_path_factory.mktemp("delivered")
    network = example_models.network("efficientnet_lite0", NAMES)
    # those of test_model_folder, so that the graph is traced once
    caches = tmp_path_factory.getbasetemp() / "caches"
    made = example_models.trained(network, caches, NAMES)
    export_model(made, base / "model", [], lambda done, total: None)
    return base / "model"


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "unzipped"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return save_picture(tmp_path / "good.jpg")


def save_picture(path: Path) -> Path:
    Image.fromarray(example_models.odd_pictures(5)[4]).save(path)
    return path


def predict(
    program: Path, *arguments: object, python: object = sys.executable, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    command = [str(python), "-I" if not variables else "-s", str(program), *map(str, arguments)]
    environment = {**os.environ, **variables}
    return subprocess.run(command, env=environment, capture_output=True, timeout=120)


def test_each_picture_has_one_line_good_or_bad(model: Path, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    torn = picture.read_bytes()[: picture.stat().st_size // 2]
    (tmp_path / "torn.jpg").write_bytes(torn)
    odd = save_picture(tmp_path / "-- odd 'name' %41 ä 猫.png")
    given = [tmp_path / "bad.jpg", picture, "none.jpg", tmp_path, tmp_path / "torn.jpg", odd]
    ended = predict(model / "predict.py", *given)
    lines = [line for line in ended.stdout.decode().splitlines() if not line.startswith(" ")]
    assert ended.returncode == 1 and not ended.stderr
    assert [line.rsplit(": ", 1)[0].split(": cannot")[0] for line in lines] == [*map(str, given)]
    is_refused = ["cannot be read" in line for line in lines]
    assert is_refused == [True, False, True, True, True, False]
    assert predict(model / "predict.py", picture, odd).returncode == 0


def test_the_model_is_found_through_a_symbolic_link(
    model: Path, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "classify").symlink_to(model / "predict.py")
    ended = predict(tmp_path / "bin" / "classify", picture)
    assert ended.returncode == 0 and ended.stdout.startswith(str(picture).encode())


@pytest.mark.parametrize("variables", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_addresses_are_read_as_people_paste_them(
    model: Path, picture: Path, server: LoopbackServer, variables: dict[str, str]
) -> None:
    for path in ("/k%C3%A4se.jpg", "/a%20b.jpg", "/100%25.jpg?size=%C3%BC"):
        server.files[path] = picture.read_bytes()
    loud = server.url.replace("http", "HTTP")
    given = [f"{loud}/käse.jpg", f"{server.url}/a b.jpg", f"{server.url}/100%25.jpg?size=ü#top"]
    ended = predict(model / "predict.py", *given, **variables)
    assert ended.returncode == 0, ended.stdout
    faulty = ["http://[", "http://", "https://..käse../x.jpg", f"{server.url}/none.jpg"]
    ended = predict(model / "predict.py", *faulty, given[1], **variables)
    assert ended.returncode == 1 and not ended.stderr
    assert ended.stdout.count(b"cannot be read") == 4 and b"404" in ended.stdout


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0"},
    ],
    ids=["cp1252", "ascii", "C"],
)
def test_a_console_that_lacks_characters_shows_others_for_them(
    model: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    picture = save_picture(tmp_path / "猫 Käse.png")
    (tmp_path / "漢.png").write_bytes(b"bad")
    latin1 = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xe4r.png"))
    shutil.copyfile(picture, latin1)
    ended = predict(model / "predict.py", picture, tmp_path / "漢.png", latin1, **variables)
    assert ended.returncode == 1 and not ended.stderr
    answers = re.findall(rb"%  .+", ended.stdout)
    assert len(answers) == 6 and b"%  ?" in ended.stdout, "three shares of two pictures"
    assert predict(model / "predict.py", "--help", **variables).returncode == 0
    assert predict(model / "predict.py", "--check", **variables).returncode == 0


def break_model(folder: Path, fault: str) -> None:
    file = folder / "model.onnx"
    if fault == "missing":
        file.unlink()
    elif fault == "folder":
        file.unlink()
        file.mkdir()
    elif fault == "no reference":
        (folder / "reference_predictions.json").unlink()
    elif fault == "torn reference":
        (folder / "reference_predictions.json").write_text('[{"size": [1')
    elif fault == "torn":
        file.write_bytes(file.read_bytes()[:5000])
    else:
        graph = onnx.load(file)
        if fault == "too new":
            graph.ir_version = 99
        else:
            del graph.metadata_props[:]
        onnx.save(graph, file)


@pytest.mark.parametrize(
    "fault", ["missing", "folder", "torn", "too new", "foreign", "no reference", "torn reference"]
)
def test_a_model_that_cannot_be_used_is_said_in_a_sentence(
    copy: Path, picture: Path, fault: str
) -> None:
    break_model(copy, fault)
    is_checked = "reference" in fault
    ended = predict(copy / "predict.py", "--check" if is_checked else picture)
    said = ended.stderr.decode()
    assert ended.returncode == 1 and not ended.stdout
    assert said.startswith("Stopped: ") and "Traceback" not in said
    assert "Unzip again, or: python -m pip install --upgrade -r requirements.txt" in said


def test_a_missing_package_is_said_in_a_sentence(copy: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    ended = predict(copy / "predict.py", "--check", python=tmp_path / "bare" / "bin" / "python")
    assert ended.returncode == 1 and b"Traceback" not in ended.stderr
    assert b"numpy" in ended.stderr and b"pip install --upgrade" in ended.stderr


def test_interrupting_it_leaves_one_line(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x.jpg"
        command = [sys.executable, "-I", str(model / "predict.py"), address]
        started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        silent.settimeout(60)
        asking, _ = silent.accept()
        started.send_signal(signal.SIGINT)
        _, said = started.communicate(timeout=60)
        asking.close()
    assert started.returncode != 0 and said.count(b"\n") == 1
    assert said.startswith(b"Stopped: KeyboardInterrupt")


def pythons() -> Iterator[Path]:
    """Interpreters of this machine that work, the newest first."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in NEWEST_FIRST:
        found = [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"))]
        named = shutil.which(f"python{version}")
        if named:
            found.append(named)
        if sys.version.startswith(f"{version}."):
            found.append(sys.executable)
        for python in found:
            asked = subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True)
            if asked.returncode == 0:
                yield Path(python)
                break


def environment(folder: Path, python: Path, requirements: list[str]) -> Path:
    """The interpreter of a new environment that has these packages, or skip the test."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    made = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [made, "-m", "pip", "install", "--quiet", "--only-binary=:all:", *requirements]
    installed = subprocess.run(install, capture_output=True, text=True)
    if installed.returncode and "No matching distribution" in installed.stderr:
        pytest.skip(f"pip finds no wheels of {', '.join(requirements)} here for {python}")
    assert installed.returncode == 0, installed.stderr
    return made


def float_tiff(folder: Path) -> Path:
    numbers = np.linspace(-3, 12, 90 * 70, dtype=np.float32).reshape(70, 90)
    Image.fromarray(numbers).save(folder / "float.tif")
    return folder / "float.tif"


@pytest.mark.parametrize("age", ["oldest", "newest"])
def test_the_oldest_and_newest_packages_that_are_stated_give_the_same_answers(
    model: Path, tmp_path: Path, age: str
) -> None:
    stated = (model / "requirements.txt").read_text().split()
    assert stated == [f"{name}>={oldest}" for name, oldest in REQUIREMENTS.items()]
    oldest = tuple(map(int, PYTHON.split(".")))
    usable = [path for path in pythons() if _version(path) >= oldest]
    if age == "oldest":
        stated = [line.replace(">=", "==") for line in stated]
        usable.reverse()
    python = environment(tmp_path / age, usable[0], stated)
    check = predict(model / "predict.py", "--check", python=python)
    assert check.returncode == 0 and check.stdout.strip().endswith(b"same"), check.stderr
    pictures = [float_tiff(tmp_path), save_picture(tmp_path / "picture.avif")]
    here = predict(model / "predict.py", *pictures)
    there = predict(model / "predict.py", *pictures, python=python)
    assert here.returncode == there.returncode == 0, there.stdout
    names = [line for line in here.stdout.splitlines() if not line.startswith(b" ")]
    assert names == [line for line in there.stdout.splitlines() if not line.startswith(b" ")]


def _version(python: Path) -> tuple[int, ...]:
    shown = subprocess.run(
        [python, "-c", "import json, sys; print(json.dumps(sys.version_info[:2]))"],
        capture_output=True,
        check=True,
    )
    return tuple(json.loads(shown.stdout))


def test_the_graph_asks_for_no_newer_runtime_than_it_needs(model: Path) -> None:
    graph = onnx.load(model / "model.onnx")
    assert graph.ir_version == 8 and [entry.version for entry in graph.opset_import] == [18]
    card = (model / "README.md").read_text()
    assert f"Python {PYTHON} or newer and onnxruntime 1.19.0 and pillow 11.3.0 or newer" in card
