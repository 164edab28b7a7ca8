"""The one guarded HTTP client: everything Picaisso fetches by itself goes through here.

A URL comes from strangers, so it may point at this machine or its neighbours. The rule judges
addresses, not spellings: `getaddrinfo` reads `2130706433`, `0x7f.1` and circled digits as
127.0.0.1. Three places enforce it: the URL before a request and before each redirect, every answer
of the name lookup, and each socket just before it connects. A failure is a value with a reason of
the product's list; the sentence for the public is always the same, so that nobody learns from it
which private hosts exist.
"""

import asyncio
import contextlib
import ipaddress
import json
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDictProxy
from yarl import URL

from scraping import __version__
from scraping.reasons import Reason
from scraping.urls import origin_of

PRODUCT = "Picaisso"
NEUTRAL_MESSAGE = "This address could not be fetched."
MAX_REDIRECTS = 4
REDIRECTS = frozenset({301, 302, 303, 307, 308})
PUBLIC_PORTS = frozenset({80, 443})
CHUNK_BYTES = 1 << 18
LARGE_BYTES = 4 << 20  # bodies beyond come in one after the other, or a host could fill the memory
LARGE_AT_ONCE = 8
JSON_MAX_BYTES = 8 << 20
TRANSIENT_STATUSES = frozenset({429, 500, 502, 503, 504})
LOOKUP_CACHE_SECONDS = 300

# Ranges that the standard library calls global although they reach, embed or translate to private
# addresses: NAT64, 6to4, Teredo and its neighbours, IPv4-compatible, site-local, documentation,
# carrier NAT, cloud metadata.
EXTRA_FORBIDDEN = tuple(
    ipaddress.ip_network(text)
    for text in (
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "2001::/23",
        "::/96",
        "fec0::/10",
        "3fff::/20",
        "5f00::/16",
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "168.63.129.16/32",
    )
)
URL_LEGAL = re.compile(r"[!#$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]+")

Lookup = Callable[..., Sequence[tuple[Any, ...]]]
Unwanted = Callable[[CIMultiDictProxy[str]], Reason | None]


@dataclass(frozen=True)
class FetchSettings:
    """What a fetcher may do.

    `deadline_seconds` covers one whole fetch: name lookup, connecting, redirects and body.
    `allowed_private_hosts` holds `host:port` texts for which the address rule, the port rule and the per-host
    limit are lifted.
    """

    contact: str = ""
    allowed_private_hosts: frozenset[str] = frozenset()
    max_bytes: int = 20 << 20
    deadline_seconds: float = 30.0
    connections: int = 64
    per_host: int = 4
    lookup: Lookup = field(default=socket.getaddrinfo, repr=False)

    @property
    def user_agent(self) -> str:
        """Our own honest name, with the operator's contact where there is one."""
        name = f"{PRODUCT}/{__version__}"
        return f"{name} ({self.contact})" if self.contact else name


@dataclass(frozen=True)
class Fetched:
    """A complete answer with status 200."""

    url: str
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes | bytearray


@dataclass(frozen=True)
class FetchFailure:
    """Why there is no answer. `detail` is for the operator's log, `message` for everybody.

    `transient` says that the same request may well succeed a little later.
    """

    reason: Reason
    detail: str = ""
    status: int | None = None
    retry_after: float | None = None
    transient: bool = False

    @property
    def message(self) -> str:
        """One sentence that does not tell a refused address from a dead one."""
        return NEUTRAL_MESSAGE


@dataclass(frozen=True)
class NotJson(FetchFailure):
    """An answer came, but it is not JSON."""


@dataclass(frozen=True)
class JsonReply:
    """A parsed JSON answer with its headers."""

    data: Any
    headers: CIMultiDictProxy[str]


class AddressRefused(OSError):
    """A connection that the rule forbids. Two arguments, else aiohttp prints an empty reason."""

    def __init__(self, what: str) -> None:
        super().__init__(13, f"refused {what}")


