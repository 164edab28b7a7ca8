"""A new source touches three places: its module, its catalogue entry, its line in the registry."""

import pytest

from scraping.__main__ import environment_values
from scraping.collect import collect
from scraping.config import CollectConfig
from scraping.sources.catalogue import CATALOGUE, Outcome, SourceInfo, usual_sources
from scraping.sources.registry import REGISTRY
from tests.replicas.pictures_host import PictureHost
from tests.replicas.server import Replica, Request, Response, json_response
from tests.scraping.conftest import config_for
from tests.scraping.example_source import KEY, ExampleSource

SECRET = "a key of the example"
CREDENTIALS = {KEY: SECRET}


class ExampleReplica(Replica):
    """Two pages of three photos each, for those who show the key."""

    def __init__(self, host_url: str) -> None:
        super().__init__()
        self._host_url = host_url

    def respond(self, request: Request) -> Response:
        if request.headers.get("Authorization") != f"Bearer {SECRET}":
            return Response(b"no", "text/plain", 401)
        first = 3 * (int(request.query["page"]) - 1)
        photos = [
            {"src": f"{self._host_url}/pic/{number}.jpg", "caption": f"photo {number}"}
            for number in range(first, first + 3)
        ]
        return json_response({"pages": 2, "photos": photos})


@pytest.fixture(autouse=True)
def example(monkeypatch):
    """The second and third place; the first is the module `example_source`."""
    info = SourceInfo("Example Photos", required_credentials=(KEY,))
    monkeypatch.setitem(CATALOGUE, "example", info)
    monkeypatch.setitem(REGISTRY, "example", ExampleSource())


def test_it_is_asked_by_the_searcher_and_answers_in_words(ask):
    with ExampleReplica("https://photos.example") as site:
        config = config_for({"example": site}, sources=["example"], credentials=CREDENTIALS)
        result = ask("example", config, "corgi", limit=5)
        assert (result.outcome, result.message) == (Outcome.OK, "5 from Example Photos.")
        assert [(found.source, found.query, found.rank) for found in result.candidates] == [
            ("example", "corgi", rank) for rank in range(1, 6)
        ]
        without_key = ask("example", config_for({"example": site}, sources=["example"]), "corgi")
        assert without_key.outcome is Outcome.NOT_APPLICABLE
        assert without_key.message == (
            "Example Photos was skipped: it needs a key, and none is configured."
        )


def test_a_collection_fills_its_quota_from_it(tmp_path):
    with PictureHost() as host, ExampleReplica(host.url) as site:
        config = config_for(
            {"example": site},
            sources=["example"],
            credentials=CREDENTIALS,
            allowed_private_hosts=[host.host],
            min_side=64,
            limit=6,
        )
        result = collect(tmp_path, config)
        assert result["classes"][0]["kept"] == 6
        assert result["sources"][0]["name"] == "example"


def test_its_settings_are_read_without_further_code():
    variables = {
        "PICAISSO_EXAMPLE_URL": "http://127.0.0.1:9",
        "PICAISSO_EXAMPLE_KEY": SECRET,
    }
    values = environment_values(variables)
    assert values["source_urls"] == {"example": "http://127.0.0.1:9"}
    assert values["credentials"] == CREDENTIALS
    assert values["sources"] == list(usual_sources(CREDENTIALS))
    assert values["sources"][-1] == "example"
    one_class = [{"id": "c001", "name": "corgi", "query": "corgi"}]
    config = CollectConfig.of(values | {"classes": one_class})
    assert config.base_url("example") == "http://127.0.0.1:9"
