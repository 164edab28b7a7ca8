"""Answers of every source, changed in bytes and in values, on their whole way into the columns."""

import json
import time
from dataclasses import replace

import pytest
from django.db import models, transaction
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from requests_app.models import ImageUrl, SourceHealth
from requests_app.workers.collection_sync import CollectionSync
from scraping.files import json_line
from scraping.net.http import FetchFailure, JsonReply, NotJson
from scraping.outside import parsed_json
from scraping.reasons import Reason
from scraping.records.image_log import new_record, rejected
from scraping.sources.base import COOL_DOWN_SECONDS, Query, SearchOptions
from scraping.sources.catalogue import CATALOGUE
from scraping.sources.registry import REGISTRY
from tests.hostile import changed_json, damaged, fuzz
from tests.replicas import pixabay
from tests.replicas.artic import ArticReplica
from tests.replicas.commons import CommonsReplica
from tests.replicas.gbif import GbifReplica
from tests.replicas.inaturalist import InaturalistReplica
from tests.replicas.met import MetReplica
from tests.replicas.nasa import NasaReplica
from tests.replicas.openverse import OpenverseReplica
from tests.replicas.pixabay import PixabayReplica
from tests.scraping.source_client import SourceClient, tools_answering

REPLICAS = {
    "artic": ArticReplica,
    "gbif": GbifReplica,
    "inaturalist": InaturalistReplica,
    "met": MetReplica,
    "nasa": NasaReplica,
    "openverse": OpenverseReplica,
    "pixabay": PixabayReplica,
    "wikimedia": CommonsReplica,
}
WORDS = {"gbif": "Panthera onca", "inaturalist": "house cat"}
OPTIONS = SearchOptions(contact="a@example.org", credentials={"pixabay_key": pixabay.KEY})
SIGNED_32_BITS = 2**31 - 1  # MariaDB's integers; SQLite's are larger
_recorded: dict[str, list] = {}


def recorded(source: str) -> list:
    """Return the answers that the source's replica gives to an ordinary question."""
    if source not in _recorded:
        answers = []
        with REPLICAS[source]() as replica:
            client = SourceClient(source, replica)
            tools = client.tools()

            def get_json(*asked):
                answers.append(tools.get_json(*asked))
                return answers[-1]

            def request(asked):
                answers.append(tools.request(asked))
                return answers[-1]

            listening = replace(tools, get_json=get_json, request=request)
            query = Query(WORDS.get(source, "cat"), 30, OPTIONS, time.monotonic() + 60)
            found = REGISTRY[source].search(query, listening)
            assert found.candidates, found
        _recorded[source] = [answer.data for answer in answers if isinstance(answer, JsonReply)]
    return _recorded[source]


def test_every_source_with_an_interface_is_among_them():
    with_interface = {name for name, info in CATALOGUE.items() if not info.uses_browser}
    assert with_interface - set(REPLICAS) == {n for n, i in CATALOGUE.items() if i.supplied}


def fits_every_column(image: ImageUrl) -> None:
    """Check a row against what SQLite and MariaDB hold of each column."""
    for field in image._meta.concrete_fields:
        value = getattr(image, field.attname)
        if isinstance(value, str):
            assert value.encode() is not None and "\x00" not in value
            assert field.max_length is None or len(value) <= field.max_length, field.name
        elif isinstance(field, models.IntegerField) and value is not None and not field.primary_key:
            assert -SIGNED_32_BITS <= value <= SIGNED_32_BITS, field.name


@pytest.mark.parametrize("source", REPLICAS)
@fuzz(60)
@given(data=st.data())
def test_no_answer_of_a_source_stops_its_search_or_its_rows(confirmed, data, source):
    answers = recorded(source)
    damaged_one = data.draw(st.integers(0, len(answers) - 1))
    is_bytes = data.draw(st.booleans())
    if is_bytes:
        body = damaged(data.draw, json.dumps(answers[damaged_one]).encode())
        try:
            changed = JsonReply(parsed_json(body), CIMultiDictProxy(CIMultiDict()))
        except ValueError:
            changed = NotJson(Reason.HTTP_ERROR, "not JSON", 200)
    else:
        value = changed_json(data.draw, answers[damaged_one])
        text = json.dumps(value).encode()
        changed = JsonReply(parsed_json(text), CIMultiDictProxy(CIMultiDict()))
    left = [JsonReply(answer, CIMultiDictProxy(CIMultiDict())) for answer in answers]
    left[damaged_one] = changed

    def answer(*_: object):
        return left.pop(0) if left else FetchFailure(Reason.UNREACHABLE, "over")

    tools = tools_answering(answer)
    query = Query(WORDS.get(source, "cat"), 30, OPTIONS, time.monotonic() + 60)
    result = REGISTRY[source].search(query, tools)
    assert result.cool_down_seconds is None or result.cool_down_seconds <= max(
        COOL_DOWN_SECONDS.values()
    )
    rows = []
    for candidate in result.candidates:
        row = rejected(new_record(candidate, "c001"), Reason.UNREACHABLE)
        assert json.loads(json_line(row)) == row
        rows.append(row)
    sync = CollectionSync(confirmed, confirmed.folder / "collect")
    with transaction.atomic():
        sync._store(rows)
        for image in ImageUrl.objects.all():
            fits_every_column(image)
        SourceHealth.record(source, result.outcome.value, result.message)
        transaction.set_rollback(True)
