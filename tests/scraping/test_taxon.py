"""The adapters of iNaturalist and GBIF, against replicas with the traps of the real ones."""

from pathlib import Path

import pytest

from scraping.records.image_log import new_record
from scraping.sources.catalogue import Outcome
from scraping.sources.gbif import exact_match, media_license
from scraping.sources.inaturalist import exact_taxon
from scraping.sources.licenses import License
from scraping.sources.taxon import PHOTO_PATH, is_inaturalist_photo, sized_address
from tests.replicas.gbif import DATASETS, GbifReplica
from tests.replicas.inaturalist import InaturalistReplica
from tests.scraping.source_client import SourceClient


def test_inaturalist_gives_licensed_photographs_of_exactly_the_taxon_asked_for():
    with InaturalistReplica() as site:
        result = SourceClient("inaturalist", site).search("Jaguar", limit=40)
        assert result.outcome is Outcome.OK, result
        assert [candidate.rank for candidate in result.candidates] == list(range(1, 41))
        assert site.asked("/v1/observations")[0].query["taxon_id"] == "41970"
        assert site.asked("/v1/observations")[0].query["quality_grade"] == "research"
        first = result.candidates[0]
        assert (first.license, first.license_version, first.license_basis) == (
            "cc-by",
            "4.0",
            "per-item",
        )
        assert first.license_url == "https://creativecommons.org/licenses/by/4.0/"
        assert first.page_url == "https://www.inaturalist.org/observations/7000"
        assert (first.creator, first.title) == ("Observer 0", "Jaguar")
        assert result.candidates[1].creator == "user1"


def test_inaturalist_skips_reserved_photographs_and_keeps_the_spelling_of_extensions():
    with InaturalistReplica(total=24) as site:
        result = SourceClient("inaturalist", site).search("jaguar", limit=100, max_side=1024)
        assert result.outcome is Outcome.PARTIAL
        assert len(result.candidates) == 24 - 4
        names = {candidate.image_url.rpartition("/")[2] for candidate in result.candidates}
        assert names == {"large.jpg", "large.JPG", "large.jpeg", "large.png"}
        assert result.stats.dropped == 0


@pytest.mark.parametrize("words", ["golf", "beetle", "corgi"])
def test_what_is_only_nearly_the_name_of_a_living_thing_is_not_asked_for_at_inaturalist(words):
    with InaturalistReplica() as site:
        result = SourceClient("inaturalist", site).search(words)
        assert result.outcome is Outcome.NOT_APPLICABLE
        assert words in result.message
        assert site.asked("/v1/observations") == []


def test_inaturalist_pages_are_read_to_the_last_and_no_further():
    with InaturalistReplica(total=450) as site:
        result = SourceClient("inaturalist", site).search("house cat", limit=1000)
        assert result.outcome is Outcome.PARTIAL
        pages = [
            (request.query["page"], request.query["per_page"])
            for request in site.asked("/v1/observations")
        ]
        assert pages == [("1", "200"), ("2", "200"), ("3", "200")]
        assert len(result.candidates) == 450 - 75


@pytest.mark.parametrize("make", [InaturalistReplica, GbifReplica])
@pytest.mark.parametrize(
    ("scenario", "outcome", "some", "cool_down"),
    [
        ("throttled", Outcome.RATE_LIMITED, True, {61.0, 180.0}),
        ("changed", Outcome.LAYOUT_CHANGED, False, {6 * 3600.0}),
        ("drifted", Outcome.LAYOUT_CHANGED, True, {6 * 3600.0}),
        ("down", Outcome.NETWORK, False, {60.0}),
        ("empty", Outcome.NO_RESULTS, False, {None}),
    ],
)
def test_each_end_of_a_taxon_source_has_its_outcome_and_keeps_what_was_found(
    make, scenario, outcome, some, cool_down, tmp_path
):
    source = "gbif" if make is GbifReplica else "inaturalist"
    with make(total=400, scenario=scenario) as site:
        result = SourceClient(source, site).search(
            "Panthera onca", limit=300, snapshot_dir=str(tmp_path)
        )
        assert (result.outcome, bool(result.candidates)) == (outcome, some), result
        assert result.cool_down_seconds in cool_down
        assert ("GBIF" if source == "gbif" else "iNaturalist") in result.message
        saved = list(tmp_path.iterdir())
        assert bool(saved) == (outcome is Outcome.LAYOUT_CHANGED)
        assert not saved or Path(result.snapshot) == saved[0]


def test_a_changed_search_for_taxa_is_told_from_a_word_that_names_none(tmp_path):
    with InaturalistReplica(scenario="taxa changed") as site:
        result = SourceClient("inaturalist", site).search("jaguar", snapshot_dir=str(tmp_path))
        assert result.outcome is Outcome.LAYOUT_CHANGED
        assert '"taxa"' in Path(result.snapshot).read_text()


