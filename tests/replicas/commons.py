"""Wikimedia Commons' search as its clients meet it: unordered pages, gaps, HTML, lag, and a rule
about user agents.
"""

import json
import re
from collections.abc import Mapping, Sequence

from tests.replicas.server import Replica, Request, Response

BATCH = 50
CONTACT = re.compile(r"\S+/\S+ \(.+\)")


class CommonsReplica(Replica):
    """`total` files. Query words choose a scenario.

    `nothing` finds nothing, `lagging` lags twice and then answers, `lagged` always lags, `changed`
    answers in another shape, `refused` is an error of the API, `too complex` one of the words.
    Pictures point at `pictures`, a URL
    with a place for a number.

    It also answers for Wikidata: `things` holds the descriptions of what is called so, by name.
    Other items begin with the same words. `wikidata_status` lets that fail.
    """

    def __init__(
        self,
        pictures: str = "https://upload.example/{}.jpg",
        total: int = 120,
        first: int = 0,
        refuses_all: bool = False,
        things: Mapping[str, Sequence[str]] | None = None,
        wikidata_status: int = 200,
    ) -> None:
        super().__init__()
        self._pictures = pictures
        self._total = total
        self._first = first
        self.refuses_all = refuses_all
        self._things = things or {}
        self._wikidata_status = wikidata_status

    def respond(self, request: Request) -> Response:
        if not CONTACT.fullmatch(request.headers.get("User-Agent", "")):
            return Response(b"Please identify yourself.", "text/plain", 403)
        if request.path != "/w/api.php":
            return Response(b"no", "text/plain", 404)
        if request.query.get("action") == "wbsearchentities":
            return self._items(request.query)
        words = request.query.get("gsrsearch", "")
        lagged = "lagged" in words or ("lagging" in words and len(self.requests) <= 2)
        if lagged:
            error = {"code": "maxlag", "info": "Waiting for a database server", "lag": 7}
            return _answer({"error": error}, {"Retry-After": "1"})
        if "too complex" in words:
            code = "cirrussearch-regex-too-complex-error"
            return _answer({"error": {"code": code, "info": "no"}})
        if "refused" in words or self.refuses_all:
            return _answer({"error": {"code": "badvalue", "info": "no"}})
        if "changed" in words:
            return _answer({"batchcomplete": True, "query": {"pages": "none"}})
        if "nothing" in words:
            return _answer({"batchcomplete": True})
        return self._batch(int(request.query.get("gsroffset", "0")))

    @property
    def names_asked(self) -> list[str]:
        """The names whose things were asked for so far."""
        return [each.query["search"] for each in self.requests if "search" in each.query]

    @property
    def searches(self) -> list[str]:
        """The words of the searches for files so far, without repetitions."""
        found = []
        for each in self.requests:
            words = each.query.get("gsrsearch", "").removeprefix("filetype:bitmap ")
            if words and words not in found:
                found.append(words)
        return found

    def _items(self, query: Mapping[str, str]) -> Response:
        """Answer what is called so, most wanted first, among items of longer names."""
        if self._wikidata_status != 200:
            return Response(b"busy", "text/plain", self._wikidata_status)
        if query["type"] != "item" or not query["language"]:
            return _answer({"error": {"code": "missingparam", "info": "no"}})
        name = query["search"]
        items = []
        for number, description in enumerate(self._things.get(name.lower(), ())):
            items.append(_item(f"Q{number + 1}", name.capitalize(), description))
            items.append(_item(f"Q{number + 1001}", f"{name} Park", "ship in a harbour"))
        return _answer({"searchinfo": {"search": name}, "search": items, "success": 1})

    def _batch(self, offset: int) -> Response:
        numbers = range(offset, min(offset + BATCH, self._total))
        pages = sorted(
            (self._page(number) for number in numbers), key=lambda page: -page["pageid"] % 7
        )
        data: dict = {"query": {"pages": pages}}
        if offset + BATCH < self._total:
            data["continue"] = {"gsroffset": offset + BATCH, "continue": "gsroffset||"}
        else:
            data["batchcomplete"] = True
        return _answer(data)

    def _page(self, number: int) -> dict:
        page: dict = {
            "pageid": 1000 + number,
            "ns": 6,
            "title": f"File:Picture {number}.jpg",
            "index": number + 1,
        }
        if number == 4:  # a page may lack its file's description
            return page
        info = {
            "url": f"https://upload.example/original/{number}.jpg",
            "thumburl": self._pictures.format(self._first + number),
            "thumbwidth": 1280,
            "thumbheight": 960,
            "width": 6000,
            "height": 4500,
            "size": 50_000_000,
            "mime": "image/jpeg",
            "descriptionurl": f"https://commons.example/wiki/File:Picture_{number}.jpg",
        }
        if number % 10 != 6:
            info["extmetadata"] = _metadata(number)
        return page | {"imageinfo": [info]}


def _item(key: str, text: str, description: str) -> dict:
    item = {
        "id": key,
        "title": key,
        "repository": "wikidata",
        "url": f"//www.wikidata.example/wiki/{key}",
        "label": text,
        "match": {"type": "label", "language": "en", "text": text},
    }
    return item | {"description": description} if description else item


def _metadata(number: int) -> dict:
    values = {
        "LicenseShortName": "CC BY-SA 4.0",
        "License": "cc-by-sa-4.0",
        "LicenseUrl": "https://creativecommons.org/licenses/by-sa/4.0",
        "Artist": f'<a href="//commons.example/wiki/User:A{number}">Author &amp; Co {number}</a>',
        "ObjectName": f"Picture {number}",
    }
    return {name: {"value": value, "source": "commons-desc-page"} for name, value in values.items()}


def _answer(data: dict, headers: dict | None = None) -> Response:
    return Response(json.dumps(data).encode(), "application/json", 200, headers or {})
