"""What axe-core finds on a page: barriers for people who use it otherwise than its makers."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from selenium import webdriver

AXE = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
SERIOUS = ("serious", "critical")
COLOURS = ("color-contrast", "link-in-text-block")  # what may differ between light and dark


def barriers(driver: webdriver.Chrome, rules: Sequence[str] = ()) -> list[str]:
    """Return the serious barriers of the shown page, each with the elements that have it.

    :param rules: to look for these alone
    """
    if not driver.execute_script("return 'axe' in window"):
        driver.execute_script(AXE)
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = list(rules)
    run = "axe.run(arguments[0]).then(arguments[1])"
    found: dict[str, Any] = driver.execute_async_script(run, options)
    lines = []
    for violation in found["violations"]:
        if violation["impact"] in SERIOUS:
            places = [node["target"] for node in violation["nodes"]]
            lines.append(f"{violation['id']}: {violation['help']} {places[:3]}")
    return lines


def show_as(driver: webdriver.Chrome, width: int, scheme: str) -> None:
    """Give the page the width of a phone or a desk, light or dark.

    Nothing moves, so that no colour is looked at on its way to another.
    """
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wishes = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wishes})


def show_plainly(driver: webdriver.Chrome) -> None:
    """Take back what `show_as` did."""
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