def is_public_address(text: str) -> bool:
    """True only for a unicast address of the public internet; anything that is no address is
    not.
    """
    try:
        address = ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    special = (
        address.is_multicast
        or address.is_reserved
        or address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or getattr(address, "is_site_local", False)
    )
    return (
        address.is_global
        and not special
        and not any(address in network for network in EXTRA_FORBIDDEN)
    )


def parse_retry_after(value: str | None) -> float | None:
    """Seconds to wait from a Retry-After header, which holds a number or an HTTP date; None when it
    says nothing.
    """
    if not value:
        return None
    if value.strip().isdigit():
        return float(value.strip()[:9])
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    return None


class AddressRule:
    """Decides which URLs may be asked and which addresses may be connected to."""

    def __init__(self, allowed_private_hosts: frozenset[str]) -> None:
        self._allowed = frozenset(entry.lower() for entry in allowed_private_hosts)
        self._vouched: set[tuple[str, int]] = set()

    def allows_privately(self, host: str, port: int) -> bool:
        """True when the operator named this very host and port."""
        name = f"[{host}]" if ":" in host else host
        return f"{name.lower()}:{port}" in self._allowed

    def url_refusal(self, url: URL) -> str | None:
        """Why this URL may not be asked, or None."""
        if url.scheme not in ("http", "https"):
            return "scheme"
        if url.user is not None or url.password is not None:
            return "credentials"
        if not url.host or url.port is None:
            return "no host"
        if self.allows_privately(url.host, url.port):
            return None
        if url.port not in PUBLIC_PORTS:
            return "port"
        looks_numeric = ":" in url.host or url.host.replace(".", "").isdigit()
        return "address" if looks_numeric and not is_public_address(url.host) else None

    def check_answers(self, host: str, port: int, addresses: Sequence[str]) -> None:
        """Refuse a name unless every one of its addresses may be connected to.

        Raises AddressRefused. A name that the operator allowed vouches for what it resolves to.
        """
        if self.allows_privately(host, port):
            self._vouched.update((address, port) for address in addresses)
        elif not addresses or not all(map(is_public_address, addresses)):
            raise AddressRefused("address")

    def open_socket(self, address_info: tuple[Any, ...]) -> socket.socket:
        """Make the socket for one connection, or raise AddressRefused: the last gate, right before
        connecting.
        """
        family, kind, protocol, _name, target = address_info
        host, port = str(target[0]), int(target[1])
        public = port in PUBLIC_PORTS and is_public_address(host)
        if not (public or self.allows_privately(host, port) or (host, port) in self._vouched):
            raise AddressRefused("address")
        return socket.socket(family, kind, protocol)


