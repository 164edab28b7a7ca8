"""What ``manage.py up`` runs: the web server and the three queue clusters, watched.

Each of these services is a process in a session of its own. One that is gone is started again, and
so is a queue cluster that does not answer its beat although it has nothing to do (an idle worker
that is killed can freeze a cluster without any other sign). The supervisor is also the clock of the
site: it has lost work put back, waiting mail sent, and what is past its time deleted.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO

from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone

from requests_app.models import ClassifierRequest, Job, JobState, WorkerBeat
from requests_app.workers import jobs, outages, processes, upgrade

logger = logging.getLogger(__name__)

WEB = "web"
SERVICES = (WEB, *jobs.QUEUES)
POLL_SECONDS = 0.25
QUICK_DEATH_SECONDS = 5.0  # a service that lives for less is started again with growing pauses
PRUNE_SECONDS = 3600.0


class AlreadyRunning(Exception):
    """Another `up` runs this service in this data folder."""


def lock_service(name: str) -> IO[str]:
    """Take the lock that one `up` per service and data folder holds; closing the file releases it.

    The lock is the kernel's, so that a killed holder leaves none behind.

    :raises AlreadyRunning: another process holds it
    """
    path = Path(settings.DATA_DIR) / f"up-{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip()
        raise AlreadyRunning(f"{name} is already running here (pid {holder}).") from error
    file.seek(0)
    file.truncate()
    file.write(str(os.getpid()))
    file.flush()
    return file


def cluster_prefix(queue: str) -> str:
    """Return how the names begin of the clusters that this machine starts in this data folder.

    Of these one `up` runs at a time; those of other machines share the database.
    """
    home = f"{socket.gethostname()}:{settings.DATA_DIR}"
    return f"{queue}-{hashlib.sha256(home.encode()).hexdigest()[:8]}-"


@dataclass
class Service:
    """One child of `up`: the web server or a queue cluster."""

    name: str
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    quick_deaths: int = 0
    cluster: str = ""

    def start(self) -> None:
        """Start it so that it dies with this process, whatever kills us.

        :raises DatabaseError: it cannot be started now
        """
        self.cluster = cluster_prefix(self.name) + secrets.token_hex(6)
        if self.name != WEB:
            WorkerBeat.objects.create(cluster=self.cluster, queue=self.name)
        own = {
            "PICAISSO_CLUSTER": self.cluster,
            "PICAISSO_PARENT": str(os.getpid()),
            "PICAISSO_DIE_WITH_PARENT": "1",
        }
        starter = [sys.executable, "-m", "requests_app.workers.processes", "die_with_parent", "--"]
        self.process = subprocess.Popen(
            [*starter, *self.command],
            env={**os.environ, **self.environment, **own},
            cwd=settings.BASE_DIR,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.started = time.monotonic()
        logger.info("%s started (pid %d)", self.name, self.process.pid)

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """End its whole tree by force, also what has lost its parent but not its session."""
        if self.process is None:
            return
        leader = self.process.pid
        tree = processes.descendants(leader)
        for process in processes.running_processes():
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(process.pid) == leader:
                    tree.append(process)
        self.process.kill()
        processes.kill_all(tree)
        self.process.wait()

    def drop_claims(self) -> None:
        """Delete its beat and end the leases of its jobs: nobody works on them any more.

        :raises DatabaseError: the leases then run out by themselves
        """
        if not self.cluster:
            return
        WorkerBeat.objects.filter(cluster=self.cluster).delete()
        held = Job.objects.filter(owner=self.cluster, state=JobState.RUNNING)
        held.update(lease_until=timezone.now())

    def schedule_restart(self) -> None:
        """Decide when to start again: at once, unless it keeps dying."""
        now = time.monotonic()
        if now - self.started >= QUICK_DEATH_SECONDS:
            self.quick_deaths = 0
            self.start_at = now
        else:
            self.quick_deaths += 1
            self.start_at = now + min(60.0, 2.0**self.quick_deaths)


def make_service(name: str, host: str, port: int) -> Service:
    """Return the web server, at this address, or the cluster of the queue of that name."""
    variables = {} if settings.BASE_URL_GIVEN else {"PICAISSO_BASE_URL": address_of(host, port)}
    if name != WEB:
        variables["Q_CLUSTER_NAME"] = name
        return Service(name, [sys.executable, "manage.py", "qcluster"], variables)
    command = [sys.executable, "-m", "requests_app.web_server", host, str(port)]
    return Service(WEB, command, variables)


def address_of(host: str, port: int) -> str:
    """Return where a browser on this machine finds a web server that listens so."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104  # everywhere, so here too
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@dataclass
class Timer:
    """Calls a function again and again, with a pause between."""

    seconds: float
    action: Callable[[], None]
    due: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + self.seconds
            self.action()


