"""Pictures that somebody asked to be taken down, and that no later collection may bring back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from scraping.urls import url_digest


@dataclass(frozen=True)
class TakenDown:
    """SHA-256 digests: `urls` of normalised addresses, `hashes` of pictures as received or as
    stored.
    """

    urls: frozenset[str] = frozenset()
    hashes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, lists: Mapping[str, Sequence[str]]) -> Self:
        """From the configuration's lists."""
        return cls(frozenset(lists.get("urls", ())), frozenset(lists.get("hashes", ())))

    def names(self, *addresses: str) -> bool:
        """Whether one of the addresses, of a picture or of its page, is on the list."""
        return bool(self.urls) and any(
            url_digest(address) in self.urls for address in addresses if address
        )

    def holds(self, *digests: str | None) -> bool:
        """Whether one of the pictures' digests is on the list."""
        return not self.hashes.isdisjoint(digests)
