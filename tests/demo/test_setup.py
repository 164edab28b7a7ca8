"""``scripts/setup`` in an empty copy whose requirement files are empty: no package is fetched, all
else is real.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = (
    "requirements.lock",
    "requirements-dev.txt",
    "requirements-mysql.txt",
)
BASIC_PROGRAMS = (
    "bash",
    "env",
    "dirname",
    "sleep",
    "tail",
    "tr",
    "sed",
    "cat",
    "mkdir",
    "mv",
    "rm",
    "readlink",
    "flock",
)
# A stand-in for the browser programs: the set-up only looks whether they are there.
BROWSER_PROGRAMS = ("chromium", "chromedriver")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the set-up's system part is for Linux"
)


@pytest.fixture
def copy(tmp_path):
    """A folder with the set-up and empty requirement files."""
    folder = tmp_path / "copy"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup", folder / "scripts" / "setup")
    for name in REQUIREMENTS:
        (folder / name).write_text("# nothing\n")
    return folder


@pytest.fixture
def machine_without_apt(tmp_path):
    """Environments of a machine that has only the basic programs, Python, and those asked for."""

    def make(*programs):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in BASIC_PROGRAMS:
            (folder / name).symlink_to(shutil.which(name))
        (folder / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
        for name in programs:
            (folder / name).symlink_to("/bin/true")
        return {**os.environ, "PATH": str(folder)}

    return make


def run_setup(folder, environment, *arguments):
    command = [shutil.which("bash"), "scripts/setup", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_second_run_finds_everything_done_and_is_fast(copy, machine_without_apt):
    environment = machine_without_apt(*BROWSER_PROGRAMS)
    first = run_setup(copy, environment)
    assert first.returncode == 0, first.stderr
    assert (copy / ".venv" / "bin" / "python").exists()
    started = time.monotonic()
    second = run_setup(copy, environment)
    assert second.returncode == 0
    assert "installing" not in second.stdout
    assert time.monotonic() - started < 5


def test_a_changed_requirement_file_is_installed_again(copy, machine_without_apt):
    environment = machine_without_apt(*BROWSER_PROGRAMS)
    run_setup(copy, environment)
    (copy / "requirements.lock").write_text("# still nothing\n")
    assert "installing the Python packages" in run_setup(copy, environment).stdout


def test_without_apt_and_browser_the_set_up_names_the_programs_and_stops(copy, machine_without_apt):
    result = run_setup(copy, machine_without_apt())
    assert result.returncode == 1
    assert "please install Chromium or Google Chrome and the ChromeDriver" in result.stderr
    assert not (copy / ".venv").exists()


def test_for_the_tests_it_goes_on_without_a_browser_and_says_what_is_skipped(
    copy, machine_without_apt
):
    result = run_setup(copy, machine_without_apt(), "--tests")
    assert result.returncode == 0, result.stderr
    assert "the browser tests are skipped" in result.stdout
    assert "MySQL support is left out" in result.stdout


def test_a_machine_without_a_recent_python_gets_one_sentence(copy, machine_without_apt):
    environment = machine_without_apt(*BROWSER_PROGRAMS)
    Path(environment["PATH"], "python3").unlink()
    result = run_setup(copy, environment)
    assert result.returncode == 1
    assert result.stderr.strip().count("\n") == 0
    assert "Python 3.11 or newer is needed" in result.stderr


def test_a_package_that_cannot_be_installed_ends_with_its_log(copy, machine_without_apt):
    (copy / "requirements.lock").write_text("./no-such-folder\n")
    result = run_setup(copy, machine_without_apt(*BROWSER_PROGRAMS))
    assert result.returncode == 1
    assert "could not be installed" in result.stderr
    assert "no-such-folder" in result.stderr


def test_interrupted_in_the_middle_it_leaves_no_process_and_the_next_run_completes(
    copy, machine_without_apt
):
    environment = machine_without_apt(*BROWSER_PROGRAMS)
    command = [shutil.which("bash"), "scripts/setup"]
    running = subprocess.Popen(
        command, cwd=copy, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_for(lambda: (copy / ".venv").exists())
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=20)
    assert running.returncode == 1
    assert b"interrupted" in errors
    wait_for(lambda: not processes_working_in(copy))
    assert run_setup(copy, environment).returncode == 0


def test_two_at_once_wait_for_each_other(copy, machine_without_apt):
    environment = machine_without_apt(*BROWSER_PROGRAMS)
    command = [shutil.which("bash"), "scripts/setup"]
    both = [
        subprocess.Popen(
            command,
            cwd=copy,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("waiting for it" in output for output in outputs) == 1
    assert sum("making .venv" in output for output in outputs) == 1


def test_an_unknown_option_is_wrong_usage(copy, machine_without_apt):
    assert run_setup(copy, machine_without_apt(), "--everything").returncode == 2


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def processes_working_in(folder):
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink() == folder:
                found.append(entry.name)
        except OSError:
            continue
    return found
