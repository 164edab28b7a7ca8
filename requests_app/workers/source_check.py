"""One small real question to each source, asked by a child process as a collection asks."""

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings

from requests_app.models import BrowserTurn
from requests_app.workers import collection_sync, jobs, processes
from scraping.sources.catalogue import CATALOGUE, SEARCHED, url_setting

logger = logging.getLogger(__name__)

LIMIT_SECONDS = 600.0
POLL_SECONDS = 0.5


class CheckFailed(Exception):
    """No source could be asked; the text is a sentence for the operator."""


def check_sources(names: Sequence[str]) -> list[dict[str, Any]]:
    """Ask each source one small real question; store and return the answers.

    The child gets what a collection's child gets: the credentials but none of the site's secrets,
    a supervisor that ends it with its parent, and the browser only under the installation's lock.

    :returns: rows with name, outcome, found, message, seconds and cool_down_seconds
    :raises CheckFailed: a name is unknown, or no source could be asked
    """
    unknown = ", ".join(name for name in names if name not in SEARCHED)
    if unknown:
        raise CheckFailed(f"No such source: {unknown}. Known: {', '.join(SEARCHED)}.")
    with_browser = [name for name in names if CATALOGUE[name].uses_browser]
    others = [name for name in names if name not in with_browser]
    rows = []
    failures = []
    for group in (others, with_browser):
        try:
            rows += _ask(group, needs_browser=group is with_browser) if group else []
        except CheckFailed as error:
            failures.append(error)
    if failures and not rows:
        raise failures[0]
    for failure in failures:
        logger.warning("not all sources could be asked: %s", failure)
    return rows


def _ask(names: Sequence[str], *, needs_browser: bool) -> list[dict[str, Any]]:
    """Ask sources in one child, store and return the answers.

    :raises CheckFailed: no source could be asked
    """
    holder = (jobs.CHECK_JOB, os.getpid())
    deadline = time.monotonic() + LIMIT_SECONDS

    def poll() -> None:
        if time.monotonic() > deadline:
            raise CheckFailed(f"No answer within {LIMIT_SECONDS / 60:g} minutes.")
        if needs_browser:
            BrowserTurn.acquire(*holder, jobs.lease_end())

    try:
        if needs_browser:
            _wait_for_browser(holder, deadline)
            deadline = time.monotonic() + LIMIT_SECONDS
        lines = _run_child(names, processes.Marker(str(settings.DATA_DIR), *holder), poll)
    finally:
        BrowserTurn.release(*holder)
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    if not rows:
        raise CheckFailed(lines[-1] if lines else "No answer.")
    collection_sync.record_health(rows)
    return rows


def _wait_for_browser(holder: tuple[int, int], deadline: float) -> None:
    """Take the browser lock for a holder (job, fence).

    :raises CheckFailed: collections held it until the deadline on the monotonic clock
    """
    if BrowserTurn.acquire(*holder, jobs.lease_end()):
        return
    logger.info("waiting for the browser: a collection uses it")
    while not BrowserTurn.acquire(*holder, jobs.lease_end()):
        if time.monotonic() > deadline:
            raise CheckFailed("A collection uses the browser. Ask again when it has ended.")
        time.sleep(POLL_SECONDS)


def _run_child(
    names: Sequence[str], marker: processes.Marker, poll: Callable[[], None]
) -> list[str]:
    """Run the library's command for these sources and return the lines of its output.

    :param poll: called about twice a second; what it raises ends the command
    """
    command = [sys.executable, "-m", "scraping", "check", "--json"]
    for name in names:
        command += ["--source", name]
    environment = jobs.child_environment() | _asked_with() | collection_sync.credentials()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        child = processes.start_supervised(command, marker, environment, log)
        try:
            while True:
                try:
                    child.wait(POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    poll()
        finally:
            processes.stop_supervised(child, marker)
        return log.read_text(errors="replace").splitlines()


def _asked_with() -> dict[str, str]:
    """Return the settings that decide how sources are asked, which a collection's folder holds."""
    values = {
        "PICAISSO_CONTACT": settings.CONTACT,
        "PICAISSO_ROBOTS": settings.ROBOTS,
        "PICAISSO_LOCALE": settings.LOCALE,
        "PICAISSO_CHROME": settings.CHROME,
        "PICAISSO_CHROMEDRIVER": settings.CHROMEDRIVER,
        "PICAISSO_SELENIUM_REMOTE_URL": settings.SELENIUM_REMOTE_URL,
        "PICAISSO_ALLOWED_PRIVATE_HOSTS": ",".join(settings.ALLOWED_PRIVATE_HOSTS),
    }
    for source, url in settings.SOURCE_URLS.items():
        values[url_setting(source)] = url
    return values
