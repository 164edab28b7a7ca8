"""One whole request, end to end, on this machine and with nothing faked.

The demo starts a gallery site over a folder of real photographs, the web server and the queue
clusters, sends the form as a browser would, confirms through the link in the mail, follows the work
to its delivery, fetches both files through their links and asks the delivered model about an image
that it has never seen. All of it lives in a data folder of its own, made anew at each run and kept
afterwards.
"""

import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn, TypeVar

from django.conf import settings
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from requests_app import pipeline
from requests_app.demo.outcome import Outcome, collect_outcome, describe
from requests_app.demo.visitor import DemoFailed, Visitor, find_link
from requests_app.models import ClassifierRequest, Job, JobState, MailState, OutgoingMail, Status

T = TypeVar("T")

PHOTOGRAPHS = Path("/usr/share/tuxpaint/stamps")
POLL_SECONDS = 0.25
START_SECONDS = 90.0  # the slowest machine's first import of everything
MAIL_SECONDS = 60.0
KILL_GRACE_SECONDS = 15.0  # on top of the site's own time for stopping
LOG_TAIL_LINES = 25
# A person configures these for this machine, and the demo leaves them alone. Every other setting of
# the site is set or dropped.
KEPT_SETTINGS = frozenset(
    {
        "PICAISSO_CHROME",
        "PICAISSO_CHROMEDRIVER",
        "PICAISSO_WEIGHTS_DIR",
        "PICAISSO_WEIGHTS_URL",
        "PICAISSO_DEVICE",
    }
)


@dataclass(frozen=True)
class Plan:
    """What the demo asks for, where it works, and how long it may take."""

    folder: Path
    photographs: Path
    classes: Sequence[str]
    images_per_class: int
    backbone: str
    limit_seconds: float
    email: str = "demo@example.org"


# --- the whole demo ---


def run(plan: Plan, *, as_json: bool, quiet: bool, keep: bool) -> None:
    """Run the demo inside its folder and print what came of it; all it started ends with it.

    :param as_json: print the outcome as one line of JSON, and nothing else
    :param quiet: show no progress
    :param keep: leave the site running until Ctrl-C
    :raises DemoFailed: it could not be finished, or the model is not convincing
    """
    console = Console(quiet=as_json, highlight=False)
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    processes = ChildProcesses(plan.folder, plan.limit_seconds)
    try:
        outcome = _run_or_explain(plan, Console(quiet=True) if quiet else console, processes)
        if as_json:
            print(json.dumps(asdict(outcome)))
        for line in describe(outcome):
            say(console, line)
        if not outcome.is_convincing:
            raise DemoFailed(
                "The demo failed: the model is not clearly better than always naming the largest"
                " class."
            )
        if keep:
            keep_running(processes, outcome)
        elif not as_json and somebody_watches():
            keep_until_enter(processes, outcome)
    finally:
        processes.stop()


def _run_or_explain(plan: Plan, console: Console, processes: "ChildProcesses") -> Outcome:
    """Play the scenario; a failure prints the ends of all logs first."""
    try:
        return play(plan, console, processes)
    except KeyboardInterrupt:
        raise DemoFailed("Interrupted.") from None
    except (DemoFailed, OSError) as failure:
        print(processes.log_tails(), file=sys.stderr)
        raise DemoFailed(f"The demo failed: {failure}") from failure


def play(plan: Plan, console: Console, processes: "ChildProcesses") -> Outcome:
    """Go from an empty folder to the outcome; the processes are still running afterwards."""
    gallery_url = start_gallery(plan, processes)
    say(console, f"gallery     {gallery_url}, the photographs of {plan.photographs}")
    visitor = Visitor(start_site(plan, gallery_url, processes))
    say(console, f"site        {visitor.base_url}, log in {processes.log_file('site')}")
    classifier = submit(visitor, plan)
    class_names = ", ".join(plan.classes)
    say(console, f"form        sent: {class_names}, {plan.images_per_class} pictures each")
    confirm(visitor, processes)
    say(console, "mail        arrived, its link was opened and confirmed")
    with StageDisplay(console).showing() as display:
        follow(classifier, display, processes)
    return collect_outcome(visitor, classifier, plan.folder)


def keep_running(processes: "ChildProcesses", outcome: Outcome) -> None:
    """Wait until the person presses Ctrl-C."""
    print(f"The site goes on at {outcome.page} until Ctrl-C.")
    try:
        while True:
            processes.check()
            time.sleep(1)
    except KeyboardInterrupt:
        print("Stopping.")


def somebody_watches() -> bool:
    """Return whether a person sits at a terminal: no pipe, no file, no continuous integration."""
    if os.environ.get("CI"):
        return False
    return sys.stdin.isatty() and sys.stdout.isatty()


def keep_until_enter(processes: "ChildProcesses", outcome: Outcome) -> None:
    """Wait until the person presses Enter (or Ctrl-C), or a process ends by itself."""
    print(f"page        {outcome.page}")
    print("            The site runs until you press Enter.")
    try:
        while not select.select([sys.stdin], [], [], 1)[0]:
            processes.check()
    except KeyboardInterrupt:
        pass
    print("Stopping.")


