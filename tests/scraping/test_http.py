"""The guarded client against hostile addresses, names, redirects and bodies: F18 to F21."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scraping.download_list import DownloadSettings, download_list
from scraping.net.http import (
    NEUTRAL_MESSAGE,
    AddressRefused,
    AddressRule,
    Fetched,
    Fetcher,
    FetchFailure,
    FetchSettings,
    JsonRequest,
    NotJson,
    fetch_json,
    fetch_once,
    is_public_address,
    parse_retry_after,
    request,
)
from scraping.screening.screen import ScreenSettings
from tests.memory import forget_peak, peak
from tests.replicas.pictures import jpeg
from tests.replicas.pictures_host import PictureHost
from tests.scraping.conftest import environment, repository

_connects: list[tuple] = []


def _listen(event: str, arguments: tuple) -> None:
    if event != "socket.connect":
        return
    _connects.append(arguments[1])
    if isinstance(arguments[1], tuple) and not str(arguments[1][0]).startswith(("127.", "::1")):
        raise ConnectionRefusedError("tests stay on this machine")


sys.addaudithook(
    _listen
)  # the interpreter itself reports each connection attempt, whoever makes it


@pytest.fixture
def connects():
    _connects.clear()
    return _connects


def settings(*hosts: PictureHost, **values) -> FetchSettings:
    return FetchSettings(allowed_private_hosts=frozenset(host.host for host in hosts), **values)


def answers(*addresses: str):
    """Return a name lookup that gives these addresses for every name."""

    def look_up(host, port, family=0, type=0):
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [
            (f, socket.SOCK_STREAM, 6, "", (address, port))
            for f, address in zip(families, addresses, strict=True)
        ]

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
def test_f18_a_forbidden_address_is_refused_without_a_single_connect(url, connects):
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
def test_f19_a_name_with_one_forbidden_answer_is_refused_whole(addresses, connects):
    answer = fetch_once(
        "http://evil.example/", FetchSettings(lookup=answers(*addresses), deadline_seconds=5)
    )
    assert isinstance(answer, FetchFailure)
    assert answer.reason == "refused_address"
    assert connects == []


def test_f19_a_name_that_changes_after_it_was_vetted_is_refused_at_the_socket():
    rule = AddressRule(frozenset())
    rule.check_answers("evil.example", 80, ["93.184.215.14"])
    with pytest.raises(AddressRefused):
        rule.open_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)))
    with pytest.raises(AddressRefused):
        rule.open_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 22)))


def test_f19_a_name_that_is_rebound_between_two_requests_is_refused_the_second_time(connects):
    lookups: list[str] = []

    def rebinding(host, port, family=0, type=0):
        lookups.append(host)
        return answers("93.184.215.14" if len(lookups) == 1 else "127.0.0.1")(
            host, port, family, type
        )

    async def run() -> list[FetchFailure | Fetched]:
        values = FetchSettings(lookup=rebinding, deadline_seconds=5)
        found = []
        for _ in range(2):  # a fetcher each, or the first answer would still be remembered
            async with Fetcher(values) as fetcher:
                found.append(await fetcher.fetch("http://evil.example/x.jpg"))
        return found

    vetted, rebound = asyncio.run(run())
    assert isinstance(vetted, FetchFailure) and vetted.reason == "unreachable", (
        "these tests connect to nobody"
    )
    assert isinstance(rebound, FetchFailure) and rebound.reason == "refused_address"
    assert lookups == ["evil.example"] * 2
    assert set(connects) == {("93.184.215.14", 80)}, (
        "only the vetted address, and never after another look-up"
    )


def test_f19_within_one_fetcher_a_name_stays_at_the_address_that_was_vetted(connects):
    lookups = iter([answers("93.184.215.14"), *[answers("127.0.0.1")] * 9])
    values = FetchSettings(
        lookup=lambda *args, **named: next(lookups)(*args, **named), deadline_seconds=5
    )

    async def run() -> None:
        async with Fetcher(values) as fetcher:
            for _ in range(3):
                assert isinstance(await fetcher.fetch("http://evil.example/x.jpg"), FetchFailure)

    asyncio.run(run())
    assert connects and set(connects) <= {("93.184.215.14", 80)}


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://nobody.example/"])
def test_f18_a_refused_address_and_a_dead_name_read_the_same_to_everybody(url, tmp_path):
    def nobody(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    settings = DownloadSettings(FetchSettings(lookup=nobody, deadline_seconds=2), ScreenSettings())
    rows: list[dict] = []
    asyncio.run(download_list([url], tmp_path, settings, lambda row, _: rows.append(row)))
    told = {name: rows[0][name] for name in ("detail", "http_status", "bytes", "sha256", "file")}
    assert told == {
        "detail": NEUTRAL_MESSAGE,
        "http_status": None,
        "bytes": None,
        "sha256": None,
        "file": None,
    }


def test_a_foreign_name_may_not_lead_to_an_allowed_private_host(connects):
    with PictureHost() as host:
        port = host.host.partition(":")[2]
        values = settings(host, lookup=answers("127.0.0.1"), deadline_seconds=5)
        answer = fetch_once(f"http://evil.example:{port}/pic/1.jpg", values)
        assert isinstance(answer, FetchFailure)
        assert (host.requests, connects) == ([], [])


def test_an_allowed_name_allows_its_address_and_only_on_its_port():
    with PictureHost() as host:
        port = host.host.partition(":")[2]
        values = FetchSettings(
            allowed_private_hosts=frozenset({f"gallery:{port}"}), lookup=answers("127.0.0.1")
        )
        assert isinstance(fetch_once(f"http://gallery:{port}/pic/1.jpg", values), Fetched)
        assert isinstance(fetch_once(f"http://127.0.0.1:{port}/pic/1.jpg", values), FetchFailure)
        assert isinstance(fetch_once("http://gallery:9/", values), FetchFailure)


def test_f19_a_hanging_name_server_costs_no_more_than_the_deadline():
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
def test_f20_a_redirect_to_a_forbidden_address_is_refused_at_that_hop(target, connects):
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


def test_f20_a_redirect_to_a_name_with_a_private_address_is_refused(connects):
    with PictureHost() as host:
        values = settings(host, lookup=answers("10.0.0.7"), deadline_seconds=5)
        answer = fetch_once(f"{host.url}/redirect?to=http://intranet.example/", values)
        assert isinstance(answer, FetchFailure)
        assert answer.reason == "refused_address"
        assert len(connects) == 1


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_f20_every_hop_is_checked_anew(hops, connects):
    with PictureHost() as host:
        target = f"{host.url}/redirect?to=http://169.254.169.254/"
        for _ in range(hops):
            target = f"{host.url}/redirect?to={quote(target)}"
        answer = fetch_once(target, settings(host))
        assert isinstance(answer, FetchFailure)
        assert (answer.reason, len(host.requests)) == ("refused_address", hops + 1)
        assert {address for address, _ in connects} == {"127.0.0.1"}


def test_f20_four_redirects_are_followed_and_a_fifth_is_not():
    with PictureHost() as host:
        assert isinstance(fetch_once(f"{host.url}/hops/3", settings(host)), Fetched)
        assert isinstance(fetch_once(f"{host.url}/hops/4", settings(host)), FetchFailure)
        before = len(host.requests)
        assert isinstance(fetch_once(f"{host.url}/loop", settings(host)), FetchFailure)
        assert len(host.requests) - before == 5


def test_a_cookie_is_sent_back_within_one_download_and_to_its_host_alone():
    with PictureHost() as host:
        elsewhere = host.url.replace("127.0.0.1", "localhost")
        values = settings(host)
        allowed = values.allowed_private_hosts | {elsewhere.removeprefix("http://")}
        values = replace(values, allowed_private_hosts=allowed)
        for _ in range(2):
            assert isinstance(fetch_once(f"{host.url}/cookie", values), Fetched)
        sent = [request.headers.get("Cookie") for request in host.requests]
        assert sent == [None, "seen=yes"] * 2

        answer = fetch_once(f"{host.url}/cookie?to={elsewhere}/pic/1.jpg", values)
        assert isinstance(answer, Fetched)
        assert host.requests[-1].headers.get("Cookie") is None


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
def test_f21_a_hostile_body_ends_at_the_cap_or_the_deadline(path, reason):
    with PictureHost() as host:
        before = forget_peak()
        started = time.monotonic()
        answer = fetch_once(
            host.url + path, settings(host, deadline_seconds=1.0, max_bytes=4 << 20)
        )
        assert isinstance(answer, FetchFailure)
        assert answer.reason == reason
        assert time.monotonic() - started < 4
        assert peak() - before < 100_000, "kilobytes"


def test_f21_a_busy_host_s_wish_to_wait_comes_through():
    with PictureHost() as host:
        answer = fetch_once(f"{host.url}/busy", settings(host))
        assert isinstance(answer, FetchFailure)
        assert (answer.reason, answer.status, answer.retry_after) == ("http_error", 429, 17.0)


def test_f21_compressed_bodies_are_not_asked_for_and_not_unpacked():
    with PictureHost() as host:
        answer = fetch_once(f"{host.url}/gzip", settings(host))
        assert isinstance(answer, Fetched)
        assert len(answer.body) < 100_000
        assert host.requests[0].headers["Accept-Encoding"] == "identity"


def test_f21_tls_towards_a_server_without_it_is_a_plain_failure():
    with PictureHost() as host:
        answer = fetch_once(f"https://{host.host}/pic/1.jpg", settings(host, deadline_seconds=5))
        assert isinstance(answer, FetchFailure)
        assert answer.reason == "unreachable"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Return (certificate file, server context) for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    day = datetime.timedelta(days=1)
    today = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), today - day, today + day
    )
    signed = builder.add_extension(address, False).sign(key, hashes.SHA256())
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    plain = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(key.private_bytes(*plain) + signed.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return file, context


def test_f21_an_unknown_certificate_is_a_plain_failure_that_is_not_tried_again(authority):
    with PictureHost(tls=authority[1]) as host:
        answer = fetch_once(
            host.picture_url(1).replace("http:", "https:"), settings(host, deadline_seconds=5)
        )
        assert isinstance(answer, FetchFailure)
        assert (answer.reason, answer.transient, host.requests) == ("unreachable", False, [])
        assert "address" not in answer.detail


FETCH = """
import sys
from scraping.net.http import FetchSettings, fetch_once
_, url, *hosts = sys.argv
settings = FetchSettings(allowed_private_hosts=frozenset(hosts), deadline_seconds=10)
answer = fetch_once(url, settings)
print(getattr(answer, "reason", "fetched"), getattr(answer, "detail", ""))
"""


def test_f20_a_redirect_from_https_to_http_is_refused(authority):
    """It runs in its own process, which trusts the test's certificate from its start."""
    with PictureHost(tls=authority[1]) as secure, PictureHost() as plain:

        def fetched(path: str) -> str:
            url = secure.url.replace("http:", "https:") + path
            command = [sys.executable, "-c", FETCH, url, secure.host, plain.host]
            variables = environment(SSL_CERT_FILE=str(authority[0]))
            return subprocess.run(
                command, cwd=repository(), env=variables, capture_output=True, text=True
            ).stdout

        assert fetched("/pic/1.jpg") == "fetched \n"
        assert fetched("/hops/2") == "fetched \n"
        assert fetched(f"/redirect?to={plain.picture_url(1)}") == "refused_address https to http\n"
        assert plain.requests == []


