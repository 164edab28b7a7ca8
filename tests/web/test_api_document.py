"""The API answers as its OpenAPI document says, whatever it is sent: tried by schemathesis."""

from contextlib import suppress

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.specs.openapi.checks import positive_data_acceptance

from requests_app.api import endpoints
from tests.web.conftest import delivered, stopped, submitted

MOST_EXAMPLES = 12  # of a call
# What they take is refused by more than a schema says: names that mean the same, addresses that no
# mail reaches, classes of another request, addresses with no picture.
BY_RULES = (
    "POST /api/v1/requests",
    "POST /api/v1/requests/with-pictures",
    "POST /api/v1/requests/{token}/retry",
    "GET /api/v1/requests/{token}/images",
    "PATCH /api/v1/requests/{token}/images/{image_id}",
    "POST /api/v1/requests/{token}/predict",
)
DELETION = "DELETE /api/v1/requests/{token}"  # the last: afterwards all is gone, which is a 410
QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]


@pytest.fixture
def document(monkeypatch):
    """The document as the site serves it, and requests in some states, one of which is asked."""
    for throttle in (endpoints.READS, endpoints.CHANGES):
        monkeypatch.setattr(throttle, "num_requests", 1_000_000)
    tokens = [submitted().token, delivered().token, stopped("failed").token, "A" * 32]
    found = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", get_wsgi_application())

    @found.hook
    def map_path_parameters(context, parameters):
        if parameters and "token" in parameters:
            chosen = len(str(parameters["token"])) % len(tokens)
            parameters["token"] = tokens[chosen]
        return parameters

    return found


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_every_call_answers_as_the_document_says(document, mode):
    operations = [found.ok() for found in document.get_all_operations()]
    operations.sort(key=lambda operation: operation.label == DELETION)
    for operation in operations:
        with suppress(Unsatisfiable):  # nothing that it takes can be wrong
            answer_as_documented(operation, mode)
    assert len(operations) >= 15


def answer_as_documented(operation, mode) -> None:
    checks = [positive_data_acceptance] if operation.label in (*BY_RULES, DELETION) else []

    @settings(max_examples=MOST_EXAMPLES, deadline=None, suppress_health_check=QUIET)
    @given(case=operation.as_strategy(generation_mode=mode))
    def called(case):
        case.call_and_validate(excluded_checks=checks)

    called()
