"""The API answers as its OpenAPI document says, whatever it is sent: tried by schemathesis."""

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, given, settings

from requests_app.api import endpoints
from tests.web.conftest import delivered, stopped, submitted

MOST_EXAMPLES = 30  # of a call
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
    tried = []
    for found in document.get_all_operations():
        operation = found.ok()
        if mode.is_negative and not operation.has_parameters():
            continue
        tried.append(operation.label)

        @settings(max_examples=MOST_EXAMPLES, deadline=None, suppress_health_check=QUIET)
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers_as_documented(case):
            case.call_and_validate()

        answers_as_documented()
    assert len(tried) >= 15
