"""The one guarded HTTP client: everything Picaisso fetches by itself goes through it.

A URL comes from strangers, so it may point at this machine or its neighbors. The rule judges
addresses, not spellings: `getaddrinfo` reads `2130706433`, `0x7f.1` and circled digits as
127.0.0.1. It is enforced in three places: on the URL before a request and before each redirect, on
every answer of the name lookup, and on each socket just before it connects. A failure is a value
with a Reason; the sentence for the public is always the same, so that nobody learns from it which
private hosts exist.
"""

import asyncio
import contextlib
import ipaddress
import random
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http.cookies import SimpleCookie
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDictProxy
from yarl import URL

from scraping import __version__
from scraping.outside import address_fault, parsed_json
from scraping.reasons import Reason
from scraping.urls import origin_of

PRODUCT = "Picaisso"
NEUTRAL_MESSAGE = "This address could not be fetched."
ACCEPT_IMAGES = "image/*,*/*;q=0.1"
ACCEPT_JSON = "application/json"
ACCEPT_TEXT = "text/plain,application/json,*/*;q=0.1"
MAX_REDIRECTS = 4
MAX_COOKIE_CHARACTERS = 8192  # of one request; what a host sets beyond is not sent back
REDIRECTS = frozenset({301, 302, 303, 307, 308})
PUBLIC_PORTS = frozenset({80, 443})
CHUNK_BYTES = 1 << 18
LARGE_BYTES = 4 << 20  # larger bodies are read a few at a time, or hosts could fill the memory
LARGE_AT_ONCE = 8
JSON_MAX_BYTES = 8 << 20
COMPRESSIONS = frozenset({"gzip", "x-gzip", "deflate"})
MAX_EXPANSION = 20  # images are compressed already
ANY_COMPRESSION = zlib.MAX_WBITS | 32  # of zlib and gzip, recognised by their headers
MAX_HEADER_BYTES = 64 << 10  # some hosts write whole policies into one line
TRANSIENT_STATUSES = frozenset({429, 500, 502, 503, 504})
LOOKUP_CACHE_SECONDS = 300

# Ranges that the standard library calls global although they reach, embed or translate to private
# addresses: NAT64, 6to4, Teredo and its neighbors, IPv4-compatible, site-local, documentation,
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

T = TypeVar("T")
Lookup = Callable[..., Sequence[tuple[Any, ...]]]
# What forbids to use an answer with such headers, or any answer from a URL, in words.
HeaderCheck = Callable[[CIMultiDictProxy[str]], str]
AddressCheck = Callable[[URL], Awaitable[str]]


