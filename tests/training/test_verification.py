"""What a person says of test images is counted without training, and shown everywhere alike."""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.test_run import read
from training.__main__ import main
from training.duplicates import DuplicateIndex, fingerprint
from training.images.decode import read_image
from training.judgements import Judgement, read_judgements
from training.metrics import Metrics, grouped_interval, read_metrics
from training.phrases import interval, percent
from training.predictions import PredictedImage, read_predictions
from training.run import fit
from training.run_folder import RunError, exclusive, read_config, read_manifest, write_text
from training.takedown import remove_images
from training.verification import count_again, verify, with_judgements

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests" / "recorded" / "picaisso-0.1.0.tar.xz"
CLASS_IDS = ("c001", "c002")


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_run, tmp_path / "trained"))


def images_of(run: Path) -> list[PredictedImage]:
    return [image for image in read_predictions(run, CLASS_IDS) if image.split == "test"]


def table(folder: Path, judgements: Mapping[str, str]) -> Path:
    path = folder / "labels.csv"
    lines = [f"{file},{said}\n" for file, said in judgements.items()]
    write_text(path, "".join(["file,verified\n", *lines]))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def other(class_id: str) -> str:
    return "c002" if class_id == "c001" else "c001"


def assert_consistent(run: Path) -> Metrics:
    """Every file that shows the figures shows those of metrics.json."""
    metrics = read_metrics(run)
    model = run / "model"
    assert (model / "metrics.json").read_bytes() == (run / "metrics.json").read_bytes()
    for line in (model / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((model / name).read_bytes()).hexdigest() == digest, name
    card = (model / "README.md").read_text()
    page = (model / "report.html").read_text().replace("\N{NO-BREAK SPACE}%", " %")
    for key in ("verdict_sentence", "shortcut_sentence"):
        assert metrics[key] in card and metrics[key] in page  # type: ignore[literal-required]
    noise = metrics["label_noise"]
    if noise is not None:
        bounds = f"(95 % interval {interval(noise['interval'])})"
        assert f"So about {percent(noise['share'])} of the test labels are wrong {bounds}" in card
        assert f"So about {percent(noise['share'])} of the test labels are wrong {bounds}" in page
    listed = [json.loads(line) for line in (run / "suspects.jsonl").read_text().splitlines()]
    kinds = [row["kind"] for row in listed]
    assert kinds.count("label") == metrics["label_issues"]
    assert len(kinds) - kinds.count(None) == metrics["curation"]["suspects"]
    return metrics


def test_judgements_become_counts_label_noise_and_the_headline(run: Path, tmp_path: Path) -> None:
    images = images_of(run)
    assert len(images) == 12
    said = {image.file: "right" for image in images}
    said[images[0].file] = "other class"
    said[images[1].file] = "off-topic"
    before = read(run / "metrics.json")
    metrics = verify(run, table(tmp_path, said))
    assert metrics == assert_consistent(run)
    assert metrics["verified"] == {"n": 12, "right": 10, "wrong": 1, "off_topic": 1}
    groups = np.array([image.group for image in images])
    wrong = np.array([said[image.file] != "right" for image in images])
    noise = metrics["label_noise"]
    assert noise and noise["share"] == pytest.approx(2 / 12)
    assert noise["interval"] == list(grouped_interval(wrong, groups))
    hits = [image.predicted == image.class_id for image in images[2:]]
    hits.append(images[0].predicted == other(images[0].class_id))
    headline = metrics["headline"]
    assert (headline["how"], headline["n"], headline["hits"]) == ("verified", 11, sum(hits))
    assert headline["value"] == pytest.approx(sum(hits) / 11)
    known = groups[[0, *range(2, 12)]]
    assert headline["interval"] == list(grouped_interval(np.array([hits[-1], *hits[:-1]]), known))
    for key in ("accuracy", "interval", "confusion", "cross_validated", "split", "seconds"):
        assert metrics[key] == before[key], "figures of labels as they were found stay"  # type: ignore[literal-required]
    with (run / "verified.csv").open() as file:
        rows = {row["file"]: (row["verified"], row["label"]) for row in csv.DictReader(file)}
    assert rows[images[0].file] == ("other class", other(images[0].class_id))
    assert rows[images[1].file] == ("off-topic", "") and len(rows) == 12


def test_the_same_table_again_changes_nothing_and_taking_all_back_restores_every_file(
    run: Path, tmp_path: Path
) -> None:
    images = images_of(run)
    before = contents(run)
    said = {image.file: "wrong" for image in images[:5]}
    verify(run, table(tmp_path, said))
    once = contents(run)
    verify(run, table(tmp_path, said))
    assert contents(run) == once != before
    verify(run, table(tmp_path, dict.fromkeys(said, "")))
    after = contents(run)
    assert after.pop("verified.csv").decode() == "file,verified,label\n"
    changed = [name for name in before if after[name] != before[name]]
    assert changed == ["report_context.json"], "which keeps what the training found of suspects"
    assert set(after) == set(before)


def test_later_tables_add_to_earlier_ones_and_overwrite_them(run: Path, tmp_path: Path) -> None:
    first, second, third = (image.file for image in images_of(run)[:3])
    verify(run, table(tmp_path, {first: "right", second: "right"}))
    metrics = verify(run, table(tmp_path, {second: "off-topic", third: "right"}))
    assert metrics["verified"] == {"n": 3, "right": 2, "wrong": 0, "off_topic": 1}
    states = {file: judgement.state for file, judgement in read_judgements(run).items()}
    assert states == {first: "right", second: "off-topic", third: "right"}


def test_off_topic_pictures_alone_give_noise_but_no_accuracy(run: Path, tmp_path: Path) -> None:
    before = read(run / "metrics.json")["headline"]
    metrics = verify(run, table(tmp_path, {images_of(run)[0].file: "off-topic"}))
    assert metrics["verified"]["n"] == 1 and metrics["headline"] == before
    assert metrics["label_noise"] and metrics["label_noise"]["share"] == 1.0


def test_a_verdict_that_no_longer_holds_takes_the_suspects_from_the_list_until_it_does(
    run: Path, tmp_path: Path
) -> None:
    """As with many test images, of which the verdict comes from them alone."""
    metrics = read(run / "metrics.json")
    write_text(run / "metrics.json", json.dumps({**metrics, "cross_validated": None}))
    for name in ("manifest.jsonl", "predictions.csv"):
        text = (run / name).read_text()
        text = text.replace(",train,", ",test,").replace('"split": "train"', '"split": "test"')
        write_text(run / name, text)
    rows = [json.loads(line) for line in (run / "suspects.jsonl").read_text().splitlines()]
    suspect = next(row for row in rows if row["split"] == "val" and not row["kind"])
    suspect.update(kind="label", suggested="plant", reason="Looks like another.")
    write_text(run / "suspects.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert count_again(run)["verdict"] == "better"
    before = contents(run)
    assert assert_consistent(run)["label_issues"] > 0

    files = [image.file for image in images_of(run)]
    metrics = verify(run, table(tmp_path, dict.fromkeys(files[::2], "wrong")))
    assert metrics["verdict"] != "better" and not metrics["better_than_chance"]
    assert metrics["shortcut_warning"] is None
    assert assert_consistent(run)["label_issues"] == 0
    assert "says nothing about the labels" in metrics["curation"]["sentence"]
    assert "Looks like another." not in (run / "suspects.jsonl").read_text()

    verify(run, table(tmp_path, dict.fromkeys(files, "right")))
    assert assert_consistent(run)["verdict"] == "better"
    assert (run / "suspects.jsonl").read_bytes() == before["suspects.jsonl"]
    verify(run, table(tmp_path, dict.fromkeys(files, "")))
    after = contents(run)
    assert {name: data for name, data in after.items() if name != "verified.csv"} == before


ANY_TABLE = st.one_of(
    st.binary(max_size=120),
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8"), max_size=8),
            st.sampled_from(["right", "maybe", "", "c002"]),
        ),
        max_size=4,
    ).map(lambda rows: "\n".join(["file,verified", *map(",".join, rows)]).encode()),
)


