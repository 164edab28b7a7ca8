"""F27: a model file that was replaced is refused before it is read, and runs nothing."""

import os
import pickle
import shutil
import zipfile
from pathlib import Path

import onnx
import pytest

from tests.training import example_models
from training.predict import ModelError, open_model

WORDS = "damaged or not Picaisso's: SHA256SUMS beside it names another"


class Payload:
    """What makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("replaced") / "model"
    caches = tmp_path_factory.getbasetemp() / "caches"
    example_models.export(folder, "efficientnet_lite0", caches)
    return folder


def other_classes(model: Path) -> bytes:
    whole = onnx.load(model / "model.onnx")
    for entry in whole.metadata_props:
        if entry.key == "classes":
            entry.value = '["a", "b", "c", "d", "e", "f", "g"]'
    return whole.SerializeToString()


def other_network(model: Path) -> bytes:
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [None, None, 3])
    node = onnx.helper.make_node("Identity", ["image"], ["probabilities"])
    out = onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.UINT8, None)
    graph = onnx.helper.make_graph([node], "other", [image], [out])
    return onnx.helper.make_model(graph).SerializeToString()


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"picaisso-model/{path.name}")
    return target


@pytest.mark.parametrize("kind", ["a pickle", "other classes", "another network", "a bit flipped"])
def test_f27_a_replaced_model_is_refused_before_it_is_read(model, tmp_path, kind):
    mark = tmp_path / "code ran"
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    data = bytearray((model / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    replaced = {
        "a pickle": pickle.dumps(Payload(mark)),
        "other classes": other_classes(model),
        "another network": other_network(model),
        "a bit flipped": bytes(data),
    }
    (folder / "model.onnx").write_bytes(replaced[kind])
    for path in (folder, zipped(folder, tmp_path / "model.zip")):
        with pytest.raises(ModelError, match=WORDS):
            open_model(path)
    (folder / "SHA256SUMS").unlink()  # and where nothing names a digest, by what it holds
    if kind in ("a pickle", "another network"):
        with pytest.raises(ModelError, match="damaged or not Picaisso's"):
            open_model(folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "novelty.safetensors", "config.json"])
def test_f27_replaced_weights_are_refused_before_torch_sees_them(model, tmp_path, name):
    mark = tmp_path / "code ran"
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / name).write_bytes(pickle.dumps(Payload(mark)))
    from training.predict import _delivered_network

    with pytest.raises(ModelError, match=WORDS):
        _delivered_network(folder)
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(ModelError, match="damaged or not Picaisso's"):
        _delivered_network(folder)
    assert not mark.exists()
