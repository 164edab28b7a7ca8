"""The catalogue of the sources: their order, their settings, and outcomes in words."""

from datetime import date

from scraping.sources.catalogue import (
    CATALOGUE,
    DEFAULT_ORDER,
    Outcome,
    credential_settings,
    in_order,
    url_setting,
    usual_sources,
)
from scraping.sources.registry import REGISTRY
from scraping.sources.terms import TERMS


def test_the_default_order_is_the_documented_one():
    assert DEFAULT_ORDER == ("openverse", "wikimedia", "inaturalist", "gbif", "bing")
    assert set(DEFAULT_ORDER) < set(REGISTRY)
    assert in_order(["google", "nasa", "google", "bing"]) == ("nasa", "bing", "google")
    assert list(REGISTRY)[-1] == "google"


def test_a_source_with_a_key_is_on_when_the_key_is_there():
    assert usual_sources({}) == usual_sources({"pixabay_key": ""}) == DEFAULT_ORDER
    assert usual_sources({"pixabay_key": "x"}) == (*DEFAULT_ORDER, "pixabay")


def test_each_outcome_is_said_in_words():
    words = [outcome.in_words for outcome in Outcome]
    assert all(words) and len(set(words)) == len(words)


def test_a_source_and_its_credentials_have_settings_of_their_own():
    assert url_setting("bing") == "PICAISSO_BING_URL"
    assert credential_settings() == {
        "openverse_client_id": "PICAISSO_OPENVERSE_CLIENT_ID",
        "openverse_client_secret": "PICAISSO_OPENVERSE_CLIENT_SECRET",
        "pixabay_key": "PICAISSO_PIXABAY_KEY",
    }


def test_the_terms_of_each_source_are_one_sentence_with_the_date_they_were_read():
    searched = {name for name, info in CATALOGUE.items() if not info.supplied}
    assert set(TERMS) == searched
    for terms in TERMS.values():
        assert terms.sentence.endswith(".") and ". " not in terms.sentence
        assert terms.url.startswith("https://") and date.fromisoformat(terms.read)
