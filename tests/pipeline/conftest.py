"""A data folder per test, and requests to work with."""

from pathlib import Path

import pytest

from requests_app import pipeline
from requests_app.models import ClassifierRequest


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
    """A request whose address waits for its confirmation."""
    return pipeline.submit(_submission())


@pytest.fixture
def confirmed(data_dir, transactional_db, settings) -> ClassifierRequest:
    """A request whose collection waits for a worker."""
    settings.CONFIRM_EMAIL = False
    return pipeline.submit(_submission())
