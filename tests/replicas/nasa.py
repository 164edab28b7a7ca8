"""NASA's picture library as its clients meet it: renderings of many sizes, previews only, spaces in
addresses.
"""

from tests.replicas.server import Replica, Request, Response, json_response

PAGE_SIZE = 100


class NasaReplica(Replica):
    """`total` pictures. Query words choose a scenario: `nothing`, `changed`, `drifted`, `down`,
    `throttled`.

    `pictures` is a URL with a place for a number.
    """

    def __init__(self, total: int = 150, pictures: str = "", first: int = 0) -> None:
        super().__init__()
        self._total = total
        self._first = first
        self._pictures = pictures or "https://images-assets.nasa.gov/image/N {0}/N {0}~{1}.jpg"

    def respond(self, request: Request) -> Response:
        if request.path != "/search" or request.query.get("media_type") != "image":
            return json_response({"reason": "Expected 'q' text search parameter"}, 400)
        words, page = request.query["q"], int(request.query["page"])
        if "down" in words:
            return Response(b"bad gateway", "text/plain", 502)
        if "throttled" in words and page > 1:
            return Response(b"", "text/plain", 429, {"Retry-After": "30"})
        if "changed" in words:
            return json_response({"collection": {"entries": []}})
        total = 0 if "nothing" in words else self._total
        return json_response({"collection": self._page(page, total, "drifted" in words)})

    def _page(self, page: int, total: int, drifted: bool) -> dict:
        last = min(page * PAGE_SIZE, total)
        items = [self._item(number, drifted) for number in range((page - 1) * PAGE_SIZE, last)]
        collection: dict = {"metadata": {"total_hits": total}, "items": items}
        if last < total:
            collection["links"] = [
                {"rel": "next", "prompt": "Next", "href": f"{self.url}/search?page={page + 1}"}
            ]
        return collection

    def _item(self, number: int, drifted: bool) -> dict:
        if drifted and number % 3:
            return {"facts": []}
        data = {
            "nasa_id": f"N {number}",
            "title": f"Picture {number}",
            "center": "JPL",
            "date_created": "2020-01-01T00:00:00Z",
        }
        if number % 4 == 1:
            data["photographer"] = "NASA/Someone"
        if number % 4 == 2:
            data["secondary_creator"] = "A University"
        links = [self._link(number, "thumb", 640, "preview")]
        if number % 3 != 2:  # some are listed with their preview only
            links += [
                self._link(number, "orig", 6000, "canonical"),
                self._link(number, "medium", 1280, "alternate"),
            ]
            links += [
                self._link(number, "large", 1920, "alternate"),
                {"href": "http://x.example/metadata.json"},
            ]
        return {"href": f"{self.url}/asset/N{number}", "data": [data], "links": links}

    def _link(self, number: int, size: str, width: int, rel: str) -> dict:
        address = self._pictures.format(self._first + number, size)
        return {
            "href": address,
            "rel": rel,
            "render": "image",
            "width": width,
            "height": width * 3 // 4,
        }
