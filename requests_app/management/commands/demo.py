"""``manage.py demo``: one whole request, end to end, on this machine and with nothing faked.

It starts a gallery site over a folder of real photographs, the web server and the queue clusters,
sends the form as a browser would, confirms through the link in the mail, follows the work to its
delivery, fetches both files through their links and asks the delivered model about a picture that
it has never seen. All of it lives in a data folder of its own, made anew at each run and kept
afterwards.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from argparse import SUPPRESS
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from email import message_from_bytes, policy
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from requests_app.models import (
    Artifact,
    ClassifierRequest,
    Job,
    JobState,
    MailState,
    OutgoingMail,
    Status,
)

PHOTOGRAPHS = Path("/usr/share/tuxpaint/stamps")
STAGES = ("collect", "train", "package", "deliver")
POLL_SECONDS = 0.25
START_SECONDS = 90.0  # the slowest machine's first import of everything
MAIL_SECONDS = 60.0
HTTP_SECONDS = 30.0
KILL_GRACE_SECONDS = 15.0  # on top of the site's own time for stopping
LOG_TAIL_LINES = 25
# What a person configures for this machine and the demo leaves alone; everything else is set or
# dropped.
KEPT_SETTINGS = frozenset(
    {
        "PICAISSO_CHROME",
        "PICAISSO_CHROMEDRIVER",
        "PICAISSO_WEIGHTS_DIR",
        "PICAISSO_WEIGHTS_URL",
        "PICAISSO_DEVICE",
    }
)


class DemoFailed(Exception):
    """The demo cannot go on; the message is one sentence for the person at the terminal."""


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


@dataclass(frozen=True)
class Delivered:
    """One artifact, fetched through its link and checked against its sha256."""

    kind: str
    path: str
    url: str
    bytes: int
    sha256: str
    folder: str


@dataclass(frozen=True)
class Outcome:
    """What the demo shows at its end; ``--json`` prints it as one line.

    ``seconds`` has a key for each stage, ``waiting`` for the time between them, and ``total``.
    """

    accuracy: float
    interval: tuple[float, float]
    majority_baseline: float
    split: dict[str, int]
    kept: dict[str, int]
    backbone: str
    notices: list[str]
    seconds: dict[str, float]
    dataset: Delivered
    model: Delivered
    mail: str
    page: str
    folder: str
    request_folder: str
    picture: str
    truth: str
    prediction: str
    probabilities: dict[str, float]


# --- the demo's own environment
# -----------------------------------------------------------------------------


def clean_environment() -> dict[str, str]:
    """This process's environment without a person's configuration of the site."""
    ours = ("PICAISSO_", "DATABASE_URL", "EMAIL_URL")
    return {
        name: value
        for name, value in os.environ.items()
        if name in KEPT_SETTINGS or not name.startswith(ours)
    }


def own_settings(folder: Path) -> dict[str, str]:
    """Settings that keep the demo inside its folder. Set, not only dropped: a ``.env`` file would
    fill the gaps.
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
    """What the running site needs beyond ``own_settings``: the gallery takes the place of Bing."""
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lock_folder(folder: Path) -> None:
    """Hold the folder until this process ends, also across ``exec``.

    :raises DemoFailed: another demo is using it
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder.with_name(folder.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DemoFailed(
            f"Another demo is running in {folder}; end it first, or choose another --folder."
        ) from None
    os.set_inheritable(handle, True)


def restart_inside(folder: Path, arguments: Sequence[str]) -> NoReturn:
    """Become the same command with the demo's settings, so that the models read the demo's
    database.
    """
    environment = {**clean_environment(), **own_settings(folder)}
    os.execve(sys.executable, [sys.executable, *arguments, "--inside"], environment)


# --- the processes
# ------------------------------------------------------------------------------------------


class Processes:
    """What the demo has started, each in a session of its own; all of it ends with the demo, even
    by kill -9.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, arguments: Sequence[str], extra_settings: Mapping[str, str]) -> None:
        """Start ``python ARGUMENTS``, its output going to ``<name>.log``."""
        tether = [
            sys.executable,
            "-m",
            "requests_app.workers.processes",
            "tether",
            "--",
            sys.executable,
            *arguments,
        ]
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                tether,
                cwd=settings.BASE_DIR,
                env={**os.environ, **extra_settings, "PICAISSO_PARENT": str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def check(self) -> None:
        """:raises DemoFailed: one of them has ended, which none does by itself"""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise DemoFailed(f"The {name} ended by itself with exit code {process.returncode}.")

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

    def tails(self) -> str:
        """The last lines of every log, for a failure's message."""
        parts = []
        for log in [
            *sorted(self.folder.glob("*.log")),
            *sorted(self.folder.glob("requests/**/log.txt")),
        ]:
            lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            parts.append("\n".join([f"--- the end of {log}", *lines]))
        return "\n".join(parts)


class Clock:
    """The time that the whole demo may take."""

    def __init__(self, limit_seconds: float) -> None:
        self.limit = limit_seconds
        self._end = time.monotonic() + limit_seconds

    def waiting(self, seconds: float, what: str, processes: Processes) -> Iterator[None]:
        """Yield again and again, with a pause, while there is time.

        :raises DemoFailed: the time for this, or for everything, is over, or a process has ended
        """
        until = min(time.monotonic() + seconds, self._end)
        while time.monotonic() < until:
            processes.check()
            yield
            time.sleep(POLL_SECONDS)
        raise DemoFailed(
            f"Gave up waiting for {what} after {min(seconds, self.limit):.0f} seconds."
        )


def start_gallery(plan: Plan, processes: Processes, clock: Clock) -> str:
    """Start the gallery site on a free port; returns its URL, which is the first line it prints."""
    processes.start(
        "gallery", ["-m", "scraping", "gallery", str(plan.photographs), "--port", "0"], {}
    )
    for _ in clock.waiting(START_SECONDS, "the gallery site", processes):
        if found := re.search(
            r"^gallery: (http://\S+)", processes.log("gallery").read_text(), re.MULTILINE
        ):
            return found[1]
    raise AssertionError("waiting() either yields or raises")


def start_site(plan: Plan, gallery_url: str, processes: Processes, clock: Clock) -> str:
    """Start web server and workers on a free port; returns the site's URL once its form answers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    processes.start(
        "site", ["manage.py", "up", "--port", str(port)], site_settings(plan, gallery_url, port)
    )
    for _ in clock.waiting(START_SECONDS, "the site's first page", processes):
        try:
            Visitor(url).page("/")
        except (urllib.error.URLError, OSError):
            continue
        return url
    raise AssertionError("waiting() either yields or raises")


# --- the person at the browser
# ------------------------------------------------------------------------------


class HiddenFields(HTMLParser):
    """Collects the hidden inputs of a page: the token against forged requests is one of them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if (
            tag == "input"
            and attributes.get("type") == "hidden"
            and (name := attributes.get("name"))
        ):
            self.fields[name] = attributes.get("value") or ""


class Visitor:
    """A person with a browser, as far as the site can tell: keeps cookies, sends forms with their
    hidden fields.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler(
                {}
            ),  # a proxy of this machine must not see what stays on it
            urllib.request.HTTPCookieProcessor(CookieJar()),
        )

    def page(self, path: str) -> str:
        with self._opener.open(
            urllib.parse.urljoin(self.base_url, path), timeout=HTTP_SECONDS
        ) as answer:
            return str(answer.read().decode())

    def send_form(self, path: str, fields: Sequence[tuple[str, str]] = ()) -> str:
        """Open the page at ``path``, fill in its form, send it; returns the URL where that led."""
        hidden = HiddenFields(self.page(path)).fields
        body = urllib.parse.urlencode([*hidden.items(), *fields]).encode()
        url = urllib.parse.urljoin(self.base_url, path)
        try:
            with self._opener.open(
                urllib.request.Request(url, body), timeout=HTTP_SECONDS
            ) as answer:
                return str(answer.geturl())
        except urllib.error.HTTPError as refusal:
            raise DemoFailed(f"The site answered {refusal.code} to the form at {url}.") from refusal

    def download(self, path: str, target: Path) -> str:
        """Fetch a file; returns the sha256 of what arrived."""
        digest = hashlib.sha256()
        url = urllib.parse.urljoin(self.base_url, path)
        with self._opener.open(url, timeout=HTTP_SECONDS) as answer, target.open("wb") as file:
            while block := answer.read(1 << 20):
                digest.update(block)
                file.write(block)
        return digest.hexdigest()


def submit(visitor: Visitor, plan: Plan) -> ClassifierRequest:
    """Send the form on the front page; returns the request that it made."""
    fields = [("classes", name) for name in plan.classes]
    fields += [
        ("email", plan.email),
        ("images_per_class", str(plan.images_per_class)),
        ("license", "any"),
        ("backbone", plan.backbone),
    ]
    url = visitor.send_form("/", fields)
    token = re.fullmatch(r"/r/([\w-]+)/", urllib.parse.urlsplit(url).path)
    request = ClassifierRequest.objects.by_token(token[1]) if token else None
    if request is None:
        raise DemoFailed(f"The form did not lead to a request's page but to {url}.")
    return request


def find_link(mail_folder: Path, pattern: str) -> str | None:
    """The first link of this pattern in the plain text of any mail of the folder."""
    for file in sorted(mail_folder.glob("*.eml")):
        body = message_from_bytes(file.read_bytes(), policy=policy.default).get_body(("plain",))
        if body is not None and (found := re.search(pattern, body.get_content())):
            return found[0]
    return None


def confirm(visitor: Visitor, clock: Clock, processes: Processes) -> None:
    """Wait for the mail, open its link, and press the button there."""
    pattern = re.escape(visitor.base_url) + r"/confirm/\S+"
    for _ in clock.waiting(MAIL_SECONDS, "the mail with the confirmation link", processes):
        if link := find_link(Path(settings.MAIL_DIR), pattern):
            visitor.send_form(link)
            return


# --- following the work
# -------------------------------------------------------------------------------------


@dataclass
class StageDisplay:
    """Shows each stage's progress: bars on a terminal, else a line when it starts and when it
    ends.
    """

    console: Console
    bars: Progress | None = None
    _tasks: dict[str, TaskID] = field(default_factory=dict)
    _said: set[tuple[str, str]] = field(default_factory=set)

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
        )
        with Progress(
            *columns, TextColumn("{task.fields[message]}"), console=self.console
        ) as self.bars:
            for stage in STAGES:
                self._tasks[stage] = self.bars.add_task(stage, total=None, start=False, message="")
            yield self

    def update(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if self.bars is None:
                self._say(job)
            elif job.stage in self._tasks:
                self._move_bar(job)

    def _move_bar(self, job: Job) -> None:
        assert self.bars is not None
        task, over = self._tasks[job.stage], job.state == JobState.DONE
        if job.state != JobState.QUEUED:
            self.bars.start_task(task)
        total = job.progress.get("total") or (1 if over else None)
        done = total if over else job.progress.get("done", 0)
        message = f"done in {job.seconds:.1f} s" if over else job.progress.get("message", job.state)
        self.bars.update(task, total=total, completed=done, message=message)
        if over:
            self.bars.stop_task(task)

    def _say(self, job: Job) -> None:
        if (job.stage, job.state) in self._said or job.state == JobState.QUEUED:
            return
        self._said.add((job.stage, job.state))
        ending = "" if job.state == JobState.RUNNING else f"in {job.seconds or 0:.1f} s"
        self.console.print(f"{job.stage}: {job.state} {ending}".rstrip())


def follow(
    request: ClassifierRequest, display: StageDisplay, clock: Clock, processes: Processes
) -> None:
    """Wait until the request is delivered and its mail is sent.

    :raises DemoFailed: it ended in any other way
    """
    for _ in clock.waiting(clock.limit, "the delivery", processes):
        request.refresh_from_db()
        display.update(list(request.jobs.all()))
        if request.status == Status.DELIVERED and not _unsent_mails(request):
            return
        if not request.is_open and request.status != Status.DELIVERED:
            error = request.error or {}
            raise DemoFailed(
                f"The request is {request.status}: {error.get('reason', '')} {error.get('remedy', '')}"
            )


def _unsent_mails(request: ClassifierRequest) -> bool:
    return OutgoingMail.objects.filter(request=request).exclude(state=MailState.SENT).exists()


def stage_seconds(request: ClassifierRequest) -> dict[str, float]:
    """What each stage took, and ``total`` from the submission to the delivery; what is left over is
    waiting.
    """
    moments = {event.new: event.at for event in request.events.all()}
    seconds = {"confirm": (moments[Status.QUEUED] - request.created).total_seconds()}
    for job in request.jobs.all():
        seconds[job.stage] = job.seconds or 0.0
    seconds["waiting"] = 0.0
    total = (moments[Status.DELIVERED] - request.created).total_seconds()
    seconds["waiting"] = max(0.0, total - sum(seconds.values()))
    return {**seconds, "total": total}


# --- what was delivered
# -------------------------------------------------------------------------------------


def fetch(
    visitor: Visitor, artifact: Artifact, request: ClassifierRequest, folder: Path
) -> Delivered:
    """Download an artifact through its link, compare its checksum, and unzip it beside itself."""
    link = f"{request.get_absolute_url()}download/{artifact.kind}/"
    target = folder / artifact.file_name
    if visitor.download(link, target) != artifact.sha256:
        raise DemoFailed(
            f"The downloaded {artifact.kind} does not have the sha256 that was published."
        )
    unzipped = target.with_suffix("")
    with zipfile.ZipFile(target) as archive:
        archive.extractall(unzipped)
    return Delivered(
        artifact.kind,
        str(target),
        visitor.base_url + link,
        artifact.bytes,
        artifact.sha256,
        str(unzipped),
    )


def held_out_picture(dataset: Path) -> tuple[Path, str]:
    """A picture of the test split, and the name of its class."""
    names = json.loads((dataset / "classes.json").read_text())
    picture = min((dataset / "test").glob("*/*.jpg"), key=lambda path: path.name)
    return picture, names[picture.parent.name]


def predict(model: Path, picture: Path) -> dict[str, float]:
    """Ask the delivered ``predict.py``, in its own folder, as a receiver would; returns class ->
    probability.
    """
    command = [sys.executable, "predict.py", str(picture)]
    answer = subprocess.run(
        command, cwd=model, capture_output=True, text=True, timeout=120, check=False
    )
    if answer.returncode:
        raise DemoFailed(f"The delivered predict.py failed: {answer.stderr.strip()[-500:]}")
    return read_probabilities(answer.stdout)


def read_probabilities(output: str) -> dict[str, float]:
    """class -> probability from what ``predict.py`` prints for one picture: lines such as ``  97.3%
    mammal``.
    """
    found = re.findall(r"^ +(\d+\.\d)%  (.+)$", output, re.MULTILINE)
    if not found:
        raise DemoFailed("The delivered predict.py printed no probabilities.")
    return {name: float(percent) / 100 for percent, name in found}


def gather(visitor: Visitor, request: ClassifierRequest, plan: Plan) -> Outcome:
    """Fetch what was delivered and read everything to show from it, not from the database, where it
    is in there.
    """
    version = request.versions.get()
    downloads = plan.folder / "downloads"
    downloads.mkdir()
    files = {artifact.kind: artifact for artifact in version.artifacts.all()}
    dataset = fetch(visitor, files["dataset"], request, downloads)
    model = fetch(visitor, files["model"], request, downloads)
    metrics = json.loads(Path(model.folder, "metrics.json").read_text())
    picture, truth = held_out_picture(Path(dataset.folder))
    probabilities = predict(Path(model.folder), picture)
    mails = sorted(Path(settings.MAIL_DIR).glob("*.eml"), key=lambda file: file.stat().st_mtime_ns)
    return Outcome(
        accuracy=metrics["accuracy"],
        interval=tuple(metrics["interval"]),
        majority_baseline=metrics["majority_baseline"],
        split=metrics["split"],
        kept={c.name: c.kept for c in request.classes.all()},
        backbone=metrics["backbone"],
        notices=list(version.run.notices),
        seconds=stage_seconds(request),
        dataset=dataset,
        model=model,
        mail=str(mails[-1]),
        page=visitor.base_url + request.get_absolute_url(),
        folder=str(plan.folder),
        request_folder=str(request.folder),
        picture=str(picture),
        truth=truth,
        prediction=max(probabilities, key=lambda name: probabilities[name]),
        probabilities=probabilities,
    )


def describe(outcome: Outcome) -> Iterator[str]:
    """The lines that the demo ends with."""
    low, high = outcome.interval
    yield (
        f"accuracy    {outcome.accuracy:.3f} on {outcome.split['test']} test pictures"
        f" (95 % interval {low:.3f} to {high:.3f}; always the largest class: {outcome.majority_baseline:.3f})"
    )
    for notice in outcome.notices:
        yield f"notice      {notice}"
    for item in (outcome.dataset, outcome.model):
        yield f"{item.kind:11} {item.path} ({item.bytes / 1e6:.1f} MB, sha256 checked)"
        yield f"            {item.url}"
    yield f"mail        {outcome.mail}"
    yield f"page        {outcome.page}"
    times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in outcome.seconds.items())
    yield f"time        {times}"
    shares = ", ".join(f"{name} {share:.3f}" for name, share in outcome.probabilities.items())
    verdict = "right" if outcome.prediction == outcome.truth else "wrong"
    yield f"prediction  {shares} for {Path(outcome.picture).name} of the test split"
    yield f"            which is: {outcome.truth} (so the model is {verdict})"


def say(console: Console, line: str) -> None:
    """Print a line as it is: paths and links stay in one piece however narrow the terminal."""
    console.print(line, markup=False, soft_wrap=True)


# --- the command
# --------------------------------------------------------------------------------------------


def run(plan: Plan, console: Console, processes: Processes) -> Outcome:
    """The whole demo, from an empty folder to the outcome; the processes go on running."""
    clock = Clock(plan.limit_seconds)
    gallery_url = start_gallery(plan, processes, clock)
    say(console, f"gallery     {gallery_url}, the photographs of {plan.photographs}")
    visitor = Visitor(start_site(plan, gallery_url, processes, clock))
    say(console, f"site        {visitor.base_url}, log in {processes.log('site')}")
    request = submit(visitor, plan)
    say(
        console,
        f"form        sent: {', '.join(plan.classes)}, {plan.images_per_class} pictures each",
    )
    confirm(visitor, clock, processes)
    say(console, "mail        arrived, its link was opened and confirmed")
    with StageDisplay(console).showing() as display:
        follow(request, display, clock, processes)
    return gather(visitor, request, plan)


class Command(BaseCommand):
    help = "Run one whole request end to end on this machine, in a data folder of its own."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--keep", action="store_true", help="leave the site running until Ctrl-C"
        )
        parser.add_argument(
            "--json",
            action="store_true",
            help="print the outcome as one line of JSON, nothing else",
        )
        parser.add_argument(
            "--folder", type=Path, help="made anew; default: demo in the data folder"
        )
        parser.add_argument(
            "--photographs", type=Path, default=PHOTOGRAPHS, help=f"default {PHOTOGRAPHS}"
        )
        parser.add_argument(
            "--classes", nargs="+", default=["mammal", "plant"], help="names of folders in there"
        )
        parser.add_argument("--images", type=int, default=38, help="pictures per class, default 38")
        parser.add_argument(
            "--backbone", default="efficientnet_lite0", help="default efficientnet_lite0"
        )
        parser.add_argument(
            "--limit", type=float, default=600, help="seconds after which to give up, default 600"
        )
        parser.add_argument("--inside", action="store_true", help=SUPPRESS)

    def handle(self, *args: Any, **options: Any) -> None:
        folder = (options["folder"] or settings.DATA_DIR / "demo").absolute()
        if not options["photographs"].is_dir():
            raise CommandError(
                f"There are no photographs in {options['photographs']}: install the package"
                " tuxpaint-stamps-default, or name another folder with --photographs."
            )
        try:
            if not options["inside"]:
                lock_folder(folder)
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                restart_inside(folder, self._arguments(folder))
            self._run(options)
        except DemoFailed as failure:
            raise CommandError(str(failure)) from failure

    def _arguments(self, folder: Path) -> list[str]:
        # The last --folder wins, and an absolute one does not depend on the settings that change
        # now.
        return [*sys.argv, f"--folder={folder}"]

    def _run(self, options: dict[str, Any]) -> None:
        if options["folder"] != settings.DATA_DIR:
            raise CommandError("--inside is for the demo's own use.")
        plan = Plan(
            folder=Path(settings.DATA_DIR),
            photographs=options["photographs"].absolute(),
            classes=options["classes"],
            images_per_class=options["images"],
            backbone=options["backbone"],
            limit_seconds=options["limit"],
        )
        console = Console(quiet=options["json"], highlight=False)
        signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
        with ExitStack() as stack:
            processes = Processes(plan.folder)
            stack.callback(processes.stop)
            outcome = self._run_or_explain(plan, console, processes)
            self._show(outcome, console, options)
            if options["keep"]:
                self._keep(processes, outcome)

    def _run_or_explain(self, plan: Plan, console: Console, processes: Processes) -> Outcome:
        try:
            return run(plan, console, processes)
        except KeyboardInterrupt:
            raise DemoFailed("Interrupted.") from None
        except (DemoFailed, OSError) as failure:
            self.stderr.write(processes.tails())
            raise DemoFailed(f"The demo failed: {failure}") from failure

    def _show(self, outcome: Outcome, console: Console, options: dict[str, Any]) -> None:
        if options["json"]:
            self.stdout.write(json.dumps(asdict(outcome)))
        for line in describe(outcome):
            say(console, line)
        if outcome.interval[0] <= outcome.majority_baseline:
            raise DemoFailed(
                "The demo failed: the model is not clearly better than always naming the largest class."
            )

    def _keep(self, processes: Processes, outcome: Outcome) -> None:
        self.stdout.write(f"The site goes on at {outcome.page} until Ctrl-C.")
        try:
            while True:
                processes.check()
                time.sleep(1)
        except KeyboardInterrupt:
            self.stdout.write("Stopping.")
