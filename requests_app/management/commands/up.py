"""``manage.py up``: the whole site in the foreground, and nothing of it left behind.

Starts the web server and the three queue clusters, each in a session of its own, and watches them:
one that is gone is started again, and so is a queue cluster that does not answer its beat although
it has nothing to do (an idle worker that is killed can freeze a cluster without any other sign). It
is also the clock of the site: it rings for lost work, for waiting mail and for what is past its
time.
"""

import argparse
import fcntl
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO, Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection
from django.utils import timezone

from requests_app.models import ClassifierRequest, Job, JobState, WorkerBeat
from requests_app.workers import jobs, processes

logger = logging.getLogger(__name__)

WEB = "web"
PARTS = (WEB, *jobs.QUEUES)
LOOK_SECONDS = 0.25
QUICK_DEATH_SECONDS = 5.0  # a part that lives for less is started again with growing pauses
PRUNE_SECONDS = 3600.0


@dataclass
class Part:
    """One child of `up`: the web server or a queue cluster."""

    name: str
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    quick_deaths: int = 0
    cluster: str = ""
    rung_at: float = 0.0

    def start(self) -> None:
        """Start it, tied to this process: it dies with us, whatever kills us.

        :raises DatabaseError: it cannot be started now
        """
        self.cluster = f"{self.name}-{secrets.token_hex(6)}"
        if self.name != WEB:
            WorkerBeat.objects.create(cluster=self.cluster, queue=self.name)
        own = {
            "PICAISSO_CLUSTER": self.cluster,
            "PICAISSO_PARENT": str(os.getpid()),
            "PICAISSO_TETHERED": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "requests_app.workers.processes", "tether", "--", *self.command],
            env={**os.environ, **self.environment, **own},
            cwd=settings.BASE_DIR,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.started = self.rung_at = time.monotonic()
        logger.info("%s started (pid %d)", self.name, self.process.pid)

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """End its whole tree by force."""
        if self.process is not None:
            tree = {self.process.pid} | processes.descendants([self.process.pid])
            processes.kill_all(tree | _session(self.process.pid))
            self.process.wait()

    def forget(self) -> None:
        """Drop its beat and let go of its jobs: nobody works on them any more.

        :raises DatabaseError: its leases then run out by themselves
        """
        WorkerBeat.objects.filter(cluster=self.cluster).delete()
        held = Job.objects.filter(owner=self.cluster, state=JobState.RUNNING)
        held.exclude(owner="").update(lease_until=timezone.now())

    def schedule_restart(self) -> None:
        """Decide when to start again: at once, unless it keeps dying."""
        short = time.monotonic() - self.started < QUICK_DEATH_SECONDS
        self.quick_deaths = self.quick_deaths + 1 if short else 0
        self.start_at = time.monotonic() + (
            min(60.0, 2.0**self.quick_deaths) if self.quick_deaths else 0.0
        )


def _session(leader: int) -> set[int]:
    """The processes of a session, also those that lost their parent."""
    found = set()
    for pid in processes.running_pids():
        try:
            if os.getsid(pid) == leader:
                found.add(pid)
        except ProcessLookupError:
            continue
    return found


@dataclass
class Clock:
    """Calls a function again and again, with a pause between."""

    seconds: float
    action: Callable[[], None]
    due: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + self.seconds
            self.action()


