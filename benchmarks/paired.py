"""Means of figures of pictures, and the standard errors of paired differences between two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.metrics import Floats, Labels


@dataclass(frozen=True)
class Measure:
    """A figure of each picture, a mean over the repetitions, such as how often it was right."""

    values: Floats
    """[n]."""
    strata: Labels
    """[n]: each stratum, such as a class, counts the same in the mean, however few it has."""
    clusters: Labels
    """[n]: pictures of a cluster, such as near-duplicates, are no independent evidence."""

    @property
    def mean(self) -> float:
        """The mean of the means of the strata."""
        return float(self._shares() @ self.values)

    @property
    def error(self) -> float:
        """The standard error of the mean, as other pictures of the same kinds would move it.

        Of sums over clusters of what each picture differs from its stratum's mean. NaN of a single
        cluster.
        """
        clusters, cluster_of = np.unique(self.clusters, return_inverse=True)
        count = len(clusters)
        if count < 2:
            return math.nan
        deviations = np.zeros(len(self.values))
        for stratum in np.unique(self.strata):
            members = self.strata == stratum
            of_stratum = self.values[members]
            deviations[members] = of_stratum - of_stratum.mean()
        parts = np.bincount(cluster_of, self._shares() * deviations)
        return math.sqrt(count / (count - 1) * float(parts @ parts))

    def minus(self, other: Measure) -> Measure:
        """Return the paired difference; raises ValueError where the pictures are not the same."""
        same = np.array_equal(self.strata, other.strata)
        if not same or not np.array_equal(self.clusters, other.clusters):
            raise ValueError("only figures of the same pictures can be compared")
        return Measure(self.values - other.values, self.strata, self.clusters)

    def _shares(self) -> Floats:
        """Return what each picture counts [n]; the sum is 1."""
        strata, stratum_of, counts = np.unique(self.strata, return_inverse=True, return_counts=True)
        shares: Floats = 1 / (len(strata) * counts[stratum_of])
        return shares


def of_repetitions(values: Sequence[float]) -> Measure:
    """Return a figure that each repetition has once."""
    count = len(values)
    return Measure(np.array(values, np.float64), np.zeros(count, np.int64), np.arange(count))


def plain(measure: Measure) -> str:
    """Return the mean in %."""
    return f"{100 * measure.mean:.1f}"


def with_error(measure: Measure) -> str:
    """Return a difference in points with its standard error."""
    return f"{100 * measure.mean:+.1f} ± {100 * measure.error:.1f}"


def save(measures: Mapping[str, Measure], path: Path) -> None:
    """Write figures by name, for `read`."""
    arrays: dict[str, Any] = {}
    for name, measure in measures.items():
        arrays[f"{name}/values"] = measure.values
        arrays[f"{name}/strata"] = measure.strata
        arrays[f"{name}/clusters"] = measure.clusters
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, **arrays)


def read(path: Path) -> dict[str, Measure]:
    """Read what `save` wrote."""
    measures = {}
    with np.load(path) as file:
        for key in file.files:
            name, _, part = key.rpartition("/")
            if part == "values":
                strata = file[f"{name}/strata"]
                measures[name] = Measure(file[key], strata, file[f"{name}/clusters"])
    return measures
