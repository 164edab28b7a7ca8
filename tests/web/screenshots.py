"""Make screenshots of every page and state, and measure each.

    python -m tests.web.screenshots --out DIR [--only NAME ...] [--demo FOLDER] [--readme]

Runs `manage.py demo` in a scratch folder, corrects some of its labels and trains a second version,
makes the other states beside it, serves all of it by the site's own web server, and opens each page
in Chromium at 390 and 1440 px, light and dark. Prints a line for each page: the time to its largest
part, how far the layout shifted, kilobytes after compression without pictures and the browser's
runtime, and what is wrong. Ends with 1 where a limit is broken. Takes about five minutes.
"""

import argparse
import base64
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:  # both need Django's settings, which name the scratch folder
    from selenium import webdriver

    from tests.web.pages import Page, States

PROJECT = Path(__file__).resolve().parents[2]
FAST = ("form", "queued", "collecting", "first-model", "training", "result")
MOST_SECONDS = 1.0  # to the largest part of the pages in FAST
MOST_SHIFT = 0.02  # Django's own admin, whose scripts build filters and tabs late, shifts further
MOST_KILOBYTES = 150
RELABELLED = 6  # pictures of each class with a wrong label, for a version to correct
# Sizes are those after compression, whether this server compresses or the one in front of it.
# Of each picture: the page, and the pixels of its desk and of its phone that are left out above.
README = {
    "result": ("result", 0, 0),
    "gallery": ("gallery", 0, 0),
    "versions": ("versions-two", 0, 0),
    "try": ("try-answer", 290, 885),
}
MEASURE = """
const done = arguments[0];
const observed = (type) => new Promise((resolve) => {
  const observer = new PerformanceObserver((list) => resolve(list.getEntries()));
  observer.observe({ type, buffered: true });
  setTimeout(() => resolve([]), 300);
});
const compressed = async (address) => {
  const text = await (await fetch(address)).text();
  const plain = text.replaceAll(/data:image[^"')]*/g, '');
  const stream = new Blob([plain]).stream().pipeThrough(new CompressionStream('gzip'));
  return (await new Response(stream).arrayBuffer()).byteLength;
};
(async () => {
  const largest = (await observed('largest-contentful-paint')).at(-1);
  const shifts = await observed('layout-shift');
  const parts = performance.getEntriesByType('resource').map((entry) => entry.name)
    .filter((name) => /[.](css|js|mjs|svg|webmanifest)$/.test(new URL(name).pathname));
  let bytes = 0;
  for (const address of new Set([location.href, ...parts])) bytes += await compressed(address);
  const shift = shifts.reduce((sum, entry) => sum + (entry.hadRecentInput ? 0 : entry.value), 0);
  const moved = shifts.flatMap((entry) => entry.sources).map(({ node }) => node)
    .map((node) => node?.id || node?.className || node?.nodeName);
  const seconds = largest ? largest.startTime / 1000 : 0;
  done({ seconds, shift, kilobytes: bytes / 1000, moved: [...new Set(moved)].join(', ') });
})();
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.web.screenshots", description=__doc__)
    add = parser.add_argument
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add("--out", type=Path, required=True, help="folder for the pictures")
    add("--only", nargs="+", default=[], metavar="NAME", help="these pages alone")
    add("--demo", type=Path, help="folder of a finished `manage.py demo`, which is copied")
    add("--readme", action="store_true", help="write the pictures of the README into docs/")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="picaisso-screenshots-") as scratch:
        folder = Path(scratch, "demo")
        if options.demo:
            shutil.copytree(options.demo, folder)
        else:
            command = [sys.executable, "manage.py", "demo", "--json", "--folder", str(folder)]
            subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        set_up_django(folder, port)
        states = make_states(folder)
        code = look_at_pages(states, f"http://127.0.0.1:{port}", options.out, options.only)
    if options.readme:
        write_readme_pictures(options.out, PROJECT / "docs")
    return code


def set_up_django(folder: Path, port: int) -> None:
    """Make the demo's folder the data folder of this process and of those that it starts."""
    for name in list(os.environ):
        if name.startswith(("PICAISSO_", "DATABASE_URL", "EMAIL_URL")):
            del os.environ[name]
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "picaisso_site.settings",
        "PICAISSO_ENV_FILE": os.devnull,
        "PICAISSO_DATA_DIR": str(folder),
        "PICAISSO_BASE_URL": f"http://127.0.0.1:{port}",
        "PICAISSO_BACKBONE": "efficientnet_lite0",
    }
    import django

    django.setup()


def make_states(folder: Path) -> "States":
    """Return the demo's request with a second version, and what the other states need."""
    from requests_app.models import ClassifierRequest, ImageUrl
    from tests.web.pages import States

    finished = ClassifierRequest.objects.earliest("pk")
    files = []
    for image_class in finished.classes.all():
        images = image_class.images.filter(state="kept").order_by("pk")
        files.append([finished.folder / "collect" / image.file for image in images])
    tested = ImageUrl.objects.of_request(finished).filter(state="kept", split="test")
    given = folder / "picture.jpg"
    shutil.copyfile(finished.folder / "collect" / tested.earliest("pk").file, given)
    train_with_errors_and_without(finished)
    return States(finished, finished, files, given)