class Supervisor:
    """Starts, watches, notifies and stops the services."""

    def __init__(self, services: list[Service]) -> None:
        self.services = services
        self.clusters = [service for service in services if service.name != WEB]
        self.stopping = False
        self.has_outage = False  # of the database
        self.timers = [
            Timer(settings.BEAT_SECONDS, self._ask_for_beats),
            Timer(settings.BEAT_SECONDS, self._restart_frozen),
            Timer(settings.BEAT_SECONDS, self._leave_to_newer_code),
        ]
        if any(service.name == jobs.MAIN_QUEUE for service in services):
            self.timers += [
                Timer(settings.REAP_SECONDS, self._maintain),
                Timer(PRUNE_SECONDS, partial(jobs.notify, jobs.MAIN_QUEUE, "prune")),
            ]

    def run(self) -> None:
        """Work until SIGTERM, SIGINT or SIGHUP, then stop everything."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._take_over()
        jobs.kill_orphans()
        renewed = ClassifierRequest.objects.renew_tokens()
        if renewed:
            logger.warning("the secret key has changed: the links of %d requests are new", renewed)
        for service in self.services:
            service.start()
        for cluster in self.clusters:
            jobs.notify(cluster.name)  # of what waits from before
        while not self.stopping:
            self._poll()
            time.sleep(POLL_SECONDS)
        self._stop()

    def _take_over(self) -> None:
        """End the claims of an earlier `up` here that was killed, and its clusters with it."""
        for cluster in self.clusters:
            prefix = cluster_prefix(cluster.name)
            held = Job.objects.filter(owner__startswith=prefix, state=JobState.RUNNING)
            held.update(lease_until=timezone.now())
            WorkerBeat.objects.filter(cluster__startswith=prefix).delete()

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _poll(self) -> None:
        for service in self.services:
            if not service.is_alive:
                self._tolerate_outage(partial(self._start_again, service))
        if self.has_outage:
            self._tolerate_outage(self._end_outage)
        if not self.has_outage:
            for timer in self.timers:
                self._tolerate_outage(timer.tick)
        self._tolerate_outage(outages.refresh_connection)

    def _tolerate_outage(self, action: Callable[[], None]) -> None:
        """Do something that needs the database; while it is away, everything that runs goes on."""
        try:
            action()
        except DatabaseError as error:
            if not self.has_outage:
                logger.warning("the database does not answer: %s", error)
            self.has_outage = outages.is_outage(error)
            connection.close()

    def _end_outage(self) -> None:
        """Go on watching if the database answers: from now on, for nobody could report before.

        :raises DatabaseError: it is still away
        """
        jobs.forgive_silence([cluster.name for cluster in self.clusters])
        self.has_outage = False
        logger.warning("the database answers again")

    def _start_again(self, service: Service) -> None:
        if service.process is not None:
            logger.warning("%s is gone (code %s)", service.name, service.process.returncode)
            service.kill()
            service.process = None
            service.schedule_restart()
            service.drop_claims()
        if time.monotonic() >= service.start_at:
            service.start_at = time.monotonic() + QUICK_DEATH_SECONDS  # unless it starts now
            service.start()

    def _maintain(self) -> None:
        """Have lost work put back and waiting mail sent, unless earlier notices still wait."""
        if not jobs.is_notified(jobs.MAIN_QUEUE):
            jobs.notify(jobs.MAIN_QUEUE, "reap")
            jobs.notify(jobs.MAIN_QUEUE, "send_mail")

    def _ask_for_beats(self) -> None:
        """Ask each cluster for a sign of life, unless a notice waits: to take that is one, too.

        During a job of hours the questions would pile up before the next job.
        """
        for service in self.clusters:
            if service.is_alive and not jobs.is_notified(service.name):
                jobs.notify(service.name, "beat")

    def _restart_frozen(self) -> None:
        """Replace a cluster that has been silent for four beats although it holds no living job."""
        now = timezone.now()
        silent_since = now - timedelta(seconds=4 * settings.BEAT_SECONDS)
        silent = WorkerBeat.objects.filter(at__lt=silent_since).exclude(busy_until__gt=now)
        silent_clusters = set(silent.values_list("cluster", flat=True))
        for service in self.clusters:
            if service.cluster not in silent_clusters or not service.is_alive:
                continue
            working = Job.objects.filter(
                owner=service.cluster, state=JobState.RUNNING, lease_until__gt=timezone.now()
            )
            if not working.exists():
                logger.warning("%s does not answer and is replaced", service.name)
                service.kill()
                service.process = None
                service.drop_claims()
                service.start()
                jobs.notify(service.name)

    def _leave_to_newer_code(self) -> None:
        """End where newer code, here or on another machine, changes the tables or has done so."""
        names = [service.cluster for service in self.clusters]
        is_asked = WorkerBeat.objects.filter(cluster__in=names, stop=True).exists()
        if is_asked or upgrade.is_superseded():
            logger.warning("a newer version changes the tables, so this one ends")
            self.stopping = True

    # --- stopping --------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Put running jobs back first, then end the main processes, then whatever is left."""
        logger.info("stopping")
        deadline = time.monotonic() + settings.STOP_SECONDS
        self._tolerate_outage(partial(self._put_work_back, deadline))
        for service in self.services:
            if service.is_alive and service.process is not None:
                service.process.terminate()  # not its group: that would hang django-q2
        while time.monotonic() < deadline and any(service.is_alive for service in self.services):
            time.sleep(0.05)
        for service in self.services:
            service.kill()
        for service in self.clusters:
            self._tolerate_outage(service.drop_claims)
        logger.info("stopped")

    def _put_work_back(self, deadline: float) -> None:
        """Ask the clusters to return their jobs, and wait for that until the deadline."""
        names = [service.cluster for service in self.clusters]
        beats = WorkerBeat.objects.filter(cluster__in=names)
        beats.update(stop=True)
        running = Job.objects.filter(owner__in=names, state=JobState.RUNNING)
        while running.exists() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
