"""Openverse's picture search as its clients meet it: short pages, nulls, HTML in titles, limits."""

import json

from tests.replicas.server import Replica, Request, Response

LICENSES = {"by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd", "cc0", "pdm"}
PAGES = 12
PAGE_SIZE = 20
MOST_WITH_ACCOUNT = 500
OF_ACCOUNT = 730
CLIENT = {"client_id": "picaisso-tests", "client_secret": "not so secret"}


class OpenverseReplica(Replica):
    """Twelve pages of twenty, some a little shorter. The query words choose a scenario.

    `nothing` finds nothing, `throttled` answers 429 from the third page, `exhausted` says in its
    headers that no request is left, `broken` fails once per page and then works, `down` always
    fails, `changed` answers in another shape, `few` has one page of three. Pictures point at
    `pictures`, a URL with a place for a number.

    With the registered `CLIENT` a token can be had that serves `token_uses` requests and allows
    larger pages; it is refused afterwards. The scenario `banned` refuses every token.
    """

    mature_number = -1  # of an entry that safe search should have left out

    def __init__(
        self,
        pictures: str = "https://pictures.example/{}.jpg",
        first: int = 0,
        token_uses: int = 1000,
    ) -> None:
        super().__init__()
        self._token_uses = token_uses
        self._tokens: dict[str, int] = {}
        self._pictures = pictures
        self._first = first

    def respond(self, request: Request) -> Response:
        if request.path == "/v1/auth_tokens/token/":
            return self._token(request.form)
        if request.path != "/v1/images/":
            return _problem(404, "Not found.")
        query = request.query
        words, page = query.get("q", ""), int(query.get("page", "1"))
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and ("banned" in words or self._tokens.get(token, 0) < 1):
            return _problem(401, "The token has expired.")
        size = int(query.get("page_size", "20"))
        if size > (MOST_WITH_ACCOUNT if token else PAGE_SIZE):
            return _problem(401, "page_size may not exceed 20 for anonymous requests.")
        if token:
            self._tokens[token] -= 1
            return _answer(self._large_page(page, size))
        if not set(query.get("license", "by").split(",")) <= LICENSES or "li" in query:
            return _problem(400, {"license": ["unknown"]})
        if page > PAGES:
            return _problem(404, "Invalid page.")
        return self._scenario(request, words, page)

    def _token(self, form: dict[str, str]) -> Response:
        if form != CLIENT | {"grant_type": "client_credentials"}:
            return _problem(401, "invalid_client")
        token = f"token-{len(self._tokens) + 1}"
        self._tokens[token] = self._token_uses
        return _answer(
            {"access_token": token, "expires_in": 43_200, "token_type": "Bearer", "scope": "read"}
        )

    def _large_page(self, page: int, size: int) -> dict:
        numbers = range((page - 1) * size, min(page * size, OF_ACCOUNT))
        results = [self._item(number) for number in numbers]
        pages = -(-OF_ACCOUNT // size)
        return {
            "result_count": OF_ACCOUNT,
            "page_count": pages,
            "page_size": size,
            "page": page,
            "results": results,
        }

    def _scenario(self, request: Request, words: str, page: int) -> Response:
        tries = sum(1 for each in self.requests if each.target == request.target)
        if "down" in words or ("broken" in words and tries == 1):
            return _problem(503, "try again")
        if "throttled" in words and page >= 3:
            return Response(
                b'{"detail": "throttled"}', "application/json", 429, {"Retry-After": "42"}
            )
        if "changed" in words:
            return _answer({"items": []})
        left = "0" if "exhausted" in words and page == 2 else "19"
        return _answer(self._page(words, page), {"X-RateLimit-Available-anon_burst": left})

    def _page(self, words: str, page: int) -> dict:
        pages = 1 if "few" in words else PAGES
        on_page = (
            3 if "few" in words else PAGE_SIZE - (page % 3 == 2) * 2
        )  # dead links are taken out
        if "nothing" in words and "few" not in words:
            pages = on_page = 0
        numbers = range((page - 1) * PAGE_SIZE, (page - 1) * PAGE_SIZE + on_page)
        return {
            "result_count": pages * PAGE_SIZE,
            "page_count": pages,
            "page_size": PAGE_SIZE,
            "page": page,
            "results": [self._item(number) for number in numbers],
        }

    def _item(self, number: int) -> dict:
        sparse = number % 7 == 3
        return {
            "id": f"id-{number}",
            "title": None if sparse else f"<i>Picture</i> &amp; more {number}",
            "url": None if number == 5 else self._pictures.format(self._first + number),
            "thumbnail": f"{self.url}/v1/images/id-{number}/thumb/",
            "foreign_landing_url": f"https://pages.example/{number}",
            "creator": None if sparse else f"Author {number}",
            "creator_url": None,
            "license": "by-sa",
            "license_version": "4.0",
            "license_url": "https://creativecommons.org/licenses/by-sa/4.0/",
            "attribution": f'"Picture {number}" by Author {number} is licensed under CC BY-SA 4.0.',
            "width": None if sparse else 320,
            "height": None if sparse else 240,
            "filesize": None,
            "filetype": None if sparse else "jpg",
            "mature": number == self.mature_number,
        }


def _answer(data: dict, headers: dict | None = None) -> Response:
    return Response(json.dumps(data).encode(), "application/json", 200, headers or {})


def _problem(status: int, detail: object) -> Response:
    return Response(json.dumps({"detail": detail}).encode(), "application/json", status)
