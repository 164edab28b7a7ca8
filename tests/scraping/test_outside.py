"""What strangers state, at each door: lists, sources' answers, headers, addresses."""

import asyncio
import json
import string
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from scraping.files import json_line
from scraping.net.http import Fetcher, FetchFailure, FetchSettings, JsonReply, parse_retry_after
from scraping.outside import (
    MAX_ADDRESS_CHARACTERS,
    MAX_NUMBER,
    address_fault,
    clean_address,
    clean_text,
    number_in,
    page_address,
    parsed_json,
    query_parameters,
    whole_number,
)
from scraping.records.image_log import new_record
from scraping.search.search_log import Search, SearchLog
from scraping.sources import (
    artic,
    bing,
    gbif,
    google,
    inaturalist,
    met,
    nasa,
    openverse,
    pixabay,
    wikimedia,
)
from scraping.sources.base import Candidate, Query, SearchOptions, SearchResult
from scraping.sources.catalogue import Outcome
from scraping.sources.registry import REGISTRY, is_thumbnail
from scraping.urls import normalized_url, origin_of, url_digest
from tests.scraping.source_client import tools_answering

# Any text, halves of emoji and control characters included.
TEXTS = st.text(st.characters(), max_size=80)
ODD_ADDRESSES = [
    "http://[URL=x",
    "http://a.example:99999/",
    "http://a.example:x/",
    "http://xn--/",
    "http://\ud83d.example/",
    "http://a.example/\ud83d?q=\ud83d&utm_source=1",
    "http://\u2100.example/",
    "http://\\a.example/",
    "http://a.example/\x00",
    "http:///no-host",
    "https://\u200b/",
    "javascript:alert(1)",
    "http://a.example/" + "x" * 100_000,
    "data:image/png;base64," + "A" * 100_000,
]
ADDRESSES = (
    st.sampled_from(ODD_ADDRESSES)
    | TEXTS.map(lambda text: f"http://{text}")
    | TEXTS.map(lambda text: f"https://a.example/{text}")
    | st.text(string.printable, max_size=40).map(lambda text: f"http://{text}/x.jpg?utm_id=1")
    | TEXTS
)
NUMBERS = st.integers() | st.sampled_from([10**30, 10**400, -1, 0, 2**63, True]) | st.floats()
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS | ADDRESSES
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def is_storable(text: str) -> bool:
    """Return whether every database and file of the product takes a text, as one line."""
    text.encode()
    categories = {unicodedata.category(character) for character in text}
    return not categories & {"Cc", "Cs", "Zl", "Zp"}


@given(VALUES, st.integers(1, 50))
def test_a_text_is_one_storable_line_of_bounded_length(value, limit):
    text = clean_text(value, limit)
    assert is_storable(text)
    assert len(text) <= limit
    assert clean_text(text, limit) == text


def test_half_an_emoji_is_replaced_and_a_whole_one_kept():
    assert clean_text("Sunset \ud83d") == "Sunset \ufffd"
    assert clean_text("Sunset \ud83c\udf05") == "Sunset \U0001f305"
    assert clean_text("a\x00b\rc") == "a b c"
    assert clean_text("cafe\u0301") == "caf\u00e9"
    assert clean_text("A corgi, “Willow” 柴犬") == "A corgi, “Willow” 柴犬"


@given(VALUES)
def test_a_number_is_positive_and_bounded(value):
    for number in (whole_number(value), number_in(value)):
        assert number is None or 0 < number <= MAX_NUMBER


@pytest.mark.parametrize("text", ["", "NaN", "1e5", "²", "-3", "9" * 5000, "1_0"])
def test_what_only_looks_like_a_number_is_none(text):
    assert number_in(text) is None


@given(ADDRESSES)
def test_whatever_an_address_is_it_is_read_without_an_exception(address):
    clean = clean_address(address)
    assert is_storable(clean)
    assert clean_address(clean) == clean
    assert isinstance(address_fault(clean), str)
    for text in (address, clean):
        assert isinstance(normalized_url(text), str)
        assert len(url_digest(text)) == 64
        origin = origin_of(text)
        assert origin is None or origin.startswith(("http://", "https://"))
        assert is_thumbnail(text) in (True, False)
        assert isinstance(query_parameters(text), dict)
    page = page_address(address)
    assert not page or not address_fault(page)


