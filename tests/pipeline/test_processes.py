"""Children of jobs: what they know, and that none outlives its job."""

import subprocess
import sys

import pytest

from requests_app.workers import jobs, processes, supervisor
from tests.pipeline.stages import (
    handlers,
    let_the_lease_run_out,
)
from training.environment import machine_variables, proxy_variables, read_environment

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_child_that_outlived_its_holder_is_killed_by_the_next_claim(confirmed, data_dir):
    lost = jobs.claim("collect")
    log = data_dir / "log.txt"
    supervisor = processes.start_supervised(
        ["sleep", "60"], lost.marker, {"PATH": "/usr/bin:/bin"}, log
    )
    stranger = processes.Marker("/elsewhere", lost.job.pk, lost.job.fence)
    other = processes.start_supervised(["sleep", "60"], stranger, {"PATH": "/usr/bin:/bin"}, log)
    try:
        let_the_lease_run_out(lost.job)
        jobs.reap(handlers(lambda lease: None))
        assert supervisor.wait(10) != 0
        assert processes.marked_processes(str(data_dir)) == {}
        assert other.poll() is None, "another installation's child must be left alone"
    finally:
        processes.stop_supervised(other, stranger)


def test_a_child_inherits_what_it_must_know_of_the_machine_and_nothing_else():
    machine = {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": "1",
        "LD_LIBRARY_PATH": "/opt/cuda/lib64",
        "OMP_NUM_THREADS": "2",
    }
    others = {
        "PICAISSO_SECRET_KEY": "x",
        "PICAISSO_SECRET_KEY_FILE": "x",
        "PICAISSO_PIXABAY_KEY_FILE": "x",
        "PICAISSO_CLUSTER": "x",
        "DATABASE_URL": "x",
        "EMAIL_URL": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "HF_TOKEN": "x",
        "MYSQL_PWD": "x",
        "HTTPS_PROXY": "http://ada:secret@proxy:3128",
    }
    assert machine_variables(machine | others) == machine
    assert set(proxy_variables(machine | others)) == {"HTTPS_PROXY"}


def test_a_child_knows_of_the_site_where_its_data_lies_and_how_to_log(settings):
    added = set(jobs.child_environment()) - set(settings.MACHINE_VARIABLES)
    assert added == {"PICAISSO_DATA_DIR", "PICAISSO_ENV_FILE", "PICAISSO_LOG"}


def test_only_what_may_download_weights_is_told_of_a_proxy(settings):
    settings.PROXY_VARIABLES = {"https_proxy": "http://ada:secret@proxy:3128"}
    assert "https_proxy" in jobs.training_environment()
    assert "https_proxy" not in jobs.child_environment()


def test_a_child_does_not_read_the_sites_secrets_from_its_settings_file(tmp_path):
    file = tmp_path / "settings"
    file.write_text("DATABASE_URL=mysql://ada:secret@db/picaisso\n")
    assert "DATABASE_URL" in read_environment({}, file)
    assert "DATABASE_URL" not in read_environment(jobs.child_environment(), file)


def test_an_unknown_mode_is_refused_with_the_usage():
    command = [sys.executable, "-m", "requests_app.workers.processes", "hold", "sleep", "1"]
    answer = subprocess.run(
        command, cwd=processes.PROJECT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert answer.stderr.startswith("usage:")


def test_the_parts_of_a_site_are_told_where_it_serves_unless_its_address_is_given(settings):
    settings.BASE_URL_GIVEN = False
    for name in (supervisor.WEB, "picaisso"):
        made = supervisor.make_service(name, "0.0.0.0", 8123)
        assert made.environment["PICAISSO_BASE_URL"] == "http://127.0.0.1:8123"
    assert supervisor.address_of("::1", 80) == "http://[::1]:80"
    settings.BASE_URL_GIVEN = True
    assert supervisor.make_service(supervisor.WEB, "127.0.0.1", 8123).environment == {}
