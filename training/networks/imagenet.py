"""The classifier that a pretrained network comes with: the 1000 classes of ImageNet-1k.

A run's own classes replace it. It still knows pages, menus, packets and screens, which come up in
every search for pictures and seldom show what was searched for. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.metrics import Floats, softmax

CLASSES = 1000

PAGES: Mapping[int, str] = {
    446: "binder",
    527: "desktop computer",
    549: "envelope",
    590: "hand-held computer",
    611: "jigsaw puzzle",
    620: "laptop",
    664: "monitor",
    681: "notebook",
    692: "packet",
    782: "screen",
    851: "television",
    916: "web site",
    917: "comic book",
    918: "crossword puzzle",
    921: "book jacket",
    922: "menu",
}
"""Index to ImageNet's name of what is a page, screen, packet or drawing."""


@dataclass(frozen=True)
class ImageNetHead:
    """Linear classifier on a pretrained network's embeddings."""

    weight: NDArray[np.float32]
    """[1000, d]."""
    bias: NDArray[np.float32]
    """[1000]."""

    def logits(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return [n, 1000] of embeddings [n, d]."""
        logits: NDArray[np.float32] = embeddings @ self.weight.T
        logits += self.bias
        return logits

    def page_share(self, embeddings: NDArray[np.float32]) -> Floats:
        """Return the probability [n] that images [n, d] show one of PAGES."""
        logits = self.logits(embeddings)
        probabilities = softmax(logits.astype(np.float64))
        pages = list(PAGES)
        of_pages = probabilities[:, pages]
        share: Floats = of_pages.sum(axis=1)
        return share
