"""The whole product as a person and an operator see it: processes, pages, mails."""

import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from requests_app.demo.visitor import Visitor
from requests_app.workers.processes import PROJECT, environment_of
from tests.system.mariadb import free_port

PHOTOGRAPHS = Path("/usr/share/tuxpaint/stamps")
CLASSES = ("mammal", "plant")
# Lost work is noticed within seconds instead of minutes.
SHORT_TIMES = {
    "PICAISSO_LEASE_SECONDS": "8",
    "PICAISSO_BEAT_SECONDS": "3",
    "PICAISSO_REAP_SECONDS": "2",
    "PICAISSO_STOP_SECONDS": "15",
}


@dataclass(frozen=True)
class Proc:
    """A running process of a site."""

    pid: int
    parent: int
    command: str
    environment: dict[str, str]

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


@dataclass
class Site:
    """A data folder with a gallery, a mail server's address, and `up`."""

    folder: Path
    smtp_port: int
    database_url: str = ""
    pictures: Path = PHOTOGRAPHS
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    up: subprocess.Popen[bytes] | None = None
    gallery: subprocess.Popen[str] | None = None
    gallery_url: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "up.log"

    def environment(self) -> dict[str, str]:
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PICAISSO_", "DJANGO_"))
        }
        own |= SHORT_TIMES
        own |= {
            "PICAISSO_ENV_FILE": os.devnull,
            "DATABASE_URL": "",
            "PICAISSO_DATA_DIR": str(self.folder / "data"),
            "PICAISSO_BASE_URL": self.url,
            "PICAISSO_SOURCES": "bing",
            "PICAISSO_BING_URL": self.gallery_url,
            "PICAISSO_ALLOWED_PRIVATE_HOSTS": urlsplit(self.gallery_url).netloc,
            "PICAISSO_MIN_SIDE": "64",
            "PICAISSO_FIRST_MODEL": "0",
            # These tests ask for more than one person may, from one address.
            "PICAISSO_SUBMISSIONS_PER_HOUR": "0",
            "PICAISSO_SUBMISSIONS_PER_DAY": "0",
            "PICAISSO_RUNNING_PER_ADDRESS": "0",
            "PICAISSO_MAILS_PER_DAY": "0",
            "PICAISSO_BACKBONE": "efficientnet_lite0",
            "EMAIL_URL": f"smtp://127.0.0.1:{self.smtp_port}",
        }
        own |= self.settings
        return own | ({"DATABASE_URL": self.database_url} if self.database_url else {})

    # --- starting and stopping --------------------------------------------------------------------

    def start_gallery(self) -> None:
        command = [sys.executable, "-m", "scraping", "gallery", str(self.pictures), "--port", "0"]
        self.gallery = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        assert self.gallery.stdout is not None
        self.gallery_url = self.gallery.stdout.readline().split()[1]

    def start(self, *options: str) -> None:
        """Start `up`, with further options if need be, and wait for the front page."""
        with self.log.open("ab") as log:
            self.up = subprocess.Popen(
                [sys.executable, "manage.py", "up", "--port", str(self.port), *options],
                cwd=PROJECT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait("the front page", lambda: self.page("/") is not None, 60)

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Ask `up` to stop and return its exit code."""
        assert self.up is not None
        self.up.send_signal(sig)
        return self.up.wait(40)

    def manage(self, *words: str) -> str:
        """Run a management command on this site's data; return what it prints."""
        command = [sys.executable, "manage.py", *words]
        done = subprocess.run(
            command, cwd=PROJECT, env=self.environment(), check=True, capture_output=True, text=True
        )
        return done.stdout

    def shell(self, code: str) -> str:
        """Run lines of Python with the site's models; return what they print."""
        return self.manage("shell", "-v0", "-c", code)

    def end(self) -> None:
        """Leave nothing running, whatever a test has done."""
        if self.up is not None and self.up.poll() is None:
            self.up.kill()
            self.up.wait()
        for process in self.processes():
            process.kill()
        if self.gallery is not None:
            self.gallery.kill()
            self.gallery.wait()

    # --- looking ----------------------------------------------------------------------------------

    def processes(self) -> list[Proc]:
        """Return everything that runs for this site.

        It is known by the data folder in its environment or on its command line.
        """
        home = str(self.folder / "data")
        found = []
        for process in psutil.process_iter():
            if self.gallery is not None and process.pid == self.gallery.pid:
                continue
            environment = environment_of(process)
            try:
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                command = " ".join(process.cmdline())
                parent = process.ppid()
            except psutil.Error:
                continue
            homes = (environment.get("PICAISSO_DATA_DIR"), environment.get("PICAISSO_HOME"))
            if home in homes or home in command:
                found.append(Proc(process.pid, parent, command, environment))
        return found

    def find(self, is_it: Callable[[Proc], bool]) -> list[Proc]:
        return sorted((p for p in self.processes() if is_it(p)), key=lambda p: p.pid)

    def wait_for(self, what: str, is_it: Callable[[Proc], bool], seconds: float = 60) -> list[Proc]:
        """Return the processes that are found first; one of them may be gone a moment later."""
        found: list[Proc] = []

        def holds() -> bool:
            found.extend(self.find(is_it))
            return bool(found)

        self.wait(what, holds, seconds)
        return found

    def wait(self, what: str, holds: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if holds():
                return
            time.sleep(0.05)
        raise AssertionError(
            f"{what} did not come within {seconds} seconds; the log ends:\n{self.tail()}"
        )

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query finds in the site's database."""
        if self.database_url:
            import MySQLdb

            url = urlsplit(self.database_url)
            server = {"host": url.hostname, "port": url.port}
            login = {"user": url.username, "password": url.password}
            with closing(MySQLdb.connect(**server, **login, database=url.path[1:])) as database:
                cursor = database.cursor()
                cursor.execute(query)
                return list(cursor.fetchall())
        file = self.folder / "data" / "db.sqlite3"
        with closing(sqlite3.connect(file, timeout=20)) as database:
            return database.execute(query).fetchall()

    def jobs(self, path: str) -> list[tuple[str, str, int]]:
        """Return stage, state and attempts of a request's jobs, the first one first."""
        key = self.key_of(path)
        return self.rows(
            f"SELECT stage, state, attempt FROM requests_app_job WHERE request_id={key} ORDER BY id"
        )

    def status(self, path: str) -> str:
        """Return the status of a request in one word."""
        key = self.key_of(path)
        ((status,),) = self.rows(
            f"SELECT status FROM requests_app_classifierrequest WHERE id={key}"
        )
        return status

    def key_of(self, path: str) -> int:
        """Return the primary key of the request that has its page at this path."""
        token = path.split("/")[2]
        digest = hashlib.sha256(token.encode()).hexdigest()
        ((key,),) = self.rows(
            f"SELECT id FROM requests_app_classifierrequest WHERE token_sha256='{digest}'"
        )
        return key

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    # --- a person ---------------------------------------------------------------------------------

    def page(self, path: str) -> str | None:
        """Return a page's text; None while nobody answers."""
        try:
            return Visitor(self.url).page(path)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def post(self, path: str, action: str) -> int:
        """Ask the API for something to be done with a request; return the answer's status."""
        url = f"{self.url}/api/v1/requests/{path.split('/')[2]}/{action}"
        question = urllib.request.Request(url, b"", {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(question, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def submit(self, images: int, email: str = "ada@example.org") -> str:
        """Send the form and return the path of the request's page."""
        fields = [("classes", name) for name in CLASSES]
        fields += [
            ("email", email),
            ("images_per_class", str(images)),
            ("license", "any"),
        ]
        fields += [("backbone", "efficientnet_lite0")]
        return urlsplit(Visitor(self.url).send_form("/", fields)).path

    def confirm(self, smtpd) -> None:
        """Open the link of the confirmation mail and press its button."""
        self.wait("the confirmation mail", lambda: bool(links(smtpd.messages)), 30)
        Visitor(self.url).send_form(links(smtpd.messages)[0])


LOGS = ("*.log", "*.txt", "*.err", "stderr", "stdout")


def told_by_logs(folder: Path, *words: str) -> list[str]:
    """What logs below a folder say of these words, and of the site's secret key."""
    key = folder / "data" / "secret_key"
    secret = [key.read_text().strip()] if key.exists() else []
    found = []
    for pattern in LOGS:
        for file in folder.rglob(pattern):
            text = file.read_text(errors="replace") if file.is_file() else ""
            found += [f"{file}: {word}" for word in (*words, *secret) if word in text]
    return found


def links(mails: list) -> list[str]:
    return [
        link
        for mail in mails
        for link in re.findall(r"http://\S+/confirm/[^\s\"<]+", text_of(mail))
    ]


def text_of(mail) -> str:
    parts = [part for part in mail.walk() if part.get_content_type() == "text/plain"]
    return parts[0].get_payload(decode=True).decode()


def result_of(folder: Path) -> dict:
    (result,) = folder.glob("data/requests/*/runs/*/metrics.json")
    return json.loads(result.read_text())


@contextmanager
def running_site(
    folder: Path, smtp_port: int, database_url: str = "", **settings: str
) -> Iterator[Site]:
    """Run a site; afterwards nothing of it runs any more."""
    folder.mkdir(parents=True, exist_ok=True)
    site = Site(folder, smtp_port, database_url, settings=settings)
    try:
        site.start_gallery()
        site.start()
        yield site
    finally:
        site.end()
