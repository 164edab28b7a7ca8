"""A data folder per test, and requests to work with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from requests_app import pipeline
from requests_app.models import ClassifierRequest
from tests import books
from tests.conftest import report_leak
from tests.pipeline.folders import write_collection, write_run
from tests.pipeline.stages import drain, rows_of


@pytest.fixture(autouse=True)
def _files_and_rows_agree(request: pytest.FixtureRequest) -> Iterator[None]:
    """Report a test that leaves rows without files, files without rows, or half a file.

    With ``--leaks=fail`` it fails. Tests that take one of them away themselves say so:
    ``@pytest.mark.unbalanced("why")``.
    """
    needed = ("data_dir", "transactional_db")
    if not all(name in request.fixturenames for name in needed):
        yield
        return
    for name in needed:
        request.getfixturevalue(name)
    yield
    if request.node.get_closest_marker("unbalanced") is None:
        found = [*books.files_out_of_step(), *books.unfinished_files(settings.DATA_DIR)]
        if found:
            report_leak(request, "; ".join(found))


@pytest.fixture
def data_dir(tmp_path: Path, settings) -> Path:
    settings.DATA_DIR = tmp_path
    settings.MAIL_DIR = tmp_path / "mail"
    return tmp_path


def _submission() -> pipeline.Submission:
    return pipeline.Submission(
        classes=(("cat", ""), ("dog", "dog animal")), email="ada@example.org"
    )


@pytest.fixture
def submitted(data_dir, transactional_db) -> ClassifierRequest:
    """Return a request whose address waits for its confirmation."""
    return pipeline.submit(_submission())


@pytest.fixture
def confirmed(data_dir, transactional_db, settings) -> ClassifierRequest:
    """Return a request whose collection waits for a worker."""
    settings.CONFIRM_EMAIL = False
    return pipeline.submit(_submission())


@pytest.fixture
def collected(confirmed) -> ClassifierRequest:
    write_collection(confirmed, 33)
    drain("collect")
    confirmed.refresh_from_db()
    return confirmed


@pytest.fixture
def trained(collected) -> ClassifierRequest:
    write_run(collected.versions.get(), rows_of(collected))
    drain("train")
    return collected


@pytest.fixture
def packaged(trained) -> ClassifierRequest:
    drain("train")
    return trained


@pytest.fixture
def delivered(packaged) -> ClassifierRequest:
    drain("picaisso")
    packaged.refresh_from_db()
    return packaged
