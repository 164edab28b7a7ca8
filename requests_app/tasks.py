"""Entry points for django-q2: a queue in, one function, done. Their names: ``jobs.TaskName``."""

from requests_app import lifecycle, links, mail, pipeline, privacy, takedowns
from requests_app.workers import jobs, unfinished

PRUNE_LIMIT_SECONDS = 900.0


def drain(queue: str) -> None:
    """Run the oldest waiting job of the queue, and what a deletion had to leave until its end."""
    jobs.drain(queue, pipeline.HANDLERS)
    privacy.erase_the_rest()


def reap(queue: str) -> None:
    """Put back lost work, finish deletions, ask sources again that could not be reached."""
    jobs.record_beat()
    jobs.reap(pipeline.HANDLERS)
    privacy.erase_the_rest()
    privacy.empty_journal()
    lifecycle.retry_after_outages()


def send_mail(queue: str) -> None:
    """Send what waits in the outbox."""
    jobs.record_beat()
    links.answer_wishes()
    mail.send_waiting()


def prune(queue: str) -> None:
    """Delete what is past its time or taken down, and write to those whose results are soon."""
    with jobs.busy(PRUNE_LIMIT_SECONDS):
        takedowns.finish()
        lifecycle.expire()
        lifecycle.warn_of_expiry()
        unfinished.remove_unfinished()


def beat(queue: str) -> None:
    """Show that this cluster still runs what it is given."""
    jobs.record_beat()
