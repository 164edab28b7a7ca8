"""iNaturalist's interface as its clients meet it: fuzzy names, reserved photographs, extensions in
every case.
"""

from tests.replicas.server import Replica, Request, Response, json_response

MOST_PER_PAGE = 200
TAXA = {
    "corgi": [],
    "jaguar": [
        (41970, "Panthera onca", "Jaguar", "jaguar"),
        (5, "Jaguarundi", "Jaguarundi", "jaguarundi"),
    ],
    "panthera onca": [(41970, "Panthera onca", "Jaguar", "Panthera onca")],
    "beetle": [(47208, "Coleoptera", "Beetles", "Beetles")],
    "golf": [(9, "Golfingia", None, "Golfingia"), (10, "Golfus", "Golf Beetle", "Golf Beetle")],
    "house cat": [(118552, "Felis catus", "Domestic Cat", "House Cat")],
}
EXTENSIONS = ("jpg", "JPG", "jpeg", "png")
CODES = ("cc-by", "cc0", None, "cc-by-nc", "cc-by-sa", "cc-by-nc-nd")


class InaturalistReplica(Replica):
    """`total` observations of whatever taxon is asked for. The second photograph of each is without
    a licence.

    `taxa` adds names that are known. A `scenario` holds for the observations: `throttled` answers
    429 from the second page, `changed` another shape, `drifted` entries without photographs, `down`
    503, `empty` none at all. `pictures` is a URL with places for a number and an extension.
    """

    def __init__(
        self, total: int = 90, scenario: str = "", pictures: str = "", first: int = 0
    ) -> None:
        super().__init__()
        self._total = 0 if scenario == "empty" else total
        self._scenario = scenario
        self._first = first
        self._pictures = (
            pictures or "https://inaturalist-open-data.s3.amazonaws.com/photos/{}/square.{}"
        )

    def respond(self, request: Request) -> Response:
        if request.path == "/v1/taxa":
            if self._scenario == "taxa changed":
                return json_response({"taxa": []})
            return json_response({"total_results": 1, "results": self._taxa(request.query["q"])})
        if request.path != "/v1/observations":
            return json_response({"error": "Not Found", "status": 404}, 404)
        return self._observations(int(request.query["page"]), int(request.query["per_page"]))

    def _taxa(self, words: str) -> list[dict]:
        return [
            {
                "id": number,
                "name": name,
                "preferred_common_name": common,
                "matched_term": matched,
                "rank": "species",
            }
            for number, name, common, matched in TAXA.get(words.casefold(), [])
        ]

    def _observations(self, page: int, size: int) -> Response:
        if size > MOST_PER_PAGE or page * size > 10_000:
            return json_response({"error": "Result window is too large", "status": 403}, 403)
        if self._scenario == "down":
            return json_response({"error": "down"}, 503)
        if self._scenario == "throttled" and page > 1:
            return json_response({"error": "too many"}, 429, {"Retry-After": "61"})
        if self._scenario == "changed":
            return json_response({"total_results": 9, "observations": []})
        numbers = range((page - 1) * size, min(page * size, self._total))
        entries = [self._entry(number) for number in numbers]
        return json_response(
            {"total_results": self._total, "page": page, "per_page": size, "results": entries}
        )

    def _entry(self, number: int) -> dict:
        entry = {
            "id": 7000 + number,
            "uri": f"https://www.inaturalist.org/observations/{7000 + number}",
            "taxon": {"id": 41970, "name": "Panthera onca", "preferred_common_name": "Jaguar"},
            "user": {
                "login": f"user{number}",
                "name": None if number % 3 else f"Observer {number}",
            },
            "photos": [
                self._photo(self._first + number),
                self._photo(500_000 + number, reserved=True),
            ],
        }
        if self._scenario == "drifted" and number % 4:
            del entry["photos"]
        return entry

    def _photo(self, number: int, reserved: bool = False) -> dict:
        code = None if reserved else CODES[number % len(CODES)]
        return {
            "id": number,
            "url": self._pictures.format(number, EXTENSIONS[number % len(EXTENSIONS)]),
            "license_code": code,
            "attribution": f"(c) user{number}, some rights reserved ({code})"
            if code
            else "(c) all rights reserved",
            "original_dimensions": {"width": 2048, "height": 1536},
        }
