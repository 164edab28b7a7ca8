"""Processes that do not outlive their purpose (Linux).

A kill -9 of one process must leave nothing behind, and the kernel's parent-death signal alone does
not do that: it reaches one process, is cleared by fork, and a browser starts a whole tree. So there
are three means:

* ``die_with_parent`` and ``forks_die_with_parent``: every process of a cluster dies with its
  parent.
* ``python -m requests_app.workers.processes supervise -- COMMAND``: the parent of one job's child.
  It adopts the orphans of its tree (PR_SET_CHILD_SUBREAPER), and when the child ends or its own
  parent dies, it kills whatever is left.
* ``kill_orphans``: kills by marker. Each child carries its job and fence in its environment, so
  that the next holder of the job finds what an older one left, even where the supervising process
  itself was killed.

Nothing here needs Django or a database.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KILL_GRACE_SECONDS = 10.0
PROJECT = Path(__file__).resolve().parents[2]  # where the libraries' commands are found

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def boot_id() -> str:
    """Return the identity of this boot of this host, which no other host and no other boot has."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


@dataclass(frozen=True)
class Marker:
    """What a child carries in its environment: installation (data folder), job and fence."""

    home: str
    job: int
    fence: int
    part: str = ""
    """Tells a further child of the job apart, so that the one can end before the other."""

    def environment(self) -> dict[str, str]:
        return {
            "PICAISSO_HOME": self.home,
            "PICAISSO_BOOT": boot_id(),
            "PICAISSO_JOB": f"{self.job}:{self.fence}",
            "PICAISSO_PART": self.part,
        }

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Marker | None":
        """Return the marker in an environment; None if it has none or one of another boot."""
        job, _, fence = environment.get("PICAISSO_JOB", "").partition(":")
        if not job.isdigit() or not fence.isdigit():
            return None
        if environment.get("PICAISSO_BOOT") != boot_id():
            return None
        home = environment.get("PICAISSO_HOME", "")
        return cls(home, int(job), int(fence), environment.get("PICAISSO_PART", ""))


# --- dying with the parent -----------------------------------------------------------------------


