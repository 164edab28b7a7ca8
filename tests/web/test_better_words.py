"""Words for names of several meanings: what is asked, of whom, how often, and what is said."""

import pytest
from django.core.cache import cache

from requests_app import better_words
from requests_app.models import SourceHealth
from tests.replicas.commons import CommonsReplica

THINGS = {
    "jaguar": [
        "species of large cat native to the Americas",
        "British car brand",
        "family name",
        "subspecies of mammal",
        "electric guitar",
    ],
    "corgi": ["dog breed", "village in Wales"],
    "mercury": ["first planet from the Sun", "chemical element with symbol Hg"],
}


@pytest.fixture
def commons(settings):
    """Wikidata as its clients meet it, and a site that may ask it."""
    cache.clear()
    with CommonsReplica(things=THINGS) as replica:
        settings.CONTACT = "operator@example.org"
        settings.SOURCES = ["wikimedia"]
        settings.SOURCE_URLS = {"wikimedia": replica.url}
        settings.ALLOWED_PRIVATE_HOSTS = [replica.url.removeprefix("http://")]
        yield replica
    cache.clear()


@pytest.fixture
def unhurried(monkeypatch):
    monkeypatch.setattr(better_words, "PACE_SECONDS", 0)


def labels(client, name: str) -> list[str]:
    answer = client.get("/words/", {"name": name})
    assert answer.status_code == 200
    return [meaning["label"] for meaning in answer.json()["meanings"]]


def test_a_name_of_several_kinds_of_things_gets_words_for_each(client, commons):
    answer = client.get("/words/", {"name": " Jaguar "}).json()
    assert answer["meanings"] == [
        {
            "label": "animal",
            "query": "Jaguar animal",
            "about": "species of large cat native to the Americas",
        },
        {"label": "car", "query": "Jaguar car", "about": "British car brand"},
        {"label": "instrument", "query": "Jaguar instrument", "about": "electric guitar"},
    ]


def test_a_name_of_one_kind_gets_no_question(client, commons, unhurried):
    assert labels(client, "corgi") == []
    assert labels(client, "mercury") == ["planet", "chemical element"]
    assert labels(client, "nobody knows this") == []


def test_an_answer_is_kept_and_short_names_are_not_asked(client, commons):
    for name in ("jaguar", "JAGUAR", "jaguar ", "ja", "a\u202eb", "x" * 65):
        client.get("/words/", {"name": name})
    assert commons.names_asked == ["jaguar"]


@pytest.mark.parametrize(
    "change",
    [{"CONTACT": ""}, {"SOURCES": ["bing"]}, {"LOCALE": "de-DE"}],
    ids=["no contact", "another source", "another language"],
)
def test_it_is_off_where_the_source_may_not_be_asked(client, commons, settings, change):
    for name, value in change.items():
        setattr(settings, name, value)
    assert labels(client, "jaguar") == []
    assert commons.names_asked == []
    assert "data-words" not in client.get("/").content.decode()


def test_a_source_that_is_down_or_rests_means_no_suggestion(client, commons, settings, unhurried):
    SourceHealth.record("wikimedia", "rate_limited", "Slow down.", cool_down_seconds=600)
    assert labels(client, "jaguar") == []
    assert commons.names_asked == []
    SourceHealth.objects.all().delete()
    with CommonsReplica(wikidata_status=503) as broken:
        settings.SOURCE_URLS = {"wikimedia": broken.url}
        settings.ALLOWED_PRIVATE_HOSTS = [broken.url.removeprefix("http://")]
        assert labels(client, "leopard") == []
        assert labels(client, "leopard") == []
        assert broken.names_asked == ["leopard"]


def test_the_source_is_asked_at_its_pace_and_a_visitor_has_a_limit(client, commons, monkeypatch):
    assert client.get("/words/", {"name": "jaguar"}).status_code == 200
    hurried = client.get("/words/", {"name": "mercury"})
    assert hurried.status_code == 429 and hurried.headers["Retry-After"] == "2"
    cache.delete("words:pace")
    monkeypatch.setattr(better_words, "PACE_SECONDS", 0)
    monkeypatch.setattr(better_words, "A_VISITOR_A_MINUTE", 4)
    codes = [client.get("/words/", {"name": f"name {n}"}).status_code for n in range(4)]
    assert codes == [200, 200, 429, 429]
    elsewhere = client.get("/words/", {"name": "name 9"}, REMOTE_ADDR="192.0.2.7")
    assert elsewhere.status_code == 200
