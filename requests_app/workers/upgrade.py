"""Old and new code side by side: tables change only where no worker of the old code is left.

Whoever starts with newer tables in mind asks all workers, on every machine, to put their work back
and to end. An `up` that is asked so ends, and so does one that finds tables newer than its code.
"""

import time
from datetime import timedelta

from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone

from requests_app.models import WorkerBeat

OUR_APP = "requests_app"
FRESH_BEATS = 5
POLL_SECONDS = 0.25


def has_waiting_migrations() -> bool:
    """Return whether the tables are older than this code."""
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def is_superseded() -> bool:
    """Return whether the tables are newer than this code."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM django_migrations WHERE app = %s", [OUR_APP])
        applied = {name for (name,) in cursor.fetchall()}
    known = {name for app, name in MigrationLoader(None).disk_migrations if app == OUR_APP}
    return bool(applied - known)


def has_tables() -> bool:
    """Return whether a site has been in this database before."""
    return WorkerBeat._meta.db_table in connection.introspection.table_names()


def drain_workers() -> list[str]:
    """Ask every worker to put its work back and to end, and wait for that.

    Only columns are used that tables of all versions have.

    :returns: the queues of those that have not ended in time
    """
    fresh = timedelta(seconds=FRESH_BEATS * settings.BEAT_SECONDS)
    WorkerBeat.objects.filter(at__gt=timezone.now() - fresh).update(stop=True)
    deadline = time.monotonic() + max(settings.STOP_SECONDS, fresh.total_seconds()) + 5
    while True:
        alive = WorkerBeat.objects.filter(at__gt=timezone.now() - fresh)
        queues = sorted(set(alive.values_list("queue", flat=True)))
        if not queues or time.monotonic() > deadline:
            return queues
        time.sleep(POLL_SECONDS)
