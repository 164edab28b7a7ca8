"""The adapters of NASA, the Met, the Art Institute of Chicago and Pixabay, against replicas with
their traps.
"""

from pathlib import Path

import pytest

from scraping.sources.catalogue import Outcome
from tests.replicas.artic import ArticReplica
from tests.replicas.met import MetReplica
from tests.replicas.nasa import NasaReplica
from tests.replicas.pixabay import KEY, PixabayReplica
from tests.scraping.source_client import SourceClient

WITH_KEY = {"credentials": {"pixabay_key": KEY}}
REPLICAS = {
    "nasa": NasaReplica,
    "met": MetReplica,
    "artic": ArticReplica,
    "pixabay": PixabayReplica,
}


@pytest.mark.parametrize(
    ("source", "words", "outcome", "found", "cool_down"),
    [
        ("nasa", "moon", Outcome.PARTIAL, 150, None),
        ("nasa", "nothing", Outcome.NO_RESULTS, 0, None),
        ("nasa", "changed", Outcome.LAYOUT_CHANGED, 0, 6 * 3600),
        ("nasa", "drifted", Outcome.LAYOUT_CHANGED, 34, 6 * 3600),
        ("nasa", "throttled", Outcome.RATE_LIMITED, 100, 30),
        ("nasa", "down", Outcome.NETWORK, 0, 60),
        ("met", "cat", Outcome.PARTIAL, 12, None),
        ("met", "nothing", Outcome.NO_RESULTS, 0, None),
        ("met", "changed", Outcome.LAYOUT_CHANGED, 0, 6 * 3600),
        ("met", "strange", Outcome.LAYOUT_CHANGED, 0, 6 * 3600),
        ("artic", "cat", Outcome.PARTIAL, 114, None),
        ("artic", "nothing", Outcome.NO_RESULTS, 0, None),
        ("artic", "changed", Outcome.LAYOUT_CHANGED, 0, 6 * 3600),
        ("artic", "baseless", Outcome.LAYOUT_CHANGED, 0, 6 * 3600),
        ("artic", "drifted", Outcome.LAYOUT_CHANGED, 29, 6 * 3600),
        ("artic", "throttled", Outcome.RATE_LIMITED, 77, 12),
        ("pixabay", "corgi", Outcome.PARTIAL, 500, None),
        ("pixabay", "nothing", Outcome.NO_RESULTS, 0, None),
        ("pixabay", "odd", Outcome.NO_RESULTS, 0, None),
        ("pixabay", "changed", Outcome.LAYOUT_CHANGED, 0, 6 * 3600),
        ("pixabay", "drifted", Outcome.LAYOUT_CHANGED, 67, 6 * 3600),
        ("pixabay", "throttled", Outcome.RATE_LIMITED, 200, 17),
        ("pixabay", "exhausted", Outcome.RATE_LIMITED, 200, 33),
        ("pixabay", "down", Outcome.NETWORK, 0, 60),
    ],
)
def test_each_end_has_its_outcome_and_keeps_what_was_found(
    source, words, outcome, found, cool_down, tmp_path
):
    with REPLICAS[source]() as site:
        client = SourceClient(source, site)
        result = client.search(words, limit=1000, snapshot_dir=str(tmp_path), **WITH_KEY)
        assert (result.outcome, len(result.candidates)) == (outcome, found), result
        assert result.cool_down_seconds == cool_down
        assert result.message.endswith(".")
        assert bool(result.snapshot) == (outcome is Outcome.LAYOUT_CHANGED)
        assert not result.snapshot or Path(result.snapshot).is_relative_to(tmp_path)
        assert len(client.paces) == len(site.requests)
        assert set(client.paces) == {1.0}


def test_nasa_gives_the_smallest_rendering_that_suffices_and_never_a_preview():
    with NasaReplica() as site:
        found = SourceClient("nasa", site).search("moon", limit=8, max_side=1024).candidates
    assert found[0].image_url == "https://images-assets.nasa.gov/image/N%200/N%200~medium.jpg"
    assert (found[0].width, found[0].height) == (1280, 960)
    assert found[2].image_url.endswith("N%202~medium.jpg")  # listed with its preview only
    assert found[0].page_url == "https://images.nasa.gov/details/N%200"


def test_nasa_gives_no_licence_where_somebody_else_is_credited_and_is_skipped_for_open_licences():
    with NasaReplica() as site:
        own, staff, other, *_ = SourceClient("nasa", site).search("moon", limit=4).candidates
        assert (own.license, own.license_basis, own.creator) == ("pd", "filter", "NASA")
        assert (staff.license_basis, staff.creator) == ("filter", "NASA/Someone")
        assert (other.license, other.license_basis, other.creator) == (
            "",
            "unknown",
            "A University",
        )
        asked = len(site.requests)
        assert (
            SourceClient("nasa", site).search("moon", license="open").outcome
            is Outcome.NOT_APPLICABLE
        )
        assert len(site.requests) == asked


def test_the_met_looks_up_no_more_works_than_are_needed_and_gives_free_ones_only():
    with MetReplica() as site:
        result = SourceClient("met", site).search("cat", limit=6)
        assert result.outcome is Outcome.OK
        assert [candidate.page_url.rpartition("/")[2] for candidate in result.candidates] == list(
            "123679"
        )
        assert len(site.requests) == 1 + 9
        first = result.candidates[0]
        assert (first.license, first.license_basis) == ("cc0", "per-item")
        assert first.image_url == "https://images.metmuseum.org/CRDImages/ep/web-large/D%201.jpg"


def test_the_mets_firewall_is_a_block_and_what_was_found_before_is_kept():
    with MetReplica(patience=3) as site:
        result = SourceClient("met", site).search("cat", limit=50)
        assert (result.outcome, len(result.candidates)) == (Outcome.BLOCKED, 3)
        assert result.message == "The Met refused our requests."
        assert result.cool_down_seconds == 3600


def test_the_art_institute_is_told_who_asks_and_says_itself_where_its_pictures_lie():
    with ArticReplica(pictures="https://pictures.example/iiif/3") as site:
        first, *_ = SourceClient("artic", site).search("cat", limit=10).candidates
        assert first.image_url == "https://pictures.example/iiif/3/aaaa-0/full/843,/0/default.jpg"
        assert (first.license, first.license_basis) == ("cc0", "per-item")
        assert first.creator == "A Painter French, 1840-1926"
        assert site.requests[0].headers["AIC-User-Agent"] == "Picaisso (operator@example.org)"


def test_pixabay_is_asked_with_its_key_only_and_stops_at_what_can_be_reached():
    with PixabayReplica() as site:
        client = SourceClient("pixabay", site)
        assert client.search("corgi").outcome is Outcome.NOT_APPLICABLE
        assert site.requests == []
        result = client.search("corgi", limit=1000, max_side=1024, **WITH_KEY)
        assert [request.query["page"] for request in site.requests] == ["1", "2", "3"]
        first = result.candidates[0]
        assert (first.license, first.license_basis, first.creator) == ("pixabay", "filter", "user0")
        assert first.image_url.endswith("_1280.jpg")
        smaller = client.search("corgi", limit=1, max_side=500, **WITH_KEY).candidates[0]
        assert smaller.image_url.endswith("_640.jpg")


def test_a_wrong_key_of_pixabay_is_a_refusal_and_stands_in_no_text_of_the_result():
    with PixabayReplica() as site:
        result = SourceClient("pixabay", site).search(
            "corgi", credentials={"pixabay_key": "wrong-key"}
        )
        assert result.outcome is Outcome.BLOCKED
        assert "wrong-key" not in repr(result)
