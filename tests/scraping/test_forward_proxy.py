"""The browser's way out: to public addresses and hosts of one's own, and to nothing else."""

import contextlib
import http.client
import socket

import pytest

from scraping.net.forward_proxy import ForwardProxy
from scraping.net.http import FetchSettings
from tests.replicas.server import Replica, Response


class Echo(Replica):
    def respond(self, request):
        return Response(
            f"{request.target} {request.headers.get('Connection')}".encode(), "text/plain"
        )


def _raw(port: int, head: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(head.encode())
        return client.recv(4096)


def _settings(*hosts: str, **values) -> FetchSettings:
    return FetchSettings(allowed_private_hosts=frozenset(hosts), **values)


def test_a_request_to_a_host_of_ones_own_is_passed_on_with_its_path_alone():
    with Echo() as site, ForwardProxy(_settings(site.host)) as proxy:
        client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        client.request("GET", f"{site.url}/a%20b?c=%2B", headers={"Proxy-Connection": "keep-alive"})
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (200, b"/a%20b?c=%2B close")
        assert "Proxy-Connection" not in site.requests[0].headers


def test_a_tunnel_to_a_host_of_ones_own_carries_what_is_sent_through_it():
    with Echo() as site, ForwardProxy(_settings(site.host)) as proxy:
        client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        client.set_tunnel("127.0.0.1", int(site.host.partition(":")[2]))
        client.request("GET", "/through")
        assert client.getresponse().read() == b"/through None"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "127.1",
    ],
)
def test_no_spelling_of_a_private_address_is_connected_to(host):
    with Echo() as site, ForwardProxy(_settings()) as proxy:
        port = site.host.partition(":")[2]
        answers = [
            _raw(proxy.port, f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n"),
            _raw(proxy.port, f"GET http://{host}:{port}/x HTTP/1.1\r\n\r\n"),
            _raw(proxy.port, f"CONNECT {host}:443 HTTP/1.1\r\n\r\n"),
        ]
        assert all(answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 502")) for answer in answers), (
            answers
        )
        assert site.requests == []


def test_a_public_name_with_a_private_address_is_refused():
    def lookup(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", port))]

    with ForwardProxy(_settings(lookup=lookup)) as proxy:
        assert _raw(proxy.port, "CONNECT rebind.example:443 HTTP/1.1\r\n\r\n").startswith(
            b"HTTP/1.1 502"
        )


@pytest.mark.parametrize(
    "line",
    [
        "CONNECT public.example:22",
        "GET http://public.example:8080/",
        "GET ftp://public.example/",
        "GET https://public.example/",
        "GET http://user:secret@public.example/",
        "GET /local",
    ],
)
def test_other_ports_other_schemes_and_credentials_are_refused(line):
    with ForwardProxy(_settings()) as proxy:
        assert _raw(proxy.port, f"{line} HTTP/1.1\r\nHost: public.example\r\n\r\n").startswith(
            b"HTTP/1.1 403"
        )


def test_nonsense_ends_the_connection_and_not_the_proxy():
    with Echo() as site, ForwardProxy(_settings(site.host)) as proxy:
        for text in (
            "\r\n\r\n",
            "GET\r\n\r\n",
            "GET http://[::bad/ HTTP/1.1\r\n\r\n",
            "x" * 70_000 + "\r\n\r\n",
        ):
            with contextlib.suppress(ConnectionError):
                assert b"200" not in _raw(proxy.port, text)
        assert b"200" in _raw(proxy.port, f"GET {site.url}/x HTTP/1.1\r\nHost: a\r\n\r\n")
