"""The guarded client against hostile addresses, names, redirects and bodies: F18 to F21."""

import asyncio
import resource
import socket
import sys
import time

import pytest

from scraping.fetch import (
    NEUTRAL_MESSAGE,
    AddressRefused,
    AddressRule,
    Fetched,
    Fetcher,
    FetchFailure,
    FetchSettings,
    fetch_json,
    fetch_once,
    is_public_address,
    parse_retry_after,
)
from tests.replicas.pictures import jpeg
from tests.replicas.pictures_host import PictureHost

_connects: list[object] = []


def _listen(event: str, arguments: tuple) -> None:
    if event == "socket.connect":
        _connects.append(arguments[1])


sys.addaudithook(_listen)  # the interpreter itself reports each connection attempt, whoever makes it


@pytest.fixture
def connects():
    _connects.clear()
    return _connects


def settings(*hosts: PictureHost, **values) -> FetchSettings:
    return FetchSettings(allowed_private_hosts=frozenset(host.host for host in hosts), **values)


def answers(*addresses: str):
    """A name look-up that gives these addresses for every name."""

    def look_up(host, port, family=0, type=0):
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [(f, socket.SOCK_STREAM, 6, "", (address, port)) for f, address in zip(families, addresses, strict=True)]

    return look_up


FORBIDDEN = [
    "http://127.0.0.1/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://①②⑦.0.0.1/",
    "http://0.0.0.0/",
    "http://0/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:10.0.0.1]/",
    "http://[::127.0.0.1]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.100.100.200/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[2002:7f00:1::]/",
    "http://[fec0::1]/",
    "http://[fe80::1%25eth0]/",
    "http://168.63.129.16/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://10.1.2.3/",
    "http://user@127.0.0.1/",
    "http://user:secret@93.184.215.14/",
    "http://localhost/",
    "https://localhost/",
    "ftp://93.184.215.14/x",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "data:image/gif;base64,R0lGODdh",
    "http://93.184.215.14:22/",
    "http://93.184.215.14:6379/",
    "http://93.184.215.14:8080/",
    "http://",
    "http://[::",
    "//127.0.0.1/",
    "",
]


@pytest.mark.parametrize("url", FORBIDDEN)
def test_a_forbidden_address_is_refused_without_a_single_connect(url, connects):
    answer = fetch_once(url, FetchSettings(deadline_seconds=5))
    assert isinstance(answer, FetchFailure)
    assert answer.message == NEUTRAL_MESSAGE
    assert connects == []


@pytest.mark.parametrize(
    "addresses",
    [
        ("93.184.215.14", "127.0.0.1"),
        ("127.0.0.1", "93.184.215.14"),
        ("::ffff:127.0.0.1",),
        ("93.184.215.14", "fe80::1"),
        ("169.254.169.254",),
        (),
    ],
)
def test_a_name_with_one_forbidden_answer_is_refused_whole(addresses, connects):
    answer = fetch_once("http://evil.example/", FetchSettings(lookup=answers(*addresses), deadline_seconds=5))
    assert isinstance(answer, FetchFailure)
    assert answer.reason == "refused_address"
    assert connects == []


def test_a_name_that_changes_after_it_was_vetted_is_refused_at_the_socket():
    rule = AddressRule(frozenset())
    rule.check_answers("evil.example", 80, ["93.184.215.14"])
    with pytest.raises(AddressRefused):
        rule.open_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)))
    with pytest.raises(AddressRefused):
        rule.open_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 22)))


def test_a_foreign_name_may_not_lead_to_an_allowed_private_host(connects):
    with PictureHost() as host:
        port = host.host.partition(":")[2]
        values = settings(host, lookup=answers("127.0.0.1"), deadline_seconds=5)
        answer = fetch_once(f"http://evil.example:{port}/pic/1.jpg", values)
        assert isinstance(answer, FetchFailure)
        assert (host.requests, connects) == ([], [])


def test_an_allowed_name_vouches_for_its_address_and_only_on_its_port():
    with PictureHost() as host:
        port = host.host.partition(":")[2]
        values = FetchSettings(allowed_private_hosts=frozenset({f"gallery:{port}"}), lookup=answers("127.0.0.1"))
        assert isinstance(fetch_once(f"http://gallery:{port}/pic/1.jpg", values), Fetched)
        assert isinstance(fetch_once(f"http://127.0.0.1:{port}/pic/1.jpg", values), FetchFailure)
        assert isinstance(fetch_once("http://gallery:9/", values), FetchFailure)


def test_a_hanging_name_server_costs_no_more_than_the_deadline():
    def hang(*_, **__):
        time.sleep(60)

    started = time.monotonic()
    answer = fetch_once("http://slow.example/", FetchSettings(lookup=hang, deadline_seconds=0.5))
    assert isinstance(answer, FetchFailure)
    assert answer.reason == "unreachable"
    assert time.monotonic() - started < 3


def test_a_proxy_variable_does_not_lead_around_the_guard(monkeypatch, connects):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with PictureHost() as host:
        assert isinstance(fetch_once(host.picture_url(1), settings(host)), Fetched)
        assert connects == [("127.0.0.1", int(host.host.partition(":")[2]))]


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/",
        "http://localhost/private",
        "file:///etc/passwd",
        "http://169.254.169.254/",
        "//[::1]/",
        "http://93.184.215.14:22/",
        "http://user@93.184.215.14/",
    ],
)
def test_a_redirect_to_a_forbidden_address_is_refused_at_that_hop(target, connects):
    with PictureHost() as host:
        answer = fetch_once(f"{host.url}/redirect?to={target}", settings(host))
        assert isinstance(answer, FetchFailure)
        assert answer.reason == "refused_address"
        assert len(connects) == 1


