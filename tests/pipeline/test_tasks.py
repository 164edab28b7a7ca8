"""The tasks of the queue: every name that is enqueued exists, and retention really runs."""

import ast
import pydoc
import sys
from datetime import timedelta
from multiprocessing import Queue, Value
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone
from django.utils.module_loading import import_string
from django_q.models import OrmQ
from django_q.signing import SignedPackage
from django_q.tasks import async_task
from django_q.worker import worker

from requests_app.models import ClassifierRequest, Status
from requests_app.workers import jobs
from tests.pipeline.stages import handlers

PACKAGE = Path(settings.BASE_DIR) / "requests_app"


def tasks_in_use() -> set[str]:
    """Return the name of every task that the source of the app enqueues through ``notify``."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            words = [node.func, *node.args]  # partial(jobs.notify, ...) names it as an argument
            called = [ast.unparse(word).rpartition(".")[2] for word in words]
            if "notify" not in called:
                continue
            arguments = words[called.index("notify") + 1 :]
            arguments += [keyword.value for keyword in node.keywords if keyword.arg == "task"]
            if len(arguments) == 1:
                found.add("drain")  # the default
            else:
                assert isinstance(arguments[1], ast.Constant), f"{path}: {ast.unparse(node)}"
                found.add(arguments[1].value)
    return found


def test_every_task_that_is_enqueued_exists():
    assert tasks_in_use() == {"drain", "reap", "send_mail", "prune", "beat"}
    for name in tasks_in_use():
        assert callable(import_string(f"requests_app.tasks.{name}"))


def dotted_names(path: Path) -> set[str]:
    """Return the strings of a module that look like dotted names of the site's own code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        text = node.value if isinstance(node, ast.Constant) else None
        if not isinstance(text, str) or not text.startswith(("requests_app.", "picaisso_site.")):
            continue
        if all(word.isidentifier() for word in text.split(".")):
            found.add(text)
    return found


def test_every_dotted_name_in_the_site_resolves():
    paths = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "picaisso_site").glob("*.py")]
    dotted = set().union(*(dotted_names(p) for p in paths if "migrations" not in p.parts))
    assert {"requests_app.mail.FolderBackend", "requests_app.workers.processes"} <= dotted
    for name in dotted:
        assert pydoc.locate(name) is not None, name


def run_next_task(queue: str) -> None:
    """Let django-q2's own worker run what is enqueued for a queue, as its cluster would.

    What comes out of its queue has been acknowledged.
    """
    tasks = Queue()
    results = Queue()
    tasks.put(SignedPackage.loads(OrmQ.objects.get(key=queue).payload))
    tasks.put("STOP")
    worker(tasks, results, Value("f", -1))
    task = results.get(timeout=30)
    assert task["success"], task["result"]


@pytest.mark.django_db(transaction=True)
def test_retention_runs_when_its_task_is_enqueued(confirmed, settings):
    old = timezone.now() - timedelta(days=settings.RETENTION_DAYS, seconds=1)
    ClassifierRequest.objects.update(status=Status.FAILED, moved=old)
    OrmQ.objects.all().delete()
    jobs.notify("picaisso", "prune")
    run_next_task("picaisso")
    confirmed.refresh_from_db()
    assert (confirmed.status, confirmed.email) == (Status.EXPIRED, "")


def return_what_cannot_be_pickled(queue: str) -> None:
    jobs.drain(queue, handlers(lambda lease: lambda: None))


def exit_from_the_stage(queue: str) -> None:
    jobs.drain(queue, handlers(lambda lease: sys.exit(3)))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("stage", [return_what_cannot_be_pickled, exit_from_the_stage])
def test_f12_whatever_a_stage_returns_or_raises_its_notice_is_acknowledged(confirmed, stage):
    OrmQ.objects.all().delete()
    async_task(f"{__name__}.{stage.__name__}", "collect", cluster="collect", save=False)
    run_next_task("collect")
