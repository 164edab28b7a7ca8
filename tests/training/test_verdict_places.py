"""Report, card and command line say the sentences of the table, letter for letter."""

import html
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.training.example_verdicts import CASES, sentences, whole
from training.__main__ import main
from training.export.model_card import model_card
from training.export.report_page import read_context, render_page, with_metrics
from training.metrics import Metrics, read_metrics
from training.networks.catalogue import CATALOGUE
from training.phrases import baseline, headline_figure, percent, refusal
from training.run_folder import read_json, write_json


def card(run: Path, metrics: Metrics) -> str:
    config = read_json(run / "model" / "config.json")
    return model_card(config, metrics, CATALOGUE[config["backbone"]])


def report(run: Path, metrics: Metrics) -> str:
    context = read_context(run)
    assert context is not None
    page = re.sub(
        r"<style>.*?</style>", "", render_page(with_metrics(context, metrics)), flags=re.S
    )
    text = html.unescape(re.sub(r"<[^>]*>", " ", page)).replace("\N{NO-BREAK SPACE}", " ")
    return " ".join(text.split())


@pytest.mark.parametrize("case", CASES)
def test_report_and_card_say_the_verdict_and_no_figure_that_contradicts_it(
    case: str, trained_run: Path
) -> None:
    metrics = whole(read_metrics(trained_run), case)
    for text in (card(trained_run, metrics), report(trained_run, metrics)):
        assert sentences(case) in text
        assert text.count("Labels not checked.") == sentences(case).count("Labels not checked.")
        assert not re.search(r"\b(None(?! of)|nan|null|inf)\b", text)
    page = report(trained_run, metrics)
    assert f"guessing {percent(baseline(metrics))} always the largest class" in page


@pytest.mark.parametrize("case", CASES)
def test_the_command_line_says_the_verdict(
    case: str,
    trained_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    metrics = whole(read_metrics(trained_run), case)
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "manifest.jsonl", "result.json"):
        shutil.copyfile(trained_run / name, run / name)
    write_json(run / "metrics.json", metrics)
    assert main(["fit", str(run)]) == 0
    said = capsys.readouterr().out
    assert sentences(case) in said
    table = " ".join(said.split())
    assert headline_figure(metrics) in table
    assert f"Always guessing the largest class {percent(baseline(metrics))} " in table
    assert main(["fit", str(run), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["verdict_sentence"] == sentences(case)
    assert summary["headline"] == metrics["headline"]


def test_report_card_and_command_line_say_how_often_unrelated_pictures_are_refused(
    trained_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    metrics = read_metrics(trained_run)
    strangers = metrics["strangers"]
    assert strangers is not None
    assert set(strangers) == {"refused", "n", "how"}
    assert 0 <= strangers["refused"] <= strangers["n"]
    assert main(["fit", str(trained_run)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for text in (card(trained_run, metrics), report(trained_run, metrics), said):
        assert text.count(refusal(metrics)) == 1
    assert main(["fit", str(trained_run), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["strangers"] == strangers
    assert summary["refusal"] == refusal(metrics)