def test_a_redirect_to_another_port_of_an_allowed_machine_is_refused():
    with PictureHost() as host, PictureHost() as neighbour:
        answer = fetch_once(f"{host.url}/redirect?to={neighbour.picture_url(1)}", settings(host))
        assert isinstance(answer, FetchFailure)
        assert neighbour.requests == []


def test_four_redirects_are_followed_and_a_fifth_is_not():
    with PictureHost() as host:
        assert isinstance(fetch_once(f"{host.url}/hops/3", settings(host)), Fetched)
        assert isinstance(fetch_once(f"{host.url}/hops/4", settings(host)), FetchFailure)
        before = len(host.requests)
        assert isinstance(fetch_once(f"{host.url}/loop", settings(host)), FetchFailure)
        assert len(host.requests) - before == 5


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/endless", "too_large"),
        ("/huge", "too_large"),
        ("/short", "unreachable"),
        ("/drip", "unreachable"),
        ("/gone", "http_error"),
        ("/forbidden", "http_error"),
        ("/nothing", "http_error"),
    ],
)
def test_a_hostile_body_ends_at_the_cap_or_the_deadline(path, reason):
    with PictureHost() as host:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.monotonic()
        answer = fetch_once(host.url + path, settings(host, deadline_seconds=1.0, max_bytes=4 << 20))
        assert isinstance(answer, FetchFailure)
        assert answer.reason == reason
        assert time.monotonic() - started < 4
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 100_000, "kilobytes"


def test_a_busy_host_s_wish_to_wait_comes_through():
    with PictureHost() as host:
        answer = fetch_once(f"{host.url}/busy", settings(host))
        assert isinstance(answer, FetchFailure)
        assert (answer.reason, answer.status, answer.retry_after) == ("http_error", 429, 17.0)


def test_compressed_bodies_are_not_asked_for_and_not_unpacked():
    with PictureHost() as host:
        answer = fetch_once(f"{host.url}/gzip", settings(host))
        assert isinstance(answer, Fetched)
        assert len(answer.body) < 100_000
        assert host.requests[0].headers["Accept-Encoding"] == "identity"


def test_tls_towards_a_server_without_it_is_a_plain_failure():
    with PictureHost() as host:
        answer = fetch_once(f"https://{host.host}/pic/1.jpg", settings(host, deadline_seconds=5))
        assert isinstance(answer, FetchFailure)
        assert answer.reason == "unreachable"


def test_the_referer_is_the_origin_of_the_page_and_nothing_more():
    async def run(host: PictureHost) -> list[object]:
        async with Fetcher(settings(host)) as fetcher:
            good = await fetcher.fetch(f"{host.url}/hotlink", "https://pages.example/secret/path?token=1")
            bad = await fetcher.fetch(f"{host.url}/hotlink")
            return [type(good), type(bad)]

    with PictureHost() as host:
        assert asyncio.run(run(host)) == [Fetched, FetchFailure]
        assert host.requests[0].headers["Referer"] == "https://pages.example/"
        assert "Referer" not in host.requests[1].headers
        assert "Cookie" not in host.requests[0].headers


def test_our_name_goes_out_with_the_operator_s_contact():
    with PictureHost() as host:
        fetch_once(host.picture_url(1), settings(host, contact="ops@example.org"))
        agent = host.requests[0].headers["User-Agent"]
        assert agent.startswith("Picaisso/") and agent.endswith("(ops@example.org)")


def test_percent_encoding_reaches_the_host_as_it_was():
    with PictureHost() as host:
        url = host.add("/a%2Fb%7Ec.jpg?sig=%2b%41", jpeg(9)).partition("?")[0] + "?sig=%2b%41"
        fetch_once(url, settings(host))
        assert host.requests[0].target == "/a%2Fb%7Ec.jpg?sig=%2b%41"


def test_at_most_four_connections_go_to_one_public_host_and_many_to_an_allowed_one():
    counts: list[int] = []

    async def run(url: str, values: FetchSettings) -> int:
        busy = most = 0

        async def enter() -> None:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.02)
            busy -= 1

        async with Fetcher(values, before_request=enter) as fetcher:
            await asyncio.gather(*(fetcher.fetch(url) for _ in range(30)))
        return most

    # The public name resolves to nothing, so no connection is made; the limit is on asking.
    counts.append(asyncio.run(run("http://crowded.example/", FetchSettings(lookup=answers()))))
    with PictureHost() as host:
        counts.append(asyncio.run(run(host.picture_url(1), settings(host, connections=16))))
    assert counts == [4, 16]


def test_json_that_is_none_is_a_failure_with_a_reason():
    with PictureHost() as host:
        answer = fetch_json(f"{host.url}/pic/1.jpg", {}, settings(host))
        assert isinstance(answer, FetchFailure)
        assert answer.reason == "not_json"


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "93.184.215.14"])
def test_ordinary_addresses_are_public(text):
    assert is_public_address(text)


@pytest.mark.parametrize(("value", "seconds"), [("120", 120.0), ("", None), (None, None), ("soon", None), ("-5", None)])
def test_retry_after_is_read_as_seconds_or_not_at_all(value, seconds):
    assert parse_retry_after(value) == seconds


def test_retry_after_may_be_a_date():
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert (parse_retry_after("Fri, 01 Jan 2100 00:00:00 GMT") or 0) > 1e9
