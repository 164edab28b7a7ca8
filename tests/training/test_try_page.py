"""try.html as its reader opens it: by double click, in the real Chromium, without a network."""

import base64
import dataclasses
import gzip
import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.training import example_models
from tests.training.conftest import LoopbackServer
from tests.training.example_models import one_thread  # noqa: F401
from training.explanations import evidence, overlay
from training.export.half_precision import TOLERANCE, half_copy, half_precision
from training.export.try_page import TryPage, write_try_page
from training.images.decode import as_array, read_image
from training.predict import Model, open_model

VENDORED = Path(__file__).parents[2] / "training" / "export" / "assets" / "onnxruntime-web"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--no-first-run", "--disable-sync", "--no-proxy-server",
)  # fmt: skip
PAGE = TryPage(example_models.NAMES, 0.9, 256, "EfficientNet-Lite0", "0.1.0")

in_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; a space and a percent sign in its path, as in those of real people."""
    made = tmp_path_factory.mktemp("try") / "my 100% model"
    example_models.export(made, "efficientnet_lite0", tmp_path_factory.getbasetemp() / "caches")
    return made


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The copy in half precision that the page has inside."""
    return half_model(folder, tmp_path_factory.mktemp("half"))


def half_model(folder: Path, copy: Path) -> Model:
    content = half_precision(onnx.load(folder / "model.onnx"))
    (copy / "model.onnx").write_bytes(content)
    return open_model(copy, threads=1)


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium: webdriver.Chrome, folder: Path) -> Iterator[webdriver.Chrome]:
    """The page opened afresh and ready; the browser must have nothing to complain about."""
    yield from opened(chromium, folder / "try.html", "ready")


def opened(driver: webdriver.Chrome, path: Path, state: str) -> Iterator[webdriver.Chrome]:
    driver.get_log("browser")
    driver.get(path.as_uri())
    wait_for(driver, state)
    yield driver
    assert driver.get_log("browser") == []


def wait_for(driver: webdriver.Chrome, state: str, answers: int = 0) -> None:
    def reached(_: webdriver.Chrome) -> bool:
        data = driver.execute_script("return {...document.documentElement.dataset}")
        return data["state"] == state and int(data.get("answers", 0)) >= answers

    WebDriverWait(driver, 60, poll_frequency=0.05).until(reached, problem(driver))


def answers(driver: webdriver.Chrome) -> int:
    return int(driver.execute_script("return document.documentElement.dataset.answers || 0"))


def problem(driver: webdriver.Chrome) -> str:
    return driver.find_element(By.ID, "problem").text


def result(driver: webdriver.Chrome) -> dict:
    return json.loads(driver.find_element(By.ID, "answer").get_attribute("data-result") or "{}")


def classify(driver: webdriver.Chrome, path: Path) -> dict:
    before = answers(driver)
    driver.find_element(By.ID, "file").send_keys(str(path))
    wait_for(driver, "ready", before + 1)
    return result(driver)


def give_wrong(driver: webdriver.Chrome, path: Path) -> str:
    """Give the page a file that is no picture, and return what it says."""
    driver.find_element(By.ID, "file").send_keys(str(path))
    WebDriverWait(driver, 20, poll_frequency=0.05).until(lambda _: problem(driver))
    wait_for(driver, "ready")
    return problem(driver)


def agree(found: dict, model: Model, path: Path, tolerance: float = 1e-3) -> bool:
    expected = model.run(as_array(read_image(path)))
    closest = np.abs(expected.probabilities - found["probabilities"]).max()
    return bool(closest < tolerance and abs(expected.novelty - found["novelty"]) < tolerance)


