"""Database outages: telling one from a mistake in a query, and letting it pass."""

import logging
import time
from collections.abc import Callable

from django.db import InterfaceError, OperationalError, close_old_connections, connection

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
CLIENT_ERRORS = range(2000, 3000)  # of MySQL's client library: no connection, or one that broke
# MySQL and MariaDB: too many connections, shutting down, waited too long for a lock, deadlock,
# interrupted, connection killed, disconnected for inactivity.
SERVER_ERRORS = (1040, 1053, 1205, 1213, 1317, 1927, 4031)
SQLITE_MESSAGES = ("database is locked", "unable to open database file")


def is_outage(error: BaseException) -> bool:
    """Return whether an error says that the database was away or overloaded.

    Then the same query may succeed later, and whoever asked has made no mistake.
    """
    if isinstance(error, InterfaceError):
        return True
    if not isinstance(error, OperationalError):
        return False
    code = error.args[0] if error.args else ""
    if isinstance(code, int):
        return code in CLIENT_ERRORS or code in SERVER_ERRORS
    return any(message in str(error) for message in SQLITE_MESSAGES)


def refresh_connection() -> None:
    """Drop a stale connection, for a stage may outlast one; never inside a transaction."""
    if not connection.in_atomic_block:
        close_old_connections()


def outlast(action: Callable[[], None]) -> None:
    """Do something in the database, again and again until it is there.

    :param action: what has no effect as long as it fails, a transaction for instance
    """
    while True:
        try:
            action()
            return
        except (InterfaceError, OperationalError) as error:
            if not is_outage(error):
                raise
        connection.close()
        time.sleep(RETRY_SECONDS)
