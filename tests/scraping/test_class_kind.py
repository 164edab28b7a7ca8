"""Searching for a kind of things: the order of the words at each kind of source, and who decides.

The replicas stand for full-text sources (Openverse, Commons), sources of living things
(iNaturalist) and Wikidata.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from scraping import ConfigError
from scraping.collect import collect
from scraping.config import CollectConfig
from tests.replicas.commons import CommonsReplica
from tests.replicas.inaturalist import InaturalistReplica
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pictures_host import PictureHost
from tests.replicas.server import Replica, Response
from tests.scraping.collect_folder import Listing, classes, configuration, listed, rows
from tests.scraping.source_client import SourceClient

pytestmark = pytest.mark.timeout(120)

CAT = "species of large cat native to the Americas"
THINGS = {
    "jaguar": [CAT, "British car brand", "family name"],
    "leopard": ["large cat native to Africa and Asia"],
}
SENTENCE = "Searched as “jaguar animal”, because both names are animals in Wikidata."


def asked_words(site: Replica, name: str = "q") -> list[str]:
    """The words that a site was searched with, each once, in their order."""
    found = [each.query.get(name, "") for each in site.requests]
    return list(dict.fromkeys(words for words in found if words))


def kind_of(folder: Path) -> dict:
    decided: dict = json.loads((folder / "kind.json").read_text())
    result = json.loads((folder / "result.json").read_text())
    assert result["kind"] == decided
    return decided


def test_a_full_text_source_is_asked_with_the_kind_first_and_plainly_when_that_runs_dry(tmp_path):
    with PictureHost() as host:
        pictures = [listed(f"{host.url}/pic/{n}.jpg") for n in range(6)]
        cars = [listed(f"{host.url}/pic/{n}.jpg") for n in range(100, 120)]
        with Listing({"jaguar animal": pictures, "jaguar": [*cars, *pictures]}) as site:
            config = configuration(
                {"openverse": site}, [host], sources=["openverse"], classes=classes("jaguar"),
                kind="animal",
            )  # fmt: skip
            result = collect(tmp_path, config)
            words = asked_words(site)
        assert words == ["jaguar animal", "jaguar animals", "jaguar animal photo", "jaguar"]
        assert result["classes"][0]["kept"] == 10
        kept = [row["query"] for row in rows(tmp_path) if row["state"] == "kept"]
        assert kept == ["jaguar animal"] * 6 + ["jaguar"] * 4
        assert result["classes"][0]["query"] == "jaguar"
        assert result["classes"][0]["wordings"] == words
        assert kind_of(tmp_path) == {
            "word": "animal",
            "how": "given",
            "sentence": "Searched as “jaguar animal”, as you asked.",
        }


def test_without_need_the_plain_name_is_never_asked(tmp_path):
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        config = configuration({"openverse": site}, [host], sources=["openverse"], kind="dish")
        collect(tmp_path, config)
        assert asked_words(site) == ["thing dish"]


def test_a_source_of_living_things_is_asked_for_the_name_alone(tmp_path):
    with (
        PictureHost() as host,
        InaturalistReplica(pictures=host.url + "/photos/{}/square.jpg") as living,
        Listing({}) as text,
    ):
        config = configuration(
            {"inaturalist": living, "openverse": text}, [host], classes=classes("jaguar"),
            sources=["inaturalist", "openverse"], kind="wild cats", limit=500,
        )  # fmt: skip
        collect(tmp_path, config)
        assert asked_words(living)[0] == "jaguar"
        assert not any("wild" in words for words in asked_words(living))
        assert asked_words(text)[:3] == [
            "jaguar wild cats",
            "jaguar wild cat",
            "jaguar wild cats photo",
        ]


def test_a_source_of_living_things_is_skipped_for_things_of_another_kind(tmp_path):
    with (
        PictureHost() as host,
        InaturalistReplica(pictures=host.url + "/photos/{}/square.jpg") as living,
        Listing({"jaguar car": [listed(f"{host.url}/pic/1.jpg")]}) as text,
    ):
        config = configuration(
            {"inaturalist": living, "openverse": text}, [host], classes=classes("jaguar"),
            sources=["inaturalist", "openverse"], kind="car",
        )  # fmt: skip
        result = collect(tmp_path, config)
        assert living.requests == []
        skipped = result["sources"][0]
        assert (skipped["name"], skipped["outcome"]) == ("inaturalist", "not_applicable")
        assert skipped["message"] == (
            "iNaturalist was skipped: it has living things only, and “car” is not among the words"
            " for them."
        )


def test_the_words_of_a_class_win_over_the_kind_and_nothing_is_said_twice(tmp_path):
    entries = [
        {"id": "c001", "name": "jaguar", "query": "jaguar big cat"},
        {"id": "c002", "name": "sea animal", "query": "sea animal"},
        {"id": "c003", "name": "puma", "query": "puma"},
    ]
    with PictureHost() as host, OpenverseReplica(host.url + "/pic/{}.jpg") as site:
        config = configuration(
            {"openverse": site}, [host], sources=["openverse"], classes=entries, kind="animal",
            limit=2,
        )  # fmt: skip
        collect(tmp_path, config)
        firsts = set(asked_words(site))
        assert {"jaguar big cat", "sea animal", "puma animal"} <= firsts
        assert not any("animal animal" in words or "cat animal" in words for words in firsts)


def derived_collection(folder: Path, commons: CommonsReplica, host: PictureHost, **values) -> dict:
    values = {"classes": classes("jaguar", "leopard"), "limit": 3} | values
    config = configuration({"wikimedia": commons}, [host], sources=["wikimedia"], **values)
    return collect(folder, config)


def test_the_kind_is_derived_where_all_names_share_one_and_a_name_means_more(tmp_path):
    with (
        PictureHost() as host,
        CommonsReplica(host.url + "/pic/{}.jpg", things=THINGS) as commons,
    ):
        result = derived_collection(tmp_path, commons, host)
        assert commons.names_asked == ["jaguar", "leopard"], "one question a class"
        assert commons.searches[:2] == ["jaguar animal", "leopard animal"]
        assert kind_of(tmp_path) == {"word": "animal", "how": "derived", "sentence": SENTENCE}
        said = [json.loads(line) for line in (tmp_path / "progress.jsonl").open()]
        assert SENTENCE in [line["message"] for line in said]
        assert result["ok"]


@pytest.mark.parametrize(
    "values",
    [
        {"kind": ""},
        {"kind": "car"},
        {"locale": "de-DE"},
        {"contact": ""},
        {"closed_sources": {"wikimedia": "Wikimedia rests."}},
        {"classes": classes("jaguar")},
    ],
    ids=["unwanted", "given", "German", "no contact", "closed", "one class"],
)
def test_nothing_is_looked_up_where_a_person_decided_or_it_cannot_help(tmp_path, values):
    with (
        PictureHost() as host,
        CommonsReplica(host.url + "/pic/{}.jpg", things=THINGS) as commons,
    ):
        derived_collection(tmp_path, commons, host, **values)
        assert commons.names_asked == []
        assert kind_of(tmp_path)["word"] == values.get("kind", "")


@pytest.mark.parametrize(
    ("things", "asked"),
    [
        ({"leopard": THINGS["leopard"]}, ["jaguar"]),
        (THINGS | {"leopard": ["Italian dish"]}, ["jaguar", "leopard"]),
        (THINGS | {"jaguar": [CAT]}, ["jaguar", "leopard"]),
    ],
    ids=["unknown", "different", "clear"],
)
def test_no_kind_is_derived_that_is_not_sure(tmp_path, things, asked):
    with (
        PictureHost() as host,
        CommonsReplica(host.url + "/pic/{}.jpg", things=things) as commons,
    ):
        derived_collection(tmp_path, commons, host)
        assert commons.names_asked == asked
        assert commons.searches[:2] == ["jaguar", "leopard"]
        assert kind_of(tmp_path) == {"word": "", "how": "none", "sentence": ""}


def test_a_failing_lookup_is_not_repeated_and_stops_no_collection(tmp_path):
    with (
        PictureHost() as host,
        CommonsReplica(host.url + "/pic/{}.jpg", things=THINGS, wikidata_status=503) as commons,
    ):
        result = derived_collection(tmp_path, commons, host)
        assert commons.names_asked == ["jaguar"]
        assert result["classes"][0]["found"] >= 3
        assert kind_of(tmp_path)["how"] == "none"


class SlowCommons(CommonsReplica):
    """Answers for Wikidata too late."""

    def _items(self, query: Mapping[str, str]) -> Response:
        time.sleep(4)
        return super()._items(query)


def test_a_slow_lookup_is_not_waited_for(tmp_path):
    with (
        PictureHost() as host,
        SlowCommons(host.url + "/pic/{}.jpg", things=THINGS) as commons,
        Listing(
            {
                "jaguar": [listed(f"{host.url}/pic/{n}.jpg") for n in range(3)],
                "leopard": [listed(f"{host.url}/pic/{n}.jpg") for n in range(10, 13)],
            }
        ) as openverse,
    ):
        config = configuration(
            {"wikimedia": commons, "openverse": openverse}, [host], limit=2,
            sources=["openverse", "wikimedia"], classes=classes("jaguar", "leopard"),
            deadline_seconds=10,
        )  # fmt: skip
        result = collect(tmp_path, config)
        assert result["seconds"] < 4
        assert asked_words(openverse)[0] == "jaguar"
        assert kind_of(tmp_path)["how"] == "none"


def test_a_resumed_collection_keeps_the_kind_that_it_began_with(tmp_path):
    with (
        PictureHost() as host,
        CommonsReplica(host.url + "/pic/{}.jpg", things=THINGS) as commons,
    ):
        derived_collection(tmp_path, commons, host)
        (tmp_path / "result.json").unlink()
        result = derived_collection(tmp_path, commons, host, limit=5)
        assert commons.names_asked == ["jaguar", "leopard"], "it was not looked up again"
        assert result["kind"]["how"] == "derived"
        assert result["classes"][0]["wordings"][0] == "jaguar animal"


def test_a_collection_that_began_without_kinds_goes_on_without(tmp_path):
    """As folders of version 0.1.0 do, which have no `kind.json`."""
    with (
        PictureHost() as host,
        CommonsReplica(host.url + "/pic/{}.jpg", things=THINGS) as commons,
    ):
        derived_collection(tmp_path, commons, host, kind="")
        for name in ("result.json", "kind.json"):
            (tmp_path / name).unlink()
        result = derived_collection(tmp_path, commons, host, limit=5)
        assert commons.names_asked == []
        assert result["classes"][0]["wordings"][0] == "jaguar"


def test_only_exact_names_are_described_and_only_to_operators_with_a_contact():
    with CommonsReplica(things=THINGS) as commons:
        client = SourceClient("wikimedia", commons)
        assert client.descriptions("Jaguar") == THINGS["jaguar"]
        assert client.descriptions("unheard of") == []
        assert client.paces == [1.0, 1.0]
        assert len(commons.requests) == 2
        assert client.descriptions("jaguar", contact="") is None
    with CommonsReplica(wikidata_status=429) as commons:
        assert SourceClient("wikimedia", commons).descriptions("jaguar") is None


def test_the_configuration_normalizes_the_kind_and_refuses_what_no_name_may_have():
    values = {"classes": classes("jaguar")}
    assert CollectConfig.of(values).kind is None
    assert CollectConfig.of(values | {"kind": " big \u00a0 cat "}).kind == "big cat"
    for wrong in ("x" * 65, "cat\nanimal", "\u202ecat", 7, ["cat"]):
        with pytest.raises(ConfigError):
            CollectConfig.of(values | {"kind": wrong})