def saved(folder: Path, picture: np.ndarray, name: str) -> Path:
    Image.fromarray(picture).save(folder / name)
    return folder / name


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A picture that is shown pixel for pixel."""
    return saved(tmp_path, example_models.blots(np.random.default_rng(5), 300, 400), "blots.png")


def test_the_vendored_runtime_is_what_its_manifest_says() -> None:
    manifest = json.loads((VENDORED / "MANIFEST.json").read_text())
    assert manifest["name"] == "onnxruntime-web" and manifest["licence"] == "MIT"
    assert set(manifest["files"]) == {path.name for path in VENDORED.iterdir()} - {"MANIFEST.json"}
    for name, entry in manifest["files"].items():
        content = (VENDORED / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], name
        if name.endswith(".gz"):
            assert (
                hashlib.sha256(gzip.decompress(content)).hexdigest() == entry["unpacked_sha256"]
            ), name
    assert f"ONNX Runtime Web v{manifest['version']}" in (VENDORED / "ort.wasm.min.js").read_text()


def test_the_page_forbids_all_but_its_own_scripts(folder: Path) -> None:
    text = (folder / "try.html").read_text()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert (
        rules["default-src"] == "'none'"
        and "connect-src" not in rules
        and "unsafe-inline" not in policy
    )
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules["script-src"]
    assert "Permission is hereby granted" in text, "the runtime's licence must travel with it"
    assert "<b>tea" not in text, "a class name became markup"


@in_chromium
@pytest.mark.browser
def test_it_agrees_with_onnx_runtime_on_the_same_pixels(
    page: webdriver.Chrome, model: Model, tmp_path: Path
) -> None:
    known = set()
    for number, picture in enumerate(example_models.odd_pictures(10, seed=3)):
        path = saved(tmp_path, picture, f"{number}.png")
        found = classify(page, path)
        assert [found["height"], found["width"]] == list(picture.shape[:2])
        assert agree(found, model, path), (picture.shape, found)
        assert found["known"] == (found["novelty"] <= model.reject)
        heading = page.find_element(By.ID, "verdict").text
        assert heading == (found["label"] if found["known"] else "None of these")
        known.add(found["known"])
    assert known == {True, False}, "the pictures are no test"


@in_chromium
@pytest.mark.browser
def test_transparency_grey_palettes_and_a_turned_camera_are_read_as_elsewhere(
    page: webdriver.Chrome, model: Model, tmp_path: Path
) -> None:
    picture = Image.fromarray(example_models.blots(np.random.default_rng(8), 200, 320))
    layer = picture.copy()
    layer.putalpha(Image.linear_gradient("L").resize(picture.size))
    for name, form in (
        ("alpha", layer),
        ("grey", picture.convert("L")),
        ("palette", picture.quantize(16)),
    ):
        form.save(tmp_path / f"{name}.png")
        assert agree(
            classify(page, tmp_path / f"{name}.png"), model, tmp_path / f"{name}.png", 5e-3
        ), name
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "turned.jpg", quality=95, exif=exif)
    found = classify(page, tmp_path / "turned.jpg")
    assert (found["width"], found["height"]) == (200, 320)
    assert agree(found, model, tmp_path / "turned.jpg", 0.05), (
        "JPEG decoders differ, but not by this"
    )


@in_chromium
@pytest.mark.browser
def test_the_middle_of_a_huge_picture_is_all_that_is_needed(
    page: webdriver.Chrome, model: Model, tmp_path: Path
) -> None:
    coarse = example_models.blots(np.random.default_rng(9), 30, 61)
    path = saved(tmp_path, np.repeat(np.repeat(coarse, 100, axis=0), 99, axis=1), "huge.png")
    found = classify(page, path)
    assert found["width"] * found["height"] > 16e6
    assert agree(found, model, path), found


@in_chromium
@pytest.mark.browser
def test_a_large_model_is_inside_too_and_the_page_says_how_near_it_is_to_the_full_one(
    chromium: webdriver.Chrome,
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    photograph: Path,
) -> None:
    folder = tmp_path / "resnet50"
    example_models.export(folder, "resnet50", tmp_path_factory.getbasetemp() / "caches")
    config = json.loads((folder / "config.json").read_text())["try_page"]
    assert config["weights"] == "float16" and config["largest_difference"] < TOLERANCE
    assert 60e6 < (folder / "try.html").stat().st_size < 75e6 < 94e6
    half = half_model(folder, tmp_path)
    full = open_model(folder, threads=1)
    for page in opened(chromium, folder / "try.html", "ready"):
        assert agree(classify(page, photograph), half, photograph)
        assert agree(result(page), full, photograph, TOLERANCE)
        told = page.find_element(By.CSS_SELECTOR, "footer p").text
    assert "half precision: on 3 pictures it differed by at most 0.0" in told


def test_a_copy_that_answers_otherwise_stays_outside(folder: Path, model: Model) -> None:
    pictures = example_models.odd_pictures(3, seed=7)
    near = half_copy(folder / "model.onnx", open_model(folder, threads=1).run, pictures)
    assert near.is_close and near.as_json()["weights"] == "float16"
    shifted = dataclasses.replace(near, difference=0.011)
    assert shifted.as_json() == {
        "weights": "float32",
        "largest_difference": 0.011,
        "pictures": 3,
    }
    broken = dataclasses.replace(near, difference=float("nan"))
    assert not broken.is_close and broken.as_json()["largest_difference"] is None
    assert "whole model.onnx" in broken.in_words()


@in_chromium
@pytest.mark.browser
def test_of_a_huge_picture_all_is_taken_where_the_model_sees_all(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    made = example_models.trained(example_models.network("efficientnet_lite0"), tmp_path / "caches")
    made.network.view = "letterbox"
    example_models.export_model(
        made, tmp_path / "model", example_models.odd_pictures(3, seed=7), lambda done, total: None
    )
    model = open_model(tmp_path / "model", threads=1)
    coarse = example_models.blots(np.random.default_rng(9), 30, 61)
    path = saved(tmp_path, np.repeat(np.repeat(coarse, 100, axis=0), 99, axis=1), "huge.png")
    for page in opened(chromium, tmp_path / "model" / "try.html", "ready"):
        assert agree(classify(page, path), model, path, 2e-2)


@in_chromium
@pytest.mark.browser
def test_the_answer_names_the_closest_class_and_how_unfamiliar_a_picture_is(
    page: webdriver.Chrome, model: Model, tmp_path: Path
) -> None:
    assert page.find_element(By.TAG_NAME, "h1").text.startswith("Which is it: mammal, plant or ")
    pictures = example_models.odd_pictures(10, seed=3)
    unknown = next(one for one in pictures if model.run(one).novelty > model.reject)
    found = classify(page, saved(tmp_path, unknown, "unknown.png"))
    reason = page.find_element(By.ID, "reason").text
    assert reason.startswith(f"Closest class: {found['label']} (")
    facts = page.find_element(By.ID, "facts").text
    assert facts.endswith(f"Unfamiliarity {found['novelty']:.2f} (limit 0.90).")


@in_chromium
@pytest.mark.browser
def test_what_is_no_picture_is_named_and_the_next_picture_works(
    page: webdriver.Chrome, model: Model, tmp_path: Path, photograph: Path
) -> None:
    for name, content in (
        ("notes.png", b"not a picture"),
        ("empty.jpg", b""),
        ("half.png", photograph.read_bytes()[:40]),
    ):
        (tmp_path / name).write_bytes(content)
        assert (
            give_wrong(page, tmp_path / name)
            == f"“{name}” is no picture that this browser can read."
        )
        assert not page.find_element(By.ID, "answer").is_displayed()
    assert agree(classify(page, photograph), model, photograph)
    assert problem(page) == ""


HANDED_OVER = """
const [kind, text, name] = arguments;
const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const transfer = new DataTransfer();
if (name) transfer.items.add(new File([bytes], name, {type: "image/png"}));
else transfer.setData("text/plain", "words");
document.body.dispatchEvent(kind === "paste"
  ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true})
  : new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
