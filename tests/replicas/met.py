"""The Met's collection as its clients meet it: numbers first, then one work at a time, and a
firewall.
"""

from tests.replicas.server import Replica, Request, Response, json_response


class MetReplica(Replica):
    """`total` works: every fourth is not free, every fifth is gone. Query words choose a scenario.

    `nothing` finds nothing, `changed` answers in another shape; `strange` works cannot be read.
    After `patience` works the firewall answers 403. `pictures` is a URL with a place for a number.
    """

    def __init__(
        self, total: int = 20, patience: int = 1000, pictures: str = "", first: int = 0
    ) -> None:
        super().__init__()
        self._total = total
        self._patience = patience
        self._first = first
        self._pictures = pictures or "https://images.metmuseum.org/CRDImages/ep/web-large/D {}.jpg"
        self._strange = False

    def respond(self, request: Request) -> Response:
        if request.path == "/public/collection/v1/search":
            return self._search(request.query)
        start = "/public/collection/v1/objects/"
        if not request.path.startswith(start):
            return Response(b"no", "text/plain", 404)
        if sum(each.path.startswith(start) for each in self.requests) > self._patience:
            return Response(b"<html>Incapsula incident</html>", status=403)
        return self._work(int(request.path.removeprefix(start)))

    def _search(self, query: dict[str, str]) -> Response:
        words = query["q"]
        self._strange = "strange" in words
        if "nothing" in words or query.get("hasImages") != "true":
            return json_response({"total": 0, "objectIDs": None})
        if "changed" in words:
            return json_response({"total": 3, "objects": [1, 2, 3]})
        return json_response({"total": self._total, "objectIDs": list(range(1, self._total + 1))})

    def _work(self, number: int) -> Response:
        if self._strange:
            return json_response({"message": "moved"})
        if number % 5 == 0:
            return json_response({"message": "ObjectID not found"}, 404)
        free = number % 4 != 0
        return json_response(
            {
                "objectID": number,
                "isPublicDomain": free,
                "primaryImage": f"https://images.metmuseum.org/original/{number}.jpg"
                if free
                else "",
                "primaryImageSmall": self._pictures.format(self._first + number) if free else "",
                "additionalImages": [],
                "objectURL": f"https://www.metmuseum.org/art/collection/search/{number}",
                "title": f"Work {number}",
                "artistDisplayName": "" if number % 2 else "A Painter",
                "objectDate": "1887",
            }
        )