@pytest.mark.parametrize(
    "address",
    [
        "http://a.example/x.jpg",
        "HTTP://A.example/x.jpg",
        "https://käse.example/käse.jpg?größe=1",
        "http://a.example/a b.jpg",
        "http://user:secret@a.example/",
        "http://[2001:db8::1]:443/",
        "http://a.example:8080/%20?x=%2F",
    ],
)
def test_an_address_that_a_browser_takes_is_left_as_it_is(address):
    assert clean_address(address) == address
    assert address_fault(address) == ""


def test_two_addresses_that_are_too_long_stay_two_and_are_refused():
    first = clean_address("http://a.example/" + "x" * 100_000 + "1")
    second = clean_address("http://a.example/" + "x" * 100_000 + "2")
    assert first != second
    assert address_fault(first) == f"longer than {MAX_ADDRESS_CHARACTERS} characters"


@settings(deadline=None)
@given(st.lists(ADDRESSES, max_size=5), ADDRESSES)
def test_no_address_is_an_exception_of_the_client(addresses, page):
    """Nothing is connected to: the lookup knows no name."""

    def lookup(*_: object, **__: object) -> list[tuple]:
        raise OSError("no name is known")

    async def fetch_all() -> list[object]:
        async with Fetcher(FetchSettings(deadline_seconds=1, lookup=lookup)) as fetcher:
            return [await fetcher.fetch(address, page) for address in addresses]

    for answer in asyncio.run(fetch_all()):
        assert isinstance(answer, FetchFailure)


@given(TEXTS, ADDRESSES, ADDRESSES, NUMBERS | TEXTS, TEXTS)
def test_whatever_a_source_states_of_an_image_can_be_kept(text, address, page, number, licence):
    candidate = Candidate(
        image_url=address,
        page_url=page,
        title=text,
        width=number,
        height=number,
        mime=text,
        creator=text * 100,
        creator_url=address,
        license=licence * 10,
        license_version=text,
        license_url=page,
        attribution=text * 200,
    )
    row = new_record(candidate, "c001")
    assert json.loads(json_line(row)) == row
    assert all(is_storable(value) for value in row.values() if isinstance(value, str))
    assert row["width"] is None or 0 < row["width"] < 2**31
    assert len(row["license"]) <= 64
    assert len(row["license_version"]) <= 16
    assert len(row["mime"] or "") <= 64


def test_half_an_emoji_in_a_title_reaches_the_log_of_searches(tmp_path):
    candidate = Candidate("http://a.example/1.jpg", title="Sunset \ud83d", width=10**30)
    search = Search("c001", "openverse", "sunset")
    log = SearchLog(tmp_path / "searches.jsonl")
    log.append(search, 1, SearchResult(Outcome.OK, (candidate,), "1 from \ud83d."))
    (found,) = SearchLog(tmp_path / "searches.jsonl").find(search, 1).candidates
    assert (found.title, found.width) == ("Sunset \ufffd", None)


# What each adapter reads an entry with, and the keys that it looks for.
PARSERS = {
    "openverse": openverse.parse_item,
    "wikimedia": wikimedia.parse_page,
    "gbif": lambda entry: REGISTRY["gbif"].parse_entry(entry, 1024),
    "inaturalist": lambda entry: REGISTRY["inaturalist"].parse_entry(entry, 1024),
    "nasa": lambda entry: nasa.parse_item(entry, 1024),
    "met": met.parse_object,
    "artic": lambda entry: artic.parse_artwork(entry, "https://www.artic.example/iiif"),
    "pixabay": lambda entry: pixabay.parse_hit(entry, 1024),
}
KEY_NAMES = """
    url foreign_landing_url title width height filetype creator creator_url license
    license_version license_url attribution imageinfo thumburl descriptionurl thumbwidth
    thumbheight mime extmetadata Artist License LicenseShortName LicenseUrl ObjectName value
    media identifier type references key rightsHolder species format photos license_code uri
    taxon user name login preferred_common_name data links href rel photographer
    secondary_creator nasa_id image_id is_public_domain artist_display id isPublicDomain
    primaryImage primaryImageSmall objectURL artistDisplayName webformatURL largeImageURL
    pageURL tags
"""
KEYS = KEY_NAMES.split()
ENTRIES = st.recursive(
    SCALARS | st.just("by") | st.just("CC_BY_4_0") | st.just("https://a.example/x.jpg"),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=2)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=8)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("source", PARSERS)
@settings(max_examples=300, deadline=None)
@given(entry=ENTRIES)
def test_no_entry_of_an_answer_is_an_exception(source, entry):
    for candidate in PARSERS[source](entry) or ():
        row = new_record(candidate, "c001")
        assert json.loads(json_line(row)) == row


