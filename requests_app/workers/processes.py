"""Processes that do not outlive their purpose (Linux).

A kill -9 of one process must leave nothing behind, and the kernel's parent-death signal alone does
not do that: it reaches one process, is cleared by fork, and a browser starts a whole tree. So there
are three means:

* ``die_with_parent`` and ``tether_forks``: every process of a cluster dies with its parent.
* ``python -m requests_app.workers.processes keep -- COMMAND``: the *keeper*, parent of one job's child. It adopts the orphans
  of its tree (PR_SET_CHILD_SUBREAPER), and when the child ends or its own parent dies, it kills whatever is left.
* ``sweep``: kills by marker. Each child carries its job and fence in its environment, so that the next holder of the
  job finds what an older one left, even where the keeper itself was killed.

Nothing here needs Django or a database; ``/proc`` is read by hand because the environment of a
process is all we need.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KILL_GRACE_SECONDS = 10.0
PROJECT = Path(__file__).resolve().parents[2]  # where the libraries' commands are found

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def boot_id() -> str:
    """Names this boot of this host: a marker of another host, or from before a restart, is none of
    ours.
    """
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

    def environment(self) -> dict[str, str]:
        return {
            "PICAISSO_HOME": self.home,
            "PICAISSO_BOOT": boot_id(),
            "PICAISSO_JOB": f"{self.job}:{self.fence}",
        }

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Marker | None":
        """The marker in an environment, None if it has none, or one of another host or boot."""
        job, _, fence = environment.get("PICAISSO_JOB", "").partition(":")
        if not (job.isdigit() and fence.isdigit()) or environment.get("PICAISSO_BOOT") != boot_id():
            return None
        return cls(environment.get("PICAISSO_HOME", ""), int(job), int(fence))


# --- dying with the parent
# --------------------------------------------------------------------------------


def die_with_parent(sig: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Ask the kernel to signal this process when the thread that started it ends.

    :param parent: the expected parent; if it is gone already, the signal comes at once
    """
    if _libc is None:
        return
    _libc.prctl(PR_SET_PDEATHSIG, sig, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), sig)


def tether_forks() -> None:
    """Let every process forked from this one die with it: fork clears the parent-death signal."""
    forking: list[int] = []
    os.register_at_fork(
        before=lambda: forking.append(os.getpid()),
        after_in_parent=lambda: forking.clear(),
        after_in_child=lambda: die_with_parent(parent=forking.pop()),
    )


# --- looking at /proc
# -------------------------------------------------------------------------------------


def environment_of(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty if it is gone or not ours to read."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (
        item.partition("=") for item in raw.decode(errors="replace").split("\0") if "=" in item
    )
    return {name: value for name, _, value in pairs}


def running_pids() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def parents() -> dict[int, int]:
    """pid -> parent pid of every process that is not a zombie."""
    found = {}
    for pid in running_pids():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found[pid] = int(fields[1])
    return found


def descendants(roots: Sequence[int]) -> set[int]:
    """All processes below ``roots``, the roots themselves not counted."""
    parent_of, frontier = parents(), set(roots)
    found: set[int] = set()
    while frontier:
        frontier = {pid for pid, parent in parent_of.items() if parent in frontier} - found
        found |= frontier
    return found - set(roots)


def kill_all(pids: set[int], sig: int = signal.SIGKILL) -> None:
    for pid in pids - {os.getpid()}:
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            continue


def marked(home: str) -> dict[int, Marker]:
    """pid -> marker of every process of this installation's jobs."""
    markers = ((pid, Marker.of(environment_of(pid))) for pid in running_pids())
    return {pid: marker for pid, marker in markers if marker is not None and marker.home == home}


def sweep(home: str, is_current: Callable[[int, int], bool]) -> int:
    """Kill every tree whose job and fence are not current any more.

    :param home: the installation's data folder, so that two installations on one host leave each
    other alone :param is_current: (job, fence) -> whether that run of the job is still the valid
    one :returns: how many processes were killed
    """
    verdicts: dict[tuple[int, int], bool] = {}
    stale = set()
    for pid, marker in marked(home).items():
        run = (marker.job, marker.fence)
        if run not in verdicts:
            verdicts[run] = is_current(*run)
        if not verdicts[run]:
            stale.add(pid)
    # Children of a marked process may have overwritten their environment: they are found as
    # descendants.
    stale |= descendants(list(stale))
    kill_all(stale)
    return len(stale)


# --- a job's child
# ----------------------------------------------------------------------------------------


def start_kept(
    command: Sequence[str], marker: Marker, environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start a command under a keeper, in a session of its own, its output appended to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "requests_app.workers.processes", "keep", "--", *command],
            env={**environment, **marker.environment(), "PICAISSO_PARENT": str(os.getpid())},
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop_kept(
    keeper: subprocess.Popen[bytes], marker: Marker, grace: float = KILL_GRACE_SECONDS
) -> None:
    """End a keeper and its tree: politely, then by force, then by marker. Returns when nothing is
    left.
    """
    if keeper.poll() is None:
        keeper.terminate()
        try:
            keeper.wait(grace + 2)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()
    sweep(marker.home, lambda job, fence: (job, fence) != (marker.job, marker.fence))


class Keeper:
    """Runs one command and answers for its whole tree."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        expected = os.environ.pop("PICAISSO_PARENT", "")
        self.parent = int(expected) if expected.isdigit() else os.getppid()
        self.stopping_since: float | None = None

    def run(self) -> int:
        """The child's exit code (128 + signal where it was killed), after its last descendant is
        gone.
        """
        if _libc is not None:
            _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, self._on_term)
        die_with_parent(signal.SIGTERM)
        if os.getppid() != self.parent:  # it ended before this process could ask
            return 1
        # The child is the first choice of the out-of-memory killer, never an idle worker.
        child = subprocess.Popen(self.command, preexec_fn=_prepare_child)
        code = self._wait(child)
        self._kill_tree()
        return code if code >= 0 else 128 - code

    def _wait(self, child: subprocess.Popen[bytes]) -> int:
        told = False
        while True:
            try:
                return child.wait(0.2)
            except subprocess.TimeoutExpired:
                pass
            if os.getppid() != self.parent:
                self._kill_tree()
            elif self.stopping_since is not None:
                if not told:
                    child.terminate()
                    told = True
                elif time.monotonic() - self.stopping_since > KILL_GRACE_SECONDS:
                    self._kill_tree()

    def _on_term(self, signum: int, frame: FrameType | None) -> None:
        if self.stopping_since is None:
            self.stopping_since = time.monotonic()

    def _kill_tree(self) -> None:
        """Kill until nothing but zombies is left: a process may fork between the look and the
        blow.
        """
        while left := descendants([os.getpid()]):
            kill_all(left)
            time.sleep(0.02)


def _prepare_child() -> None:
    die_with_parent()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def main(arguments: Sequence[str]) -> int:
    """``keep -- COMMAND`` as above; ``tether -- COMMAND`` becomes COMMAND, which then dies with our
    parent.

    ``PICAISSO_PARENT`` may name that parent's pid: if it is gone already, COMMAND never starts.
    """
    if len(arguments) < 3 or arguments[0] not in ("keep", "tether") or arguments[1] != "--":
        print(
            "usage: python -m requests_app.workers.processes {keep|tether} -- COMMAND...",
            file=sys.stderr,
        )
        return 2
    command = list(arguments[2:])
    if arguments[0] == "keep":
        return Keeper(command).run()
    expected = os.environ.get("PICAISSO_PARENT", "")
    die_with_parent(parent=int(expected) if expected.isdigit() else None)
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
