"""A whole request survives kill -9 of any process: delivered, once, with one mail, and nothing
left over.

The cases F01 to F05 and F16 stand here, each in one whole request; the others in ``test_faults``.
"""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from requests_app.demo.visitor import Visitor
from requests_app.workers.processes import PROJECT
from tests.mail_servers import Recorder, smtp_server
from tests.pipeline.stages import TopFolder
from tests.system.site import (
    PHOTOGRAPHS,
    SHORT_TIMES,
    Proc,
    Site,
    links,
    result_of,
    running_site,
    text_of,
)

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
    pytest.mark.timeout(900),
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


def workers_of(queue: str, site: Site, count: int) -> list[Proc]:
    """Return the workers of a cluster that has not replaced any: its sentinel forks them first."""
    main = site.wait_for(f"the cluster {queue}", is_main_of(queue, site))[0]
    sentinel = site.wait_for("its sentinel", lambda p: p.parent == main.pid)[0]
    forked: list[Proc] = []

    def are_there() -> bool:
        forked[:] = site.find(lambda p: p.parent == sentinel.pid)
        return len(forked) >= count + 2  # a monitor and a pusher come last

    site.wait(f"the workers of {queue}", are_there, 30)
    return forked[:count]


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


def trainer_at_work(site: Site) -> Proc:
    """Wait until the trainer has something to lose."""
    trainer = site.wait_for("the trainer", is_trainer, 300)[0]
    features = "data/requests/*/runs/*/checkpoints/features/**/*.npz"
    site.wait("the first features", lambda: any(site.folder.glob(features)), 300)
    return trainer


def kill_driver(site: Site) -> None:
    site.wait_for("the driver", is_driver)[0].kill()


def kill_chromium(site: Site) -> None:
    site.wait_for("Chromium", is_chromium)[0].kill()


def kill_queue_of_mails(site: Site) -> None:
    """The main process of the default cluster, when it is its turn to deliver."""
    site.wait_for("the trainer", is_trainer, 300)
    site.find(is_main_of("picaisso", site))[0].kill()


def cut_power(site: Site) -> None:
    """Kill everything at once, as far as anyone outside the kernel can."""
    for process in [*site.processes(), *site.processes()]:
        process.kill()
    site.up.wait()
    site.wait("the end of everything", lambda: site.processes() == [], 10)


def follow_to_delivery(site: Site, path: str, smtpd) -> None:
    def delivered() -> bool:
        return any("/download/model/" in text_of(mail) for mail in smtpd.messages)

    site.wait("the delivery", delivered, 600)
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


def computed_features(site: Site) -> dict[Path, int]:
    """Return when each file with the features of an image was written."""
    features = site.folder.glob("data/requests/*/runs/*/checkpoints/features/**/*.npz")
    return {file: file.stat().st_mtime_ns for file in features}


def test_f01_a_worker_killed_in_training_is_replaced_and_its_training_resumed(site, smtpd):
    path = site.submit(IMAGES)
    site.confirm(smtpd)
    kill_web(site)
    kill_chromium(site)
    trainer = trainer_at_work(site)
    supervisor = site.find(is_child_supervisor)[0]
    worker = site.find(lambda p: p.pid == supervisor.parent)[0]
    worker.kill()
    site.wait("the trainer's end", lambda: not site.find(lambda p: p.pid == trainer.pid), 5)
    computed = computed_features(site)
    bound = sum(float(SHORT_TIMES[f"PICAISSO_{name}_SECONDS"]) for name in ("LEASE", "REAP"))
    again = ("train", "running", 2)
    site.wait("another attempt", lambda: again in site.jobs(path), bound + 15)
    follow_to_delivery(site, path, smtpd)
    assert computed.items() <= computed_features(site).items(), "nothing was computed twice"
    assert ("train", "done", 2) in site.jobs(path)
    check_delivered_once(site, path, smtpd)
    check_nothing_left(site)


def health(site: Site) -> dict:
    """Return what /healthz says is wrong, {} where nothing is."""
    try:
        urllib.request.urlopen(f"{site.url}/healthz", timeout=30).close()
    except urllib.error.HTTPError as error:
        return json.loads(error.read())
    return {}


