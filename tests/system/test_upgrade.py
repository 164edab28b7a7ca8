"""New code starts beside a site of older code that is at work."""

import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest

from requests_app.workers.processes import PROJECT
from tests.system.mariadb import free_port
from tests.system.site import PHOTOGRAPHS, Site, running_site
from tests.system.test_survival import is_collector

needed = (shutil.which("chromium"), shutil.which("chromedriver"), PHOTOGRAPHS.is_dir())
pytestmark = [
    pytest.mark.system,
    pytest.mark.browser,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not all(needed), reason="needs Chromium, its driver and the photographs"),
]


def test_the_workers_at_work_put_their_job_back_before_the_tables_change(tmp_path, smtpd):
    with running_site(tmp_path / "old", smtpd.port) as old:
        database = old.folder / "data" / "db.sqlite3"
        old.submit(40)
        old.confirm(smtpd)
        old.wait_for("the collector", is_collector)
        # As if the newest tables of Django's admin were still to be made.
        back = [sys.executable, "manage.py", "migrate", "-v0", "admin", "0002"]
        subprocess.run(back, cwd=PROJECT, env=old.environment(), check=True)
        new = Site(tmp_path / "new", smtpd.port, port=free_port())
        new.folder.mkdir()
        new.settings = {
            "DATABASE_URL": f"sqlite:///{database}",
            "PICAISSO_SECRET_KEY": (old.folder / "data" / "secret_key").read_text().strip(),
        }
        try:
            new.start()
            assert old.up is not None and old.up.wait(20) == 0, old.tail()
            assert "a newer version changes the tables" in old.log.read_text()
            assert old.find(is_collector) == []
            with sqlite3.connect(database) as rows:
                waiting = "SELECT COUNT(*) FROM django_migrations WHERE app = 'admin'"
                assert rows.execute(waiting).fetchone() == (3,)
                # The attempt that was put back does not count; the new workers may be at it.
                jobs = "SELECT stage, state, attempt FROM requests_app_job"
                ((stage, state, attempt),) = rows.execute(jobs).fetchall()
                assert (stage, state in ("queued", "running"), attempt <= 1) == (
                    "collect",
                    True,
                    True,
                )
            assert new.stop(signal.SIGTERM) == 0
        finally:
            new.end()
