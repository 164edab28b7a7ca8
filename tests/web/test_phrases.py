"""Numbers and codes in words."""

import pytest
from django.conf import settings

from requests_app import phrases
from scraping.sources.catalogue import Outcome
from tests.web.conftest import recorded_metrics


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.942, "94.2 %"),
        (0.9995, "99.9 %"),
        (0.5004, "50 %"),
        (0.05, "5 %"),
    ],
)
def test_a_share_has_at_most_one_decimal(share, text):
    assert phrases.percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "under 1 s"),
        (-3, "under 1 s"),
        (0.6, "1 s"),
        (9.4, "9 s"),
        (9.6, "10 s"),
        (12, "12 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (3900, "1 h 5 min"),
    ],
)
def test_a_duration_is_written_as_people_say_it(seconds, text):
    assert phrases.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3, "less than a minute"),
        (61, "about 1 minute"),
        (250, "about 4 minutes"),
        (7200, "about 2 hours"),
    ],
)
def test_an_estimate_is_as_coarse_as_it_deserves(seconds, text):
    assert phrases.time_left(seconds) == text


def test_reasons_are_counted_the_largest_first():
    counts = {"too_small": 3, "duplicate": 9, "unreachable": 1, "license": 0, "something_new": 2}
    assert phrases.rejections(counts) == "9 duplicates, 3 too small, 2 something new, 1 unreachable"
    assert phrases.rejections({"duplicate": 1}) == "1 duplicate"
    assert phrases.rejections({}) == ""
    assert phrases.rejections({"ai_made": 3}) == "3 marked as made by AI"


def test_every_reason_and_outcome_of_the_contract_has_words():
    reasons = [
        "unreachable",
        "refused_address",
        "http_error",
        "too_large",
        "not_a_picture",
        "too_small",
        "bad_shape",
        "duplicate",
        "near_duplicate",
        "in_two_classes",
        "opted_out",
        "ai_made",
        "license",
        "taken_down",
        "refused_digest",
        "nudity",
        "over_quota",
    ]
    outcomes = [
        "ok",
        "partial",
        "no_results",
        "not_applicable",
        "blocked",
        "rate_limited",
        "layout_changed",
        "timeout",
        "network",
        "unavailable",
    ]
    assert set(phrases.REASONS) == set(reasons)
    assert {str(outcome) for outcome in Outcome} == set(outcomes)
    for code in outcomes:
        assert phrases.outcome(code) != code.replace("_", " ")


def test_an_outcome_of_another_version_is_shown_as_it_is():
    assert phrases.outcome("gone_fishing") == "gone fishing"


def test_a_count_names_one_or_several():
    assert phrases.counted(0, "picture") == "0 pictures"
    assert phrases.counted(1, "picture") == "1 picture"
    assert phrases.counted(1200, "piece", "pieces") == "1,200 pieces"


def test_the_verdict_on_a_run_of_the_version_before_claims_no_more_than_was_shown():
    recorded = recorded_metrics()
    assert "verdict" not in recorded
    assert phrases.verdict(recorded).startswith(
        "This model tells the classes apart: right on 8 of 8 test pictures that it never saw"
    )
    failed = {**recorded, "better_than_chance": False}
    assert "no better than guessing" not in phrases.verdict(failed)
    assert phrases.verdict(failed).startswith("With so few pictures it is not shown")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1, "1 byte"),
        (730, "730 bytes"),
        (12_345, "12.3 kB"),
        (999_960, "1.0 MB"),
        (1_000_000, "1.0 MB"),
        (55_700_000, "55.7 MB"),
        (1_200_000_000, "1.2 GB"),
        (1_234_000_000_000, "1,234.0 GB"),
    ],
)
def test_a_megabyte_has_a_million_bytes(number, text):
    assert phrases.size(number) == text


def test_no_template_has_another_megabyte():
    folder = settings.BASE_DIR / "templates"
    files = [file for file in folder.rglob("*") if file.suffix in (".html", ".txt", ".md")]
    assert files
    assert [file.name for file in files if "filesizeformat" in file.read_text()] == []
