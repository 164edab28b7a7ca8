"""Half a minute of what `python -m benchmarks.chaos` does for ten: nothing is lost."""

import subprocess
import sys

import pytest

from requests_app.workers.processes import PROJECT

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


def test_half_a_minute_of_chaos_loses_nothing(capsys):
    command = [sys.executable, "-m", "benchmarks.chaos", "--seconds", "30", "--requests", "3"]
    done = subprocess.run(
        [*command, "--patience", "60"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    said = done.stdout.strip()
    with capsys.disabled():
        print(f"\nChaos: {said.splitlines()[-1] if said else done.stderr[-500:]}")
    assert done.returncode == 0, f"{said}\n{done.stderr[-3000:]}"