@pytest.fixture(scope="module")
def shared_run(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("shared") / "run"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=ANY_TABLE)
def test_whatever_stands_in_the_table_a_refusal_changes_nothing(
    data: bytes, shared_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any labels.csv"
    path.write_bytes(data)
    times = {file: file.stat().st_mtime_ns for file in shared_run.rglob("*")}
    try:
        verify(shared_run, path)
    except RunError as refused:
        assert refused.reason.endswith(".")
        assert {file: file.stat().st_mtime_ns for file in shared_run.rglob("*")} == times


KILLED_AT_EACH_RENAME = """
import os, signal, sys
from pathlib import Path
from training.verification import verify

run, table = map(Path, sys.argv[1:])
for survived in range(1000):
    child = os.fork()
    if not child:
        renames = 0
        def watch(event, arguments):
            global renames
            if event == "os.rename":
                renames += 1
                if renames > survived:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(watch)
        verify(run, table)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(survived)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_before_any_file_is_renamed_and_started_again_it_ends_the_same(
    run: Path, trained_run: Path, tmp_path: Path
) -> None:
    files = [image.file for image in images_of(run)]
    said = dict(zip(files, ("right", "other", "off-topic") * 4, strict=True))
    labels = table(tmp_path, said)
    command = [sys.executable, "-c", KILLED_AT_EACH_RENAME, str(run), str(labels)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(ended.stdout) >= 8
    assert_consistent(run)
    whole = Path(shutil.copytree(trained_run, tmp_path / "whole"))
    verify(whole, labels)
    found = {name: data for name, data in contents(run).items() if not name.endswith(".tmp")}
    assert found == contents(whole)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "training", "verify", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_command_prints_verdict_counts_and_label_noise(run: Path, tmp_path: Path) -> None:
    images = images_of(run)
    labels = table(tmp_path, {images[0].file: "right", images[1].file: "off topic"})
    ended = command(run, labels)
    metrics = assert_consistent(run)
    assert (ended.returncode, ended.stderr) == (0, "")
    verdict, counts = ended.stdout.splitlines()
    assert verdict == metrics["verdict_sentence"]
    assert counts.startswith(
        "A person has checked 2 of the 12 test pictures: 1 with the right label, 0 of another"
        " class, 1 of none of the classes. So about 50 % of the test labels are wrong"
    )
    summary = json.loads(command(run, labels, "--json").stdout)
    keys = ("verdict", "verdict_sentence", "headline", "verified", "label_noise")
    assert summary == {key: read(run / "metrics.json")[key] for key in keys}


def test_the_command_is_refused_while_another_writes_the_figures(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = table(tmp_path, {images_of(run)[0].file: "right"})
    before = contents(run)
    with exclusive(run):
        assert main(["verify", str(run), str(labels)]) != 0
    said = capsys.readouterr().err
    assert "Another program is writing the figures of this run just now." in said
    assert contents(run) == before
    assert main(["verify", str(run), str(labels)]) == 0


def test_in_a_site_the_command_says_that_the_packed_model_keeps_its_figures(
    trained_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "request" / "runs" / "1"))
    packed = tmp_path / "request" / "artifacts" / "1" / "model.zip.splice"
    write_text(packed, "packed before")
    labels = table(tmp_path, {images_of(run)[0].file: "right"})
    last = command(run, labels).stdout.splitlines()[-1]
    assert last == (
        "The delivered model.zip and the site's pages still show the earlier figures: "
        f"zip {run / 'model'} anew before you pass it on."
    )


def test_the_command_loads_neither_torch_nor_matplotlib(run: Path, tmp_path: Path) -> None:
    labels = table(tmp_path, {images_of(run)[0].file: "right"})
    code = (
        "import sys; from training.__main__ import main;"
        f"code = main(['verify', {str(run)!r}, {str(labels)!r}, '--json']);"
        "print(code, {'torch', 'sklearn', 'matplotlib', 'scipy'} & set(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "0 set()"


def test_a_table_or_folder_that_cannot_be_used_is_refused_with_one_line(
    run: Path, imported_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learned = next(row.file for row in read_manifest(run) if row.split == "train")
    labels = table(tmp_path, {learned: "right", images_of(run)[0].file: "perhaps"})
    before = contents(run)
    refusals = {
        (run, labels): ("training picture", "“perhaps” is no judgement"),
        (run, tmp_path / "none.csv"): ("“none.csv” cannot be read",),
        (tmp_path / "nowhere", labels): ("is no run folder",),
        (tmp_path, labels): ("is no run folder",),
        (labels, labels): ("is no run folder",),
        (imported_run, labels): ("This run is not finished", "python -m training fit"),
    }
    for (folder, path), said in refusals.items():
        assert main(["verify", str(folder), str(path)]) == 1
        output = capsys.readouterr()
        assert output.out == "" and output.err.count("\n") == 1
        assert all(words in output.err for words in said)
    assert contents(run) == before
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(run)])
    assert ended.value.code == 2


def test_the_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["verify", "--help"])
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert "python -m training verify RUN_DIR labels.csv" in output and "file,verified" in output


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_control_c_prints_one_line_and_changes_nothing(run: Path, tmp_path: Path) -> None:
    before = contents(run)
    pipe = tmp_path / "labels.csv"
    os.mkfifo(pipe)
    line = [sys.executable, "-m", "training", "verify", str(run), str(pipe)]
    process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    with pipe.open("w"):  # opens when the command reads the table, and says nothing
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "Stopped. Give the same command again to finish it.\n"
    assert contents(run) == before


def test_a_run_of_the_first_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with tarfile.open(RECORDED) as archive:
        archive.extractall(tmp_path, filter="data")
    run = tmp_path / "requests/1/runs/1"
    before = contents(run)
    labels = table(tmp_path, {read_manifest(run)[0].file: "right"})
    with pytest.raises(RunError) as refused:
        verify(run, labels)
    assert "earlier version" in refused.value.reason and "result.json" in refused.value.remedy
    assert contents(run) == before


def test_damaged_predictions_are_named(run: Path, tmp_path: Path) -> None:
    labels = table(tmp_path, {images_of(run)[0].file: "right"})
    whole = (run / "predictions.csv").read_text()
    for text in ("", whole.replace("test", "exam"), whole.replace(",c001,", ",c009,"), whole[:-20]):
        (run / "predictions.csv").write_text(text)
        with pytest.raises(RunError):
            verify(run, labels)
    assert not (run / "verified.csv").exists()


@pytest.mark.parametrize("name", ["report_context.json", "model/SHA256SUMS"])
def test_what_the_report_is_written_from_is_asked_for_before_anything_changes(
    name: str, run: Path, tmp_path: Path
) -> None:
    labels = table(tmp_path, {images_of(run)[0].file: "right"})
    for damage in ('{"metrics": {', '{"metrics": []}', None):
        if damage is None or "SUMS" in name:
            (run / name).unlink(missing_ok=True)
        else:
            (run / name).write_text(damage)
        with pytest.raises(RunError, match="lacks what its report and card are written from"):
            verify(run, labels)
    assert not (run / "verified.csv").exists()


def test_a_picture_that_is_taken_down_is_judged_no_more(run: Path, tmp_path: Path) -> None:
    images = images_of(run)
    gone, kept = images[0].file, images[1].file
    verify(run, table(tmp_path, {gone: "off-topic", kept: "right"}))
    for _ in range(2):
        remove_images(run, [gone])
        metrics = assert_consistent(run)
        assert metrics["verified"] == {"n": 1, "right": 1, "wrong": 0, "off_topic": 0}
        assert metrics["label_noise"] and metrics["label_noise"]["share"] == 0
        for name in ("predictions.csv", "verified.csv", "report_context.json"):
            assert gone not in (run / name).read_text() and kept in (run / name).read_text()
    remove_images(run, [kept])
    assert assert_consistent(run)["verified"]["n"] == 0


def test_a_takedown_goes_on_where_the_figures_cannot_be_counted_again(
    run: Path, tmp_path: Path
) -> None:
    images = images_of(run)
    verify(run, table(tmp_path, {images[0].file: "right", images[1].file: "right"}))
    (run / "model" / "config.json").unlink()
    remove_images(run, [images[0].file])
    assert images[0].file not in {row.file for row in read_manifest(run)}
    assert images[0].file not in (run / "verified.csv").read_text()


def predicted(
    count: int, wrong: int, classes: int = 2, split: Any = "test"
) -> list[PredictedImage]:
    """So many images of each class, of which the first so many were predicted wrongly."""
    ids = [f"c{number:03d}" for number in range(1, classes + 1)]
    images = []
    for number, class_id in enumerate(ids):
        following = ids[(number + 1) % classes]
        for index in range(count):
            said = following if index < wrong else class_id
            probabilities = np.array([0.9 if one == said else 0.1 for one in ids])
            images.append(
                PredictedImage(
                    file=f"{split}/{class_id}/{index}.jpg",
                    class_id=class_id,
                    split=split,
                    fold=None,
                    group=len(images),
                    predicted=said,
                    probabilities=probabilities,
                    cross_validated=None,
                )
            )
    return images


def test_of_three_classes_an_image_of_another_class_counts_once_its_own_is_known(
    trained_run: Path,
) -> None:
    class_ids = ("c001", "c002", "c003")
    images = predicted(10, wrong=1, classes=3)
    metrics = read_metrics(trained_run)
    metrics["per_class"] = dict.fromkeys(("a", "b", "c"), metrics["per_class"]["mammal"])
    wrongly = images[0]
    judgements = {image.file: Judgement("right", image.class_id) for image in images}
    judgements[wrongly.file] = Judgement("other class")
    unknown = with_judgements(metrics, images, judgements, class_ids)
    assert (unknown["headline"]["n"], unknown["headline"]["hits"]) == (29, 27)
    judgements[wrongly.file] = Judgement("other class", wrongly.predicted)
    known = with_judgements(metrics, images, judgements, class_ids)
    assert (known["headline"]["n"], known["headline"]["hits"]) == (30, 28)
    assert known["verified"] == unknown["verified"]
    assert known["verified"] == {"n": 30, "right": 29, "wrong": 1, "off_topic": 0}


def test_a_few_judged_images_do_not_take_the_place_of_all(trained_run: Path) -> None:
    images = predicted(20, wrong=2)
    before = read_metrics(trained_run)
    judgements = {}
    for image in images[:29]:
        judgements[image.file] = Judgement("right", image.class_id)
    few = with_judgements(before, images, judgements, CLASS_IDS)
    assert few["verified"]["n"] == 29 and few["headline"] == before["headline"]
    judgements[images[29].file] = Judgement("right", images[29].class_id)
    enough = with_judgements(before, images, judgements, CLASS_IDS)
    assert (enough["headline"]["how"], enough["headline"]["n"]) == ("verified", 30)


def test_judgements_of_images_outside_test_have_no_part(trained_run: Path) -> None:
    images = predicted(10, wrong=1) + predicted(10, wrong=1, split="train")
    metrics = with_judgements(
        read_metrics(trained_run), images, {"train/c001/0.jpg": Judgement("off-topic")}, CLASS_IDS
    )
    assert metrics["verified"]["n"] == 0 and metrics["label_noise"] is None


def test_counting_again_without_judgements_changes_no_figure(run: Path) -> None:
    before = read(run / "metrics.json")
    assert count_again(run) == before


def test_what_was_verified_earlier_is_counted_by_the_training_itself(
    untrained_run: Path, run: Path, tmp_path: Path
) -> None:
    """As in a later version of a dataset, which inherits what was said of its test images."""
    files = [image.file for image in images_of(run)]
    said = dict(zip(files, ("right", "right", "off-topic", "other") * 3, strict=True))
    verified = verify(run, table(tmp_path, said))
    shutil.copyfile(run / "verified.csv", untrained_run / "verified.csv")
    assert fit(untrained_run, read_config(untrained_run))["ok"]
    trained = assert_consistent(untrained_run)
    for key in ("verified", "label_noise", "headline", "verdict", "verdict_sentence"):
        assert trained[key] == verified[key]  # type: ignore[literal-required]


def test_a_later_version_counts_the_judgements_but_not_of_what_was_taken_down(
    run: Path, photographs: Path, tmp_path: Path
) -> None:
    right, wrong, gone = [image.file for image in images_of(run)[:3]]
    verify(run, table(tmp_path, {right: "right", wrong: "other class", gone: "off-topic"}))
    digests = {row.file: row.sha256 for row in read_manifest(run)}
    images = Path(shutil.copytree(photographs, tmp_path / "images"))
    sources = DuplicateIndex()
    for path in images.rglob("*.png"):
        sources.add(str(path), fingerprint(read_image(path)))
    source = sources.find(fingerprint(read_image(run / gone)))
    assert source
    Path(source).unlink()
    remove_images(run, {gone})
    later = tmp_path / "later"
    line = ["fit", "--images", str(images), "--out", str(later), "--previous", str(run)]
    options = ["--device", "cpu", "--finetune", "never", "--data-dir", str(tmp_path / "data")]
    assert main([*line, *options]) == 0
    rows = {row.sha256: row for row in read_manifest(later)}
    assert digests[gone] not in rows
    kept = {rows[digests[right]].file: "right", rows[digests[wrong]].file: "other class"}
    assert {file: said.state for file, said in read_judgements(later).items()} == kept
    assert {rows[digests[file]].split for file in (right, wrong)} == {"test"}
    counted = assert_consistent(later)["verified"]
    assert counted == {"n": 2, "right": 1, "wrong": 1, "off_topic": 0}


def test_judgements_that_cannot_be_read_do_not_stop_a_training(untrained_run: Path) -> None:
    write_text(untrained_run / "verified.csv", "file,verified\nsomething,perhaps\n")
    result = fit(untrained_run, read_config(untrained_run))
    assert result["ok"]
    assert [notice for notice in result["notices"] if "verified.csv cannot be read" in notice]
    assert read(untrained_run / "metrics.json")["verified"]["n"] == 0