def test_gbif_gives_pictures_with_the_licence_of_each_in_one_spelling():
    with GbifReplica(total=20) as site:
        result = SourceClient("gbif", site).search("Panthera onca", limit=100)
        assert result.outcome is Outcome.PARTIAL, result
        found = {
            candidate.page_url.rpartition("/")[2]: candidate for candidate in result.candidates
        }
        assert "4" not in found  # all rights reserved
        assert "5" not in found  # no address
        spelled = [(found[key].license, found[key].license_version) for key in ("0", "1", "2", "3")]
        assert spelled == [("cc-by-nc", "4.0"), ("cc0", "1.0"), ("cc-by", "4.0"), ("cc-by", "4.0")]
        assert all(candidate.license_basis == "per-item" for candidate in result.candidates)
        assert found["0"].creator == "Collector 0"
        assert found["0"].attribution == "Collector 0, Panthera onca, CC BY-NC 4.0, via GBIF"
        assert all(candidate.image_url.endswith(("jpg", "jpeg")) for candidate in result.candidates)


def test_a_photograph_of_inaturalist_listed_by_gbif_has_the_same_address_in_both():
    with GbifReplica(total=20) as museum, InaturalistReplica(total=20) as site:
        listed = SourceClient("gbif", museum).search("Panthera onca", limit=100, max_side=1024)
        own = SourceClient("inaturalist", site).search("Panthera onca", limit=100, max_side=1024)
    again = [
        found.image_url for found in listed.candidates if is_inaturalist_photo(found.image_url)
    ]
    assert [PHOTO_PATH.search(url)[0] for url in again] == ["/photos/7/large", "/photos/17/large"]
    assert again[0].endswith("/photos/7/large.jpeg")
    own_photos = {PHOTO_PATH.search(found.image_url)[0] for found in own.candidates}
    assert {"/photos/7/large", "/photos/17/large"} <= own_photos


@pytest.mark.parametrize(
    ("url", "is_photo"),
    [
        ("https://inaturalist-open-data.s3.amazonaws.com/photos/12/original.jpeg", True),
        ("https://static.inaturalist.org/photos/12/large.JPG?1", True),
        ("https://upload.wikimedia.org/wikipedia/commons/a/ab/A%20cat.jpg", False),
        ("https://evil.example/photos/12/original.jpeg", False),
        ("https://notinaturalist.org/photos/12/original.jpeg", False),
        ("http://[::bad", False),
    ],
)
def test_a_photograph_of_inaturalist_is_known_by_its_address(url, is_photo):
    assert is_inaturalist_photo(url) is is_photo


def test_gbif_finds_a_taxon_by_its_exact_common_name():
    with GbifReplica() as site:
        client = SourceClient("gbif", site)
        assert client.search("jaguar", limit=5).outcome is Outcome.OK
        assert site.asked("/v1/occurrence/search")[0].query["taxonKey"] == "5219426"
        assert client.other_names("jaguar") == ["Panthera onca"]


@pytest.mark.parametrize("words", ["panthera onka", "panthera corgi", "corgi", "jaguarund"])
def test_fuzzy_and_higher_matches_of_gbif_are_not_asked_for(words):
    with GbifReplica() as site:
        result = SourceClient("gbif", site).search(words)
        assert result.outcome is Outcome.NOT_APPLICABLE
        assert site.asked("/v1/occurrence/search") == []


def test_other_names_come_from_exact_taxa_only():
    with InaturalistReplica() as site:
        client = SourceClient("inaturalist", site)
        assert client.other_names("house cat") == ["Domestic Cat", "Felis catus"]
        assert client.other_names("Panthera onca") == ["Jaguar"]
        assert client.other_names("golf") == []


@pytest.mark.parametrize(
    ("side", "size"), [(256, "medium"), (500, "medium"), (1024, "large"), (1500, "original")]
)
def test_the_size_asked_for_suffices_and_is_no_larger_than_needed(side, size):
    assert (
        sized_address("https://h.example/photos/1/square.JPEG?1", side)
        == f"https://h.example/photos/1/{size}.JPEG?1"
    )


def test_names_are_compared_without_case_and_never_in_part():
    taxa = [
        None,
        {"name": "Corgius", "id": 1},
        {"name": "A", "matched_term": " Shiba  inu ", "id": 2},
    ]
    assert exact_taxon(taxa, "shiba inu") == taxa[2]
    assert exact_taxon(taxa, "shiba") is None
    assert exact_taxon(taxa, "") is None
    assert exact_match({"matchType": "EXACT", "usageKey": "7"}) is None


def test_a_picture_that_states_something_unknown_does_not_borrow_the_licence_of_its_record():
    record = {"license": "http://creativecommons.org/licenses/by/4.0/"}
    assert media_license({"license": "ask the museum"}, record) == License()
    assert media_license({}, record).name == "cc-by"


def test_gbif_names_the_dataset_of_each_picture():
    with GbifReplica(total=12) as site:
        result = SourceClient("gbif", site).search("Panthera onca", limit=12)
        keys = {candidate.dataset_key for candidate in result.candidates}
        assert keys == {DATASETS[0], DATASETS[1].lower(), ""}
        record = new_record(result.candidates[0], "c001")
        assert record["dataset_key"] == result.candidates[0].dataset_key
