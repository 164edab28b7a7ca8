"""Requests that `scraping.net.http` does not make: with headers of their own, or with a form to post.

Sources with an account need them. The guard is the same: the same rule judges the address, the
name's answers and each socket. Redirects are not followed, because what such a request carries is
meant for one host.
"""

import asyncio
import json

import aiohttp
from yarl import URL

from scraping.net.http import (
    JSON_MAX_BYTES,
    AddressRefused,
    AddressRule,
    FetchFailure,
    FetchSettings,
    GuardedResolver,
    JsonReply,
    NotJson,
    parse_retry_after,
)
from scraping.reasons import Reason
from scraping.sources.base import JsonRequest


def send(request: JsonRequest, settings: FetchSettings) -> JsonReply | FetchFailure:
    """Send one request and parse the JSON answer. For synchronous code; never raises for what the
    network does.
    """
    return asyncio.run(_send(request, settings))


async def _send(request: JsonRequest, settings: FetchSettings) -> JsonReply | FetchFailure:
    rule = AddressRule(settings.allowed_private_hosts)
    url = URL(request.url).update_query(request.parameters)
    if refusal := rule.url_refusal(url):
        return FetchFailure(Reason.REFUSED_ADDRESS, refusal)
    try:
        async with asyncio.timeout(settings.deadline_seconds), _session(rule, settings) as session:
            return await _answer(session, url, request)
    except TimeoutError:
        return FetchFailure(Reason.UNREACHABLE, "deadline")
    except AddressRefused:
        return FetchFailure(Reason.REFUSED_ADDRESS, "address")
    except (aiohttp.ClientError, OSError) as error:
        return FetchFailure(Reason.UNREACHABLE, type(error).__name__)


def _session(rule: AddressRule, settings: FetchSettings) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        resolver=GuardedResolver(rule, settings.lookup), socket_factory=rule.open_socket
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers={"User-Agent": settings.user_agent, "Accept": "application/json"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


async def _answer(
    session: aiohttp.ClientSession, url: URL, request: JsonRequest
) -> JsonReply | FetchFailure:
    method = "GET" if request.form is None else "POST"
    form = None if request.form is None else dict(request.form)
    async with session.request(
        method, url, headers=dict(request.headers), data=form, allow_redirects=False
    ) as response:
        if response.status not in (200, 201):
            wait = parse_retry_after(response.headers.get("Retry-After"))
            return FetchFailure(
                Reason.HTTP_ERROR, f"status {response.status}", response.status, wait
            )
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > JSON_MAX_BYTES:
                return FetchFailure(
                    Reason.TOO_LARGE, f"more than {JSON_MAX_BYTES} bytes", response.status
                )
        try:
            return JsonReply(json.loads(body), response.headers)
        except (ValueError, RecursionError):
            return NotJson(Reason.HTTP_ERROR, "the answer is not JSON", response.status)
