"""The report: complete, honest, safe with anybody's text, and whole without a network."""

import base64
import dataclasses
import io
import itertools
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from tests.training.example_results import (
    CURVE,
    NETWORK,
    config_of,
    predict,
    results_of,
    tuned,
)
from training.evaluation.results import Results
from training.export.model_card import suspects_in_words
from training.export.report import Origin, write_report
from training.export.report_images import InlineImages, worst
from training.export.report_page import ReportContext, read_context, render_page, without_images
from training.phrases import interval, percent, verdict
from training.progress import no_progress
from training.run_folder import ImageRow

HOSTILE = ('<img src=x onerror="alert(1)"> & $x^2$', "](javascript:1) '\"> 柴犬 שיבא")
ORIGIN = Origin(
    "EfficientNet-Lite0",
    "Weights are Apache-2.0.",
    256,
    {"features": 2.5, "train": 61.0, "export": 7},
)
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
BROWSER_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--no-first-run", "--disable-sync", "--no-proxy-server",
)  # fmt: skip


class Page(HTMLParser):
    """What a reader and a browser find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.pieces: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.pieces.append(data)

    def values(self, attribute: str) -> list[str]:
        return [found[attribute] for _, found in self.tags if attribute in found]


def written(run: Path, folder: Path, results: Results, **changes: Any) -> str:
    """Return the report, written into a folder, by a copy of the run folder in `folder / "run"`."""
    copied = shutil.copytree(run, folder / "run", copy_function=os.link)
    config = config_of(run, tuple(results.metrics["per_class"]))
    arguments = {"predict": predict, "origin": ORIGIN, "progress": no_progress} | changes
    path = folder / "report.html"
    write_report(path, results, config, run_folder=copied, **arguments)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plain(imported_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(
        imported_run,
        tmp_path_factory.mktemp("plain"),
        results_of(imported_run, verdict="better"),
    )


@pytest.fixture(scope="module")
def hostile(imported_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Everything that others may write holds markup."""
    results = tuned(results_of(imported_run, HOSTILE, notices=["<b>notice</b>"], verdict="better"))
    evil = {
        "credit": "<i>credit</i>",
        "page_url": "javascript:alert(1)",
        "source": "<u>source</u>",
        "license": "<s>l</s>",
    }
    rows = [dataclasses.replace(row, **evil) for row in results.rows]
    results = dataclasses.replace(results, rows=rows)
    return written(imported_run, tmp_path_factory.mktemp("hostile"), results)


def test_the_verdict_stands_before_everything_else(plain: str, imported_run: Path) -> None:
    text = Page(plain).text
    sentence = verdict(results_of(imported_run, verdict="better").metrics)
    assert sentence.startswith("This model tells the classes apart: right on ")
    assert "On the 12 test pictures held out from the start it is right on 10." in sentence
    assert 'class="verdict good"' in plain
    assert text.index(sentence) < text.index("Figures")


def test_the_first_sentence_says_when_the_model_is_no_better_than_guessing(
    imported_run: Path, tmp_path: Path
) -> None:
    page = Page(written(imported_run, tmp_path, results_of(imported_run, verdict="no_better")))
    assert (
        page.text.split("Picaisso report")[1]
        .split(":")[0]
        .strip()
        .endswith("This model is no better than guessing")
    )
    assert "Always naming the largest class would be right on" in page.text


