"""System checks: what would fail later is said at start, with a number and the way to mend it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register


@register("picaisso")
def data_folder_is_writable(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """E001: proven by writing, because permission bits do not tell about read-only mounts and full
    disks.
    """
    folder = Path(settings.DATA_DIR)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return [
            Error(
                f"The data folder {folder} cannot be written: {error.strerror}.",
                hint="Set PICAISSO_DATA_DIR to a folder that this user may write.",
                id="picaisso.E001",
            )
        ]
    return []


@register("picaisso")
def values_are_known(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E002: a misspelt value is said at start, not when the first request fails."""
    from requests_app.models import Backbone

    found: list[CheckMessage] = []
    unknown = [name for name in settings.SOURCES if name not in settings.KNOWN_SOURCES]
    if unknown or not settings.SOURCES:
        found.append(
            Error(
                f"PICAISSO_SOURCES names no such source: {', '.join(unknown) or '(empty)'}.",
                hint=f"Known are {', '.join(settings.KNOWN_SOURCES)}.",
                id="picaisso.E002",
            )
        )
    for name, value, known in (
        ("PICAISSO_BACKBONE", settings.BACKBONE, tuple(Backbone.values)),
        ("PICAISSO_DEVICE", settings.DEVICE, ("auto", "cpu", "cuda")),
        ("PICAISSO_ROBOTS", settings.ROBOTS, ("respect", "operator")),
    ):
        if value not in known:
            found.append(
                Error(
                    f"{name} is {value!r}.",
                    hint=f"Known are {', '.join(known)}.",
                    id="picaisso.E002",
                )
            )
    return found


@register("picaisso")
def database_driver_is_there(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """E003."""
    if not settings.MYSQL_DRIVER_MISSING:
        return []
    return [
        Error(
            "DATABASE_URL names MySQL, but its driver is not installed.",
            hint="apt-get install libmariadb-dev pkg-config gcc python3-dev && pip install -r requirements-mysql.txt",
            id="picaisso.E003",
        )
    ]


def _programs() -> tuple[str, str]:
    """Browser and driver as configured or found; '' for one that is not there."""
    browsers = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    drivers = ("chromedriver", "chromium.chromedriver")
    found = [next(filter(None, map(shutil.which, names)), "") for names in (browsers, drivers)]
    return settings.CHROME or found[0], settings.CHROMEDRIVER or found[1]


def _major_version(program: str) -> str:
    """The first number of ``PROGRAM --version``, '' if it does not answer."""
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    numbers = [word.split(".")[0] for word in answer.stdout.split() if word[:1].isdigit()]
    return numbers[0] if numbers else ""


@register("picaisso", Tags.compatibility)
def browser_is_there(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W001: browser or driver missing. Only a warning: the API sources work without it."""
    if not {"bing", "google"} & set(settings.SOURCES) or settings.SELENIUM_REMOTE_URL:
        return []
    chrome, driver = _programs()
    if chrome and driver and Path(chrome).exists() and Path(driver).exists():
        return []
    return [
        Warning(
            "No browser for the browser sources: Chromium or its driver was not found.",
            hint="apt-get install chromium chromium-driver, or set PICAISSO_CHROME and PICAISSO_CHROMEDRIVER, "
            "or PICAISSO_SELENIUM_REMOTE_URL, or leave bing and google out of PICAISSO_SOURCES.",
            id="picaisso.W001",
        )
    ]


@register("picaisso", deploy=True)
def driver_matches_browser(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """W002: only under --deploy, because it starts both programs."""
    chrome, driver = _programs()
    versions = _major_version(chrome) if chrome else "", _major_version(driver) if driver else ""
    if all(versions) and versions[0] != versions[1]:
        return [
            Warning(
                f"Chromium is version {versions[0]}, its driver version {versions[1]}.",
                hint="Install both from the same place: apt-get install chromium chromium-driver.",
                id="picaisso.W002",
            )
        ]
    return []


@register("picaisso", deploy=True)
def runs_without_root(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """I003: as root Chromium runs without its sandbox."""
    from django.core.checks import Info

    if os.geteuid() != 0:
        return []
    return [
        Info(
            "Running as root: Chromium then runs without its own sandbox.",
            hint="Run the workers as a user of their own.",
            id="picaisso.I003",
        )
    ]