def say(console: Console, line: str) -> None:
    """Print a line as it is: paths and links stay in one piece however narrow the terminal."""
    console.print(line, markup=False, soft_wrap=True)


# --- its own environment ---


def restart_inside(folder: Path, arguments: Sequence[str]) -> NoReturn:
    """Make the folder anew and become the same command with the demo's settings.

    Only a new process has models that use the demo's database.

    :raises DemoFailed: another demo uses the folder
    """
    lock_folder(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = clean_environment() | own_settings(folder)
    # The last --folder wins, and an absolute path means the same under the other settings.
    command = [sys.executable, *arguments, f"--folder={folder}", "--inside"]
    os.execve(sys.executable, command, environment)


def lock_folder(folder: Path) -> None:
    """Hold the folder until this process ends, also across ``exec``.

    :raises DemoFailed: another demo uses it
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock_file = folder.with_name(f"{folder.name}.lock")
    handle = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DemoFailed(
            f"Another demo is running in {folder}; end it first, or choose another --folder."
        ) from None
    os.set_inheritable(handle, True)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without a person's configuration of the site."""
    prefixes = ("PICAISSO_", "DATABASE_URL", "EMAIL_URL")
    environment = {}
    for name, value in os.environ.items():
        if name in KEPT_SETTINGS or not name.startswith(prefixes):
            environment[name] = value
    return environment


def own_settings(folder: Path) -> dict[str, str]:
    """Return settings that keep the demo inside its folder.

    Empty ones are set all the same: a ``.env`` file would fill the gaps.
    """
    return {
        "PICAISSO_DATA_DIR": str(folder),
        "DATABASE_URL": "sqlite:///" + urllib.parse.quote(str(folder / "db.sqlite3")),
        "EMAIL_URL": "",
        "PICAISSO_SECRET_KEY": "",
        "PICAISSO_DEBUG": "0",
        "PICAISSO_BEHIND_PROXY": "0",
        "PICAISSO_ALLOWED_HOSTS": "127.0.0.1",
        "PICAISSO_CONFIRM_EMAIL": "1",
        "PICAISSO_SELENIUM_REMOTE_URL": "",
    }


def site_settings(plan: Plan, gallery_url: str, port: int) -> dict[str, str]:
    """Return what the site needs beyond ``own_settings``: the gallery takes the place of Bing."""
    return {
        "PICAISSO_BASE_URL": f"http://127.0.0.1:{port}",
        "PICAISSO_SOURCES": "bing",
        "PICAISSO_BING_URL": gallery_url,
        "PICAISSO_ALLOWED_PRIVATE_HOSTS": urllib.parse.urlsplit(gallery_url).netloc,
        "PICAISSO_ROBOTS": "respect",
        "PICAISSO_LOCALE": "en-US",
        "PICAISSO_MIN_SIDE": "64",
        "PICAISSO_BACKBONE": plan.backbone,
    }


# --- the processes ---


class ChildProcesses:
    """What the demo has started, each in a session of its own, and the time that it all may take.

    The children end with the demo, even when it is killed by signal 9.
    """

    def __init__(self, folder: Path, limit_seconds: float) -> None:
        self.folder = folder
        self.limit_seconds = limit_seconds
        self._end = time.monotonic() + limit_seconds
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, arguments: Sequence[str], extra_settings: Mapping[str, str]) -> None:
        """Start ``python ARGUMENTS``, its output going to ``<name>.log``."""
        starter = ["-m", "requests_app.workers.processes", "die_with_parent", "--"]
        command = [sys.executable, *starter, sys.executable, *arguments]
        environment = {**os.environ, **extra_settings, "PICAISSO_PARENT": str(os.getpid())}
        with self.log_file(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                cwd=settings.BASE_DIR,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log_file(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def check(self) -> None:
        """:raises DemoFailed: a process has ended, which none does by itself"""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise DemoFailed(f"The {name} ended by itself with exit code {process.returncode}.")

    def wait_for(self, what: str, condition: Callable[[], T | None], seconds: float) -> T:
        """Return the first value of ``condition`` that counts as true.

        :raises DemoFailed: the time for this, or for everything, is over, or a process has ended
        """
        until = min(time.monotonic() + seconds, self._end)
        while time.monotonic() < until:
            self.check()
            value = condition()
            if value:
                return value
            time.sleep(POLL_SECONDS)
        waited = min(seconds, self.limit_seconds)
        raise DemoFailed(f"Gave up waiting for {what} after {waited:.0f} seconds.")

    def stop(self) -> None:
        """End all of them, the latest first: politely, then with everything in their sessions."""
        while self._running:
            _, process = self._running.popitem()
            process.terminate()
            try:
                process.wait(settings.STOP_SECONDS + KILL_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def log_tails(self) -> str:
        """Return the last lines of every log, for a failure's message."""
        own_logs = sorted(self.folder.glob("*.log"))
        stage_logs = sorted(self.folder.glob("requests/**/log.txt"))
        tails = []
        for log in [*own_logs, *stage_logs]:
            tails.append(f"--- the end of {log}")
            tails += log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join(tails)


def start_gallery(plan: Plan, processes: ChildProcesses) -> str:
    """Start the gallery site on a free port; return its URL, which is the first line it prints."""
    arguments = ["-m", "scraping", "gallery", str(plan.photographs), "--port", "0"]
    processes.start("gallery", arguments, {})
    log = processes.log_file("gallery")

    def printed_url() -> str | None:
        line = re.search(r"^gallery: (http://\S+)", log.read_text(), re.MULTILINE)
        return line[1] if line else None

    return processes.wait_for("the gallery site", printed_url, START_SECONDS)


def start_site(plan: Plan, gallery_url: str, processes: ChildProcesses) -> str:
    """Start web server and workers on a free port; return the site's URL once its form answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["manage.py", "up", "--port", str(port)]
    processes.start("site", arguments, site_settings(plan, gallery_url, port))
    url = f"http://127.0.0.1:{port}"

    def form_page() -> str | None:
        try:
            return Visitor(url).page("/")
        except OSError:  # nobody listens there yet, or the server answers with an error
            return None

    processes.wait_for("the site's first page", form_page, START_SECONDS)
    return url


# --- the request ---


def submit(visitor: Visitor, plan: Plan) -> ClassifierRequest:
    """Send the form on the front page; return the request that it made.

    :raises DemoFailed: the form led elsewhere
    """
    fields = [("classes", name) for name in plan.classes]
    fields += [
        ("email", plan.email),
        ("images_per_class", str(plan.images_per_class)),
        ("license", "any"),
        ("backbone", plan.backbone),
    ]
    url = visitor.send_form("/", fields)
    path = urllib.parse.urlsplit(url).path
    match = re.fullmatch(r"/r/([\w-]+)/", path)
    classifier = ClassifierRequest.objects.by_token(match[1]) if match else None
    if classifier is None:
        raise DemoFailed(f"The form did not lead to a request's page but to {url}.")
    return classifier


def confirm(visitor: Visitor, processes: ChildProcesses) -> None:
    """Wait for the mail, open its link, and press the button there."""
    pattern = re.escape(visitor.base_url) + r"/confirm/\S+"
    link = processes.wait_for(
        "the mail with the confirmation link",
        lambda: find_link(Path(settings.MAIL_DIR), pattern),
        MAIL_SECONDS,
    )
    visitor.send_form(link)


@dataclass
class StageDisplay:
    """Shows each stage's progress: bars on a terminal, else a line at its start and its end."""

    console: Console
    bars: Progress | None = None
    _tasks: dict[str, TaskID] = field(default_factory=dict)
    _printed: set[tuple[str, str]] = field(default_factory=set)

    @contextmanager
    def showing(self) -> Iterator["StageDisplay"]:
        if not self.console.is_terminal:
            yield self
            return
        columns = (
            TextColumn("{task.description:9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[message]}"),
        )
        with Progress(*columns, console=self.console) as self.bars:
            for stage in pipeline.STAGES:
                task = self.bars.add_task(
                    stage.name, total=None, start=False, visible=False, message=""
                )
                self._tasks[stage.name] = task
            yield self

    def update(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if self.bars is None:
                self._print_state(job)
            elif job.stage in self._tasks:
                self._update_bar(self.bars, self._tasks[job.stage], job)

    def _update_bar(self, bars: Progress, task: TaskID, job: Job) -> None:
        if job.state != JobState.QUEUED:
            bars.start_task(task)
            bars.update(task, visible=True)
        total = job.progress.get("total")
        if job.state == JobState.DONE:
            message = f"done in {job.seconds:.1f} s"
            bars.update(task, total=total or 1, completed=total or 1, message=message)
            bars.stop_task(task)
            return
        done = job.progress.get("done", 0)
        message = job.progress.get("message", job.state)
        bars.update(task, total=total, completed=done, message=message)

    def _print_state(self, job: Job) -> None:
        printed = (job.stage, job.state)
        if printed in self._printed or job.state == JobState.QUEUED:
            return
        self._printed.add(printed)
        line = f"{job.stage}: {job.state}"
        if job.state != JobState.RUNNING:
            seconds = job.seconds or 0
            line += f" in {seconds:.1f} s"
        self.console.print(line)


def follow(classifier: ClassifierRequest, display: StageDisplay, processes: ChildProcesses) -> None:
    """Wait until the request is delivered and its mail is sent.

    :raises DemoFailed: it ended in any other way
    """
    unsent_mails = OutgoingMail.objects.filter(request=classifier).exclude(state=MailState.SENT)

    def is_delivered() -> bool:
        classifier.refresh_from_db()
        display.update(list(classifier.jobs.all()))
        if classifier.status == Status.DELIVERED:
            return not unsent_mails.exists()
        if not classifier.is_open:
            error = classifier.error or {}
            reason = error.get("reason", "")
            remedy = error.get("remedy", "")
            raise DemoFailed(f"The request is {classifier.status}: {reason} {remedy}")
        return False

    processes.wait_for("the delivery", is_delivered, processes.limit_seconds)
