"""Keeps requests going while everything around them breaks, then opens the books.

A whole site runs (``manage.py up``) over replica sources on loopback: an image API, a picture host
and the demo's own gallery. Persons send requests in, confirm them, and now and then cancel, retry
or delete one. Meanwhile, every few seconds, a process is killed, stopped or starved, the database
is locked, killed or stopped, the disk is full, the mail server is away or silent, or a source is.
Nothing is touched that was not started here. When it is over all that was sent in must end, and
nothing may be lost, doubled or left over (``tests/books.py``).
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import psutil
from aiosmtpd.controller import Controller
from rich.console import Console
from rich.table import Table

from requests_app.demo.visitor import DemoFailed, Visitor
from tests import books
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pictures_host import PictureHost
from tests.replicas.server import Request, Response
from tests.system.mariadb import INSTALLER, SERVER, MariaDb, free_port
from tests.system.site import PHOTOGRAPHS, Proc, Site, links

PICTURES = 20  # per class: the fewest that are trained on
DISK_BYTES = 2_000_000_000
EVERY_SECONDS = (2.0, 5.0)  # from one fault to the next
LASTS_SECONDS = (2.0, 10.0)
GALLERY_SHARE = 0.1  # of requests, which need a browser
ANSWER_SECONDS = 20.0
ENDED = ("delivered", "cancelled", "expired")
Undo = Callable[[], None]


# --- what a site talks to -------------------------------------------------------------------------


class Pictures(OpenverseReplica):
    """The image API, with pictures of their own for each class; it can be away."""

    is_away = False

    def respond(self, request: Request) -> Response:
        if self.is_away:
            return Response(b"later", "text/plain", 503)
        digits = "".join(filter(str.isdigit, request.query.get("q", "")))
        self._first = 1000 * int(digits or "0")
        return super().respond(request)


class Mailbox:
    """A mail server that can be away, silent or busy, and keeps what it has taken."""

    def __init__(self) -> None:
        self.port = free_port()
        self.messages: list[Message] = []
        self.mode = "well"
        self._server: Controller | None = None
        self.open()

    def open(self) -> None:
        self._server = Controller(self, hostname="127.0.0.1", port=self.port)
        self._server.start()

    def close(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        while self.mode == "silent":
            await asyncio.sleep(0.2)
        if self.mode == "busy":
            return "451 try again later"
        self.messages.append(message_from_bytes(envelope.content))
        return "250 OK"


# --- persons --------------------------------------------------------------------------------------


class People(threading.Thread):
    """Send in requests, so that so many are always open, and do with them what people do."""

    def __init__(self, site: Site, mailbox: Mailbox, wanted: int, dice: random.Random) -> None:
        super().__init__(daemon=True)
        self.site = site
        self.mailbox = mailbox
        self.wanted = wanted
        self.dice = dice
        self.status: dict[str, str] = {}  # by token
        self.acts: Counter[str] = Counter()
        self.confirmed: set[str] = set()
        self.number = 0
        self.is_over = False  # no new ones any more
        self.gives_up = False  # what is still open is cancelled
        self.has_left = threading.Event()

    def run(self) -> None:
        while not self.has_left.is_set():
            for act in (self._send_in, self._confirm, self._look, self._act):
                with contextlib.suppress(OSError, ValueError, KeyError, DemoFailed):
                    act()
            time.sleep(0.3)

    @property
    def open(self) -> list[str]:
        return [token for token, status in self.status.items() if status not in ENDED]

    def call(self, method: str, path: str, document: Any = None) -> dict[str, Any]:
        url = f"{self.site.url}/api/v1/requests{path}"
        body = json.dumps(document if document is not None else {}).encode()
        content = {"Content-Type": "application/json"}
        question = urllib.request.Request(url, body, content, method=method)
        with urllib.request.urlopen(question, timeout=ANSWER_SECONDS) as answer:
            read = answer.read()
        return dict(json.loads(read)) if read else {}

    def _send_in(self) -> None:
        if self.is_over or len(self.open) >= self.wanted:
            return
        self.number += 1
        first = 2 * self.number
        wish: dict[str, Any] = {
            "classes": [f"kind {first}", f"kind {first + 1}"],
            "email": f"person{self.number}@example.org",
            "images_per_class": PICTURES,
            "backbone": "efficientnet_lite0",
            "sources": ["openverse"],
        }
        has_gallery = PHOTOGRAPHS.is_dir() and shutil.which("chromium") is not None
        if has_gallery and self.dice.random() < GALLERY_SHARE:
            wish |= {"classes": ["mammal", "plant"], "sources": ["bing"]}
        made = self.call("POST", "", wish)
        self.status[str(made["id"])] = str(made["status"])
        self.acts["sent in"] += 1

    def _confirm(self) -> None:
        for link in links(list(self.mailbox.messages)):
            if link not in self.confirmed:
                self._open(link)
                self.confirmed.add(link)

    def _open(self, link: str) -> None:
        """Press the button of a confirmation; raise OSError where that must be tried again."""
        try:
            Visitor(self.site.url).send_form(link)
        except DemoFailed as error:
            answer = error.__cause__
            if isinstance(answer, urllib.error.HTTPError) and answer.code >= 500:
                raise answer from error
        except urllib.error.HTTPError as error:
            if error.code >= 500:  # any other: it was cancelled or deleted meanwhile
                raise

    def _look(self) -> None:
        for token in self.dice.sample(self.open, min(4, len(self.open))):
            try:
                self.status[token] = str(self.call("GET", f"/{token}")["status"])
            except urllib.error.HTTPError as error:
                if error.code == 410:
                    self.status[token] = "expired"

    def _act(self) -> None:
        """Press a button; once it is over only those that lead to an end."""
        for token in self.open:
            if self.gives_up:
                self._press("cancel", token)
            elif self.status[token] in ("failed", "needs_attention") and self.dice.random() < 0.1:
                self._press("retry", token)
        if self.is_over or self.dice.random() > 0.1 or not self.status:
            return
        token = self.dice.choice(list(self.status))
        if self.status[token] == "delivered":
            self.call("DELETE", f"/{token}")
            self.status[token] = "expired"
            self.acts["deleted"] += 1
        elif self.status[token] in ("queued", "running") and self.dice.random() < 0.3:
            self._press("cancel", token)

    def _press(self, button: str, token: str) -> None:
        try:
            self.status[token] = str(self.call("POST", f"/{token}/{button}")["status"])
            self.acts[f"pressed {button}"] += 1
        except urllib.error.HTTPError as error:
            if error.code != 409:  # it has just ended otherwise
                raise


# --- faults ---------------------------------------------------------------------------------------


class Faults:
    """Breaks one thing at a time, and mends what does not mend itself after some seconds."""

    def __init__(
        self,
        site: Site,
        mailbox: Mailbox,
        source: Pictures,
        database: MariaDb | None,
        has_small_disk: bool,
        dice: random.Random,
    ) -> None:
        self.site = site
        self.mailbox = mailbox
        self.source = source
        self.database = database
        self.dice = dice
        self.counts: Counter[str] = Counter()
        self.undo: list[tuple[float, Undo]] = []
        self.faults: list[tuple[int, Callable[[], str]]] = [
            (6, self.kill_process),
            (4, self.stop_process),
            (3, self.starve_process),
            (2, self.close_mailbox),
            (2, self.trouble_mailbox),
            (2, self.take_source_away),
            (1, self.kill_all),
            (1, self.restart),
        ]
        if database is None:
            self.faults.append((3, self.lock_database))
        else:
            self.faults += [(2, self.kill_database), (2, self.stop_database)]
        if has_small_disk:
            self.faults.append((3, self.fill_disk))

    def strike(self) -> None:
        """Break something now."""
        weights = [weight for weight, _ in self.faults]
        (fault,) = self.dice.choices([fault for _, fault in self.faults], weights)
        try:
            name = fault()
        except (psutil.Error, ProcessLookupError, AssertionError) as error:
            print(f"chaos: {fault.__name__} did not come about: {error}"[:300], flush=True)
            return
        if name:
            self.counts[name] += 1

    def mend(self, everything: bool = False) -> None:
        """Mend what has been broken for long enough."""
        now = time.monotonic()
        due = [undo for at, undo in self.undo if everything or at <= now]
        self.undo = [] if everything else [(at, undo) for at, undo in self.undo if at > now]
        for undo in due:
            undo()

    def _later(self, undo: Undo) -> None:
        lasts = self.dice.uniform(*LASTS_SECONDS)
        self.undo.append((time.monotonic() + lasts, undo))

    def _any_process(self) -> Proc | None:
        up = self.site.up.pid if self.site.up else 0
        found = [process for process in self.site.processes() if process.pid != up]
        return self.dice.choice(found) if found else None

    # --- processes ---

    def kill_process(self) -> str:
        process = self._any_process()
        if process is None:
            return ""
        process.kill()
        return "a process killed"

    def stop_process(self) -> str:
        process = self._any_process()
        if process is None:
            return ""
        stopped = psutil.Process(process.pid)
        stopped.suspend()

        def go_on() -> None:
            with contextlib.suppress(psutil.Error):
                stopped.resume()

        self._later(go_on)
        return "a process stopped and continued"

    def starve_process(self) -> str:
        """Leave a process neither memory nor files beyond those that it has."""
        process = self._any_process()
        if process is None:
            return ""
        starved = psutil.Process(process.pid)
        limits = {
            resource.RLIMIT_AS: starved.memory_info().vms + 10_000_000,
            resource.RLIMIT_NOFILE: starved.num_fds() + 1,
        }
        before = {}
        for limit, value in limits.items():
            before[limit] = resource.prlimit(process.pid, limit)
            resource.prlimit(process.pid, limit, (value, before[limit][1]))

        def feed() -> None:
            for limit, values in before.items():
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(process.pid, limit, values)

        self._later(feed)
        return "a process without memory and files"

    def kill_all(self) -> str:
        """End everything at once, as a power cut does, and start again."""
        for process in self.site.processes():
            process.kill()
        self._start()
        return "all processes killed, started again"

    def restart(self) -> str:
        self.mend(everything=True)  # who is stopped cannot stop
        if self.site.up is not None:
            self.site.up.send_signal(self.dice.choice([signal.SIGTERM, signal.SIGINT]))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.site.up.wait(40)
        self._start()
        return "asked to stop, started again"

    def _start(self) -> None:
        if self.site.up is not None:
            self.site.up.kill()
            self.site.up.wait()
        self.mend(everything=True)
        self.site.wait("the end of everything", lambda: not self.site.processes(), 20)
        self.site.start()

    # --- what processes need ---

    def lock_database(self) -> str:
        lock = sqlite3.connect(self.site.folder / "data" / "db.sqlite3", timeout=5)
        try:
            lock.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            lock.close()
            return ""
        self._later(lock.close)
        return "the database locked"

    def kill_database(self) -> str:
        assert self.database is not None
        self.mend(everything=True)
        self.database.kill()
        self._later(self.database.start)
        return "the database killed"

    def stop_database(self) -> str:
        assert self.database is not None and self.database.process is not None
        self.mend(everything=True)
        server = psutil.Process(self.database.process.pid)
        server.suspend()
        self._later(server.resume)
        return "the database stopped and continued"

    def fill_disk(self) -> str:
        filler = self.site.folder / "data" / "filler"
        if filler.exists():
            return ""
        free = shutil.disk_usage(filler.parent).free
        with filler.open("wb") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, free))
        self._later(lambda: filler.unlink(missing_ok=True))
        return "the disk full"

    def close_mailbox(self) -> str:
        if self.mailbox.mode != "well":
            return ""
        self.mailbox.mode = "away"
        self.mailbox.close()

        def reopen() -> None:
            self.mailbox.open()
            self.mailbox.mode = "well"

        self._later(reopen)
        return "the mail server away"

    def trouble_mailbox(self) -> str:
        if self.mailbox.mode != "well":
            return ""
        self.mailbox.mode = self.dice.choice(["silent", "busy"])
        name = f"the mail server {self.mailbox.mode}"

        def recover() -> None:
            self.mailbox.mode = "well"

        self._later(recover)
        return name

    def take_source_away(self) -> str:
        self.source.is_away = True

        def bring_back() -> None:
            self.source.is_away = False

        self._later(bring_back)
        return "a source away"


# --- the run --------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a disk of its own at a folder, where that is allowed; yield whether it was."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        is_mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        is_mounted = False
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def settings_of(source: Pictures, host: PictureHost, gallery_url: str) -> dict[str, str]:
    gallery_host = gallery_url.removeprefix("http://")
    return {
        "PICAISSO_SOURCES": "openverse,bing",
        "PICAISSO_OPENVERSE_URL": source.url,
        "PICAISSO_ALLOWED_PRIVATE_HOSTS": f"{gallery_host},{source.host},{host.host}",
        "PICAISSO_FINETUNE": "never",
        "PICAISSO_LEASE_SECONDS": "20",
        "PICAISSO_BEAT_SECONDS": "5",
        "PICAISSO_REAP_SECONDS": "3",
    }


def strike_until(end: float, faults: Faults) -> None:
    """Break something every few seconds, as long as it lasts; then mend everything."""
    next_at = time.monotonic() + 5
    said_at = time.monotonic()
    while time.monotonic() < end:
        if time.monotonic() - said_at > 60:
            said_at = time.monotonic()
            print(f"chaos: {faults.counts.total()} faults, {end - said_at:.0f} s left", flush=True)
        if time.monotonic() >= next_at:
            faults.strike()
            next_at = time.monotonic() + faults.dice.uniform(*EVERY_SECONDS)
        faults.mend()
        time.sleep(0.2)
    faults.mend(everything=True)


def wait_for_the_end(people: People, patience: float) -> None:
    """Let all requests end without further faults; after a while people give up."""
    people.is_over = True
    end = time.monotonic() + patience
    while people.open and time.monotonic() < end:
        time.sleep(1)
    people.gives_up = True
    end = time.monotonic() + 120
    while people.open and time.monotonic() < end:
        time.sleep(1)
    people.has_left.set()
    people.join(30)


def close_books(site: Site, mailbox: Mailbox) -> list[str]:
    """Return what does not balance a day later, and what still runs after the stop."""
    found = ["nothing was looked at yet"]
    end = time.monotonic() + 180
    while found and time.monotonic() < end:
        old = time.time() - 100_000  # what was being written when its writer was killed
        for pattern in books.UNFINISHED_NAMES:
            for path in (site.folder / "data" / "requests").rglob(pattern):
                with contextlib.suppress(OSError):
                    os.utime(path, (old, old))
        site.shell("from requests_app import tasks; tasks.prune('picaisso')")
        found = books.of_site(site.environment())
    ids: dict[str, set[str]] = {}
    for message in mailbox.messages:
        ids.setdefault(str(message["X-Picaisso-Key"]), set()).add(str(message["Message-ID"]))
    found += [f"mail {key} came under two ids" for key, own in ids.items() if len(own) > 1]
    code = site.stop()
    if code:
        found.append(f"`manage.py up` ended with {code}")
    found += [f"{process.command[:100]} still runs" for process in site.processes()]
    return found


def show(faults: Faults, people: People, mailbox: Mailbox, found: list[str], note: str) -> None:
    """Print what was survived, and what was not."""
    console = Console(width=100)
    table = Table("fault", "times")
    for name, count in sorted(faults.counts.items(), key=lambda row: -row[1]):
        table.add_row(name, str(count))
    table.add_row("all", str(faults.counts.total()))
    console.print(table)
    ends = Counter(people.status.values())
    said = [f"{count} {status}" for status, count in ends.most_common()]
    acts = [f"{what} {count} times" for what, count in people.acts.most_common()]
    twice = len(mailbox.messages) - len({message["Message-ID"] for message in mailbox.messages})
    console.print(f"Requests in the end: {', '.join(said)} (expired: deleted by their owners).")
    console.print(f"People: {', '.join(acts)}.")
    console.print(
        f"Mails: {len(mailbox.messages)}, of which {twice} came twice under one id.{note}"
    )
    for sentence in found:
        console.print(f"does not balance: {sentence}")
    console.print(f"{faults.counts.total()} faults, {len(found)} things that do not balance.")


def run(folder: Path, seconds: float, wanted: int, patience: float, use_mariadb: bool) -> int:
    """Run a site among faults; return 1 if something does not balance in the end."""
    dice = random.Random(0)
    mailbox = Mailbox()
    database = MariaDb(folder / "mariadb") if use_mariadb else None
    site = Site(folder / "site", mailbox.port, database.url if database else "")
    with (
        small_disk(folder / "site" / "data") as has_small_disk,
        PictureHost() as host,
        Pictures(f"{host.url}/pic/{{}}.jpg") as source,
    ):
        people = People(site, mailbox, wanted, dice)
        faults = Faults(site, mailbox, source, database, has_small_disk, dice)
        try:
            site.start_gallery()
            site.settings = settings_of(source, host, site.gallery_url)
            site.start()
            people.start()
            strike_until(time.monotonic() + seconds, faults)
            if site.up is None or site.up.poll() is not None:
                site.start()
            wait_for_the_end(people, patience)
            found = close_books(site, mailbox)
            if people.open:
                found.append(f"{len(people.open)} requests never ended")
        finally:
            people.has_left.set()
            faults.mend(everything=True)
            site.end()
            mailbox.close()
            if database is not None:
                database.stop()
    note = "" if has_small_disk else " The disk was never full: this user may mount none."
    show(faults, people, mailbox, found, note)
    return 1 if found else 0


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing stays behind
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of faults (default 600)")
    parser.add_argument("--requests", type=int, default=20, help="kept open (default 20)")
    parser.add_argument(
        "--patience", type=float, default=1800, help="seconds for what is open then (default 1800)"
    )
    parser.add_argument("--sqlite", action="store_true", help="even where MariaDB is present")
    options = parser.parse_args()
    use_mariadb = bool(SERVER and INSTALLER) and not options.sqlite
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        return run(Path(folder), options.seconds, options.requests, options.patience, use_mariadb)


if __name__ == "__main__":
    sys.exit(main())
