"""System checks: report at start what would fail later, with a number and what to do."""

import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.db import connection

from requests_app import class_policy
from scraping.refused_digests import RefusedDigests, SettingError
from scraping.sources.catalogue import CATALOGUE as SOURCES
from training.log_lines import FORMATS
from training.networks.catalogue import CATALOGUE as BACKBONES

KEY_CHARACTERS = 50
KEY_DISTINCT = 12
KEY_PACKED_BYTES = 45


@register("picaisso")
def data_folder_is_writable(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """E001: proven by writing; permission bits say nothing of read-only mounts and full disks."""
    folder = Path(settings.DATA_DIR)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        key = folder / "secret_key"
        if key.exists():
            key.read_bytes()
    except OSError as error:
        return [
            Error(
                f"The data folder {folder} cannot be used: {error.strerror}.",
                hint="Set PICAISSO_DATA_DIR to a folder that this user may write.",
                id="picaisso.E001",
            )
        ]
    return []


@register("picaisso")
def secret_key_is_strong(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """E006: every link tells whoever has it what the key makes of a known text, so that a weak key
    can be guessed without asking the site.
    """
    key = settings.SECRET_KEY
    is_long = len(key) >= KEY_CHARACTERS and len(set(key)) >= KEY_DISTINCT
    # What repeats itself is packed into little: 50 random characters take more than 50 bytes.
    is_random = len(zlib.compress(key.encode(errors="replace"), 9)) >= KEY_PACKED_BYTES
    if is_long and is_random and not key.startswith("django-insecure-"):
        return []
    return [
        Error(
            "The secret key can be guessed: it is short, repeats itself or is a known one.",
            hint=(
                "Leave PICAISSO_SECRET_KEY out, and one is made; or set it to what this prints:"
                ' python -c "import secrets; print(secrets.token_urlsafe(64))"'
            ),
            id="picaisso.E006",
        )
    ]


@register("picaisso")
def data_folder_is_private(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """W004: the folder holds addresses, and links that are keys."""
    folder = Path(settings.DATA_DIR)
    try:
        open_to = folder.stat().st_mode & settings.UMASK
    except OSError:
        return []  # E001 says why
    if not open_to:
        return []
    who = "o=" if settings.ACCEL_REDIRECT else "go="
    return [
        Warning(
            f"Other users of this machine can look into the data folder {folder}.",
            hint=f"chmod -R {who} {folder}",
            id="picaisso.W004",
        )
    ]


@register("picaisso")
def values_are_known(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E002: a misspelt value is reported at start, not when the first request fails."""
    found: list[CheckMessage] = []
    unknown = [name for name in settings.SOURCES if name not in settings.KNOWN_SOURCES]
    if unknown or not settings.SOURCES:
        names = ", ".join(unknown) or "(empty)"
        message = f"PICAISSO_SOURCES names no such source: {names}."
        found.append(_unknown_value(message, settings.KNOWN_SOURCES))
    for name, value, known in (
        ("PICAISSO_BACKBONE", settings.BACKBONE, tuple(BACKBONES)),
        ("PICAISSO_DEVICE", settings.DEVICE, ("auto", "cpu", "cuda")),
        ("PICAISSO_ROBOTS", settings.ROBOTS, ("respect", "operator")),
        ("PICAISSO_LOG", settings.LOG, FORMATS),
        ("PICAISSO_AI_MADE", settings.AI_MADE, ("leave_out", "keep")),
    ):
        if value not in known:
            found.append(_unknown_value(f"{name} is {value!r}.", known))
    return found


def _unknown_value(message: str, known: Sequence[str]) -> Error:
    names = ", ".join(known)
    return Error(message, hint=f"Known are {names}.", id="picaisso.E002")


@register("picaisso")
def refusals_can_be_read(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """E004: what the operator refuses must be refused from the first picture on."""
    problems = []
    try:
        RefusedDigests.read(settings.REFUSED_DIGESTS)
    except SettingError as error:
        problems.append((str(error), "PICAISSO_REFUSED_DIGESTS"))
    if settings.NUDITY_MODEL:
        # In a process of its own: this one serves pages and needs no model.
        command = [sys.executable, "-m", "scraping.screening.nudity", settings.NUDITY_MODEL]
        done = subprocess.run(
            command,
            cwd=settings.BASE_DIR,
            env=settings.MACHINE_VARIABLES,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            problems.append((done.stderr.strip(), "PICAISSO_NUDITY_MODEL"))
    found: list[CheckMessage] = []
    for problem, name in problems:
        hint = f"Correct the file, or the setting {name}."
        found.append(Error(problem, hint=hint, id="picaisso.E004"))
    return found


@register("picaisso")
def class_policy_can_be_read(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """E008: what no class may be called must be known before the first form is sent."""
    try:
        class_policy.current()
    except (OSError, UnicodeDecodeError, class_policy.PolicyError) as error:
        hint = "Correct the file, or the setting PICAISSO_CLASS_POLICY."
        return [Error(str(error), hint=hint, id="picaisso.E008")]
    return []


@register(Tags.database)
def database_holds_all_characters(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E009: a MySQL database that is not utf8mb4 loses emoji and rare letters of class names."""
    if not databases or connection.vendor != "mysql":
        return []
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@character_set_database, DATABASE()")
        charset, name = cursor.fetchone()
        cursor.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
            " AND table_collation NOT LIKE 'utf8mb4%%' ORDER BY table_name LIMIT 5"
        )
        tables = [row[0] for row in cursor.fetchall()]
    if charset == "utf8mb4" and not tables:
        return []
    what = f"its tables {', '.join(tables)} are" if tables else "its character set is"
    hint = f"ALTER DATABASE `{name}` CHARACTER SET utf8mb4;"
    if tables:
        hint += " and for each table: ALTER TABLE ... CONVERT TO CHARACTER SET utf8mb4;"
    message = f"The database {name} cannot hold every character: {what} not utf8mb4."
    return [Error(message, hint=hint, id="picaisso.E009")]


@register("picaisso")
def text_image_model_can_be_used(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """E005: a folder that is of no use would stop every training."""
    if not settings.TEXT_IMAGE_MODEL:
        return []
    # In a process of its own: this one serves pages and needs no model.
    command = [sys.executable, "-m", "training.text_image", settings.TEXT_IMAGE_MODEL]
    done = subprocess.run(
        command,
        cwd=settings.BASE_DIR,
        env=settings.MACHINE_VARIABLES,
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.returncode:
        return []
    hint = "Correct the folder, or the setting PICAISSO_TEXT_IMAGE_MODEL."
    return [Error(done.stderr.strip(), hint=hint, id="picaisso.E005")]


@register("picaisso")
def database_driver_is_there(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """E003: DATABASE_URL names a database whose driver is not installed."""
    if not settings.MYSQL_DRIVER_MISSING:
        return []
    return [
        Error(
            "DATABASE_URL names MySQL, but its driver is not installed.",
            hint=(
                "apt-get install libmariadb-dev pkg-config gcc python3-dev"
                " && pip install -r requirements-mysql.txt"
            ),
            id="picaisso.E003",
        )
    ]


def _browser() -> str:
    """Return the browser as configured or found, "" when there is none."""
    return settings.CHROME or _first_found(
        "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"
    )


def _browser_driver() -> str:
    """Return the browser's driver as configured or found, "" when there is none."""
    return settings.CHROMEDRIVER or _first_found("chromedriver", "chromium.chromedriver")


def _first_found(*programs: str) -> str:
    for program in programs:
        path = shutil.which(program)
        if path is not None:
            return path
    return ""


def _major_version(program: str) -> str:
    """Return the first number of ``PROGRAM --version``, "" if it does not answer."""
    if not program:
        return ""
    try:
        done = subprocess.run(
            [program, "--version"],
            env=settings.MACHINE_VARIABLES,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    for word in done.stdout.split():
        if word[0].isdigit():
            return word.split(".")[0]
    return ""


@register("picaisso", Tags.compatibility)
def browser_is_there(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W001: browser or driver missing. Only a warning: the other sources work without it."""
    browser_sources = [name for name, source in SOURCES.items() if source.uses_browser]
    needs_browser = any(name in settings.SOURCES for name in browser_sources)
    if not needs_browser or settings.SELENIUM_REMOTE_URL:
        return []
    programs = (_browser(), _browser_driver())
    if all(program and Path(program).exists() for program in programs):
        return []
    names = " and ".join(browser_sources)
    return [
        Warning(
            "No browser for the browser sources: Chromium or its driver was not found.",
            hint=(
                "apt-get install chromium chromium-driver, or set PICAISSO_CHROME and"
                " PICAISSO_CHROMEDRIVER, or PICAISSO_SELENIUM_REMOTE_URL, or leave"
                f" {names} out of PICAISSO_SOURCES."
            ),
            id="picaisso.W001",
        )
    ]


@register("picaisso", deploy=True)
def driver_matches_browser(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """W002: only under --deploy, because it starts both programs."""
    browser_version = _major_version(_browser())
    driver_version = _major_version(_browser_driver())
    if not browser_version or not driver_version or browser_version == driver_version:
        return []
    return [
        Warning(
            f"Chromium is version {browser_version}, its driver version {driver_version}.",
            hint="Install both from the same place: apt-get install chromium chromium-driver.",
            id="picaisso.W002",
        )
    ]


@register("picaisso", deploy=True)
def runs_without_root(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """I003: as root Chromium runs without its sandbox."""
    if os.geteuid() != 0:
        return []
    return [
        Info(
            "Running as root: Chromium then runs without its own sandbox.",
            hint="Run the workers as a user of their own.",
            id="picaisso.I003",
        )
    ]