@dataclass(frozen=True)
class FetchSettings:
    """What a fetcher may do.

    `deadline_seconds` covers one whole fetch: name lookup, connecting, redirects and body.
    `allowed_private_hosts` holds `host:port` texts for which the address rule, the port rule and
    the per-host limit are lifted.
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
        """Return our own name, with the operator's contact where there is one."""
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

    `transient` says that the same request may succeed a little later.
    """

    reason: Reason
    detail: str = ""
    status: int | None = None
    retry_after: float | None = None
    transient: bool = False

    @property
    def message(self) -> str:
        """Return one sentence that is the same for a refused address and a dead one."""
        return NEUTRAL_MESSAGE


@dataclass(frozen=True)
class MalformedAddress(FetchFailure):
    """A text that no program could ask for. `detail` tells nothing of any host."""


@dataclass(frozen=True)
class NotJson(FetchFailure):
    """An answer came, but it is not JSON."""


@dataclass(frozen=True)
class JsonRequest:
    """A request that needs more than a URL: headers of its own, or a form to post."""

    url: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)


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
    """Return whether this is a unicast address of the public internet.

    Text that is no address at all is not public.
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
    if special or not address.is_global:
        return False
    return not any(address in network for network in EXTRA_FORBIDDEN)


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, None when it cannot be read.

    The header holds a number of seconds or an HTTP date.
    """
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return max(0.0, seconds)


class AddressRule:
    """Decides which URLs may be asked and which addresses may be connected to."""

    def __init__(self, allowed_private_hosts: frozenset[str]) -> None:
        self._allowed_hosts = frozenset(entry.lower() for entry in allowed_private_hosts)
        self._allowed_addresses: set[tuple[str, int]] = set()  # what allowed hosts resolved to

    def allows_private(self, host: str, port: int) -> bool:
        """Return whether the operator allowed this very host and port."""
        name = f"[{host}]" if ":" in host else host
        return f"{name.lower()}:{port}" in self._allowed_hosts

    def rejection_reason(self, url: URL) -> str | None:
        """Return in a word why this URL may not be asked, or None."""
        if url.scheme not in ("http", "https"):
            return "scheme"
        if url.user is not None or url.password is not None:
            return "credentials"
        if not url.host or url.port is None:
            return "no host"
        if self.allows_private(url.host, url.port):
            return None
        if url.port not in PUBLIC_PORTS:
            return "port"
        looks_numeric = ":" in url.host or url.host.replace(".", "").isdigit()
        if looks_numeric and not is_public_address(url.host):
            return "address"
        return None

    def check_answers(self, host: str, port: int, addresses: Sequence[str]) -> None:
        """Refuse a name unless every one of its addresses may be connected to.

        The addresses of a name that the operator allowed are allowed too. Raises AddressRefused.
        """
        if self.allows_private(host, port):
            self._allowed_addresses.update((address, port) for address in addresses)
            return
        if not addresses or not all(map(is_public_address, addresses)):
            raise AddressRefused("address")

    def open_socket(self, address_info: tuple[Any, ...]) -> socket.socket:
        """Make the socket for one connection; the last check, right before connecting.

        Raises AddressRefused.
        """
        family, kind, protocol, _name, target = address_info
        host = str(target[0])
        port = int(target[1])
        public = port in PUBLIC_PORTS and is_public_address(host)
        allowed = self.allows_private(host, port) or (host, port) in self._allowed_addresses
        if not public and not allowed:
            raise AddressRefused("address")
        return socket.socket(family, kind, protocol)


class GuardedResolver(AbstractResolver):
    """Looks names up in daemon threads: a hanging name server delays neither loop nor exit."""

    def __init__(self, rule: AddressRule, lookup: Lookup) -> None:
        self._rule = rule
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return all addresses of a name, without repetitions.

        Raises OSError when it has none or a forbidden one.
        """
        answers = await self._look_up(host, port, family)
        unique = {(answer[0], str(answer[4][0])): answer for answer in answers}
        self._rule.check_answers(host, port, [address for _family, address in unique])
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=address_family,
                proto=answer[2],
                flags=socket.AI_NUMERICHOST,
            )
            for (address_family, address), answer in unique.items()
        ]

    async def _look_up(self, host: str, port: int, family: int) -> Sequence[tuple[Any, ...]]:
        """Call the blocking lookup in a thread of its own."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[tuple[Any, ...]]] = loop.create_future()

        def settle(answers: Sequence[tuple[Any, ...]], error: OSError | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(answers)

        def look_up() -> None:
            answers: Sequence[tuple[Any, ...]] = ()
            error: OSError | None = None
            try:
                answers = self._lookup(host, port, family=family, type=socket.SOCK_STREAM)
            except OSError as caught:
                error = caught
            except UnicodeError as caught:
                error = socket.gaierror(str(caught))
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(settle, answers, error)

        threading.Thread(target=look_up, name="lookup", daemon=True).start()
        return await future

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""


@dataclass(frozen=True)
class _Request:
    """One HTTP request as it goes out."""

    url: URL
    headers: Mapping[str, str]
    form: Mapping[str, str] | None = None


@dataclass(frozen=True)
class _Redirect:
    location: URL
    cookies: SimpleCookie
    """Those that the answer set."""


Answer = Fetched | FetchFailure | _Redirect


@dataclass
class _HostQueue:
    """The connections to one host, and how many requests use or wait for one."""

    slots: asyncio.Semaphore
    requests: int = 0


class Fetcher:
    """An HTTP session behind the guard. Use as `async with Fetcher(settings) as fetcher`.

    `before_request`, when given, is awaited as soon as a request has its connection; a caller can
    hold it back there.
    """

    def __init__(
        self, settings: FetchSettings, before_request: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._settings = settings
        self._before_request = before_request
        self._rule = AddressRule(settings.allowed_private_hosts)
        self._all_slots = asyncio.Semaphore(settings.connections)
        self._large_slots = asyncio.Semaphore(LARGE_AT_ONCE)
        self._hosts: dict[str, _HostQueue] = {}
        self._resume_at: dict[str, float] = {}  # by host, on the monotonic clock
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
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
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
        accept: str = ACCEPT_IMAGES,
        check_headers: HeaderCheck | None = None,
        check_address: AddressCheck | None = None,
    ) -> Fetched | FetchFailure:
        """Fetch one URL completely, following up to MAX_REDIRECTS redirects.

        `page_url` is the page that shows the image; its origin is sent as Referer, which many
        hosts demand. `check_address` sees each URL before it is asked for, `check_headers` the
        answer's headers; either may object, in words, and then it is left alone. Never raises for
        what the network does.
        """
        headers = {"Accept": accept}
        if referer := origin_of(page_url):
            headers["Referer"] = referer
        try:
            if fault := address_fault(url):
                return MalformedAddress(Reason.REFUSED_ADDRESS, fault)
            read = partial(self._read_answer, check_headers=check_headers)
            seconds = self._settings.deadline_seconds
            return await self._follow(_parsed(url), headers, read, seconds, check_address)
        except Exception as error:  # what strangers send may make a parser raise anything
            return _failure_of(error)

    async def fetch_beginning(self, url: str, limit: int, seconds: float) -> bytes:
        """Return the beginning of a text file, at most `limit` bytes; none of what cannot be had.

        Never raises for what the network does.
        """
        read = partial(self._read_beginning, limit=limit)
        seconds = min(seconds, self._settings.deadline_seconds)
        try:
            answer = await self._follow(_parsed(url), {"Accept": ACCEPT_TEXT}, read, seconds)
        except Exception:  # what strangers send may make a parser raise anything
            return b""
        return bytes(answer.body) if isinstance(answer, Fetched) else b""

    async def request(self, request: JsonRequest) -> JsonReply | FetchFailure:
        """Send one JSON request. Never raises for what the network does.

        Redirects are not followed: what such a request carries is meant for one host.
        """
        headers = {"Accept": ACCEPT_JSON, **request.headers}
        try:
            url = URL(request.url).update_query(request.parameters)
            if rejection := self._rule.rejection_reason(url):
                return FetchFailure(Reason.REFUSED_ADDRESS, rejection)
            form = None if request.form is None else dict(request.form)
            outgoing = _Request(url, headers, form)
            _started, answer = await self._send(
                outgoing, self._read_json, self._settings.deadline_seconds
            )
            return answer
        except Exception as error:  # what strangers send may make a parser raise anything
            return _failure_of(error)

    def back_off(self, url: str, seconds: float) -> bool:
        """Ask this URL's host for nothing for so long.

        Returns False when the host is already being left alone.
        """
        host_url = _parsed(url)  # it has been fetched, so it can be parsed
        already = self._back_off_left(host_url) > 0
        self._resume_at[(host_url.host or "").lower()] = time.monotonic() + seconds
        return not already

    async def _follow(
        self,
        url: URL,
        headers: Mapping[str, str],
        read: Callable[[aiohttp.ClientResponse], Awaitable[Answer]],
        seconds: float,
        check_address: AddressCheck | None = None,
    ) -> Fetched | FetchFailure:
        """Send one request and follow where it leads, within so many seconds of asking.

        Some hosts set a cookie and redirect to the same URL until it comes back: cookies are kept
        from hop to hop, by the rules of RFC 6265, and forgotten with the last.
        """
        cookies = aiohttp.CookieJar(unsafe=True)  # of numeric hosts too
        for _hop in range(MAX_REDIRECTS + 1):
            if rejection := self._rule.rejection_reason(url):
                return FetchFailure(Reason.REFUSED_ADDRESS, rejection)
            objection = "" if check_address is None else await check_address(url)
            if objection:
                return FetchFailure(Reason.OPTED_OUT, objection)
            request = _Request(url, _with_cookies(headers, cookies, url))
            started, answer = await self._send(request, read, seconds)
            seconds -= time.monotonic() - started
            if not isinstance(answer, _Redirect):
                return answer
            cookies.update_cookies(answer.cookies, url)
            if url.scheme == "https" and answer.location.scheme == "http":
                return FetchFailure(Reason.REFUSED_ADDRESS, "https to http")
            url = answer.location
        return FetchFailure(Reason.HTTP_ERROR, f"more than {MAX_REDIRECTS} redirects")

    async def _send(
        self,
        request: _Request,
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
        seconds: float,
    ) -> tuple[float, T]:
        """Send one request when it has a connection, and `read` the answer.

        The deadline counts from then on, not while waiting. Returns that moment on the monotonic
        clock and what was read. Raises TimeoutError after so many seconds.
        """
        assert self._session is not None
        while True:
            while (left := self._back_off_left(request.url)) > 0:
                await asyncio.sleep(left * random.uniform(1.0, 1.1))  # not all in the same moment
            async with self._slot(request.url):
                if self._back_off_left(request.url) > 0:  # set while this request waited
                    continue
                if self._before_request is not None:
                    await self._before_request()
                started = time.monotonic()
                method = "GET" if request.form is None else "POST"
                async with (
                    asyncio.timeout(max(seconds, 0.001)),
                    self._session.request(
                        method,
                        request.url,
                        headers=request.headers,
                        data=request.form,
                        allow_redirects=False,
                    ) as response,
                ):
                    return started, await read(response)

    def _back_off_left(self, url: URL) -> float:
        """Return the seconds until this URL's host may be asked again, 0 or less for now."""
        host = (url.host or "").lower()
        left = self._resume_at.get(host, 0.0) - time.monotonic()
        if left <= 0:
            self._resume_at.pop(host, None)
        return left

    @contextlib.asynccontextmanager
    async def _slot(self, url: URL) -> AsyncIterator[None]:
        """Wait for a connection: few to one host, many in all."""
        host = (url.host or "").lower()
        if self._rule.allows_private(host, url.port or 0):
            async with self._all_slots:
                yield
            return
        if host not in self._hosts:
            self._hosts[host] = _HostQueue(asyncio.Semaphore(self._settings.per_host))
        queue = self._hosts[host]
        queue.requests += 1
        try:
            async with queue.slots, self._all_slots:
                yield
        finally:
            queue.requests -= 1
            if not queue.requests:  # else the table would grow with every host ever asked
                del self._hosts[host]

    async def _read_answer(
        self, response: aiohttp.ClientResponse, check_headers: HeaderCheck | None
    ) -> Answer:
        if (without_body := _without_body(response)) is not None:
            return without_body
        objection = "" if check_headers is None else check_headers(response.headers)
        if objection:
            return FetchFailure(Reason.OPTED_OUT, objection, response.status)
        limit = self._settings.max_bytes
        body = await self._read_body(response, limit)
        if body is None:
            return FetchFailure(Reason.TOO_LARGE, f"more than {limit} bytes", response.status)
        plain = _decoded(response, body, min(limit, MAX_EXPANSION * len(body)))
        return Fetched(str(response.url), response.status, response.headers, plain)

    async def _read_beginning(self, response: aiohttp.ClientResponse, limit: int) -> Answer:
        if (without_body := _without_body(response)) is not None:
            return without_body
        body = bytearray()
        await _read_up_to(limit, response, body)
        plain = _decoded(response, body, limit)[:limit]
        return Fetched(str(response.url), response.status, response.headers, plain)

    async def _read_json(self, response: aiohttp.ClientResponse) -> JsonReply | FetchFailure:
        if response.status not in (200, 201):
            return _status_failure(response)
        body = await self._read_body(response, JSON_MAX_BYTES)
        if body is None:
            detail = f"more than {JSON_MAX_BYTES} bytes"
            return FetchFailure(Reason.TOO_LARGE, detail, response.status)
        plain = _decoded(response, body, JSON_MAX_BYTES)
        return _parsed_json(plain, response.status, response.headers)

    async def _read_body(self, response: aiohttp.ClientResponse, limit: int) -> bytearray | None:
        """Return the whole body, or None as soon as it is known to be longer than the limit."""
        if (response.content_length or 0) > limit:
            return None
        body = bytearray()
        complete = await _read_up_to(LARGE_BYTES, response, body)
        if not complete:
            async with self._large_slots:
                complete = await _read_up_to(limit, response, body)
        return body if complete and len(body) <= limit else None


