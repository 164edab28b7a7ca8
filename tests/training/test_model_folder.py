"""The model folder as its readers open it: ONNX Runtime, timm, torchvision, and predict.py on a
bare machine.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.training import example_models
from tests.training.example_models import one_thread  # noqa: F401
from training.export.model_folder import (
    CHECK_SIZES,
    TrainedModel,
    export_model,
    largest_difference,
    outputs_of,
)
from training.networks.backbones import BACKBONES
from training.networks.classifier import from_exported, read_state_dict
from training.networks.onnx_graph import OUTPUTS, onnx_model, read_cached_graph
from training.predict import open_model
from training.run_folder import RunError
from training.spliced import PTH_SPLICE, open_splice

WHOLE = {
    "model.safetensors",
    "model.onnx",
    "novelty.safetensors",
    "classes.json",
    "config.json",
    "metrics.json",
    "predict.py",
    "requirements.txt",
    "README.md",
    "reference_predictions.json",
    "report.html",
    "try.html",
    "SHA256SUMS",
}


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "caches"


@pytest.fixture(scope="module", params=list(BACKBONES))
def exported(
    request: pytest.FixtureRequest, caches: Path, tmp_path_factory: pytest.TempPathFactory
):
    """What was exported and its folder, for each backbone."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    return example_models.export(folder, request.param, caches), folder


@pytest.fixture(scope="module")
def lite(caches: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedModel, Path]:
    folder = tmp_path_factory.mktemp("lite") / "model"
    return example_models.export(folder, "efficientnet_lite0", caches), folder


def export_again(made: TrainedModel, folder: Path) -> None:
    export_model(made, folder, [], lambda done, total: None)


def test_the_onnx_file_agrees_with_torch_on_fifty_pictures_of_odd_sizes(
    exported: tuple[TrainedModel, Path],
) -> None:
    made, folder = exported
    pictures, model = example_models.odd_pictures(50), open_model(folder, threads=1)
    assert [picture.shape[1::-1] for picture in pictures[:2]] == [(1, 1), (3, 900)]
    expected = [outputs_of(made.network, picture) for picture in pictures]
    found = [model.run(picture) for picture in pictures]
    assert largest_difference(expected, found) < 1e-3
    for one, other in zip(expected, found, strict=True):
        assert np.allclose(one.embedding, other.embedding, rtol=1e-3, atol=1e-3)
        assert np.allclose(one.cam, other.cam, rtol=1e-3, atol=1e-2)
        assert one.cam.shape == (3, 7, 7) and other.probabilities.sum() == pytest.approx(
            1, abs=1e-4
        )
    assert np.std([one.probabilities for one in expected], axis=0).max() > 0.05, (
        "the pictures are no test"
    )
    assert np.std([one.novelty for one in expected]) > 0.01, "the pictures are no test"


def test_timm_opens_the_folder_and_gives_the_same_logits(
    exported: tuple[TrainedModel, Path],
) -> None:
    import timm

    made, folder = exported
    if not made.network.backbone.in_timm:
        return  # torchvision alone has it under these names
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert model.num_classes == 3 and model.pretrained_cfg["label_names"] == list(
        example_models.NAMES
    )
    crops = torch.stack(
        [made.network.prepare(torch.from_numpy(p)) for p in example_models.odd_pictures(6)]
    )
    with torch.inference_mode():
        expected = made.network.head(made.network.embed(crops))
        assert torch.allclose(model(crops), expected, atol=1e-3)


def test_the_pth_loads_strictly_and_without_code_into_the_architecture_it_names(
    exported: tuple[TrainedModel, Path],
) -> None:
    import timm
    import torchvision

    made, folder = exported
    backbone = made.network.backbone
    build: Callable[..., torch.nn.Module] = (
        torchvision.models.get_model if backbone.weights_file else timm.create_model
    )
    model = build(backbone.architecture, num_classes=3).eval()
    with open_splice(folder.with_name(PTH_SPLICE), folder) as file:
        model.load_state_dict(torch.load(file, weights_only=True), strict=True)
    crops = torch.stack(
        [made.network.prepare(torch.from_numpy(p)) for p in example_models.odd_pictures(3)]
    )
    with torch.inference_mode():
        assert torch.allclose(model(crops), made.network.head(made.network.embed(crops)), atol=1e-3)


def test_the_torch_files_make_the_same_network_again(exported: tuple[TrainedModel, Path]) -> None:
    made, folder = exported
    config = json.loads((folder / "config.json").read_text())
    state, novelty = (
        read_state_dict(folder / name) for name in ("model.safetensors", "novelty.safetensors")
    )
    again = from_exported(config, state, novelty)
    pictures = example_models.odd_pictures(4)
    one, other = (
        [outputs_of(each, picture) for picture in pictures] for each in (made.network, again)
    )
    assert largest_difference(one, other) < 1e-6


