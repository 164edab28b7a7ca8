"""Old and new code side by side: tables change only where no worker of the old code is left.

Whoever starts with newer tables in mind asks all workers, on every machine, to put their work back
and to end. An `up` that is asked so ends, and so does one that finds tables newer than its code.
"""

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cache

from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.models import Q
from django.utils import timezone

from requests_app.models import WorkerBeat

OUR_APP = "requests_app"
FRESH_BEATS = 5
MARGIN_SECONDS = 5.0
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
    return bool(applied - _known_migrations())


@cache
def _known_migrations() -> frozenset[str]:
    names = [name for app, name in MigrationLoader(None).disk_migrations if app == OUR_APP]
    return frozenset(names)


def has_tables() -> bool:
    """Return whether a site has been in this database before."""
    return WorkerBeat._meta.db_table in connection.introspection.table_names()


def drain_workers(own_prefixes: Sequence[str] = ()) -> list[str]:
    """Ask every worker to put its work back and to end, and wait for that.

    Only columns are used that tables of all versions have.

    :param own_prefixes: how the names begin of clusters that cannot run, because we hold their lock
    :returns: the queues of those that have not ended in time
    """
    longest_silence = timedelta(seconds=FRESH_BEATS * settings.BEAT_SECONDS)
    seconds = max(settings.STOP_SECONDS, longest_silence.total_seconds()) + MARGIN_SECONDS
    deadline = time.monotonic() + seconds
    while True:
        now = timezone.now()
        shows_life = Q(at__gt=now - longest_silence) | Q(busy_until__gt=now)
        alive = WorkerBeat.objects.filter(shows_life)
        for prefix in own_prefixes:
            alive = alive.exclude(cluster__startswith=prefix)
        queues = sorted(set(alive.order_by().values_list("queue", flat=True)))
        if not queues or time.monotonic() > deadline:
            return queues
        alive.filter(stop=False).update(stop=True)
        time.sleep(POLL_SECONDS)