def _with_cookies(
    headers: Mapping[str, str], cookies: aiohttp.CookieJar, url: URL
) -> Mapping[str, str]:
    """Return the headers with the cookies that are for this URL, if there are any."""
    found = cookies.filter_cookies(url)
    pairs = [f"{cookie.key}={cookie.coded_value}" for cookie in found.values()]
    text = "; ".join(pairs)
    if not text or len(text) > MAX_COOKIE_CHARACTERS:
        return headers
    return {**headers, "Cookie": text}


def _without_body(response: aiohttp.ClientResponse) -> FetchFailure | _Redirect | None:
    """Return what an answer says whose body does not matter, None for one whose body does."""
    location = response.headers.get("Location")
    if response.status in REDIRECTS and location:
        target = response.url.join(_parsed(location)).with_fragment(None)
        return _Redirect(target, response.cookies)
    return None if response.status == 200 else _status_failure(response)


async def _read_up_to(limit: int, response: aiohttp.ClientResponse, body: bytearray) -> bool:
    """Append to the body until it is complete, then True, or longer than the limit."""
    while chunk := await response.content.readany():
        body += chunk
        if len(body) > limit:
            return False
    return True


def _decoded(response: aiohttp.ClientResponse, body: bytearray, most: int) -> bytes | bytearray:
    """Return a body without the compression that its header names, though nobody asked for any.

    One that cannot be decompressed, or becomes more than `most` bytes, comes back as it is.
    """
    if response.headers.get("Content-Encoding", "").lower() not in COMPRESSIONS:
        return body
    try:
        plain = zlib.decompressobj(wbits=ANY_COMPRESSION).decompress(body, most + 1)
    except zlib.error:
        return body
    return plain if len(plain) <= most else body


