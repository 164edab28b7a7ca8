"""Retention as an operator relies on it: `up` alone has old requests deleted."""

import os
import subprocess
import sys
import time

import pytest

from requests_app.workers.processes import PROJECT

pytestmark = pytest.mark.system

MAKE_OLD_REQUEST = """
from datetime import timedelta
from django.utils import timezone
from requests_app.models import ClassifierRequest
classes = [("cat", ""), ("dog", "")]
old = ClassifierRequest.create(class_queries=classes, email="ada@example.org", status="failed")
ClassifierRequest.objects.update(moved=timezone.now() - timedelta(days=8))
"""
SHOW = """
from requests_app.models import ClassifierRequest
print("REQUEST", *ClassifierRequest.objects.values_list("status", "email").get())
"""


def test_a_request_past_its_time_is_deleted_by_the_running_site(tmp_path):
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PICAISSO_", "DJANGO_"))
    }
    own |= {
        "PICAISSO_ENV_FILE": os.devnull,
        "PICAISSO_DATA_DIR": str(tmp_path),
        "PICAISSO_RETENTION_DAYS": "7",
        "DATABASE_URL": "",
    }

    def manage(*words: str) -> str:
        command = [sys.executable, "manage.py", *words]
        return subprocess.run(
            command, cwd=PROJECT, env=own, check=True, capture_output=True, text=True
        ).stdout

    manage("migrate", "-v0")
    manage("shell", "-v0", "-c", MAKE_OLD_REQUEST)
    assert "REQUEST failed ada@example.org" in manage("shell", "-v0", "-c", SHOW)
    up = subprocess.Popen(
        [sys.executable, "manage.py", "up", "--only", "picaisso"], cwd=PROJECT, env=own
    )
    try:
        deadline = time.monotonic() + 60
        shown = ""
        while "REQUEST expired" not in shown and time.monotonic() < deadline:
            time.sleep(1)
            shown = manage("shell", "-v0", "-c", SHOW)
        assert shown.strip() == "REQUEST expired"
    finally:
        up.terminate()
        assert up.wait(40) == 0
