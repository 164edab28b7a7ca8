"""The look-out for what tests leave behind sees a thread, a process, a file, a temporary file."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tests import leaks
from tests.conftest import leaks as of_this_run

pytestmark = pytest.mark.skipif(of_this_run is None, reason="there is no /proc to look into")


@pytest.fixture
def lookout(monkeypatch):
    """Return a look-out of its own, which does not wait for what is just ending."""
    monkeypatch.setattr(leaks, "PATIENCE_SECONDS", 0.0)
    made = leaks.Leaks(of_this_run.folder)
    made.known = made.there()
    return made


def only(found: set[str], kind: str) -> bool:
    return len(found) == 1 and next(iter(found)).startswith(kind)


def test_nothing_is_found_where_nothing_was_left(lookout):
    threading.Thread(target=str).start()
    with tempfile.TemporaryFile():
        pass
    assert lookout.new() == set()


def test_a_thread_that_goes_on_is_found(lookout):
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert only(lookout.new(), "thread Thread-")
    stop.set()
    thread.join()


def test_a_process_is_found_even_where_its_parent_has_ended(lookout):
    sleeper = (
        "import subprocess; print(subprocess.Popen(['sleep', '60'], stdout=-3, stderr=-3).pid)"
    )
    pid = int(subprocess.run([sys.executable, "-c", sleeper], capture_output=True).stdout)
    lookout.has_started = True
    assert only(lookout.new(), f"process {pid} sleep 60")
    os.kill(pid, 9)


def test_an_open_file_and_a_temporary_file_are_found(lookout):
    handle, name = tempfile.mkstemp()
    assert sorted(one.split()[0] for one in lookout.new()) == ["file", "temporary"]
    os.close(handle)
    assert only(lookout.new(), "temporary file")
    Path(name).unlink()
    assert lookout.new() == set()


def test_what_a_wider_fixture_starts_is_its_own(lookout):
    stop = threading.Event()
    with lookout.belonging_to_a_fixture():
        thread = threading.Thread(target=stop.wait)
        thread.start()
    assert lookout.new() == set()
    stop.set()
    thread.join()
