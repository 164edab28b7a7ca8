"""What a real run tells its children, read from the kernel while they work."""

import shutil

import pytest

from tests.system.site import PHOTOGRAPHS, Proc, Site, running_site
from tests.system.test_survival import is_chromium, is_collector, is_driver, is_trainer
from training.environment import JOB_MARKS, machine_variables

SECRETS = {
    "PICAISSO_SECRET_KEY": "Zq8-the-key-of-this-site-0123456789-abcdefghijklmnopqrstuvwxyz",
    "AWS_SECRET_ACCESS_KEY": "decoy-of-amazon",
    "GITHUB_TOKEN": "decoy-of-github",
    "SENTRY_DSN": "https://decoy@sentry.example/1",
}
CREDENTIAL = "decoy-of-pixabay"
# Besides the machine's and the job's marks. `LD_` and the like are the machine's.
OF_CHILDREN = {"PICAISSO_DATA_DIR", "PICAISSO_ENV_FILE", "PICAISSO_PARENT", "PICAISSO_LOG"}
SET_BY_LIBRARIES = {"ORT_DISABLE_TELEMETRY"}
OF_THE_SITE = ("PICAISSO_", "DATABASE_URL", "EMAIL_URL", "DJANGO_")
needed = (shutil.which("chromium"), shutil.which("chromedriver"), PHOTOGRAPHS.is_dir())
pytestmark = [
    pytest.mark.system,
    pytest.mark.browser,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not all(needed), reason="needs Chromium, its driver and the photographs"),
]


@pytest.fixture
def site(tmp_path, smtpd):
    settings_file = tmp_path / "settings.env"
    lines = [f"{name}={value}" for name, value in SECRETS.items()]
    settings_file.write_text("\n".join([*lines, f"PICAISSO_PIXABAY_KEY={CREDENTIAL}"]))
    settings = {"PICAISSO_ENV_FILE": str(settings_file)}
    with running_site(tmp_path / "site", smtpd.port, **settings) as running:
        yield running


def unexpected(process: Proc) -> set[str]:
    """Return the names of what a child was told without need."""
    return set(process.environment) - set(machine_variables(process.environment)) - JOB_MARKS


def assert_none_knows_a_secret(processes: list[Proc], secrets: list[str]) -> None:
    for process in processes:
        for name, value in process.environment.items():
            assert not any(secret in value for secret in secrets), (process.command, name)


def test_children_are_told_what_their_work_needs_and_no_secret(site: Site, smtpd):
    site.submit(20)
    site.confirm(smtpd)
    (collector,) = site.wait_for("the collector", is_collector)
    assert CREDENTIAL in collector.environment.values(), "it asks with it"
    browser = site.wait_for("Chromium", is_chromium) + site.find(is_driver)
    at_work = [process for process in site.processes() if "PICAISSO_JOB" in process.environment]
    screening = [process for process in at_work if "screening.worker" in process.command]
    assert browser and screening
    assert_none_knows_a_secret(at_work, list(SECRETS.values()))
    assert_none_knows_a_secret([*browser, *screening], [CREDENTIAL])
    told = set().union(*(unexpected(process) for process in [*browser, *screening]))
    # The wrapper of a distribution adds variables of its own to the browser's.
    assert {name for name in told if name.startswith(OF_THE_SITE)} == set()
    told = set().union(*(unexpected(process) for process in [*site.find(is_driver), *screening]))
    assert told <= SET_BY_LIBRARIES
    assert unexpected(collector) <= OF_CHILDREN | SET_BY_LIBRARIES | {"PICAISSO_PIXABAY_KEY"}

    (trainer,) = site.wait_for("the trainer", is_trainer, 120)
    at_work = [process for process in site.processes() if "PICAISSO_JOB" in process.environment]
    assert trainer in at_work
    assert_none_knows_a_secret(at_work, [*SECRETS.values(), CREDENTIAL, "smtp://"])
    told = set().union(*(unexpected(process) for process in at_work))
    assert told <= OF_CHILDREN | SET_BY_LIBRARIES
