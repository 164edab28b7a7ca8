"""The same submission with MariaDB as the database ends the same, whatever the server does."""

import importlib.util
import time

import pytest

from tests.system.mariadb import INSTALLER, SERVER, mariadb_server
from tests.system.site import running_site
from tests.system.test_faults import count_up_in_four_processes
from tests.system.test_survival import (
    IMAGES,
    check_delivered_once,
    check_nothing_left,
    follow_to_delivery,
    is_chromium,
    missing,
    trainer_at_work,
)

lacking = [*missing]
if not (SERVER and INSTALLER):
    lacking.append("mariadb-server")
if importlib.util.find_spec("MySQLdb") is None:
    lacking.append("mysqlclient")

pytestmark = [
    pytest.mark.system,
    pytest.mark.browser,
    pytest.mark.mariadb,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(lacking), reason=f"needs {', '.join(lacking)}"),
]


def test_f10_f11_a_request_is_delivered_with_mariadb_though_it_breaks_off_and_restarts(
    tmp_path, smtpd
):
    with (
        mariadb_server(tmp_path / "mariadb") as server,
        running_site(tmp_path / "site", smtpd.port, server.url) as site,
    ):
        path = site.submit(IMAGES)
        site.confirm(smtpd)
        site.wait_for("Chromium", is_chromium)
        server.stop()
        time.sleep(4)
        server.start()
        trainer_at_work(site)
        server.run("SET GLOBAL wait_timeout = 5")  # seconds until an idle connection is broken off
        assert count_up_in_four_processes(site) == 400
        assert server.kill_connections() > 0
        follow_to_delivery(site, path, smtpd)
        assert [(state, attempt) for _, state, attempt in site.jobs(path)] == 4 * [("done", 1)]
        check_delivered_once(site, path, smtpd)
        check_nothing_left(site)
        assert not (site.folder / "data" / "db.sqlite3").exists()
