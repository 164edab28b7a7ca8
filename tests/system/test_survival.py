"""A whole request survives kill -9 of any one process: delivered, once, with one mail, and nothing
left over.
"""

import asyncio
import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from email import message_from_bytes
from email.message import Message as EmailMessage
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller

from requests_app.demo.visitor import Visitor
from requests_app.workers.processes import PROJECT
from tests.pipeline.stages import TopFolder
from tests.system.mariadb import free_port
from tests.system.site import PHOTOGRAPHS, Proc, Site, links, result_of, running_site, text_of

IMAGES = 20  # per class: the fewest that are trained on
missing = [
    name
    for name, there in {
        "chromium": shutil.which("chromium"),
        "chromedriver": shutil.which("chromedriver"),
        "the photographs of tuxpaint-stamps-default": PHOTOGRAPHS.is_dir(),
    }.items()
    if not there
]
pytestmark = [
    pytest.mark.system,
    pytest.mark.browser,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}"),
]


@pytest.fixture
def site(tmp_path: Path, smtpd):
    with running_site(tmp_path / "site", smtpd.port) as running:
        yield running


def is_chromium(process: Proc) -> bool:
    """A browser that was started for its driver, not one that is asked for its version."""
    is_program = "/chromium" in process.command.split(" ")[0]
    return is_program and "--user-data-dir" in process.command and "--type=" not in process.command


def is_driver(process: Proc) -> bool:
    return "chromedriver" in process.command.split(" ")[0]


def is_collector(process: Proc) -> bool:
    return (
        "-m scraping collect" in process.command
        and "requests_app.workers.processes" not in process.command
    )


def is_trainer(process: Proc) -> bool:
    return (
        "-m training fit" in process.command
        and "requests_app.workers.processes" not in process.command
    )


def is_child_supervisor(process: Proc) -> bool:
    return "requests_app.workers.processes supervise" in process.command


def is_main_of(queue: str, site: Site):
    up = site.up.pid
    return lambda p: p.parent == up and p.environment.get("Q_CLUSTER_NAME") == queue


def kill_web(site: Site) -> None:
    site.wait_for("the collector", is_collector)
    up = site.up.pid
    site.find(lambda p: "requests_app.web_server" in p.command and p.parent == up)[0].kill()


def kill_cluster_main(site: Site) -> None:
    site.wait_for("Chromium", is_chromium)
    site.find(is_main_of("collect", site))[0].kill()


def kill_worker(site: Site) -> None:
    supervisor = site.wait_for("the supervisor", is_child_supervisor)[0]
    site.wait_for("the driver", is_driver)
    site.find(lambda p: p.pid == supervisor.parent)[0].kill()


def kill_child_supervisor(site: Site) -> None:
    supervisor = site.wait_for("the supervisor", is_child_supervisor)[0]
    site.wait_for("the driver", is_driver)
    supervisor.kill()


def kill_idle_worker(site: Site) -> None:
    """The first process that a cluster's sentinel forks is its worker; idle, it holds the lock of
    the queue.
    """
    site.wait_for("the collector", is_collector)
    main = site.find(is_main_of("train", site))[0]
    sentinel = site.find(lambda p: p.parent == main.pid)[0]
    site.find(lambda p: p.parent == sentinel.pid)[0].kill()
    site.wait(
        "the canary", lambda: "train does not answer and is replaced" in site.log.read_text(), 60
    )


def kill_trainer(site: Site) -> None:
    trainer = site.wait_for("the trainer", is_trainer)[0]
    at_work = "data/requests/*/runs/*/progress.jsonl"
    site.wait("the trainer's first step", lambda: any(site.folder.glob(at_work)), 60)
    trainer.kill()


def kill_driver(site: Site) -> None:
    site.wait_for("the driver", is_driver)[0].kill()


def kill_chromium(site: Site) -> None:
    site.wait_for("Chromium", is_chromium)[0].kill()


def kill_up(site: Site) -> None:
    site.wait_for("Chromium", is_chromium)
    site.up.kill()
    site.up.wait()
    site.wait("the end of everything", lambda: site.processes() == [], 10)
    site.start()


def kill_queue_of_mails(site: Site) -> None:
    """The main process of the default cluster, when it is its turn to deliver."""
    site.wait_for("the trainer", is_trainer)
    site.find(is_main_of("picaisso", site))[0].kill()


STRIKES: list[list[Callable[[Site], None]]] = [
    # Together in one request: what is killed at different times, or does not concern another.
    [kill_web, kill_chromium, kill_trainer],
    [kill_driver, kill_idle_worker],
    [kill_worker, kill_queue_of_mails],
    [kill_cluster_main],
    [kill_child_supervisor],
    [kill_up],
]


