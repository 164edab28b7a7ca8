"""Settings are read when they are needed; processes of one site share database and secret key."""

import ast
import os
import sqlite3
import subprocess
import sys

import pytest
from django.db import connection

from picaisso_site import checks
from requests_app import pipeline
from requests_app.workers import processes
from tests.training.example_text_image import write_pair

pytestmark = pytest.mark.django_db(transaction=True)


WRITER = """
import django; django.setup()
from django.db import transaction
from requests_app.models import Job
for _ in range(100):
    with transaction.atomic():
        job = Job.objects.get()
        job.fence += 1
        job.save(update_fields=["fence"])
"""


def test_writers_of_several_processes_neither_lock_each_other_out_nor_lose_updates(
    confirmed, tmp_path
):
    path = tmp_path / "copy.sqlite3"
    with connection.cursor() as cursor:
        cursor.execute("VACUUM INTO %s", [str(path)])
    sqlite3.connect(path).execute(
        "PRAGMA journal_mode=WAL"
    )  # as the first connection of `up` leaves it
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "picaisso_site.settings",
        "DATABASE_URL": f"sqlite:///{path}",
        "PICAISSO_DATA_DIR": str(tmp_path),
    }
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER], cwd=processes.PROJECT, env=environment)
        for _ in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    assert sqlite3.connect(path).execute("SELECT fence FROM requests_app_job").fetchone() == (400,)


def test_an_empty_key_file_is_replaced_and_processes_that_start_together_share_one_key(tmp_path):
    environment = {
        **os.environ,
        "PICAISSO_DATA_DIR": str(tmp_path),
        "PICAISSO_ENV_FILE": os.devnull,
    }
    code = "from picaisso_site import settings; print(settings.SECRET_KEY)"
    command = [sys.executable, "-c", code]
    started = [
        subprocess.Popen(
            command, cwd=processes.PROJECT, env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    keys = {process.communicate(timeout=60)[0].strip() for process in started}
    assert len(keys) == 1 and len(keys.pop()) > 60
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "secret_key").write_text("")
    again = subprocess.run(
        command, cwd=processes.PROJECT, env=environment, capture_output=True, text=True, check=True
    )
    assert len(again.stdout.strip()) > 60


def settings_read_at_import(node: ast.AST) -> list[str]:
    """Return every setting that is read below a node while its module is being imported."""
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            # Decorators and defaults are evaluated at import, the body is not.
            for part in (*child.decorator_list, *child.args.defaults, *child.args.kw_defaults):
                found += settings_read_at_import(ast.Expression(part)) if part else []
        elif not isinstance(child, ast.Lambda):
            if isinstance(child, ast.Attribute) and ast.unparse(child.value) == "settings":
                found.append(child.attr)
            found += settings_read_at_import(child)
    return found


def test_no_module_of_the_app_reads_a_setting_while_it_is_imported():
    package = processes.PROJECT / "requests_app"
    found = {}
    for path in package.rglob("*.py"):
        names = settings_read_at_import(ast.parse(path.read_text()))
        if names:
            found[str(path.relative_to(package))] = names
    assert found == {}


def test_limits_of_stages_and_defaults_of_submissions_follow_the_settings(settings):
    settings.COLLECT_MINUTES = 0.5
    settings.TRAIN_MINUTES = 2
    settings.BACKBONE = "resnet18"
    settings.LOCALE = "de-DE"
    assert (pipeline.COLLECT.limit_seconds(), pipeline.TRAIN.limit_seconds()) == (30, 120)
    submission = pipeline.Submission(classes=(("a", ""), ("b", "")), email="ada@example.org")
    assert (submission.backbone, submission.locale) == ("resnet18", "de-DE")


def test_files_of_refusals_that_cannot_be_used_are_reported_at_the_start(settings, tmp_path):
    assert checks.refusals_can_be_read(None) == []
    digests = tmp_path / "refused.txt"
    digests.write_text("# none\nabc\n")
    settings.REFUSED_DIGESTS = str(digests)
    settings.NUDITY_MODEL = str(tmp_path / "missing.onnx")
    first, second = checks.refusals_can_be_read(None)
    assert "Line 2" in first.msg and "PICAISSO_REFUSED_DIGESTS" in first.hint
    assert second.msg == f"There is no nudity model {tmp_path}/missing.onnx."


def test_a_text_image_model_that_cannot_be_used_is_reported_at_the_start(settings, tmp_path):
    assert checks.text_image_model_can_be_used(None) == []
    settings.TEXT_IMAGE_MODEL = str(write_pair(tmp_path / "pair"))
    assert checks.text_image_model_can_be_used(None) == []
    (tmp_path / "pair" / "LICENSE").unlink()
    (found,) = checks.text_image_model_can_be_used(None)
    assert found.msg == "The folder of the text-image model has no LICENSE."
    assert "PICAISSO_TEXT_IMAGE_MODEL" in found.hint


STRONG = "q3m_VY1wPz0Zs8Kx-hB6TfUe2NcJrLd9GoWiAaXyQtEv5nM7kHbSgCjR4uDpFlIO"
WEAK = {
    "well known": "changeme",
    "short": STRONG[:30],
    "one letter": "k" * 64,
    "few letters": "abcabcaabbcc" * 6,
    "a word again and again": "correct-horse-battery" * 4,
    "digits in a row": "0123456789" * 6,
    "Django's example": f"django-insecure-{STRONG}",
}


def run_manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PICAISSO_")}
    own |= {"PICAISSO_ENV_FILE": os.devnull, "DJANGO_SETTINGS_MODULE": "picaisso_site.settings"}
    own |= {"PICAISSO_SOURCES": "openverse", **variables}
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, cwd=processes.PROJECT, env=own, capture_output=True, text=True)