ANSWER_KEYS = [
    *("results", "page_count", "query", "pages", "error", "code", "continue", "index"),
    *("usageKey", "matchType", "endOfRecords", "total_results", "collection", "items", "links"),
    *("objectIDs", "total", "config", "iiif_url", "data", "pagination", "total_pages", "hits"),
    *("totalHits", "id", "name", "vernacularNames", "vernacularName", "batchcomplete"),
]
ANSWERS = st.recursive(
    SCALARS | st.sampled_from(["EXACT", "corgi", "maxlag", "https://a.example"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(ANSWER_KEYS), inner, max_size=6)
    ),
    max_leaves=15,
)
HEADERS = st.dictionaries(
    st.sampled_from(["Retry-After", "X-RateLimit-Remaining", "X-RateLimit-Reset"])
    | st.just("X-Ratelimit-Available-Burst"),
    st.sampled_from(["0", "²", "9" * 5000, "Fri, 99 Abc 99999 99:99:99", "NaN"]) | TEXTS,
)


@pytest.mark.parametrize("source", PARSERS)
@settings(max_examples=150, deadline=None)
@given(answers=st.lists(ANSWERS, min_size=1, max_size=3), headers=HEADERS)
def test_no_answer_of_a_source_is_an_exception_and_its_end_can_be_recorded(
    tmp_path_factory, source, answers, headers
):
    """The adapter is asked as it is; only the network gives these answers, the last ever again."""
    rest = list(answers)

    def answer(*_: object) -> JsonReply | FetchFailure:
        data = rest.pop(0) if len(rest) > 1 else rest[0]
        left[0] -= 1
        if left[0] < 0:
            return FetchFailure("unreachable")
        return JsonReply(data, CIMultiDictProxy(CIMultiDict(headers)))

    left = [8]
    tools = tools_answering(answer)
    folder = str(tmp_path_factory.getbasetemp() / "snapshots")
    options = SearchOptions(
        contact="a@example.org", credentials={"pixabay_key": "x"}, snapshot_dir=folder
    )
    query = Query("corgi", 5, options, 1e12)
    result = REGISTRY[source].search(query, tools)
    assert result.cool_down_seconds is None or 0 <= result.cool_down_seconds <= 86_400
    assert json_line([result.message, result.detail, result.retry_after])
    for candidate in result.candidates:
        row = new_record(candidate, "c001")
        assert json.loads(json_line(row)) == row


@given(ENTRIES, TEXTS | ADDRESSES, TEXTS)
def test_no_tile_of_a_result_page_is_an_exception(facts, href, size_text):
    for text in (
        json.dumps(facts),
        json.dumps({"murl": href, "t": facts, "purl": size_text}),
        href,
    ):
        candidate = bing.parse_tile(text, href, size_text)
        assert candidate is None or json_line(new_record(candidate, "c001"))
    panel = google.Panel(1, [[href, 300, 200]], f"https://a.example/imgres?imgurl={href}&w=9", "")
    original = google.parse_panel(panel)
    assert original is None or normalized_url(original.url)


def test_a_width_of_five_thousand_digits_on_a_tile_is_no_width():
    assert bing.parse_size(f"/images?expw={'9' * 5000}&exph=3", "") == (None, None)


@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_a_json_answer_is_read_or_refused_as_a_value_error(body):
    try:
        parsed_json(body)
    except ValueError:
        return


def test_one_odd_value_does_not_spoil_a_json_answer():
    body = b'\xef\xbb\xbf{"a": "x\xff\n", "b": ' + b"9" * 5000 + b', "c": NaN, "d": "\\ud83d"}'
    assert parsed_json(body) == {"a": "x\ufffd\n", "b": None, "c": None, "d": "\ud83d"}
    with pytest.raises(ValueError, match="nested"):
        parsed_json(b"[" * 200_000)


@given(TEXTS | st.text(string.digits + "²٣ GMT,:", max_size=40))
def test_headers_of_hosts_are_no_exception(value):
    seconds = parse_retry_after(value)
    assert seconds is None or seconds >= 0


def test_one_entry_that_no_parser_expects_does_not_end_the_others():
    assert gbif.exact_vernacular({"results": [None, {"key": 10**30}]}, "x") is None
    assert inaturalist.exact_taxon([None, 5, {"id": "x"}], "x") is None
