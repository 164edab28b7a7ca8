"""Entry points for django-q2: a queue in, one function, done. Their names: ``jobs.TaskName``."""

from django.conf import settings
from django.utils import timezone

from requests_app import lifecycle, mail, pipeline
from requests_app.models import WorkerBeat
from requests_app.workers import jobs

PRUNE_LIMIT_SECONDS = 900.0


def drain(queue: str) -> None:
    """Run the oldest waiting job of the queue."""
    jobs.drain(queue, pipeline.HANDLERS)


def reap(queue: str) -> None:
    """Put back lost work."""
    jobs.reap(pipeline.HANDLERS)


def send_mail(queue: str) -> None:
    """Send what waits in the outbox."""
    mail.send_waiting()


def prune(queue: str) -> None:
    """Delete what is past its time."""
    with jobs.busy(PRUNE_LIMIT_SECONDS):
        lifecycle.expire()


def beat(queue: str) -> None:
    """Show that this cluster still runs what it is given."""
    own = WorkerBeat.objects.filter(cluster=settings.CLUSTER_ID)
    own.update(at=timezone.now())
