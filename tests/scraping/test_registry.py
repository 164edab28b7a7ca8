"""The registry of the sources, and the addresses of their previews."""

import pytest

from scraping.sources.catalogue import (
    CATALOGUE,
)
from scraping.sources.registry import REGISTRY, THUMBNAIL_HOSTS, is_thumbnail


@pytest.mark.parametrize("name", REGISTRY)
def test_every_source_says_all_that_others_rely_on(name):
    source = REGISTRY[name]
    assert source.name == name
    assert source.default_url.startswith("https://")
    assert source.min_interval_s >= 1.0
    assert source.label == CATALOGUE[name].label
    assert source.sample_words


def test_the_registry_and_the_catalogue_name_the_same_sources_in_the_same_order():
    assert list(REGISTRY) == list(CATALOGUE)


@pytest.mark.parametrize(
    "url",
    [
        "https://encrypted-tbn0.gstatic.com/images?q=tbn:abc",
        "https://tse1.mm.bing.net/th?id=OIP.abc&pid=15.1",
        "https://th.bing.com/th/id/OIP.abc?w=200",
        "https://ts2.mm.bing.net/th/id/OIP.abc",
        "https://api.openverse.org/v1/images/abc/thumb/",
        "https://cdn.pixabay.com/photo/2020/01/01/dog_150.jpg",
        "https://images-assets.nasa.gov/image/A/A~thumb.jpg",
        "https://inaturalist-open-data.s3.amazonaws.com/photos/7/square.jpg",
        "https://upload.wikimedia.org/wikipedia/commons/thumb/a/ab/X.jpg/120px-X.jpg",
    ],
)
def test_previews_of_sources_are_known_by_their_address(url):
    assert is_thumbnail(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://www.bing.com/search?q=th",
        "https://upload.wikimedia.org/wikipedia/commons/thumb/a/ab/X.jpg/1280px-X.jpg",
        "https://inaturalist-open-data.s3.amazonaws.com/photos/7/large.jpg",
        "https://images-assets.nasa.gov/image/A/A~medium.jpg",
        "https://pages.example/th?id=OIP.abc",
        "https://pixabay.com/get/g1_1280.jpg",
        "http://127.0.0.1:8001/th/1.jpg",
        "http://[::bad",
        "",
    ],
)
def test_other_addresses_are_no_previews(url):
    assert not is_thumbnail(url)


def test_patterns_of_previews_name_a_host_each():
    assert THUMBNAIL_HOSTS
    assert all("." in pattern.partition("/")[0] for pattern in THUMBNAIL_HOSTS)