@pytest.mark.parametrize("key", WEAK.values(), ids=WEAK)
def test_f30_a_key_that_can_be_guessed_is_reported(key, settings):
    settings.SECRET_KEY = key
    (found,) = checks.secret_key_is_strong(None)
    assert found.id == "picaisso.E006" and "token_urlsafe" in found.hint


@pytest.mark.parametrize("key", [STRONG, "0f" + "6c1e9d7b52a48f30" * 2 + "d94b7e2a61c80f35" * 2])
def test_a_key_that_cannot_be_guessed_is_taken(key, settings):
    settings.SECRET_KEY = key
    assert checks.secret_key_is_strong(None) == []


def test_f30_up_refuses_a_weak_key_and_makes_a_strong_one_where_there_is_none(tmp_path):
    folder = {"PICAISSO_DATA_DIR": str(tmp_path / "data")}
    refused = run_manage("up", "--only", "web", PICAISSO_SECRET_KEY="changeme", **folder)
    assert refused.returncode == 1
    assert "picaisso.E006" in refused.stderr and "Traceback" not in refused.stderr
    assert run_manage("check", **folder).returncode == 0
    key = tmp_path / "data" / "secret_key"
    assert key.stat().st_mode & 0o777 == 0o600 and len(key.read_text()) > 60


def test_a_data_folder_that_cannot_be_written_is_reported_and_no_traceback(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    for key in ("", STRONG):
        done = run_manage("up", PICAISSO_DATA_DIR=str(in_the_way / "data"), PICAISSO_SECRET_KEY=key)
        assert done.returncode == 1
        assert "picaisso.E001" in done.stderr and "Traceback" not in done.stderr


def test_what_is_written_is_for_this_user_alone_also_with_a_key_of_ones_own(tmp_path):
    folder = tmp_path / "data"
    variables = {"PICAISSO_DATA_DIR": str(folder), "PICAISSO_SECRET_KEY": STRONG}
    assert run_manage("migrate", **variables).returncode == 0
    written = [folder, *folder.rglob("*")]
    assert (folder / "db.sqlite3").exists()
    assert [path for path in written if path.stat().st_mode & 0o077] == []


def test_a_data_folder_that_others_can_look_into_is_a_warning(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    settings.UMASK = 0o077
    tmp_path.chmod(0o755)
    (found,) = checks.data_folder_is_private(None)
    assert found.id == "picaisso.W004" and found.hint == f"chmod -R go= {tmp_path}"
    tmp_path.chmod(0o700)
    assert checks.data_folder_is_private(None) == []


def test_f30_a_public_site_has_no_warning_and_binds_no_other_site_of_its_domain(tmp_path):
    variables = {
        "PICAISSO_DATA_DIR": str(tmp_path / "data"),
        "PICAISSO_BASE_URL": "https://picaisso.example",
        "EMAIL_URL": "smtp://localhost:25",
    }
    done = run_manage("check", "--deploy", "--fail-level", "WARNING", **variables)
    assert done.returncode == 0, done.stderr
    names = "SECURE_HSTS_SECONDS SECURE_HSTS_INCLUDE_SUBDOMAINS SECURE_HSTS_PRELOAD"
    code = (
        f"from django.conf import settings as s; print(*(getattr(s, n) for n in '{names}'.split()))"
    )
    plain = run_manage("shell", "-v", "0", "-c", code, **variables)
    assert plain.stdout.split() == ["31536000", "False", "False"]
    variables |= {"PICAISSO_HSTS_SUBDOMAINS": "1", "PICAISSO_HSTS_PRELOAD": "1"}
    said = run_manage("shell", "-v", "0", "-c", code, **variables)
    assert said.stdout.split() == ["31536000", "True", "True"]