def names_of(strikes: list[Callable[[Site], None]]) -> str:
    return "-".join(strike.__name__.removeprefix("kill_") for strike in strikes)


def follow_to_delivery(site: Site, path: str, smtpd) -> None:
    def delivered() -> bool:
        return any("/download/model/" in text_of(mail) for mail in smtpd.messages)

    site.wait("the delivery", delivered, 150)
    page = site.page(path)
    assert page is not None and f"{path}download/dataset/" in page


def check_delivered_once(site: Site, path: str, smtpd) -> None:
    time.sleep(3)  # time enough for a second mail, were there one
    assert len(smtpd.messages) == 2, "one mail to confirm, one with the result"
    metrics = result_of(site.folder)
    assert metrics["interval"][0] <= metrics["accuracy"] <= metrics["interval"][1]
    (dataset,) = site.folder.glob("data/requests/*/artifacts/1/dataset.zip")
    with TopFolder(dataset) as archive:
        pictures = [name for name in archive.names_below() if name.endswith(".jpg")]
        assert len(pictures) == len(set(pictures)) == 2 * IMAGES
        for line in archive.read_below("SHA256SUMS").decode().splitlines():
            digest, _, name = line.partition("  ")
            assert hashlib.sha256(archive.read_below(name)).hexdigest() == digest


def check_nothing_left(site: Site, sig: int = signal.SIGTERM) -> None:
    assert site.stop(sig) == 0
    left = [process.command for process in site.processes()]
    assert left == []


@pytest.mark.parametrize("strikes", STRIKES, ids=names_of)
def test_a_request_survives_kill_9(strikes, site, smtpd):
    path = site.submit(IMAGES)
    site.confirm(smtpd)
    for strike in strikes:
        strike(site)
    follow_to_delivery(site, path, smtpd)
    check_delivered_once(site, path, smtpd)
    check_nothing_left(site)


class SlowServer:
    """Takes a mail, thinks for a while, and only then says that it has it."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []

    async def handle_DATA(self, server, session, envelope) -> str:
        self.messages.append(message_from_bytes(envelope.content))
        await asyncio.sleep(4)
        return "250 OK"


def test_a_sender_killed_while_the_server_thinks_repeats_the_mail_under_the_same_id(tmp_path):
    slow = SlowServer()
    server = Controller(slow, hostname="127.0.0.1", port=free_port())
    server.start()
    try:
        with running_site(tmp_path / "site", server.port) as site:
            site.submit(IMAGES)
            site.wait("the mail", lambda: bool(slow.messages), 30)
            site.find(is_main_of("picaisso", site))[0].kill()
            site.wait("the same mail again", lambda: len(slow.messages) == 2, 90)
            time.sleep(6)
            assert len({message["Message-ID"] for message in slow.messages}) == 1
            assert len(slow.messages) == 2
            check_nothing_left(site)
    finally:
        server.stop()


def test_a_stop_in_the_middle_puts_the_work_back_and_the_next_start_goes_on(site, smtpd):
    path = site.submit(IMAGES)
    site.confirm(smtpd)
    site.wait_for("Chromium", is_chromium)
    check_nothing_left(site, signal.SIGINT)  # as Ctrl-C does
    site.start()
    follow_to_delivery(site, path, smtpd)
    check_delivered_once(site, path, smtpd)
    check_nothing_left(site)


def test_two_requests_at_once_take_turns_with_the_browser_and_are_both_delivered(site, smtpd):
    paths = [site.submit(IMAGES), site.submit(IMAGES)]
    site.wait("both confirmation mails", lambda: len(links(smtpd.messages)) == 2, 30)
    for link in links(smtpd.messages):
        Visitor(site.url).send_form(link)
    most = 0

    def both_delivered() -> bool:
        nonlocal most
        drivers = {process.pid: process.parent for process in site.find(is_driver)}
        # A driver that is starting its browser is there twice for a moment.
        most = max(most, sum(parent not in drivers for parent in drivers.values()))
        return sum("/download/model/" in text_of(mail) for mail in smtpd.messages) == 2

    site.wait("both deliveries", both_delivered, 180)
    assert most == 1, "one browser at a time"
    assert all(f"{path}download/dataset/" in (site.page(path) or "") for path in paths)
    check_nothing_left(site)


def test_a_second_up_in_the_same_folder_is_refused(site):
    command = [sys.executable, "manage.py", "up", "--only", "collect"]
    answer = subprocess.run(
        command, cwd=PROJECT, env=site.environment(), capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert "already running" in answer.stderr