class Supervisor:
    """Starts, watches, rings and stops the parts."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self.stopping = False
        beat = settings.BEAT_SECONDS
        self.clocks = [Clock(beat, self._ring_beats), Clock(beat, self._restart_frozen)]
        if any(part.name == "picaisso" for part in parts):
            self.clocks += [
                Clock(settings.REAP_SECONDS, self._tend),
                Clock(PRUNE_SECONDS, lambda: jobs.ring("picaisso", "prune")),
            ]

    @property
    def clusters(self) -> list[Part]:
        return [part for part in self.parts if part.name != WEB]

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, then stop everything."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        jobs.sweep()
        if renewed := ClassifierRequest.objects.follow_the_key():
            logger.warning("the secret key has changed: the links of %d requests are new", renewed)
        for part in self.parts:
            part.start()
        for part in self.clusters:
            jobs.ring(part.name)  # what waits from before
        while not self.stopping:
            self._look()
            time.sleep(LOOK_SECONDS)
        self._stop()

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _look(self) -> None:
        for part in self.parts:
            if not part.is_alive:
                self._guarded(partial(self._start_again, part))
        for clock in self.clocks:
            self._guarded(clock.tick)
        self._guarded(jobs.refresh_connection)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do something that needs the database; while it is away, everything that runs goes on."""
        try:
            action()
        except DatabaseError as error:
            logger.warning("the database does not answer: %s", error)
            connection.close()

    def _start_again(self, part: Part) -> None:
        if part.process is not None:
            logger.warning("%s is gone (code %s)", part.name, part.process.returncode)
            part.kill()
            part.process = None
            part.schedule_restart()
            part.forget()
        if time.monotonic() >= part.start_at:
            part.start_at = time.monotonic() + QUICK_DEATH_SECONDS  # unless it starts now
            part.start()

    def _tend(self) -> None:
        """Have lost work put back and waiting mail sent, unless earlier rings still wait."""
        if not jobs.is_rung("picaisso"):
            jobs.ring("picaisso", "reap")
            jobs.ring("picaisso", "send_mail")

    def _ring_beats(self) -> None:
        """Ask each cluster for a sign of life, unless the last question still waits."""
        answers = dict(WorkerBeat.objects.values_list("cluster", "at"))
        for part in self.clusters:
            answer = answers.get(part.cluster)
            waited = time.monotonic() - part.rung_at
            answered = answer is not None and (timezone.now() - answer).total_seconds() < waited
            if part.is_alive and (answered or not jobs.is_rung(part.name)):
                jobs.ring(part.name, "beat")
                part.rung_at = time.monotonic()

    def _restart_frozen(self) -> None:
        """Replace a cluster that has been silent for four beats although it holds no living job."""
        silent_since = timezone.now() - timedelta(seconds=4 * settings.BEAT_SECONDS)
        silent = WorkerBeat.objects.filter(
            at__lt=silent_since, cluster__in=[p.cluster for p in self.clusters]
        )
        for beat in silent.exclude(busy_until__gt=timezone.now()):
            working = Job.objects.filter(
                owner=beat.cluster, state=JobState.RUNNING, lease_until__gt=timezone.now()
            )
            part = next(p for p in self.clusters if p.cluster == beat.cluster)
            if part.is_alive and not working.exists():
                logger.warning("%s does not answer and is replaced", part.name)
                part.kill()
                part.process = None
                part.forget()
                part.start()
                jobs.ring(part.name)

    # --- stopping
    # -----------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Put running jobs back first, then end the main processes, then whatever is left."""
        logger.info("stopping")
        deadline = time.monotonic() + settings.STOP_SECONDS
        self._guarded(lambda: self._put_work_back(deadline))
        for part in self.parts:
            if part.is_alive and part.process is not None:
                part.process.terminate()  # the main pid only: a signal to the group hangs django-q2
        while time.monotonic() < deadline and any(part.is_alive for part in self.parts):
            time.sleep(0.05)
        for part in self.parts:
            part.kill()
        for part in self.clusters:
            self._guarded(part.forget)
        logger.info("stopped")

    def _put_work_back(self, deadline: float) -> None:
        names = [part.cluster for part in self.clusters]
        WorkerBeat.objects.filter(cluster__in=names).update(stop=True)
        while (
            time.monotonic() < deadline
            and Job.objects.filter(owner__in=names, state=JobState.RUNNING).exists()
        ):
            time.sleep(LOOK_SECONDS)


class Command(BaseCommand):
    help = "Runs the site in the foreground: the web server and the three queue clusters. Ctrl-C stops all of it."
    requires_system_checks = "__all__"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--only", default=",".join(PARTS), help=f"comma-separated part of {','.join(PARTS)}"
        )
        parser.add_argument(
            "--host", default="127.0.0.1", help="address of the web server (default 127.0.0.1)"
        )
        parser.add_argument(
            "--port", type=int, default=8000, help="port of the web server (default 8000)"
        )
        parser.add_argument(
            "--no-migrate", action="store_true", help="leave the database's tables as they are"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        names = [name.strip() for name in options["only"].split(",") if name.strip()]
        if unknown := [name for name in names if name not in PARTS]:
            raise CommandError(
                f"--only: no such part: {', '.join(unknown)}. Known are {', '.join(PARTS)}."
            )
        locks = [self._lock(name) for name in names]
        if not options["no_migrate"]:
            call_command("migrate", interactive=False, verbosity=0)
        if WEB in names and not settings.DEBUG:
            call_command("collectstatic", interactive=False, verbosity=0)
        if WEB in names:
            self.stdout.write(
                f"Picaisso is at http://{options['host']}:{options['port']}/ (Ctrl-C stops it)."
            )
        Supervisor([self._part(name, options["host"], options["port"]) for name in names]).run()
        for lock in locks:
            lock.close()

    def _lock(self, name: str) -> IO[str]:
        """One `up` per part and data folder: the lock is the kernel's, so a killed holder leaves
        none behind.
        """
        path = Path(settings.DATA_DIR) / f"up-{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise CommandError(
                f"{name} is already running here (pid {file.read().strip()})."
            ) from error
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        return file

    def _part(self, name: str, host: str, port: int) -> Part:
        if name == WEB:
            command = [
                sys.executable,
                "-m",
                "gunicorn",
                "picaisso_site.wsgi",
                "--bind",
                f"{host}:{port}",
            ]
            command += [
                "--worker-class",
                "gthread",
                "--workers",
                "2",
                "--threads",
                "32",
                "--no-control-socket",
            ]
            command += ["--graceful-timeout", "10", "--log-level", "warning"]
            return Part(name, command, {})
        return Part(name, [sys.executable, "manage.py", "qcluster"], {"Q_CLUSTER_NAME": name})
