"""What is missing or wrong on this machine, and how to mend it.

Each check returns what it found: `ok`, `note` (as it is, some things do not work), or `wrong` (the
site does not work). A check that fails itself is wrong too, and the others go on.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from django.conf import settings
from django.core import checks
from django.core.mail import get_connection
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from requests_app import health
from requests_app.workers import upgrade
from training.networks.catalogue import CATALOGUE as BACKBONES

OK = "ok"
NOTE = "note"
WRONG = "wrong"
LEAST_MEMORY_BYTES = 3.5e9
COMFORTABLE_DISK_BYTES = 10e9
LEAST_OPEN_FILES = 1024
TORCH_SECONDS = 120.0
MAIL_SECONDS = 10
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)")
# Only where the site stands in public do these mean something.
OF_PUBLIC_SITES = "security."
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Finding:
    """`state` is ok, note or wrong; `mend` says what to do, "" where nothing is to be done."""

    state: str
    subject: str
    text: str
    mend: str = ""


Check = Callable[[], Iterator[Finding]]


def examine(examined: Sequence[Check] | None = None) -> Iterator[Finding]:
    """Yield what checks find, by default all of `CHECKS`, in their order."""
    for check in CHECKS if examined is None else examined:
        try:
            yield from check()
        except Exception as error:  # one that breaks must not keep the others
            subject = check.__name__.replace("_", " ")
            reason = str(error) or type(error).__name__
            yield Finding(WRONG, subject, f"It cannot be examined: {reason}")


def packages() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    missing = []
    other = []
    text = (settings.BASE_DIR / "requirements.txt").read_text()
    for name, wanted in REQUIREMENT.findall(text):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if found.partition("+")[0] != wanted:
            other.append(f"{name} {found} instead of {wanted}")
    mend = "scripts/setup"
    if missing:
        yield Finding(WRONG, "packages", f"Not installed: {', '.join(missing)}.", mend)
    if other:
        text = f"Of other versions than were tested: {', '.join(other)}."
        yield Finding(NOTE, "packages", text, mend)
    if not missing and not other:
        yield Finding(OK, "packages", f"Python {version}, and every package as it was tested.")


def system_checks() -> Iterator[Finding]:
    """Yield what the system checks say: data folder, values, browser and driver, secret key."""
    is_public = settings.BASE_URL.startswith("https://")
    shown = 0
    for message in checks.run_checks(include_deployment_checks=True):
        number = message.id or ""
        if number.startswith(OF_PUBLIC_SITES) and not is_public and number != "security.W009":
            continue
        state = WRONG if message.level >= checks.ERROR else NOTE
        yield Finding(state, number or "settings", str(message.msg), str(message.hint or ""))
        shown += 1
    if not shown:
        yield Finding(OK, "settings", "Settings, data folder, browser and driver are as needed.")


def rights() -> Iterator[Finding]:
    """Yield folders and files that others on this machine may read."""
    open_ones = []
    data = Path(settings.DATA_DIR)
    for path in (data, data / "secret_key", settings.SETTINGS_FILE):
        is_device = path.exists() and not (path.is_dir() or path.is_file())
        if not path.exists() or is_device:
            continue
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            open_ones.append(str(path))
    for path_text in open_ones:
        text = f"Others on this machine may look into {path_text}: it holds addresses or keys."
        yield Finding(NOTE, "rights", text, f"chmod go= {path_text}")
    if not open_ones:
        yield Finding(OK, "rights", "Only this user may look into data folder and settings.")


def disk_and_memory() -> Iterator[Finding]:
    wrong = health.problems().get("disk", "")
    free = shutil.disk_usage(settings.DATA_DIR).free
    room = f"{free / 1e9:.1f} GB free for data"
    mend = "Make room, or set PICAISSO_DATA_DIR to another disk."
    if wrong:
        yield Finding(WRONG, "disk", wrong, mend)
    elif free < COMFORTABLE_DISK_BYTES:
        yield Finding(NOTE, "disk", f"{room}; a request takes 50 to 500 MB for as long as kept.")
    else:
        yield Finding(OK, "disk", f"{room}.")
    total = psutil.virtual_memory().total
    size = f"{total / 1e9:.1f} GB of memory"
    if total < LEAST_MEMORY_BYTES:
        mend = "Use a machine with 4 GB or more, or PICAISSO_BACKBONE=efficientnet_lite0."
        yield Finding(NOTE, "memory", f"{size}: training may be ended by the system.", mend)
    else:
        yield Finding(OK, "memory", f"{size}.")
    try:
        import resource
    except ImportError:  # not a Unix system
        return
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < LEAST_OPEN_FILES:
        text = f"A process may open {files} files only."
        yield Finding(NOTE, "open files", text, "ulimit -n 4096, or LimitNOFILE=4096 for systemd.")


def database() -> Iterator[Finding]:
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("SELECT @@character_set_database, UNIX_TIMESTAMP()")
            characters, seconds = cursor.fetchone()
            if characters != "utf8mb4":
                name = connection.settings_dict["NAME"]
                text = f"Its character set is {characters}: class names with emoji would fail."
                mend = f"ALTER DATABASE {name} CHARACTER SET utf8mb4;"
                yield Finding(WRONG, "database", text, mend)
            apart = abs(float(seconds) - time.time())
            if apart > 10:
                text = f"This machine and the database server are {apart:.0f} seconds apart."
                yield Finding(WRONG, "clock", text, "Set both clocks by NTP.")
            if not (shutil.which("mariadb-dump") or shutil.which("mysqldump")):
                text = "No program for backups of the database is installed."
                yield Finding(NOTE, "backup", text, "apt-get install mariadb-client")
    executor = MigrationExecutor(connection)
    waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if waiting:
        text = f"{len(waiting)} changes of its tables have not been made."
        mend = "python manage.py migrate, or start the site, which does it."
        yield Finding(NOTE, "database", text, mend)
    else:
        yield Finding(OK, "database", f"{connection.vendor} answers; its tables are up to date.")


def clock() -> Iterator[Finding]:
    """Yield a clock that stands before the newest file of the program itself."""
    newest = max(path.stat().st_mtime for path in Path(__file__).parent.glob("*.py"))
    if newest > time.time() + 60:
        year = time.strftime("%Y-%m-%d", time.gmtime())
        text = f"The clock says {year}, before this program was installed."
        yield Finding(WRONG, "clock", text, "Set the clock by NTP.")
    else:
        now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        yield Finding(OK, "clock", f"It is {now} UTC; compare it with your own.")


def mail() -> Iterator[Finding]:
    if settings.EMAIL_IN_FOLDER:
        text = f"Mails are files in {settings.MAIL_DIR}: nobody receives one."
        mend = "For people other than you: EMAIL_URL=smtp+tls://user:password@host:587"
        yield Finding(NOTE, "mail", text, mend)
        return
    server = get_connection(timeout=MAIL_SECONDS)
    try:
        server.open()
        server.close()
    except OSError as error:  # smtplib's errors are OSErrors
        reason = str(error) or type(error).__name__
        text = f"The mail server {settings.EMAIL_HOST}:{settings.EMAIL_PORT} fails: {reason}"
        mend = "Correct EMAIL_URL; many providers block port 25: use 587 or 465."
        yield Finding(WRONG, "mail", text, mend)
    else:
        yield Finding(OK, "mail", f"The mail server {settings.EMAIL_HOST} lets us in.")


def address() -> Iterator[Finding]:
    host = urlsplit(settings.BASE_URL).hostname or ""
    if host not in settings.ALLOWED_HOSTS and "*" not in settings.ALLOWED_HOSTS:
        text = f"Links lead to {host}, which is not in PICAISSO_ALLOWED_HOSTS: they are refused."
        yield Finding(WRONG, "address", text, f"Add {host} to PICAISSO_ALLOWED_HOSTS.")
    elif host in LOCAL_HOSTS:
        text = f"Links in mails lead to {settings.BASE_URL}: they open on this machine alone."
        mend = "For people other than you: PICAISSO_BASE_URL=https://your.name"
        yield Finding(NOTE, "address", text, mend)
    else:
        yield Finding(OK, "address", f"Links lead to {settings.BASE_URL}.")
    if settings.DEBUG and host not in LOCAL_HOSTS:
        text = "Error pages show settings and code to everybody."
        yield Finding(WRONG, "address", text, "PICAISSO_DEBUG=0")


def sources() -> Iterator[Finding]:
    if "wikimedia" in settings.SOURCES and not settings.CONTACT:
        text = "Wikimedia is off: it asks every program for a contact."
        mend = "PICAISSO_CONTACT=mailto:you@your.name"
        yield Finding(NOTE, "sources", text, mend)
    names = ", ".join(settings.SOURCES)
    text = f"In use: {names}. Whether they answer: python manage.py check_sources"
    yield Finding(OK, "sources", text)


def weights() -> Iterator[Finding]:
    backbone = BACKBONES.get(settings.BACKBONE)
    if backbone is None:  # the settings' own check says so
        return
    if backbone.weights_file is None:
        yield Finding(OK, "weights", f"The weights of {backbone.title} came with a package.")
        return
    folders = [Path(settings.DATA_DIR) / "cache" / "weights"]
    if settings.WEIGHTS_DIR:
        folders.append(Path(settings.WEIGHTS_DIR))
    if any((folder / backbone.weights_file).is_file() for folder in folders):
        yield Finding(OK, "weights", f"The weights of {backbone.title} are here.")
        return
    server = settings.WEIGHTS_URL or "torchvision's server"
    text = (
        f"The weights of {backbone.title} are not here yet: the first training downloads them "
        f"from {server}, or uses a smaller network if it cannot."
    )
    mend = f"Without the network: put {backbone.weights_file} into PICAISSO_WEIGHTS_DIR."
    yield Finding(NOTE, "weights", text, mend)


def device() -> Iterator[Finding]:
    """Ask torch, in a process of its own: this one needs none."""
    code = "import torch as t; n = t.cuda.device_count(); print(t.cuda.get_device_name(0), n)"
    code = f"import torch as t\nif t.cuda.is_available():\n {code}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=settings.MACHINE_VARIABLES,
        capture_output=True,
        text=True,
        timeout=TORCH_SECONDS,
        check=False,
    )
    found = done.stdout.strip()
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it ended"])[-1]
        yield Finding(WRONG, "training", f"PyTorch does not start: {reason}", "scripts/setup")
    elif found and settings.DEVICE == "cpu":
        text = f"There is a GPU ({found}) which PICAISSO_DEVICE=cpu leaves alone."
        yield Finding(NOTE, "training", text, "PICAISSO_DEVICE=auto")
    elif found:
        yield Finding(OK, "training", f"On the GPU: {found}.")
    elif settings.DEVICE == "cuda":
        text = "PICAISSO_DEVICE=cuda, but PyTorch finds no GPU: no training can start."
        yield Finding(WRONG, "training", text, "Install its driver, or PICAISSO_DEVICE=auto")
    else:
        cores = os.cpu_count() or 1
        yield Finding(OK, "training", f"On the CPU ({cores} cores): there is no GPU.")


def workers() -> Iterator[Finding]:
    wrong = "The site has not been started yet."
    if upgrade.has_tables():
        wrong = health.problems().get("workers", "")
    if wrong:
        yield Finding(NOTE, "workers", wrong, "python manage.py up")
    else:
        yield Finding(OK, "workers", "The workers of every queue answer.")


CHECKS: tuple[Check, ...] = (
    packages,
    system_checks,
    rights,
    disk_and_memory,
    clock,
    database,
    workers,
    mail,
    address,
    sources,
    weights,
    device,
)