def test_f03_idle_workers_that_are_killed_are_noticed_and_replaced_and_the_job_runs(site, smtpd):
    clusters = {"picaisso": 2, "collect": 2, "train": 1}
    for queue, count in clusters.items():
        for worker in workers_of(queue, site, count):
            worker.kill()
    # Without its supervisor the site can only say that something is wrong.
    site.up.send_signal(signal.SIGSTOP)
    path = site.submit(IMAGES)
    site.wait("the alarm", lambda: "workers" in str(health(site)), 60)
    check = [sys.executable, "manage.py", "check_workers"]
    quiet = {"cwd": PROJECT, "env": site.environment(), "capture_output": True}
    assert subprocess.run(check, **quiet, check=False).returncode == 1
    site.up.send_signal(signal.SIGCONT)
    site.confirm(smtpd)
    kill_driver(site)
    trainer_at_work(site).kill()
    follow_to_delivery(site, path, smtpd)
    log = site.log.read_text()
    for queue in clusters:
        assert f"{queue} does not answer and is replaced" in log
    assert health(site) == {}
    check_delivered_once(site, path, smtpd)
    check_nothing_left(site)


def test_a_request_survives_kill_9_of_worker_cluster_and_mail_queue(site, smtpd):
    path = site.submit(IMAGES)
    site.confirm(smtpd)
    kill_worker(site)
    site.wait("the worker's end", lambda: not site.find(is_collector), 10)
    kill_cluster_main(site)
    kill_queue_of_mails(site)
    follow_to_delivery(site, path, smtpd)
    check_delivered_once(site, path, smtpd)
    check_nothing_left(site)


def test_f04_a_stop_in_the_middle_puts_the_work_back_and_the_next_start_goes_on(site, smtpd):
    path = site.submit(IMAGES)
    site.confirm(smtpd)
    kill_child_supervisor(site)
    site.wait("another attempt", lambda: site.jobs(path) == [("collect", "running", 2)], 60)
    site.wait_for("Chromium", is_chromium)
    check_nothing_left(site)  # within the grace; as `docker stop` does
    assert site.jobs(path) == [("collect", "queued", 1)], "the stop does not count"
    assert site.status(path) == "running"
    site.start()
    follow_to_delivery(site, path, smtpd)
    check_delivered_once(site, path, smtpd)
    check_nothing_left(site, signal.SIGINT)  # as Ctrl-C does


def test_f05_after_a_power_cut_and_a_kill_of_all_the_job_goes_on_once(site, smtpd):
    path = site.submit(IMAGES)
    site.confirm(smtpd)
    site.wait_for("Chromium", is_chromium)
    cut_power(site)
    site.start()
    trainer_at_work(site)
    everything = site.processes()
    for process in everything:  # as systemd does by default, and then it loses its patience
        process.send(signal.SIGTERM)
    time.sleep(1)
    cut_power(site)
    assert list(site.folder.glob("data/requests/*/artifacts/**/*")) == []
    site.start()
    follow_to_delivery(site, path, smtpd)
    check_delivered_once(site, path, smtpd)
    assert list(site.folder.glob("data/requests/*/artifacts/**/*.part")) == []
    assert list(site.folder.glob("data/requests/*/artifacts/**/.*")) == []
    check_nothing_left(site)


def test_f16_a_sender_killed_while_the_server_thinks_repeats_the_mail_under_the_same_id(tmp_path):
    slow = Recorder(think_seconds=4)
    with smtp_server(slow) as port, running_site(tmp_path / "site", port) as site:
        site.submit(IMAGES)
        site.wait("the mail", lambda: bool(slow.messages), 30)
        site.find(is_main_of("picaisso", site))[0].kill()
        site.wait("the same mail again", lambda: len(slow.messages) == 2, 90)
        time.sleep(6)
        assert len({message["Message-ID"] for message in slow.messages}) == 1
        assert len(slow.messages) == 2
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

    site.wait("both deliveries", both_delivered, 360)
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