def test_the_page_asks_the_network_for_nothing(plain: str) -> None:
    page = Page(plain)
    (policy,) = [
        found["content"]
        for tag, found in page.tags
        if found.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert not {"script", "iframe", "object", "embed", "form", "base", "img"} & {
        tag for tag, _ in page.tags
    }
    assert not page.values("src") and not page.values("srcset")
    for tag, found in page.tags:
        address = found.get("href", found.get("xlink:href", "#"))
        assert address.startswith(("#", "data:")) or (
            tag == "a" and address.startswith("https://pictures.example/")
        )
    assert "@import" not in plain
    assert all(
        found.startswith(("data:image/jpeg;base64,", "#"))
        for found in re.findall(r"url\(([^)]*)", plain)
    )


def test_every_link_inside_the_page_leads_somewhere_and_no_id_stands_twice(hostile: str) -> None:
    page = Page(hostile)
    ids = Counter(page.values("id"))
    assert not [name for name, count in ids.items() if count > 1]
    inside = [address[1:] for address in page.values("href") if address.startswith("#")]
    assert len(inside) > 15 and set(inside) <= set(ids)


def test_the_figures_are_those_of_the_metrics(hostile: str, plain: str, imported_run: Path) -> None:
    metrics = tuned(results_of(imported_run, HOSTILE)).metrics
    text = Page(hostile).text
    shares = [
        metrics["accuracy"],
        metrics["balanced_accuracy"],
        metrics["majority_baseline"],
        NETWORK["accuracy"],
    ]
    shares += [
        metrics["head"]["accuracy"],
        *(row["accuracy"] for row in metrics["by_source"].values()),
    ]
    shares += [row[key] for row in metrics["per_class"].values() for key in ("recall", "precision")]
    shares += [metrics["unknown"]["share"], *metrics["shortcuts"].values()]
    assert [share for share in shares if percent(share) not in text] == []
    bounds = [metrics["interval"], NETWORK["interval"], metrics["unknown"]["interval"]]
    assert [pair for pair in bounds if interval(pair) not in text] == []
    for words in (
        f"{metrics['macro_f1']:.3f}",
        "above 0.700",
        CURVE["sentence"],
        "The network is better.",
        "1.250",
    ):
        assert words in text
    assert (
        suspects_in_words(metrics) in text
        and "6 epochs" in text
        and "float32" in text
        and "1 min 10 s" in text
    )
    assert "What more pictures would bring can be measured from 300 on" in Page(plain).text


def test_notices_and_a_shortcut_stand_in_the_page(imported_run: Path, tmp_path: Path) -> None:
    results = results_of(
        imported_run, notices=["Weights were missing."], shortcut_sentence="The size tells it."
    )
    text = Page(written(imported_run, tmp_path, results)).text
    assert (
        text.index("Weights were missing.") < text.index("Figures") + 200
        and "The size tells it." in text
    )


def test_text_of_others_never_becomes_markup(hostile: str) -> None:
    page = Page(hostile)
    for name in HOSTILE:
        assert " ".join(name.split()) in page.text
    for piece in ("<b>notice</b>", "<i>credit</i>", "<u>source</u>", "<s>l</s>"):
        assert piece in page.text and piece not in hostile
    assert not {"img", "b", "u", "s"} & {tag for tag, _ in page.tags}
    assert not [name for _, found in page.tags for name in found if name.startswith("on")]
    assert not [address for address in page.values("href") if "javascript" in address]


def test_each_cell_of_the_confusion_matrix_shows_its_pictures(
    plain: str, imported_run: Path
) -> None:
    metrics = results_of(imported_run).metrics
    assert metrics["confusion"]["matrix"] == [[4, 2], [0, 6]]
    assert metrics["cross_validated"] is not None
    matrix = metrics["cross_validated"]["confusion"]["matrix"]
    assert sum(map(sum, matrix)) == 76 and matrix[1][0] > matrix[0][1] > 0
    for label, row in enumerate(matrix):
        for predicted, count in enumerate(row):
            behind = ""
            if count:
                behind = plain.split(f'id="cell-{label}-{predicted}"')[1].split("</section>")[0]
            shown = min(count, 12 if label == predicted else 24)
            assert behind.count('role="img"') == shown
            assert (f'href="#cell-{label}-{predicted}"' in plain) == bool(count)
    assert re.search(r'class="cell first" id="cell-1-0"', plain), (
        "the commonest mistake is open at first"
    )


def test_the_worst_come_first_with_both_maps_nearest_pictures_and_credits(
    plain: str, imported_run: Path
) -> None:
    section = plain.split('id="worst"')[1].split("</section>")[0]
    cards = section.split('<li class="wrong">')[1:]
    assert len(cards) == 2
    for card in cards:
        text = Page(card.split('<li class="right">')[0]).text
        assert "Map of what spoke for plant" in card and "Map of what spoke for mammal" in card
        assert text.index("says plant") < text.index("is mammal")
        assert text.count("alike 0.") == 3 and "Where it was found" in text
    assert len(worst(results_of(imported_run))) == section.count("<summary>Credits")


def test_credits_are_not_offered_where_nothing_is_known(imported_run: Path, tmp_path: Path) -> None:
    results = results_of(imported_run)
    unknown = [dataclasses.replace(row, credit="", page_url="") for row in results.rows]
    page = written(imported_run, tmp_path, dataclasses.replace(results, rows=unknown))
    assert (
        "<summary>" not in page and "Neither authors nor pages of the pictures are known." in page
    )


def test_suspects_stand_with_score_reason_and_suggestion(plain: str, imported_run: Path) -> None:
    section = Page(plain.split('id="label-issues"')[1].split("</section>")[0]).text
    results = results_of(imported_run)
    for suspect in results.suspects:
        assert f"score {suspect.score:.2f}" in section and suspect.reason in section
    assert section.count("→") == sum(suspect.kind == "label" for suspect in results.suspects)


def test_sources_and_licences_are_counted_and_all_credits_listed(
    plain: str, imported_run: Path
) -> None:
    section = Page(plain.split('id="pictures"')[1].split("</section>")[0])
    rows = [row for row in results_of(imported_run).rows if row.split]
    for (source, licence), count in Counter((row.source, row.license) for row in rows).items():
        assert f"{source} {licence or 'not known'} {count}" in section.text
    assert set(section.values("href")) == {row.page_url for row in rows}


def test_a_picture_is_embedded_once_however_often_it_is_shown(plain: str) -> None:
    embedded = re.findall(r"base64,([^)]*)", plain)
    shown = re.findall(r'class="shot \w* ?((?:p|m\d+-)[0-9a-f]{16})"', plain)
    assert len(embedded) == len(set(embedded)) == len(set(shown)) < len(shown)
    for data in embedded:
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.format == "JPEG" and max(picture.size) <= 176


def test_the_same_findings_give_the_same_bytes(
    plain: str, imported_run: Path, tmp_path: Path
) -> None:
    assert written(imported_run, tmp_path, results_of(imported_run, verdict="better")) == plain


def test_the_model_is_asked_for_mistakes_and_a_few_of_each_class_alone(
    imported_run: Path, tmp_path: Path
) -> None:
    reports: list[tuple[int, int]] = []
    asked: list[Any] = []
    written(
        imported_run, tmp_path, results_of(imported_run),
        predict=lambda image: asked.append(image.shape) or predict(image),
        progress=lambda *at: reports.append(at),
    )  # fmt: skip
    assert len(asked) == 2 + 2 * 3
    assert reports == [(done, 8) for done in range(1, 9)]


def test_a_picture_that_has_gone_is_left_out(imported_run: Path, tmp_path: Path) -> None:
    results = results_of(imported_run)
    run = tmp_path / "before"
    shutil.copytree(imported_run, run)
    gone = worst(results)[0]
    (run / results.rows[gone].file).unlink()
    page = Page(written(run, tmp_path, results))
    assert "not shown" in page.text


def test_a_thousand_pictures_stay_under_six_megabytes(tmp_path: Path) -> None:
    results = noisy_findings(tmp_path, 1000)
    write_report(
        tmp_path / "report.html",
        results,
        config_of(tmp_path),
        tmp_path,
        predict,
        ORIGIN,
        no_progress,
    )
    assert 1e6 < (tmp_path / "report.html").stat().st_size < 6e6
    assert "more." in (tmp_path / "report.html").read_text()


def noisy_findings(run: Path, count: int) -> Results:
    """So many pictures, of noise, which JPEG can hardly make smaller; the model guesses."""
    random = np.random.default_rng(0)
    (run / "images").mkdir()
    first = run / "images" / "0.jpg"
    Image.fromarray(random.integers(0, 256, (300, 300, 3), np.uint8)).save(first, quality=95)
    rows = []
    for number in range(count):
        path = run / "images" / f"{number}.jpg"
        if number:
            path.hardlink_to(first)
        rows.append(
            ImageRow(
                f"images/{number}.jpg",
                f"c00{number % 2 + 1}",
                f"{number:064d}",
                credit="Somebody " * 8,
            )
        )
    classes = [{"id": "c001", "name": "mammal"}, {"id": "c002", "name": "plant"}]
    (run / "config.json").write_text(json.dumps({"classes": classes, "seed": 0}))
    (run / "manifest.jsonl").write_text("".join(json.dumps(row.as_json()) + "\n" for row in rows))
    return results_of(run)


def test_inline_images_beyond_the_limit_are_refused(imported_run: Path) -> None:
    files = sorted(f"images/{path.name}" for path in (imported_run / "images").iterdir())
    images = InlineImages(imported_run, 20_000)
    names = [images.thumbnail(file) for file in files]
    assert 2 < sum(name is not None for name in names) < 20
    assert sum(len(image["jpeg"]) for image in images.added) <= 20_000
    assert [image["name"] for image in images.added] == [name for name in names if name]
    assert images.thumbnail(files[0]) == names[0] and names[0] is not None
    assert InlineImages(imported_run, 20_000).thumbnail("images/none.jpg") is None


def test_an_image_can_be_taken_out_of_the_inline_images(imported_run: Path) -> None:
    paths = sorted((imported_run / "images").iterdir())
    first, second = (f"images/{path.name}" for path in paths[:2])
    images = InlineImages(imported_run, 1_000_000)
    names = {file: images.thumbnail(file) for file in (first, second)}
    drawn = images.class_map(first, 1, Image.new("RGB", (8, 8)))
    assert [image["name"] for image in images.added] == [names[first], names[second], drawn]
    left = without_images(cast(ReportContext, {"images": images.added}), [first])
    assert [image["name"] for image in left["images"]] == [names[second]]


def test_the_kept_context_renders_the_same_page(imported_run: Path, tmp_path: Path) -> None:
    page = written(imported_run, tmp_path, tuned(results_of(imported_run, HOSTILE)))
    context = read_context(tmp_path / "run")
    assert context is not None and render_page(context) == page


def test_an_image_taken_out_of_a_report_leaves_neither_author_nor_page(
    plain: str, imported_run: Path, tmp_path: Path
) -> None:
    results = results_of(imported_run, verdict="better")
    assert written(imported_run, tmp_path, results) == plain
    context = read_context(tmp_path / "run")
    assert context is not None
    in_matrix = set()
    for cell in itertools.chain.from_iterable(context["matrix"]):
        in_matrix |= {tile["file"] for tile in cell["tiles"]}
    shown = next(
        row
        for row in results.rows
        if row.split == "test" and row.page_url and row.file in in_matrix
    )
    link = f'"{shown.page_url}"'
    assert plain.count(link) > 1
    left = render_page(without_images(context, [shown.file]))
    assert link not in left and Path(shown.file).stem not in left
    assert left.count("Where it was found") > 10
    assert "1 picture taken down." in left and "taken down" not in plain


def test_a_report_without_all_its_mistakes_does_not_claim_that_there_were_none(
    imported_run: Path, tmp_path: Path
) -> None:
    page = written(imported_run, tmp_path, results_of(imported_run))
    context = read_context(tmp_path / "run")
    assert context is not None
    mistakes = [item["tile"]["file"] for item in context["worst"] if not item["tile"]["right"]]
    left = render_page(without_images(context, mistakes))
    assert "Its surest mistakes first" in page and "Its surest mistakes first" not in left
    assert "No mistake on the test pictures" not in left
    assert "These are the ones it was least sure of." in left


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("Chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in BROWSER_FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page_whole_and_asks_for_nothing(
    browser: webdriver.Chrome, hostile: str, tmp_path: Path, width: int
) -> None:
    (tmp_path / "report.html").write_text(hostile, encoding="utf-8")
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get_log("performance")
    browser.get((tmp_path / "report.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    shown = browser.execute_script(
        "return [...document.querySelectorAll('.shot:not(.absent)')]"
        ".map(e => getComputedStyle(e).backgroundImage)"
    )
    assert len(shown) > 40 and all(image.startswith('url("data:image/jpeg') for image in shown)
    visible = (
        "return [...document.querySelectorAll('.cell')].filter(e => e.offsetHeight).map(e => e.id)"
    )
    assert browser.execute_script(visible) == ["cell-0-1"]
    browser.execute_script(
        "arguments[0].click()", browser.find_element(By.CSS_SELECTOR, '[href="#cell-1-1"]')
    )
    assert browser.execute_script(visible) == ["cell-1-1"]
    assert browser.get_log("browser") == []
    asked = re.findall(
        r'"Network.requestWillBeSent".*?"url":"([^"]{0,80})', str(browser.get_log("performance"))
    )
    assert asked and all(address.startswith(("file:", "data:")) for address in asked)
