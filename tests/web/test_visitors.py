"""Whose call it is: `X-Forwarded-For` counts behind the operator's own proxies alone."""

import pytest
from django.test import RequestFactory

from requests_app.visitors import address_of

PEER = "127.0.0.1"


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, None, PEER),
        (0, "203.0.113.9", PEER),
        (1, None, PEER),
        (1, "203.0.113.9", "203.0.113.9"),
        (1, "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        (1, "198.51.100.1,10.0.0.1 , 203.0.113.9:4711", "203.0.113.9"),
        (2, "203.0.113.9, 10.0.0.1", "203.0.113.9"),
        (2, "198.51.100.1, 203.0.113.9, 10.0.0.1", "203.0.113.9"),
        (2, "203.0.113.9", PEER),
        (1, "[2001:DB8::1]:443", "2001:db8::1"),
        (1, "2001:db8:0:0::1", "2001:db8::1"),
        (1, "::ffff:203.0.113.9", "203.0.113.9"),
        (1, "203.0.113.9, unknown", PEER),
        (1, "203.0.113.9,", PEER),
        (1, "", PEER),
    ],
)
def test_as_many_words_of_x_forwarded_for_count_as_there_are_proxies(
    proxies, forwarded, address, settings
):
    settings.PROXY_COUNT = proxies
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR=PEER)
    assert address_of(request) == address


def test_a_socket_without_an_address_has_none(settings):
    settings.PROXY_COUNT = 0
    assert address_of(RequestFactory().get("/", REMOTE_ADDR="")) == ""
