"""Make the README's moving picture and the sample of a result, from one request.

    python -m tests.web.sample [--pictures FOLDER] [--out docs] [--classes NAME=SUBFOLDER ...]

Starts a site, asks it in Chromium for drawings of the Open Clip Art Library (Debian's package
openclipart-png, public domain), and records what a person sees: names, pictures arriving, the
result, a picture tried. The report and the try page of that model are the sample. Takes about
three minutes.
"""

import argparse
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from benchmarks.first_model import SlowSite
from tests.system.site import Site
from tests.web.screenshots import set_up_django

CLASSES = {"bird": "animals/birds", "mammal": "animals/mammals", "fruit": "food/fruit"}
PICTURES = 50  # of each class at most
PICTURES_A_SECOND = 6
SIZE = (980, 760)
SHOWN = (800, 620)
CAPTION = 34  # pixels of the strip below
INK = (255, 255, 255)
PAPER = (40, 44, 82)
QUALITY = 62
XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/"
 xmpRights:WebStatement="https://creativecommons.org/publicdomain/mark/1.0/"/></rdf:RDF></x:xmpmeta>"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.web.sample", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--pictures", type=Path, default=Path("/usr/share/openclipart/png"), metavar="FOLDER")
    add("--out", type=Path, default=Path("docs"), metavar="FOLDER")
    add("--classes", nargs="+", metavar="NAME=SUBFOLDER", help="names and where they lie")
    options = parser.parse_args()
    classes = dict(each.split("=", 1) for each in options.classes or []) or CLASSES
    with tempfile.TemporaryDirectory(prefix="picaisso-sample-") as scratch:
        folder = Path(scratch)
        set_up_django(folder / "unused", 0)
        tried = lay_out(options.pictures, classes, folder / "pictures")
        film = Film()
        model = request_a_model(folder, list(classes), tried, film)
        film.write(options.out / "picaisso.webp")
        sample = options.out / "sample"
        sample.mkdir(exist_ok=True)
        for name in ("report.html", "try.html"):
            shutil.copyfile(model / name, sample / name)
            print(f"{sample / name}: {(sample / name).stat().st_size / 1e6:.1f} MB")
    return 0