class GuardedResolver(AbstractResolver):
    """Looks names up in daemon threads, so that a hanging name server delays neither the loop nor
    the exit.
    """

    def __init__(self, rule: AddressRule, lookup: Lookup) -> None:
        self._rule = rule
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return all vetted addresses of a name. Raises OSError when it has none or a forbidden
        one.
        """
        answers = await self._in_thread(host, port, family)
        unique = {(answer[0], str(answer[4][0])): answer for answer in answers}.values()
        self._rule.check_answers(host, port, [str(answer[4][0]) for answer in unique])
        return [
            ResolveResult(
                hostname=host,
                host=str(answer[4][0]),
                port=port,
                family=answer[0],
                proto=answer[2],
                flags=socket.AI_NUMERICHOST,
            )
            for answer in unique
        ]

    async def _in_thread(self, host: str, port: int, family: int) -> Sequence[tuple[Any, ...]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[tuple[Any, ...]]] = loop.create_future()

        def settle(answers: Sequence[tuple[Any, ...]] | None, error: OSError | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(answers or [])

        def look_up() -> None:
            answers, error = None, None
            try:
                answers = self._lookup(host, port, family=family, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as caught:
                error = caught if isinstance(caught, OSError) else socket.gaierror(str(caught))
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(settle, answers, error)

        threading.Thread(target=look_up, name="lookup", daemon=True).start()
        return await future

    async def close(self) -> None:
        """Nothing to release."""


@dataclass
class _Host:
    turn: asyncio.Semaphore
    waiting: int = 0


@dataclass(frozen=True)
class _Redirect:
    location: URL


class Fetcher:
    """An HTTP session behind the guard. Use as `async with Fetcher(settings) as fetcher`.

    `before_request`, when given, is awaited when a request has its turn; a caller can hold it back
    there.
    """

    def __init__(
        self, settings: FetchSettings, before_request: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._settings = settings
        self._before_request = before_request
        self._rule = AddressRule(settings.allowed_private_hosts)
        self._all_hosts = asyncio.Semaphore(settings.connections)
        self._resting: dict[str, float] = {}
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._hosts: dict[str, _Host] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=0,
            ttl_dns_cache=LOOKUP_CACHE_SECONDS,
            resolver=GuardedResolver(self._rule, self._settings.lookup),
            socket_factory=self._rule.open_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": self._settings.user_agent, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=CHUNK_BYTES,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def fetch(
        self,
        url: str,
        page_url: str = "",
        accept: str = "image/*,*/*;q=0.1",
        unwanted: Unwanted | None = None,
    ) -> Fetched | FetchFailure:
        """Fetch one URL completely, following up to four redirects. Never raises for what the
        network does.

        `page_url` is the page that shows the picture; its origin goes out as Referer, which many
        hosts demand. `unwanted` sees the headers and may give a reason not to take the body at all.
        """
        headers = {"Accept": accept}
        if referer := origin_of(page_url):
            headers["Referer"] = referer
        try:
            return await self._follow(_parsed(url), headers, unwanted)
        except TimeoutError:
            return FetchFailure(Reason.UNREACHABLE, "deadline")
        except ValueError as error:
            return FetchFailure(Reason.UNREACHABLE, f"malformed address: {error}")
        except (aiohttp.ClientError, OSError) as error:
            return _connection_failure(error)

    async def _follow(
        self, url: URL, headers: Mapping[str, str], unwanted: Unwanted | None
    ) -> Fetched | FetchFailure:
        remaining = self._settings.deadline_seconds
        for _hop in range(MAX_REDIRECTS + 1):
            if refusal := self._rule.url_refusal(url):
                return FetchFailure(Reason.REFUSED_ADDRESS, refusal)
            started, answer = await self._in_turn(url, headers, unwanted, remaining)
            remaining -= time.monotonic() - started
            if not isinstance(answer, _Redirect):
                return answer
            if url.scheme == "https" and answer.location.scheme == "http":
                return FetchFailure(Reason.REFUSED_ADDRESS, "https to http")
            url = answer.location
        return FetchFailure(Reason.HTTP_ERROR, f"more than {MAX_REDIRECTS} redirects")

    def let_rest(self, url: str, seconds: float) -> bool:
        """Ask this address's host for nothing for so long, as it wishes; false when it rests
        already.
        """
        host = _parsed(url)
        resting = self._rest_left(host) > 0
        self._resting[(host.host or "").lower()] = time.monotonic() + seconds
        return not resting

    async def _in_turn(
        self, url: URL, headers: Mapping[str, str], unwanted: Unwanted | None, seconds: float
    ) -> tuple[float, Fetched | FetchFailure | _Redirect]:
        """One request when its turn has come, within so many seconds from then; also returns when
        that was.
        """
        while True:
            while (left := self._rest_left(url)) > 0:
                await asyncio.sleep(left * random.uniform(1.0, 1.1))  # not all in the same moment
            async with self._slot(url):
                if self._rest_left(url) > 0:  # another request was told so while this one waited
                    continue
                if self._before_request is not None:
                    await self._before_request()
                started = time.monotonic()
                async with asyncio.timeout(max(seconds, 0.001)):
                    return started, await self._ask(url, headers, unwanted)

    def _rest_left(self, url: URL) -> float:
        host = (url.host or "").lower()
        left = self._resting.get(host, 0.0) - time.monotonic()
        if left <= 0:
            self._resting.pop(host, None)
        return left

    @contextlib.asynccontextmanager
    async def _slot(self, url: URL) -> AsyncIterator[None]:
        """Wait for a turn: few connections to one host, many in all.

        Waiting does not count against the deadline.
        """
        host, port = (url.host or "").lower(), url.port or 0
        if self._rule.allows_privately(host, port):
            async with self._all_hosts:
                yield
            return
        place = self._hosts.setdefault(host, _Host(asyncio.Semaphore(self._settings.per_host)))
        place.waiting += 1
        try:
            async with place.turn, self._all_hosts:
                yield
        finally:
            place.waiting -= 1
            if not place.waiting:  # else the table would grow with every host ever asked
                del self._hosts[host]

    async def _ask(
        self, url: URL, headers: Mapping[str, str], unwanted: Unwanted | None
    ) -> Fetched | FetchFailure | _Redirect:
        assert self._session is not None
        async with self._session.get(url, headers=headers, allow_redirects=False) as response:
            status = response.status
            if status in REDIRECTS and (location := response.headers.get("Location")):
                return _Redirect(url.join(_parsed(location)).with_fragment(None))
            if status != 200:
                wait = parse_retry_after(response.headers.get("Retry-After"))
                return FetchFailure(
                    Reason.HTTP_ERROR,
                    f"status {status}",
                    status,
                    wait,
                    status in TRANSIENT_STATUSES,
                )
            if unwanted is not None and (reason := unwanted(response.headers)):
                return FetchFailure(reason, "as its host's headers say", status)
            body = await self._read(response)
            if body is None:
                return FetchFailure(
                    Reason.TOO_LARGE, f"more than {self._settings.max_bytes} bytes", status
                )
            return Fetched(str(url), status, response.headers, body)

    async def _read(self, response: aiohttp.ClientResponse) -> bytearray | None:
        """The whole body, or None as soon as it is known to be over the cap."""
        if (response.content_length or 0) > self._settings.max_bytes:
            return None
        body = bytearray()
        if await self._read_up_to(LARGE_BYTES, response, body):
            return body if len(body) <= self._settings.max_bytes else None
        async with self._large:
            complete = await self._read_up_to(self._settings.max_bytes, response, body)
        return body if complete else None

    @staticmethod
    async def _read_up_to(limit: int, response: aiohttp.ClientResponse, body: bytearray) -> bool:
        """Read on until the end, then true, or until the body is longer than the limit."""
        while chunk := await response.content.readany():
            body += chunk
            if len(body) > limit:
                return False
        return True


def _parsed(text: str) -> URL:
    """Parse without touching percent-encoding that is legal already: signed addresses break when
    re-quoted.

    Raises ValueError for what is no URL.
    """
    text = text.strip()
    return URL(text, encoded=URL_LEGAL.fullmatch(text) is not None).with_fragment(None)


def _connection_failure(error: Exception) -> FetchFailure:
    causes = list(_causes(error))
    refused = any(isinstance(cause, AddressRefused) for cause in causes)
    if refused or isinstance(error, aiohttp.InvalidURL):
        return FetchFailure(Reason.REFUSED_ADDRESS, "address")
    unknown_name = any(
        isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN for cause in causes
    )
    final = unknown_name or isinstance(error, aiohttp.ClientSSLError | ssl.SSLError)
    return FetchFailure(Reason.UNREACHABLE, type(error).__name__, transient=not final)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "os_error", None) or error.__cause__


def fetch_once(
    url: str, settings: FetchSettings, accept: str = "image/*,*/*;q=0.1"
) -> Fetched | FetchFailure:
    """Fetch one URL from ordinary, synchronous code. Not to be called inside a running event
    loop.
    """

    async def run() -> Fetched | FetchFailure:
        async with Fetcher(settings) as fetcher:
            return await fetcher.fetch(url, accept=accept)

    return asyncio.run(run())


def fetch_json(
    url: str, parameters: Mapping[str, str], settings: FetchSettings
) -> JsonReply | FetchFailure:
    """Ask a JSON API through the same guard, from synchronous code.

    An answer that is not JSON is a NotJson failure.
    """
    target = str(URL(url).update_query(parameters))
    answer = fetch_once(target, settings, accept="application/json")
    if isinstance(answer, FetchFailure):
        return answer
    try:
        return JsonReply(json.loads(answer.body), answer.headers)
    except (ValueError, RecursionError):
        return NotJson(Reason.HTTP_ERROR, "the answer is not JSON", answer.status)