def die_with_parent(sig: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Ask the kernel to signal this process when the thread that started it ends.

    :param parent: the expected parent; if it is gone already, the signal comes at once
    """
    if _libc is None:
        return
    _libc.prctl(PR_SET_PDEATHSIG, sig, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), sig)


def forks_die_with_parent() -> None:
    """Make every process forked from this one die with it: fork clears the parent-death signal."""
    forking: list[int] = []
    os.register_at_fork(
        before=lambda: forking.append(os.getpid()),
        after_in_parent=lambda: forking.clear(),
        after_in_child=lambda: die_with_parent(parent=forking.pop()),
    )


# --- finding and killing -------------------------------------------------------------------------


def environment_of(process: psutil.Process) -> dict[str, str]:
    """Return the environment a process was started with; empty if it is gone or not readable."""
    try:
        return process.environ()
    except psutil.Error:
        return {}


def descendants(pid: int) -> list[psutil.Process]:
    """Return all processes below ``pid``, itself and zombies not counted."""
    children: dict[int, list[psutil.Process]] = {}
    for process in running_processes():
        with contextlib.suppress(psutil.Error):  # gone, or of a user whose processes are hidden
            if process.status() != psutil.STATUS_ZOMBIE:
                children.setdefault(process.ppid(), []).append(process)
    found = []
    waiting = [pid]
    while waiting:
        below = children.pop(waiting.pop(), [])
        found += below
        waiting += [process.pid for process in below]
    return found


def kill_all(processes: Iterable[psutil.Process]) -> None:
    """Kill processes by force; one that is gone already is no error."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def running_processes() -> Iterator[psutil.Process]:
    """Yield every process, never one that psutil remembers: its pid may have another owner now."""
    psutil.process_iter.cache_clear()
    return psutil.process_iter()


def marked_processes(home: str) -> dict[psutil.Process, Marker]:
    """Return every process of this installation's jobs with its marker."""
    found = {}
    for process in running_processes():
        marker = Marker.of(environment_of(process))
        if marker is not None and marker.home == home:
            found[process] = marker
    return found


def kill_orphans(home: str, is_current: Callable[[int, int], bool]) -> int:
    """Kill every tree whose job and fence are not current any more.

    :param home: the installation's data folder, so that two installations on one host leave each
        other alone
    :param is_current: (job, fence) -> whether that run of the job is still the valid one
    :returns: how many processes were killed
    """
    return _kill_marked(home, lambda marker: is_current(marker.job, marker.fence))


def _kill_marked(home: str, is_current: Callable[[Marker], bool]) -> int:
    verdicts: dict[Marker, bool] = {}
    orphans: set[psutil.Process] = set()
    for process, marker in marked_processes(home).items():
        if marker not in verdicts:
            verdicts[marker] = is_current(marker)
        if not verdicts[marker]:
            orphans.add(process)
            # Its children may have overwritten their environment, and their marker with it.
            orphans.update(descendants(process.pid))
    orphans.discard(psutil.Process())
    kill_all(orphans)
    return len(orphans)


# --- a job's child -------------------------------------------------------------------------------


def start_supervised(
    command: Sequence[str], marker: Marker, environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start a command under supervision, in a session of its own, output appended to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    own = {**marker.environment(), "PICAISSO_PARENT": str(os.getpid())}
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "requests_app.workers.processes", "supervise", "--", *command],
            env={**environment, **own},
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop_supervised(
    supervisor: subprocess.Popen[bytes], marker: Marker, grace: float = KILL_GRACE_SECONDS
) -> None:
    """End a supervised tree: politely, then by force, then by marker; return when nothing is left.

    :param grace: seconds that the command has to end by itself
    """
    if supervisor.poll() is None:
        supervisor.terminate()
        try:
            supervisor.wait(grace + 2)
        except subprocess.TimeoutExpired:
            supervisor.kill()
            supervisor.wait()
    _kill_marked(marker.home, lambda found: found != marker)


class ChildSupervisor:
    """Runs one command and makes sure that nothing of its tree outlives it."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        expected = os.environ.pop("PICAISSO_PARENT", "")
        self.parent = int(expected) if expected.isdigit() else os.getppid()
        self.stopping_since: float | None = None

    def run(self) -> int:
        """Run the command; return its exit code after its last descendant is gone.

        A command that was killed gives 128 plus the number of the signal.
        """
        if _libc is not None:
            _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        die_with_parent(signal.SIGTERM)
        if os.getppid() != self.parent:  # it ended before this process could ask
            return 1
        child = subprocess.Popen(self.command, preexec_fn=_prepare_child)
        code = self._wait(child)
        self._kill_tree()
        return code if code >= 0 else 128 - code

    def _wait(self, child: subprocess.Popen[bytes]) -> int:
        terminated = False
        while True:
            try:
                return child.wait(0.2)
            except subprocess.TimeoutExpired:
                pass
            if os.getppid() != self.parent:
                self._kill_tree()
                continue
            if self.stopping_since is None:
                continue
            if not terminated:
                child.terminate()
                terminated = True
            elif time.monotonic() - self.stopping_since > KILL_GRACE_SECONDS:
                self._kill_tree()

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()

    def _kill_tree(self) -> None:
        """Kill until only zombies are left: a process may fork after its parent was listed."""
        while left := descendants(os.getpid()):
            kill_all(left)
            time.sleep(0.02)


def _prepare_child() -> None:
    """Run in the child before its command starts."""
    die_with_parent()
    # The child is the first choice of the out-of-memory killer, never an idle worker.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def main(arguments: Sequence[str]) -> int:
    """Run ``supervise -- COMMAND`` as above, or ``die_with_parent -- COMMAND``.

    The latter becomes COMMAND, which then dies with our parent. ``PICAISSO_PARENT`` may name that
    parent's pid: if it is gone already, COMMAND never starts.
    """
    modes = ("supervise", "die_with_parent")
    if len(arguments) < 3 or arguments[0] not in modes or arguments[1] != "--":
        usage = f"python -m requests_app.workers.processes {{{'|'.join(modes)}}} -- COMMAND..."
        print(f"usage: {usage}", file=sys.stderr)
        return 2
    command = list(arguments[2:])
    if arguments[0] == "supervise":
        return ChildSupervisor(command).run()
    expected = os.environ.get("PICAISSO_PARENT", "")
    die_with_parent(parent=int(expected) if expected.isdigit() else None)
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