def _parsed(text: str) -> URL:
    """Parse a URL without touching legal percent-encoding: signed URLs break when quoted again.

    Raises ValueError for what is no URL.
    """
    text = text.strip()
    already_encoded = URL_LEGAL.fullmatch(text) is not None
    return URL(text, encoded=already_encoded).with_fragment(None)


def _parsed_json(
    body: bytes | bytearray, status: int, headers: CIMultiDictProxy[str]
) -> JsonReply | NotJson:
    try:
        return JsonReply(parsed_json(body), headers)
    except ValueError:
        return NotJson(Reason.HTTP_ERROR, "the answer is not JSON", status)


def _status_failure(response: aiohttp.ClientResponse) -> FetchFailure:
    status = response.status
    return FetchFailure(
        Reason.HTTP_ERROR,
        f"status {status}",
        status,
        retry_after=parse_retry_after(response.headers.get("Retry-After")),
        transient=status in TRANSIENT_STATUSES,
    )


def _failure_of(error: Exception) -> FetchFailure:
    """Say what an exception of the network, or of parsing a URL, means."""
    if isinstance(error, TimeoutError):
        return FetchFailure(Reason.UNREACHABLE, "deadline")
    is_tls = isinstance(error, aiohttp.ClientSSLError | ssl.SSLError)
    if isinstance(error, ValueError) and not is_tls:
        return FetchFailure(Reason.UNREACHABLE, f"malformed address: {error}")
    causes = list(_causes(error))
    if any(isinstance(cause, AddressRefused) for cause in causes):
        return FetchFailure(Reason.REFUSED_ADDRESS, "address")
    unknown_name = any(
        isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN for cause in causes
    )
    is_final = unknown_name or is_tls
    return FetchFailure(Reason.UNREACHABLE, type(error).__name__, transient=not is_final)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "os_error", None) or error.__cause__


def fetch_once(
    url: str, settings: FetchSettings, accept: str = ACCEPT_IMAGES
) -> Fetched | FetchFailure:
    """Fetch one URL from synchronous code. Not to be called inside a running event loop."""

    async def run() -> Fetched | FetchFailure:
        async with Fetcher(settings) as fetcher:
            return await fetcher.fetch(url, accept=accept)

    return asyncio.run(run())


def fetch_json(
    url: str, parameters: Mapping[str, str], settings: FetchSettings
) -> JsonReply | FetchFailure:
    """Fetch JSON from synchronous code, following redirects; NotJson when it cannot be parsed."""
    try:
        target = str(URL(url).update_query(parameters))
    except ValueError as error:
        return _failure_of(error)
    answer = fetch_once(target, settings, accept=ACCEPT_JSON)
    if isinstance(answer, FetchFailure):
        return answer
    return _parsed_json(answer.body, answer.status, answer.headers)


def request(json_request: JsonRequest, settings: FetchSettings) -> JsonReply | FetchFailure:
    """Send one JSON request from synchronous code, see `Fetcher.request`."""

    async def run() -> JsonReply | FetchFailure:
        async with Fetcher(settings) as fetcher:
            return await fetcher.request(json_request)

    return asyncio.run(run())
