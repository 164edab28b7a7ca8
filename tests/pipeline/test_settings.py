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
