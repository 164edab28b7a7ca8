"""The Art Institute of Chicago's interface as its clients meet it: works without pictures, and
works not free.
"""

from tests.replicas.server import Replica, Request, Response, json_response


class ArticReplica(Replica):
    """`total` works: every seventh without a picture, every ninth not free in spite of the filter.

    Query words choose a scenario: `nothing`, `changed`, `drifted`, `baseless` (no address of
    pictures), `throttled`. `pictures` is the address below which pictures lie.
    """

    def __init__(self, total: int = 150, pictures: str = "https://www.artic.edu/iiif/2") -> None:
        super().__init__()
        self._total = total
        self._pictures = pictures

    def respond(self, request: Request) -> Response:
        query = request.query
        if (
            request.path != "/api/v1/artworks/search"
            or query.get("query[term][is_public_domain]") != "true"
        ):
            return json_response({"status": 404, "error": "Not found"}, 404)
        words, page, limit = query["q"], int(query["page"]), int(query["limit"])
        if limit > 100 or page * limit > 1000:
            return json_response({"status": 403, "error": "Invalid limit"}, 403)
        if "throttled" in words and page > 1:
            return json_response({"status": 429}, 429, {"Retry-After": "12"})
        if "changed" in words:
            return json_response({"works": [], "config": {"iiif_url": self._pictures}})
        total = 0 if "nothing" in words else self._total
        numbers = range((page - 1) * limit, min(page * limit, total))
        data = {
            "pagination": {
                "total": total,
                "limit": limit,
                "total_pages": -(-total // limit),
                "current_page": page,
            },
            "data": [self._work(number, "drifted" in words) for number in numbers],
        }
        return json_response(
            data if "baseless" in words else data | {"config": {"iiif_url": self._pictures}}
        )

    def _work(self, number: int, drifted: bool) -> dict:
        if drifted and number % 3:
            return {"id": number, "_score": 3.2}
        return {
            "id": number,
            "title": f"Work {number}",
            "image_id": None if number % 7 == 3 else f"aaaa-{number}",
            "artist_display": "A Painter\nFrench, 1840-1926",
            "is_public_domain": number % 9 != 4,
        }
