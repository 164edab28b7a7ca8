"""The operator's own model in the screening workers, shown with small models of its interface."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from scraping.collect import collect
from scraping.reasons import Reason
from scraping.refused_digests import SettingError
from scraping.screening.nudity import FAILED, NudityModel, check_model
from scraping.screening.pool import PoolSettings, ScreenPool
from scraping.screening.screen import CleanImage, Rejection, ScreenSettings
from tests.replicas.pictures import encoded, jpeg
from tests.replicas.pictures_host import PictureHost
from tests.scraping.collect_folder import Listing, by_url, configuration, listed
from tests.scraping.conftest import environment, repository

CLASSES = ["plain", "nude"]
REFUSE = {"nude": 0.6}


def red_model(
    file: Path,
    *,
    planar: bool = True,
    side: int | str = 32,
    broken: bool = False,
    metadata: dict[str, str] | None = None,
) -> str:
    """Write a model that finds as much nudity as the image has red, from 0 to 1.

    `broken`: it fails on what is mostly red, by a gather beyond the end.
    """
    kind = TensorProto.FLOAT if planar else TensorProto.UINT8
    shape = [1, 3, side, side] if planar else [1, side, side, 3]
    nodes = []
    if planar:
        name, scale, axes, channel = "image", 1.0, [2, 3], 1
    else:
        nodes.append(helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT))
        name, scale, axes, channel = "numbers", 1 / 255, [1, 2], 1
    constants = {
        "axes": np.array(axes, np.int64),
        "red": np.array([0], np.int64),
        "scale": np.array(scale, np.float32),
        "one": np.array(1, np.float32),
        "limit": np.array([1.4], np.float32),
        "pair": np.array([[0, 1]], np.int64),
    }
    nodes += [
        helper.make_node("ReduceMean", [name, "axes"], ["means"], keepdims=0),
        helper.make_node("Gather", ["means", "red"], ["reds"], axis=channel),
        helper.make_node("Mul", ["reds", "scale"], ["nude"]),
        helper.make_node("Sub", ["one", "nude"], ["plain"]),
        helper.make_node("Concat", ["plain", "nude"], ["both"], axis=1),
    ]
    if broken:
        nodes += [
            helper.make_node("Mul", ["nude", "limit"], ["grown"]),
            helper.make_node("Cast", ["grown"], ["steps"], to=TensorProto.INT64),
            helper.make_node("Mul", ["steps", "far"], ["shift"]),
            helper.make_node("Add", ["pair", "shift"], ["places"]),
            helper.make_node("GatherElements", ["both", "places"], ["probabilities"], axis=1),
        ]
        constants["far"] = np.array([[100]], np.int64)
    else:
        nodes.append(helper.make_node("Identity", ["both"], ["probabilities"]))
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if metadata is None:
        metadata = {"classes": json.dumps(CLASSES), "refuse": json.dumps(REFUSE)}
    helper.set_model_props(model, metadata)
    onnx.save(model, file)
    return str(file)


def colored(red: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    return Image.new("RGB", size, (red, 40, 40))


@pytest.mark.parametrize("planar", [True, False])
@pytest.mark.parametrize("side", [32, "side"])
def test_either_form_of_input_and_size_is_fed_as_the_interface_says(planar, side, tmp_path):
    model = NudityModel(red_model(tmp_path / "m.onnx", planar=planar, side=side))
    assert model.objection(colored(250)) == "nude 0.98"
    assert model.objection(colored(100)) == ""
    assert model.objection(colored(250, (1, 300))) == "nude 0.98"


def test_what_the_model_states_may_lie_beside_it(tmp_path):
    file = red_model(tmp_path / "m.onnx", metadata={})
    with pytest.raises(SettingError, match="classes"):
        check_model(file)
    (tmp_path / "m.json").write_text(json.dumps({"classes": CLASSES, "refuse": {"nude": 0.99}}))
    assert NudityModel(file).objection(colored(250)) == ""


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "classes"),
        ({"classes": "x"}, "not JSON"),
        ({"classes": "[1]", "refuse": "{}"}, "classes"),
        ({"classes": json.dumps(CLASSES), "refuse": "{}"}, "what to refuse"),
        ({"classes": json.dumps(CLASSES), "refuse": '{"other": 0.5}'}, "cannot refuse 'other'"),
        ({"classes": json.dumps(CLASSES), "refuse": '{"nude": 7}'}, "cannot refuse 'nude'"),
        ({"classes": '["a", "b", "c"]', "refuse": '{"a": 0.5}'}, "2 probabilities for 3 classes"),
    ],
)
def test_a_model_that_states_nothing_usable_is_refused_in_a_sentence(metadata, words, tmp_path):
    with pytest.raises(SettingError, match=words):
        check_model(red_model(tmp_path / "m.onnx", metadata=metadata))


@pytest.mark.parametrize("content", [None, b"", b"no model", b"\x08\x09" * 50])
def test_a_missing_or_damaged_model_is_said_once_at_the_start(content, tmp_path):
    file = tmp_path / "m.onnx"
    if content is not None:
        file.write_bytes(content)
    (tmp_path / "urls.txt").write_text("http://example.org/1.jpg\n")
    for command in (["collect", "x", "--out", "o"], ["download", "urls.txt", "--out", "o"]):
        done = subprocess.run(
            [sys.executable, "-m", "scraping", *command, "--nudity-model", "m.onnx"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert "nudity model" in done.stderr and "Traceback" not in done.stderr


def test_workers_refuse_by_the_model_and_by_its_failure_and_go_on(tmp_path):
    file = red_model(tmp_path / "m.onnx", broken=True)

    async def run() -> list[CleanImage | Rejection]:
        settings = ScreenSettings(64, 256, nudity_model=file)
        async with ScreenPool(settings, PoolSettings(workers=1)) as pool:
            images = [colored(255), colored(100), colored(170)]
            return [await pool.screen(encoded(image)) for image in images]

    broken, plain, nude = asyncio.run(run())
    assert isinstance(plain, CleanImage)
    assert broken == Rejection(Reason.NUDITY, FAILED)
    assert isinstance(nude, Rejection) and nude.detail.startswith("nude 0.6")


def test_a_collection_counts_what_the_model_refuses(tmp_path):
    with PictureHost() as host:
        urls = [host.add(f"/{red}.png", encoded(colored(red), "PNG")) for red in (255, 90)]
        with Listing({"thing": [listed(url) for url in urls]}) as site:
            model = red_model(tmp_path / "m.onnx")
            config = configuration(
                {"openverse": site}, [host], sources=["openverse"], nudity_model=model
            )
            result = collect(tmp_path / "out", config)
        assert result["classes"][0]["rejected"] == {"nudity": 1}
        assert by_url(tmp_path / "out")[urls[0]]["detail"] == "nude 1.00"


def test_without_the_setting_no_worker_loads_the_runtime():
    code = (
        "import io, sys; from scraping.screening import worker, nudity;"
        "from scraping.screening.screen import ScreenSettings, screen;"
        f"screen({jpeg(1)!r}, ScreenSettings(64, 256)); nudity.check_model('');"
        "print('onnxruntime' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
