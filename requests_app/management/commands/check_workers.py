"""``manage.py check_workers``: whether the queues' workers still run what they are given."""

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError

from requests_app import health
from requests_app.health import QueueHealth
from requests_app.management.operator_command import OperatorCommand, failures_in_words
from requests_app.phrases import counted


class Command(OperatorCommand):
    help = (
        "Says how the workers of each queue are. Ends with 1 where one has gone silent, or where "
        "a job waits although a worker is free; then restart `manage.py up`."
    )
    example = "python manage.py check_workers || systemctl restart picaisso"
    as_json = "print a line of JSON for each queue"

    def handle(self, *args: Any, **options: Any) -> None:
        with failures_in_words():
            queues = health.queues()
        for queue in queues:
            if options["json"]:
                self.stdout.write(json.dumps(asdict(queue)))
            else:
                self.stdout.write(_line(queue))
        wrong = [queue.wrong for queue in queues if queue.wrong]
        if wrong:
            raise CommandError(" ".join(wrong))


def _line(queue: QueueHealth) -> str:
    sign = "no sign of life"
    if queue.silent_seconds is not None:
        sign = f"last sign of life {counted(round(queue.silent_seconds), 'second')} ago"
    state = "wrong" if queue.wrong else "well"
    return f"{queue.queue:9} {state:5}  {counted(queue.running, 'job')} at work, {sign}"
