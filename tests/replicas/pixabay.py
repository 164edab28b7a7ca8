"""Pixabay's interface as its clients meet it: a key, five hundred reachable pictures, plain text
for errors.
"""

from tests.replicas.server import Replica, Request, Response, json_response

KEY = "1234-abcd"
REACHABLE = 500


class PixabayReplica(Replica):
    """`total` pictures, of which 500 can be reached. Query words choose a scenario.

    `nothing`, `changed`, `drifted`, `down`; `odd` is refused as a question; `throttled` answers 429
    from the second page, `exhausted` says in its headers that no request is left. `pictures` is a
    URL with a place for a number.
    """

    def __init__(self, total: int = 900, pictures: str = "", first: int = 0) -> None:
        super().__init__()
        self._total = min(total, REACHABLE)
        self._first = first
        self._pictures = pictures or "https://pixabay.com/get/g{}_1280.jpg"

    def respond(self, request: Request) -> Response:
        query = request.query
        if request.path != "/api/":
            return Response(b"no", "text/plain", 404)
        if query.get("key") != KEY:
            return _error("Invalid or missing API key")
        words, page, size = query["q"], int(query["page"]), int(query["per_page"])
        if not 3 <= size <= 200 or len(words) > 100 or query.get("safesearch") != "true":
            return _error('"per_page" is out of valid range.')
        if "odd" in words:
            return _error('"q" is invalid.')
        if "down" in words:
            return Response(b"down", "text/plain", 503)
        if "throttled" in words and page > 1:
            return Response(b"API rate limit exceeded", "text/plain", 429, {"Retry-After": "17"})
        if "changed" in words:
            return json_response({"total": 1, "photos": []})
        total = 0 if "nothing" in words else self._total
        if page > 1 and (page - 1) * size >= total:
            return _error('"page" is out of valid range.')
        left = "0" if "exhausted" in words else "99"
        headers = {
            "X-RateLimit-Limit": "100",
            "X-RateLimit-Remaining": left,
            "X-RateLimit-Reset": "33",
        }
        numbers = range((page - 1) * size, min(page * size, total))
        hits = [self._hit(number, "drifted" in words) for number in numbers]
        return json_response({"total": 9000, "totalHits": total, "hits": hits}, 200, headers)

    def _hit(self, number: int, drifted: bool) -> dict:
        if drifted and number % 3:
            return {"id": number}
        return {
            "id": number,
            "pageURL": f"https://pixabay.com/photos/{number}/",
            "previewURL": f"https://cdn.pixabay.com/photo/2020/{number}_150.jpg",
            "webformatURL": f"https://pixabay.com/get/g{number}_640.jpg",
            "largeImageURL": self._pictures.format(self._first + number),
            "imageWidth": 6000,
            "imageHeight": 4000,
            "user": f"user{number}",
            "tags": "dog, corgi",
        }


def _error(text: str) -> Response:
    return Response(f"[ERROR 400] {text}".encode(), "text/plain", 400)
