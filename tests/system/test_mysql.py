"""The same submission with MariaDB as the database ends the same."""

import importlib.util

import pytest

from tests.system.mariadb import INSTALLER, SERVER, mariadb
from tests.system.site import running_site
from tests.system.test_survival import (
    IMAGES,
    check_delivered_once,
    check_nothing_left,
    follow_to_delivery,
    missing,
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
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(lacking), reason=f"needs {', '.join(lacking)}"),
]


def test_a_request_is_delivered_with_mariadb(tmp_path, smtpd):
    with (
        mariadb(tmp_path / "mariadb") as url,
        running_site(tmp_path / "site", smtpd.port, url) as site,
    ):
        path = site.submit(IMAGES)
        site.confirm(smtpd)
        follow_to_delivery(site, path, smtpd)
        check_delivered_once(site, path, smtpd)
        check_nothing_left(site)
        assert not (site.folder / "data" / "db.sqlite3").exists()
