"""`manage.py doctor` names what is missing or wrong, each with what to do, and nothing secret."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from requests_app import doctor
from requests_app.doctor import NOTE, OK, WRONG

ROOT = Path(__file__).resolve().parents[2]


def states(check) -> list[tuple[str, str]]:
    return [(finding.state, finding.subject) for finding in check()]


def only(check):
    (finding,) = check()
    return finding


def test_the_machine_of_the_tests_has_its_packages(site):
    assert states(doctor.packages) in ([(OK, "packages")], [(NOTE, "packages")])


def test_a_package_that_is_missing_or_of_another_version_is_named(settings, tmp_path):
    settings.BASE_DIR = tmp_path
    wanted = "Django==1.0\nno-such-package[extra]==1.2  # why\n"
    (tmp_path / "requirements.txt").write_text(wanted)
    missing, other = doctor.packages()
    assert (missing.state, other.state) == (WRONG, NOTE)
    assert "no-such-package" in missing.text and "Django" in other.text
    assert missing.mend == "scripts/setup"


def test_what_the_system_checks_say_is_told_with_their_hints(settings):
    settings.ROBOTS = "sometimes"
    found = [each for each in doctor.system_checks() if each.state == WRONG]
    assert [each.subject for each in found] == ["picaisso.E002"]
    assert found[0].mend == "Known are respect, operator."


def test_a_folder_that_others_may_look_into_is_named(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    settings.SETTINGS_FILE = tmp_path / "none"
    tmp_path.chmod(0o755)
    found = only(doctor.rights)
    assert found.state == NOTE and found.mend == f"chmod go= {tmp_path}"
    tmp_path.chmod(0o700)
    assert only(doctor.rights).state == OK


def test_a_mail_server_that_nobody_is_at_is_wrong_and_mail_as_files_a_note(settings, unused_port):
    settings.EMAIL_IN_FOLDER = True
    assert only(doctor.mail).state == NOTE
    settings.EMAIL_IN_FOLDER = False
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST = "127.0.0.1"
    settings.EMAIL_PORT = unused_port
    found = only(doctor.mail)
    assert found.state == WRONG and "587" in found.mend


def test_a_mail_server_that_answers_is_well(settings, smtpd):
    settings.EMAIL_IN_FOLDER = False
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST = "127.0.0.1"
    settings.EMAIL_PORT = smtpd.port
    assert only(doctor.mail).state == OK


@pytest.fixture
def unused_port():
    from tests.system.mariadb import free_port

    return free_port()


def test_an_address_to_which_the_site_does_not_answer_is_wrong(settings):
    settings.BASE_URL = "https://picaisso.example"
    settings.ALLOWED_HOSTS = ["localhost"]
    found = only(doctor.address)
    assert found.state == WRONG and "Add picaisso.example" in found.mend
    settings.ALLOWED_HOSTS = ["picaisso.example"]
    assert only(doctor.address).state == OK
    settings.DEBUG = True
    assert [state for state, _ in states(doctor.address)] == [OK, WRONG]


def test_sources_without_the_contact_that_they_ask_for_are_named(settings):
    settings.SOURCES = ["wikimedia"]
    settings.CONTACT = ""
    assert states(doctor.sources) == [(NOTE, "sources"), (OK, "sources")]
    settings.CONTACT = "mailto:you@example.org"
    assert states(doctor.sources) == [(OK, "sources")]


def test_weights_that_are_not_here_yet_are_a_note(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    settings.BACKBONE = "resnet50"
    found = only(doctor.weights)
    assert found.state == NOTE and "resnet50-11ad3fa6.pth" in found.mend
    settings.WEIGHTS_DIR = str(tmp_path)
    (tmp_path / "resnet50-11ad3fa6.pth").touch()
    assert only(doctor.weights).state == OK
    settings.BACKBONE = "efficientnet_lite0"
    assert only(doctor.weights).state == OK


def test_a_check_that_breaks_is_wrong_and_the_others_go_on(settings, tmp_path):
    settings.BASE_DIR = tmp_path  # without requirements.txt
    found = list(doctor.examine((doctor.packages, doctor.clock)))
    assert [(each.state, each.subject) for each in found] == [(WRONG, "packages"), (OK, "clock")]


@pytest.mark.timeout(300)
def test_the_command_ends_with_one_where_the_site_cannot_work(tmp_path):
    secret = "Zq8-the-key-of-this-site-0123456789-abcdefghijklmnopqrstuvwxyz"
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PICAISSO_", "DJANGO_"))
    }
    own |= {"PICAISSO_DATA_DIR": str(tmp_path), "PICAISSO_ENV_FILE": os.devnull}
    own |= {"DATABASE_URL": "", "PICAISSO_SECRET_KEY": secret, "PICAISSO_DEVICE": "cuda"}
    own |= {"EMAIL_URL": "smtp://ada:hush@127.0.0.1:9", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "manage.py", "doctor", "--json"]
    ended = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    wrong = {each["subject"] for each in found if each["state"] == WRONG}
    assert wrong == {"mail", "training"}, found
    assert all(each["mend"] for each in found if each["state"] == WRONG)
    assert secret not in ended.stdout + ended.stderr and "hush" not in ended.stdout + ended.stderr
