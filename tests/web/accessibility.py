"""What axe-core finds on a page: barriers for people who use it otherwise than its makers."""

from importlib.resources import files
from typing import Any

from selenium import webdriver

AXE = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
SERIOUS = ("serious", "critical")


def barriers(driver: webdriver.Chrome) -> list[str]:
    """Return the serious barriers of the shown page, each with the elements that have it."""
    driver.execute_script(AXE)
    found: dict[str, Any] = driver.execute_async_script("axe.run().then(arguments[0])")
    lines = []
    for violation in found["violations"]:
        if violation["impact"] in SERIOUS:
            places = [node["target"] for node in violation["nodes"]]
            lines.append(f"{violation['id']}: {violation['help']} {places[:3]}")
    return lines