def train_with_errors_and_without(finished) -> None:
    """Train a second version with wrong labels, and a third in which a person corrected them."""
    from requests_app import curation, lifecycle, pipeline, tasks
    from requests_app.models import ImageUrl

    classes = list(finished.classes.all())
    wrong = []
    for image_class, other in zip(classes, classes[1:] + classes[:1], strict=True):
        images = ImageUrl.objects.of_request(finished).of_class(image_class)
        chosen = images.filter(state="kept", split="train").order_by("-pk")[:RELABELLED]
        keys = [image.pk for image in chosen]
        curation.relabel(finished, keys, other.number, "person")
        wrong.append((image_class, keys))
    for correct in (False, True):
        if correct:
            for image_class, keys in wrong:
                curation.relabel(finished, keys, image_class.number, "person")
        assert lifecycle.retrain(finished), "the training again did not start"
        for stage in (pipeline.TRAIN, pipeline.PACKAGE, pipeline.DELIVER):
            tasks.drain(stage.queue)
        finished.refresh_from_db()
        assert finished.status == "delivered", finished.error


def look_at_pages(states: "States", site: str, out: Path, only: list[str]) -> int:
    """Serve the site, make the pictures, print the lines, and return the exit code."""
    from tests.web.pages import PAGES
    from tests.web.test_browser import open_browser

    port = site.rpartition(":")[2]
    command = [sys.executable, "manage.py", "up", "--only", "web", "--port", port]
    with (out / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log)
    driver = open_browser(scripts=True)
    try:
        wait_for(site)
        faults = 0
        for page in PAGES:
            if not only or page.name in only:
                faults += look_at(page, driver, states, site, out)
    finally:
        driver.quit()
        server.terminate()
        server.wait()
    print(f"{faults} of the pages break a limit" if faults else "no page breaks a limit")
    return 1 if faults else 0


def wait_for(site: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(site, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit("The web server does not answer; server.log says why.")


def look_at(
    page: "Page", driver: "webdriver.Chrome", states: "States", site: str, out: Path
) -> bool:
    """Make a page's four pictures, print its line, and return whether it breaks a limit."""
    from tests.web.accessibility import barriers, show_as

    driver.execute_cdp_cmd("Network.enable", {})
    show_as(driver, 1440, "light")
    driver.execute_cdp_cmd("Network.clearBrowserCache", {})
    page.open(driver, states, site)
    time.sleep(0.3)  # what moves the layout late
    found = {"seconds": 0, "shift": 0, "kilobytes": 0, "moved": ""}
    if driver.current_url.startswith(site):  # no mail
        found = driver.execute_async_script(MEASURE)
    problems = []
    if page.name in FAST and found["seconds"] > MOST_SECONDS:
        problems.append("its largest part comes late")
    if found["shift"] > MOST_SHIFT:
        problems.append(f"its layout shifts: {found['moved']}")
    if found["kilobytes"] > MOST_KILOBYTES:
        problems.append("it is large")
    for width, scheme in product((390, 1440), ("light", "dark")):
        show_as(driver, width, scheme)
        time.sleep(0.1)
        wide = driver.execute_script("return document.documentElement.scrollWidth")
        if wide > width:
            problems.append(f"{wide} px wide at {width}")
        problems += [f"{line} ({width}, {scheme})" for line in barriers(driver)]
        picture = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        file = out / f"{page.name}-{width}-{scheme}.png"
        file.write_bytes(base64.b64decode(picture["data"]))
    figures = "{seconds:5.2f} s  shift {shift:.3f}  {kilobytes:4.0f} kB".format(**found)
    print(f"{page.name:22} {figures}  {'; '.join(problems) or 'ok'}", flush=True)
    return bool(problems)


def write_readme_pictures(shots: Path, docs: Path) -> None:
    """Put a desk and a phone side by side, the first screen of each, for the README."""
    height = 900
    for name, (page, desk_top, phone_top) in README.items():
        parts = []
        for width, scheme, above in ((1440, "light", desk_top), (390, "dark", phone_top)):
            image = Image.open(shots / f"{page}-{width}-{scheme}.png").convert("RGB")
            top = Image.new("RGB", (image.width, height), image.getpixel((1, image.height - 1)))
            top.paste(image, (0, -above))
            parts.append(top)
        desk, phone = parts
        both = Image.new("RGB", (desk.width + phone.width + 24, height), "white")
        both.paste(desk)
        both.paste(phone, (desk.width + 24, 0))
        small = both.resize((both.width * 3 // 4, both.height * 3 // 4), Image.Resampling.LANCZOS)
        small.save(docs / f"{name}.webp", quality=82, method=6)


if __name__ == "__main__":
    sys.exit(main())