def test_large_bodies_come_one_after_the_other_and_all_the_same():
    async def run(urls: list[str], values: FetchSettings) -> list[int]:
        async with Fetcher(values) as fetcher:
            found = await asyncio.gather(*(fetcher.fetch(url) for url in urls))
            return [len(answer.body) if isinstance(answer, Fetched) else 0 for answer in found]

    with PictureHost() as host:
        urls = [host.add(f"/large/{number}", bytes(6 << 20)) for number in range(12)]
        urls.append(host.add("/exact", bytes(4 << 20)))
        values = settings(host, max_bytes=6 << 20)
        assert asyncio.run(run(urls, values)) == [6 << 20] * 12 + [4 << 20]
        assert asyncio.run(run(urls[:1], settings(host, max_bytes=(6 << 20) - 1))) == [0]


def test_the_referer_is_the_origin_of_the_page_and_nothing_more():
    async def run(host: PictureHost) -> list[object]:
        async with Fetcher(settings(host)) as fetcher:
            good = await fetcher.fetch(
                f"{host.url}/hotlink", "https://pages.example/secret/path?token=1"
            )
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
        assert isinstance(answer, NotJson)


def test_a_request_with_an_account_follows_no_redirect():
    with PictureHost() as host, PictureHost() as neighbor:
        allowed = settings(host, neighbor)
        url = f"{host.url}/redirect?to={neighbor.picture_url(1)}"
        answer = request(JsonRequest(url, headers={"Authorization": "Bearer s3cret"}), allowed)
        assert isinstance(answer, FetchFailure)
        assert (answer.reason, answer.status) == ("http_error", 302)
        assert neighbor.requests == []
        assert len(host.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://public.example:8080/",
        "ftp://public.example/",
        "http://user:secret@public.example/",
        "http://rebind.example/",
    ],
)
def test_a_request_with_an_account_goes_through_the_same_guard(url, connects):
    values = FetchSettings(lookup=answers("10.0.0.7"), deadline_seconds=5)
    answer = request(JsonRequest(url, form={"client_secret": "s3cret"}), values)
    assert isinstance(answer, FetchFailure)
    assert answer.reason == "refused_address"
    assert connects == []


def test_an_answer_to_a_request_that_is_no_json_is_a_failure():
    with PictureHost() as host:
        answer = request(JsonRequest(host.picture_url(1)), settings(host))
        assert isinstance(answer, NotJson)


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "93.184.215.14"])
def test_ordinary_addresses_are_public(text):
    assert is_public_address(text)


@pytest.mark.parametrize(
    ("value", "seconds"), [("120", 120.0), ("", None), (None, None), ("soon", None), ("-5", None)]
)
def test_retry_after_is_read_as_seconds_or_not_at_all(value, seconds):
    assert parse_retry_after(value) == seconds


def test_retry_after_may_be_a_date():
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert (parse_retry_after("Fri, 01 Jan 2100 00:00:00 GMT") or 0) > 1e9