"""


@in_chromium
@pytest.mark.browser
@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(
    page: webdriver.Chrome, model: Model, photograph: Path, kind: str
) -> None:
    page.execute_script(HANDED_OVER, kind, "", "")
    assert problem(page).startswith("There is no picture in that.")
    page.execute_script(
        HANDED_OVER, kind, base64.b64encode(photograph.read_bytes()).decode(), "photograph.png"
    )
    wait_for(page, "ready", 1)
    assert agree(result(page), model, photograph) and problem(page) == ""


def canvas(driver: webdriver.Chrome) -> np.ndarray:
    url = driver.execute_script("return document.getElementById('view').toDataURL()")
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"), float
    )


@in_chromium
@pytest.mark.browser
def test_the_map_of_each_class_is_laid_over_the_picture_by_keyboard(
    page: webdriver.Chrome, model: Model, photograph: Path
) -> None:
    found = classify(page, photograph)
    picture = read_image(photograph)
    assert np.array_equal(canvas(page), as_array(picture))
    cam = model.run(as_array(picture)).cam
    height = max(evidence(cam, number).max() for number in range(3))
    page.find_element(By.CSS_SELECTOR, "input[value=none]").send_keys(Keys.ARROW_DOWN)
    for number in np.argsort(found["probabilities"])[::-1]:
        chosen = page.switch_to.active_element
        assert chosen.get_attribute("value") == str(number)
        expected = np.asarray(overlay(picture, evidence(cam, int(number)), 256, height), float)
        assert np.abs(canvas(page) - expected).mean() < 1.5
        assert example_models.NAMES[number] in (
            page.find_element(By.ID, "view").get_attribute("aria-label") or ""
        )
        chosen.send_keys(Keys.ARROW_DOWN)
    assert np.array_equal(canvas(page), as_array(picture)), "the keys go round to the picture alone"


@in_chromium
@pytest.mark.browser
def test_a_model_that_is_not_inside_is_dropped_first(
    chromium: webdriver.Chrome, folder: Path, tmp_path: Path, photograph: Path
) -> None:
    model = open_model(folder, threads=1)
    write_try_page(tmp_path / "try.html", PAGE, folder / "model.onnx", limit=1_000_000)
    assert (tmp_path / "try.html").stat().st_size < 6e6
    for page in opened(chromium, tmp_path / "try.html", "needs-model"):
        assert "Drop model.onnx (14 MB)" in page.find_element(By.ID, "invitation").text
        foreign = bytearray((folder / "model.onnx").read_bytes())
        foreign[-1] ^= 1
        (tmp_path / "model.onnx").write_bytes(foreign)
        page.find_element(By.ID, "file").send_keys(str(tmp_path / "model.onnx"))
        WebDriverWait(page, 20).until(
            lambda driver: "not the model that belongs to this page" in problem(driver)
        )
        page.find_element(By.ID, "file").send_keys(str(photograph))
        WebDriverWait(page, 20).until(lambda driver: problem(driver).startswith("First the model"))
        page.find_element(By.ID, "file").send_keys(str(folder / "model.onnx"))
        wait_for(page, "ready", 1)
        assert agree(result(page), model, photograph) and problem(page) == ""


@in_chromium
@pytest.mark.browser
def test_nothing_can_be_sent_from_the_page(
    page: webdriver.Chrome, server: LoopbackServer, chromium: webdriver.Chrome
) -> None:
    server.files["/"] = b"secret"
    attempt = """
    const done = arguments[1], picture = new Image();
    picture.src = arguments[0] + "/picture";
    fetch(arguments[0] + "/").then(() => done("sent"), () => done("refused"));
    """
    assert page.execute_async_script(attempt, server.url) == "refused"
    assert server.asked == []
    complaints = [entry["message"] for entry in chromium.get_log("browser")]
    assert complaints and all("Content Security Policy" in complaint for complaint in complaints)


@in_chromium
@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "dark")])
def test_it_fits_a_phone_and_is_legible_in_the_dark(
    page: webdriver.Chrome, photograph: Path, width: int, scheme: str
) -> None:
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    classify(page, photograph)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    ground, ink = page.execute_script(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    )
    dark = sum(map(int, re.findall(r"\d+", ground)[:3])) < sum(
        map(int, re.findall(r"\d+", ink)[:3])
    )
    assert dark == (scheme == "dark")
    names = [name.text for name in page.find_elements(By.CSS_SELECTOR, ".bar .name")]
    assert set(names) == {"Picture alone", *example_models.NAMES}
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@in_chromium
def test_the_lines_of_the_card_classify_on_a_page_of_ones_own(
    chromium: webdriver.Chrome, folder: Path, server: LoopbackServer
) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```js\n(.+?)\n```$", card, re.DOTALL | re.MULTILINE)
    assert len(lines.splitlines()) == 3
    picture = example_models.blots(np.random.default_rng(5), 120, 90)
    height, width, _ = picture.shape
    script = f"""
      ort.env.wasm.numThreads = 1;
      const [height, width] = [{height}, {width}];
      const rgb = Uint8Array.from(atob("{base64.b64encode(picture.tobytes()).decode()}"),
                                  (sign) => sign.charCodeAt(0));
      console.log = (numbers) => {{ document.title = JSON.stringify([...numbers]); }};
      {lines}"""
    wasm = gzip.decompress((VENDORED / "ort-wasm-simd-threaded.wasm.gz").read_bytes())
    page = f'<script src="ort.wasm.min.js"></script><script type="module">{script}</script>'
    server.files |= {
        "/page.html": page.encode(),
        "/model.onnx": (folder / "model.onnx").read_bytes(),
        "/ort-wasm-simd-threaded.wasm": wasm,
    }
    for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs"):
        server.files[f"/{name}"] = (VENDORED / name).read_bytes()
    chromium.get(f"{server.url}/page.html")
    WebDriverWait(chromium, 60).until(lambda driver: driver.title.startswith("["))
    expected = open_model(folder).run(picture).probabilities
    assert np.allclose(json.loads(chromium.title), expected, atol=1e-3)
    chromium.get_log("browser")
