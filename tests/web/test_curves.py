"""The curves of a fine-tuning on a request's page: from the file that the training writes to what a
real Chromium draws.
"""

import hashlib
import json
import re
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
from django.utils import timezone
from selenium.webdriver.common.by import By

from requests_app import pipeline
from requests_app.models import ClassifierRequest, DatasetVersion, Job, JobState
from requests_app.views.curves import curves_of
from tests.training.tiny_training import CONFIG, NO_LIMIT, digits, tiny_network
from tests.web.accessibility import barriers
from tests.web.conftest import delivered, page_of, running
from tests.web.test_browser import CHROMIUM, DRIVER, address, browser, chromium, wait
from training.finetuning.trainer import Plan, TrainContext, finetune
from training.networks.precision import FP32
from training.progress import Run

__all__ = ["address", "browser", "chromium"]  # fixtures
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed"
)
VENDORED = Path(__file__).resolve().parents[2] / "static" / "vendor" / "uplot"
EPOCHS = 4


@cache
def written_curves() -> list[str]:
    """The lines that a real fine-tuning of two parts writes, of a tiny network."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = Run(folder, cast(Any, None))
        for training in (1, 2):
            context = TrainContext(
                folder / str(training),
                budget=NO_LIMIT,
                precision=FP32,
                plan=Plan(EPOCHS, 10, FP32.name, "cpu"),
                rival_loss=1.02,
                rival_accuracy=0.75,
                record=run.record,
                training=training,
                trainings=3,
            )
            finetune(tiny_network(), digits(folder), CONFIG, context)
        return (folder / "curves.jsonl").read_text().splitlines(keepends=True)


def training(lines: list[str]) -> ClassifierRequest:
    """A request whose network is being fine-tuned, with these lines in its run folder."""
    classifier = running()
    classifier.jobs.update(state=JobState.DONE, finished=timezone.now())
    Job.objects.create(
        request=classifier,
        stage=pipeline.TRAIN.name,
        queue=pipeline.TRAIN.queue,
        state=JobState.RUNNING,
        attempt=1,
        started=timezone.now(),
        progress={"percent": 60, "message": "Fine-tuning", "eta_seconds": 130},
    )
    version = DatasetVersion.objects.create(request=classifier, number=1, images=80)
    write(version, lines)
    return classifier


def write(version: DatasetVersion, lines: list[str]) -> None:
    version.folder.mkdir(parents=True, exist_ok=True)
    (version.folder / "curves.jsonl").write_text("".join(lines))


def test_every_epoch_of_a_fine_tuning_is_written_for_the_curves():
    rows = [json.loads(line) for line in written_curves()]
    places = [(row["training"], row["epoch"]) for row in rows]
    assert places == list(product((1, 2), range(1, EPOCHS + 1)))
    for row in rows:
        assert row["epochs"] == EPOCHS and row["trainings"] == 3
        assert (row["head_loss"], row["head_accuracy"]) == (1.02, 0.75)
        assert row["train_loss"] > 0 and row["val_loss"] > 0 and 0 <= row["val_accuracy"] <= 1


def test_the_latest_part_is_drawn_and_the_table_says_the_same(client):
    shown = curves_of(training(written_curves()))
    assert shown is not None
    drawn = json.loads(shown.points)
    last = [json.loads(line) for line in written_curves()[EPOCHS:]]
    assert drawn["epochs"] == [1, 2, 3, 4] and drawn["planned"] == 4
    assert drawn["accuracy"] == [row["val_accuracy"] for row in last]
    assert [row.val_loss for row in shown.rows] == [f"{row['val_loss']:.3f}" for row in last]
    assert shown.sentence == (
        "The network learns your classes: part 2 of up to 3, epoch 4 of at most 4."
    )
    assert shown.head_accuracy == "75 %"


def test_before_the_network_the_search_for_the_head_is_drawn():
    with TemporaryDirectory() as scratch:
        run = Run(Path(scratch), cast(Any, None))
        run.record_head([(0.9, 0.6), (0.5, 0.85), (0.7, 0.8)])
        head = (Path(scratch) / "curves.jsonl").read_text().splitlines(keepends=True)
    classifier = training(head)
    shown = curves_of(classifier)
    assert shown is not None and shown.of_head
    assert shown.sentence.startswith("The linear head was fitted with 3 strengths of ")
    assert json.loads(shown.points)["accuracy"] == [0.6, 0.85, 0.8]
    # A run that goes on fits the head again, and its network goes on where it was.
    write(classifier.versions.get(), [*head, *written_curves()[:2], *head, written_curves()[2]])
    shown = curves_of(classifier)
    assert shown is not None and not shown.of_head
    assert json.loads(shown.points)["epochs"] == [1, 2, 3]


def test_epochs_that_are_done_again_and_a_torn_line_do_no_harm():
    first, second, third, *_ = written_curves()
    shown = curves_of(training([first, second, third, second, third[:40]]))
    assert shown is not None
    assert json.loads(shown.points)["epochs"] == [1, 2]


def test_training_on_all_pictures_keeps_the_curves_of_the_trial():
    on_all = json.loads(written_curves()[0])
    unjudged = {"val_loss": None, "val_accuracy": None, "head_loss": None, "head_accuracy": None}
    row = json.dumps({**on_all, **unjudged, "training": 3}) + "\n"
    shown = curves_of(training([*written_curves(), row]))
    assert shown is not None
    assert shown.sentence == (
        "The network learns once more, from all pictures: epoch 1 of at most 4."
    )
    assert len(shown.rows) == EPOCHS


def test_nothing_is_shown_where_there_is_nothing_to_draw(client):
    assert "data-curves" not in page_of(client, training([]))
    assert "data-curves" not in page_of(client, delivered())


def test_the_curves_stay_with_the_details_of_the_result(client):
    classifier = delivered()
    write(classifier.versions.get(), written_curves())
    page = page_of(client, classifier)
    assert "Its training in curves" in page and "data-curves" in page
    assert "style=" not in page


def test_the_vendored_uplot_is_what_its_manifest_says():
    manifest = json.loads((VENDORED / "MANIFEST.json").read_text())
    assert manifest["licence"] == "MIT"
    assert set(manifest["files"]) == {path.name for path in VENDORED.iterdir()} - {"MANIFEST.json"}
    for name, entry in manifest["files"].items():
        content = (VENDORED / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], name
    script = (VENDORED / "uPlot.iife.min.js").read_text()
    assert re.search(rf"uPlot \(v{re.escape(manifest['version'])}\)", script)


@pytest.mark.browser
@needs_browser
def test_the_curves_grow_while_the_page_is_open(browser, address):
    lines = written_curves()
    classifier = training(lines[:1])
    browser.get(classifier.url)
    wait(browser, lambda d: len(d.find_elements(By.CSS_SELECTOR, ".chart canvas")) == 2)
    canvas = browser.find_element(By.CSS_SELECTOR, ".chart canvas")
    height = browser.find_element(By.CSS_SELECTOR, ".charts").size["height"]
    before = browser.execute_script("return arguments[0].toDataURL()", canvas)
    write(classifier.versions.get(), lines[:3])
    wait(browser, lambda d: "epoch 3 of" in d.find_element(By.CSS_SELECTOR, "[data-curves]").text)
    # The same canvas, kept while the page around it was replaced, has more on it, in as much room.
    redrawn = "return arguments[0].isConnected && arguments[0].toDataURL() !== arguments[1]"
    wait(browser, lambda d: d.execute_script(redrawn, canvas, before))
    assert browser.find_element(By.CSS_SELECTOR, ".charts").size["height"] == height
    assert len(browser.find_elements(By.CSS_SELECTOR, ".chart canvas")) == 2


@pytest.mark.browser
@needs_browser
def test_the_page_of_a_training_has_no_barriers_and_fits_a_phone(browser, address, tmp_path):
    classifier = training(written_curves())
    for width, scheme in product((1440, 390), ("light", "dark")):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 1100, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.get(classifier.url)
        wait(browser, lambda d: len(d.find_elements(By.CSS_SELECTOR, ".chart canvas")) == 2)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert barriers(browser) == [], (width, scheme)
        browser.save_screenshot(str(tmp_path / f"curves-{width}-{scheme}.png"))
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.browser
@needs_browser
def test_a_hidden_page_asks_seldom(browser, address):
    browser.get(running().url)
    is_refused = """
      Object.defineProperty(document, "hidden", { configurable: true, value: arguments[0] });
      const detail = { headers: {} };
      const ask = () => {
        const options = { bubbles: true, cancelable: true, detail };
        const asked = new CustomEvent("htmx:configRequest", options);
        return !document.getElementById("progress").dispatchEvent(asked);
      };
      ask();
      return ask();"""
    assert browser.execute_script(is_refused, True) is True
    assert browser.execute_script(is_refused, False) is False
