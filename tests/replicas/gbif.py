"""GBIF's interface as its clients meet it: fuzzy matches, media without an address, licences in
every spelling.
"""

from tests.replicas.server import Replica, Request, Response, json_response

MATCHES = {
    "panthera onca": {
        "usageKey": 5219426,
        "matchType": "EXACT",
        "confidence": 99,
        "canonicalName": "Panthera onca",
    },
    "panthera onka": {
        "usageKey": 5219426,
        "matchType": "FUZZY",
        "confidence": 92,
        "canonicalName": "Panthera onca",
    },
    "panthera corgi": {"usageKey": 2435194, "matchType": "HIGHERRANK", "confidence": 96},
}
COMMON = {
    "jaguar": [
        {
            "key": 1,
            "nubKey": 77,
            "canonicalName": "Jaguarundi",
            "vernacularNames": [{"vernacularName": "Jaguarundi"}],
        },
        {
            "key": 101_000,
            "nubKey": 5219426,
            "canonicalName": "Panthera onca",
            "vernacularNames": [
                {"vernacularName": "onça"},
                {"vernacularName": "Jaguar", "language": "eng"},
            ],
        },
        {"key": 3, "canonicalName": "Nothing"},
    ]
}
DATASETS = (
    "50c9509d-22c7-4a22-a47d-8c48425ef4a7",
    "8A863029-F435-446A-821E-275F4F641165",
    None,
)
LICENSES = (
    "http://creativecommons.org/licenses/by-nc/4.0/",
    "https://creativecommons.org/publicdomain/zero/1.0/legalcode",
    "CC BY 4.0",
    None,
    "© someone, all rights reserved",
    "CC_BY_NC_4_0",
)


class GbifReplica(Replica):
    """`total` occurrences of one taxon, of which some lack an address or a licence.

    A `scenario` holds for the occurrences: `throttled` answers 429 from the second page, `changed`
    another shape, `drifted` entries without media, `down` 503, `empty` none. `pictures` is a URL
    with a place for a number.
    """

    def __init__(
        self, total: int = 120, scenario: str = "", pictures: str = "", first: int = 0
    ) -> None:
        super().__init__()
        self._total = 0 if scenario == "empty" else total
        self._scenario = scenario
        self._first = first
        self._pictures = pictures or "https://museum.example/media/{}.jpg"

    def respond(self, request: Request) -> Response:
        if request.path == "/v1/species/match":
            nothing = {"confidence": 100, "matchType": "NONE", "synonym": False}
            return json_response(MATCHES.get(request.query["name"].casefold(), nothing))
        if request.path == "/v1/species/search":
            assert request.query["qField"] == "VERNACULAR"
            return json_response(
                {"offset": 0, "results": COMMON.get(request.query["q"].casefold(), [])}
            )
        if request.path == "/v1/occurrence/search":
            return self._occurrences(
                int(request.query["offset"]), int(request.query["limit"]), request
            )
        return Response(b"no", "text/plain", 404)

    def _occurrences(self, offset: int, limit: int, request: Request) -> Response:
        if limit > 300 or offset + limit > 100_000 or request.query["taxonKey"] != "5219426":
            return Response(b"Max offset exceeded", "text/plain", 400)
        if self._scenario == "down":
            return Response(b"down", "text/plain", 503)
        if self._scenario == "throttled" and offset:
            return Response(b"slow down", "text/plain", 429)
        if self._scenario == "changed":
            return json_response([])
        last = min(offset + limit, self._total)
        entries = [self._entry(number) for number in range(offset, last)]
        data = {
            "offset": offset,
            "limit": limit,
            "endOfRecords": last >= self._total,
            "count": self._total,
        }
        return json_response(data | {"results": entries})

    def _entry(self, number: int) -> dict:
        entry = {
            "key": 4_000_000 + number,
            "datasetKey": DATASETS[number % len(DATASETS)],
            "species": "Panthera onca",
            "scientificName": "Panthera onca (Linnaeus, 1758)",
            "license": "http://creativecommons.org/licenses/by/4.0/legalcode",
            "media": [
                self._medium(number),
                {"type": "Sound", "identifier": "https://museum.example/roar.mp3"},
            ],
        }
        if self._scenario == "drifted" and number % 4:
            entry["media"] = "moved"
        return entry

    def _medium(self, number: int) -> dict:
        address = self._pictures.format(self._first + number)
        if number % 10 == 7:
            address = (
                f"https://inaturalist-open-data.s3.amazonaws.com/photos/{number}/original.jpeg"
            )
        medium = {
            "type": "StillImage",
            "format": "image/jpeg",
            "identifier": address,
            "references": f"https://museum.example/specimen/{number}",
            "creator": f"Collector {number}",
            "rightsHolder": "The Museum",
            "license": LICENSES[number % len(LICENSES)],
        }
        if number % 9 == 5:
            del medium["identifier"]
        return medium
