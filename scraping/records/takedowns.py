"""Images that somebody asked to be taken down, and that no later collection may bring back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from scraping.records.image_log import ImageRecord
from scraping.urls import url_digest


@dataclass(frozen=True)
class TakenDown:
    """SHA-256 digests in hexadecimal.

    `urls` are of normalized URLs of images or their pages, `hashes` of bytes as received or stored.
    """

    urls: frozenset[str] = frozenset()
    hashes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, lists: Mapping[str, Sequence[str]]) -> Self:
        """Build from the lists in the configuration."""
        urls = lists.get("urls", ())
        hashes = lists.get("hashes", ())
        return cls(frozenset(urls), frozenset(hashes))

    def has_url(self, *urls: str) -> bool:
        """Return whether one of the URLs, of an image or of its page, is on the list."""
        if not self.urls:
            return False
        digests = [url_digest(url) for url in urls if url]
        return not self.urls.isdisjoint(digests)

    def has_digest(self, *digests: str | None) -> bool:
        """Return whether one of the digests of an image is on the list."""
        return not self.hashes.isdisjoint(digests)

    def has_image(self, record: ImageRecord) -> bool:
        """Return whether a recorded image is on one of the lists."""
        if self.has_url(record["image_url"], record["page_url"]):
            return True
        return self.has_digest(record["sha256"], record["source_sha256"])