def test_the_folder_is_whole_its_sums_hold_and_it_tells_nothing_of_this_machine(
    lite: tuple[TrainedModel, Path],
) -> None:
    folder = lite[1]
    assert {path.name for path in folder.iterdir()} == WHOLE
    sums = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert set(sums) == WHOLE - {"SHA256SUMS"}
    here = [
        str(path).encode()
        for path in (folder.parent, Path(__file__).parents[2], Path(sys.prefix), Path.home())
    ]
    for name, digest in sums.items():
        content = (folder / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert (folder / name).stat().st_mode & 0o044 == 0o044, name
        assert not [path for path in here if len(path) > 4 and path in content], name


def test_the_onnx_file_says_what_its_reader_needs(lite: tuple[TrainedModel, Path]) -> None:
    model = onnx.load(lite[1] / "model.onnx")
    onnx.checker.check_model(model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["classes"]) == list(example_models.NAMES)
    assert json.loads(metadata["reject"]) == 0.9 and float(metadata["temperature"]) == 1.5
    assert metadata["backbone"] == "efficientnet_lite0" and metadata["picaisso_version"]
    assert [value.name for value in model.graph.input] == ["image"]
    assert tuple(value.name for value in model.graph.output) == OUTPUTS


def test_the_report_is_written_by_a_look_through_the_exported_file(
    lite: tuple[TrainedModel, Path],
) -> None:
    seen = json.loads((lite[1] / "report.html").read_text())
    expected = outputs_of(lite[0].network, example_models.odd_pictures(3)[2]).probabilities
    assert np.allclose(seen, expected, atol=1e-3)


def kept_graph(caches: Path) -> Path:
    (path,) = (caches / "graphs").glob("efficientnet_lite0-*.graph")
    return path


def test_one_kept_graph_serves_any_number_of_classes(
    lite: tuple[TrainedModel, Path], caches: Path, tmp_path: Path
) -> None:
    before = kept_graph(caches).stat()
    names = tuple(f"class {number}" for number in range(10))
    made = example_models.trained(
        example_models.network("efficientnet_lite0", names), caches, names
    )
    export_again(made, tmp_path / "model")
    assert kept_graph(caches).stat() == before
    pictures, model = example_models.odd_pictures(5), open_model(tmp_path / "model")
    expected = [outputs_of(made.network, picture) for picture in pictures]
    assert largest_difference(expected, [model.run(picture) for picture in pictures]) < 1e-3
    assert model.classes == names


def test_a_class_with_few_or_no_references_is_no_trouble_to_the_graph(
    caches: Path, tmp_path: Path
) -> None:
    from training.networks.novelty import References

    made = example_models.network("efficientnet_lite0")
    references, picture = made.references.numpy(), example_models.odd_pictures(3)[2]
    for bounds in ((0, 1, 1, 3), (0, 0, 2, 5), (0, 3, 3, 3), (0, 1, 2, 2)):
        made.set_references(References(made.scale.numpy(), references[: bounds[-1]], bounds))
        onnx.save(onnx_model(made, caches / "graphs"), tmp_path / "model.onnx")
        session = onnxruntime.InferenceSession(
            tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
        )
        (novelty,) = session.run(["novelty"], {"image": picture})
        assert novelty[0] == pytest.approx(outputs_of(made, picture).novelty, abs=1e-4)


def test_a_damaged_graph_counts_as_none(
    lite: tuple[TrainedModel, Path], caches: Path, tmp_path: Path
) -> None:
    whole = kept_graph(caches).read_bytes()
    for content in (whole[:-1], whole[:999] + bytes(1) + whole[1000:], b"", whole[32:]):
        (tmp_path / "graph").write_bytes(content)
        assert read_cached_graph(tmp_path / "graph") is None
    (tmp_path / "graph").write_bytes(whole)
    assert read_cached_graph(tmp_path / "graph") is not None


def test_a_graph_that_computes_otherwise_is_refused_and_forgotten(
    lite: tuple[TrainedModel, Path], caches: Path, tmp_path: Path
) -> None:
    path = kept_graph(caches)
    whole = path.read_bytes()
    graph = onnx.load_model_from_string(whole[32:])
    softmax = next(node for node in graph.graph.node if node.op_type == "Softmax")
    softmax.op_type = "Sigmoid"
    del softmax.attribute[:]
    content = graph.SerializeToString()
    path.write_bytes(hashlib.sha256(content).digest() + content)
    with pytest.raises(
        RunError, match=r"model\.onnx predicts otherwise than the trained network"
    ) as refused:
        export_again(lite[0], tmp_path / "model")
    assert refused.value.retry and not path.exists() and not (tmp_path / "model").exists()
    path.write_bytes(whole)


def test_a_graph_is_made_anew_and_used_where_none_can_be_read_or_kept(
    lite: tuple[TrainedModel, Path], tmp_path: Path, caches: Path
) -> None:
    (tmp_path / kept_graph(caches).name).mkdir()  # in the way
    written = onnx_model(lite[0].network, tmp_path)
    kept = onnx_model(lite[0].network, caches / "graphs")
    assert [node.op_type for node in written.graph.node] == [
        node.op_type for node in kept.graph.node
    ]
    assert [path.name for path in tmp_path.iterdir()] == [kept_graph(caches).name], (
        "half a file was left"
    )


def test_predict_proves_itself_in_a_clean_environment_of_its_requirements(
    lite: tuple[TrainedModel, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(lite[1], tmp_path / "model"))
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--only-binary=:all:",
        "-r",
        folder / "requirements.txt",
    ]
    installed = subprocess.run(install, capture_output=True, text=True)
    if installed.returncode and "No matching distribution" in installed.stderr:
        pytest.skip("pip finds no package index here that has the requirements of the model folder")
    assert installed.returncode == 0, installed.stderr
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True
    ).stdout
    assert not {"torch", "picaisso", "torchvision"} & {
        package["name"] for package in json.loads(listed)
    }
    (tmp_path / "home").mkdir()
    bare = {
        name: value for name, value in os.environ.items() if name in ("PATH", "SYSTEMROOT", "LANG")
    }
    check = subprocess.run(
        [python, "predict.py", "--check"],
        cwd=folder, env={**bare, "HOME": str(tmp_path / "home")}, capture_output=True, text=True,
    )  # fmt: skip
    assert check.returncode == 0, check.stderr
    assert check.stdout.startswith(
        f"{len(CHECK_SIZES)} pictures"
    ) and check.stdout.strip().endswith("same")
    assert not list((tmp_path / "home").rglob("*")), "ONNX Runtime wrote usage data"
