"""What visitors and programs are told while the database is away."""

import pytest
from django.db import OperationalError, connection

from tests.web.conftest import delivered

pytestmark = pytest.mark.django_db


def away(execute, sql, params, many, context):
    raise OperationalError(2002, "Can't connect to server")


def test_pages_say_when_to_try_again(client):
    address = f"/r/{delivered().token}/"
    with connection.execute_wrapper(away):
        answer = client.get(address)
    assert answer.status_code == 503
    assert int(answer["Retry-After"]) > 0
    assert "cannot reach its database" in answer.content.decode()


def test_the_api_says_so_in_its_envelope(client):
    address = f"/api/v1/requests/{delivered().token}"
    with connection.execute_wrapper(away):
        answer = client.get(address)
    assert answer.status_code == 503
    assert int(answer["Retry-After"]) > 0
    assert answer.json()["error"]["code"] == "unavailable"


def test_a_mistake_in_a_query_stays_a_defect(client):
    client.raise_request_exception = False

    def broken(execute, sql, params, many, context):
        raise OperationalError("no such column: x")

    address = f"/r/{delivered().token}/"
    with connection.execute_wrapper(broken):
        assert client.get(address).status_code == 500