def lay_out(pictures: Path, classes: dict[str, str], target: Path) -> Path:
    """Copy the pictures of each class, and return one that is kept back to be tried."""
    for name, below in classes.items():
        files = sorted((pictures / below).rglob("*.png"))[: PICTURES + 1]
        if len(files) < 30:
            raise SystemExit(f"There are too few pictures in {pictures / below}.")
        (target / name).mkdir(parents=True)
        kept_back = files.pop(len(files) // 2)
        for file in files:
            copy_with_licence(file, target / name / file.name)
    return kept_back


def copy_with_licence(file: Path, target: Path) -> None:
    """Write the drawing with its author and licence inside, as a careful publisher would."""
    with Image.open(file) as image:
        words = PngInfo()
        words.add_itxt("XML:com.adobe.xmp", XMP)
        author = image.info.get("Author", "")
        if author:
            words.add_itxt("Author", author)
        image.thumbnail((1024, 1024))
        image.save(target, pnginfo=words)


@dataclass
class Film:
    """Frames of one size with a caption, and how long each is seen."""

    frames: list[Image.Image] = field(default_factory=list)
    milliseconds: list[int] = field(default_factory=list)

    def take(self, driver: webdriver.Chrome, caption: str, milliseconds: int) -> None:
        shot = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
        shot = shot.resize(SHOWN, Image.Resampling.LANCZOS)
        frame = Image.new("RGB", (SHOWN[0], SHOWN[1] + CAPTION), PAPER)
        frame.paste(shot)
        font = ImageFont.load_default(18)
        place = (16, SHOWN[1] + CAPTION / 2)
        ImageDraw.Draw(frame).text(place, caption, fill=INK, font=font, anchor="lm")
        self.frames.append(frame)
        self.milliseconds.append(milliseconds)

    def until(
        self,
        driver: webdriver.Chrome,
        caption: str,
        holds: Callable[[], bool],
        every: float = 1.0,
        most: int = 12,
    ) -> None:
        """Take a frame now and then until something holds; keep `most` of them, evenly spread."""
        first = len(self.frames)
        end = time.monotonic() + 900
        while not holds():
            if time.monotonic() > end:
                raise SystemExit(f"“{caption}” did not come to its end.")
            self.take(driver, caption, 350)
            time.sleep(every)
        taken = len(self.frames) - first
        if taken > most:
            kept = {first + round(index * (taken - 1) / (most - 1)) for index in range(most)}
            self.frames[first:] = [self.frames[index] for index in sorted(kept)]
            self.milliseconds[first:] = [350] * len(kept)

    def write(self, path: Path) -> None:
        first, *others = self.frames
        first.save(
            path,
            save_all=True,
            append_images=others,
            duration=self.milliseconds,
            loop=0,
            quality=QUALITY,
            method=6,
            minimize_size=True,
        )
        seconds = sum(self.milliseconds) / 1000
        megabytes = path.stat().st_size / 1e6
        print(f"{path}: {len(self.frames)} frames, {seconds:.0f} s, {megabytes:.1f} MB")


def request_a_model(folder: Path, names: list[str], tried: Path, film: Film) -> Path:
    """Record a request from its form to an answer; return a copy of its model folder."""
    from threading import Thread

    from tests.web.test_browser import open_browser

    (folder / "site").mkdir()
    site = Site(folder / "site", smtp_port=0, pictures=folder / "pictures")
    site.settings |= {"PICAISSO_FIRST_MODEL": "1", "EMAIL_URL": ""}
    driver = open_browser(scripts=True)
    driver.set_window_size(*SIZE)
    try:
        site.start_gallery()
        with SlowSite(site.gallery_url, PICTURES_A_SECOND) as slow:
            Thread(target=slow.serve_forever, daemon=True).start()
            site.gallery_url = slow.url
            site.start()
            address = ask(driver, site, names, film)
            watch(driver, address, film)
            try_it(driver, address, tried, film)
            slow.shutdown()
        (report,) = (folder / "site").glob("data/requests/*/runs/*/model/report.html")
        return Path(shutil.copytree(report.parent, folder / "model"))
    finally:
        driver.quit()
        site.end()


def ask(driver: webdriver.Chrome, site: Site, names: list[str], film: Film) -> str:
    """Fill in the form, confirm, and return the address of the request's page."""
    from tests.web.test_browser import heading, press, wait

    driver.get(site.url)
    film.take(driver, "1. Type the names of what you want to tell apart", 900)
    for name in names:
        fields = driver.find_elements(By.NAME, "classes")
        empty = next(each for each in fields if not each.get_attribute("value"))
        for start in range(0, len(name), 2):
            empty.send_keys(name[start : start + 2])
            film.take(driver, "1. Type the names of what you want to tell apart", 140)
        empty.send_keys(Keys.ENTER)
        film.take(driver, "1. Type the names of what you want to tell apart", 300)
    driver.find_element(By.NAME, "email").send_keys("ada@example.org")
    film.take(driver, "   and where the result shall go", 1000)
    press(driver, "Make my classifier")
    wait(driver, lambda d: heading(d) == "Check your inbox")
    address = driver.current_url
    film.take(driver, "2. Confirm by the link in a mail", 1200)
    confirm = driver.find_element(By.CSS_SELECTOR, "main a[href*='/confirm/']")
    driver.get(confirm.get_attribute("href"))
    press(driver, "Yes, start")
    wait(driver, lambda d: d.current_url == address)
    return address


def watch(driver: webdriver.Chrome, address: str, film: Film) -> None:
    # An element of the page may be replaced while it is read; its script's answer is whole.
    heading = "return document.querySelector('h1').textContent"

    def shows(word: str) -> Callable[[], bool]:
        return lambda: word in driver.execute_script(heading)

    film.until(driver, "3. Pictures arrive, and a first model", shows("Training"))
    film.until(driver, "4. The model is trained and measured", shows("ready"), most=5)
    driver.get(address)
    film.take(driver, "5. Dataset and model are ready", 1200)
    scroll_to(driver, "//h2[@id='result-title']")
    film.take(driver, "5. How good it is, and how sure that is", 2600)


def scroll_to(driver: webdriver.Chrome, xpath: str) -> None:
    element = driver.find_element(By.XPATH, xpath)
    driver.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", element)
    driver.execute_script("window.scrollBy({top: -16, behavior: 'instant'})")
    time.sleep(0.3)


def try_it(driver: webdriver.Chrome, address: str, tried: Path, film: Film) -> None:
    from tests.web.test_try_browser import give

    driver.get(f"{address}try/")
    film.take(driver, "6. Drop a picture", 900)
    give(driver, [tried])
    scroll_to(driver, "//*[contains(@class, 'answer')][@data-result]")
    film.take(driver, "6. The answer, and what it looked at", 3500)


if __name__ == "__main__":
    sys.exit(main())
