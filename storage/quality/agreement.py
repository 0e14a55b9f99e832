"""Krippendorff's alpha: how far judgements of the same thing agree beyond what chance would give.

1 is perfect agreement, 0 is what chance gives, below 0 people disagree systematically. Krippendorff, *Content
Analysis* (2018), chapter 12. With a distance d(v, w) = |e(v) - e(w)|^2 for points e of a space, the disagreement within
a unit of m judgements and that between all N judgements both follow from sums over units:

    observed = sum over units of 2 (m sum|e|^2 - |sum e|^2) / (m - 1)
    expected = 2 (N sum|e|^2 - |sum e|^2) / (N - 1)
    alpha    = 1 - observed / expected

so that a resample is one product of matrices, and units that look alike are counted once. The interval resamples whole
units: judgements of one unit are not independent of each other. The package `evalica` computes the same alpha and is
what the tests compare with; it is not used here because it brings SciPy into the web process (60 MB) and takes about
0.7 s for each criterion with 100,000 units.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

RESAMPLES = 1000
_TOGETHER = 100  # resamples held in memory at once
_SEED = 20_221_122


class Metric(StrEnum):
    """How far apart two values are: all the same, by rank, by difference."""

    NOMINAL = "nominal"
    ORDINAL = "ordinal"
    INTERVAL = "interval"


class Interval(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Units:
    """Judgements of the same things by several people; units with the same judgements by the same people are merged.

    `rater`, `value` and `unit` are one entry a judgement, `count` says how often unit 0, 1, … occurs.
    """

    rater: Ints
    value: Ints
    unit: Ints
    count: Ints

    @property
    def size(self) -> Ints:
        """Judgements in each unit."""
        return np.bincount(self.unit, minlength=len(self.count))

    @property
    def weight(self) -> Ints:
        """How often each entry occurs."""
        return self.count[self.unit]

    def with_values(self, value: Ints) -> Units:
        """The same units with other values, an entry each."""
        return Units(self.rater, value, self.unit, self.count)


def make_units(signatures: Iterable[tuple[Iterable[tuple[int, int]], int]]) -> Units:
    """Units from (((rater, value), …), count) pairs; those with fewer than two judgements are left out."""
    merged: dict[tuple[tuple[int, int], ...], int] = {}
    for judged, count in signatures:
        key = tuple(sorted(judged))  # the database gives them in any order
        if len(key) > 1:
            merged[key] = merged.get(key, 0) + count
    entries = [(rater, value, unit) for unit, key in enumerate(sorted(merged)) for rater, value in key]
    rater, value, unit = np.array(entries, dtype=np.int64).reshape(-1, 3).T
    return Units(rater, value, unit, np.array([merged[key] for key in sorted(merged)], dtype=np.int64))


def alpha(units: Units, metric: Metric, resamples: int = RESAMPLES) -> Interval | None:
    """Krippendorff's alpha with a bootstrap interval (percentiles, units resampled, the same seed every time).

    None where it is not defined: nothing was judged twice, or everybody always said the same.
    """
    if not len(units.count):
        return None
    sums = _sums(units, metric)
    value = _alpha_of(units.count[None, :] @ sums)[0]
    if np.isnan(value):
        return None
    rows, first = np.unique(sums.round(9), axis=0, return_inverse=True)
    counts = np.bincount(first.ravel(), weights=units.count).astype(np.int64)
    low, high = np.nanquantile(_resampled(rows, counts, resamples), [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


def _resampled(rows: Floats, counts: Ints, resamples: int) -> Floats:
    rng = np.random.default_rng(_SEED)
    share = counts / counts.sum()
    parts = [
        _alpha_of(rng.multinomial(counts.sum(), share, size=min(_TOGETHER, resamples - done)) @ rows)
        for done in range(0, resamples, _TOGETHER)
    ]
    drawn = np.concatenate(parts)
    # A resample in which everybody says the same has no alpha; all of it agreed.
    return np.where(np.isnan(drawn), 1.0, drawn)


def _sums(units: Units, metric: Metric) -> Floats:
    """Per unit: its size, its sum of |e|^2, its observed disagreement, and its sum of e."""
    points = _points(units, metric)
    square = (points**2).sum(axis=1)
    number = len(units.count)
    size = units.size.astype(np.float64)
    squares = np.bincount(units.unit, weights=square, minlength=number)
    totals = [np.bincount(units.unit, weights=column, minlength=number) for column in points.T]
    spread = size * squares - sum(total**2 for total in totals)
    return np.column_stack([size, squares, 2 * spread / (size - 1), *totals])


def _points(units: Units, metric: Metric) -> Floats:
    """The place e of each entry's value, such that the metric's distance is the squared distance of places."""
    values, code = np.unique(units.value, return_inverse=True)
    code = code.ravel()
    places: Floats
    if metric is Metric.NOMINAL:
        places = np.eye(len(values)) / np.sqrt(2.0)
    elif metric is Metric.INTERVAL:
        # Differences count, not where the scale begins; sums of squares are smaller so.
        places = (values - values.mean())[:, None]
    else:
        frequency = np.bincount(code, weights=units.weight).astype(np.float64)
        ranks = np.cumsum(frequency) - frequency / 2
        places = ((ranks - ranks.mean()) / frequency.sum())[:, None]  # the unit of length cancels out
    picked: Floats = places[code]
    return picked


def _alpha_of(sums: Floats) -> Floats:
    number, squares, observed, totals = sums[:, 0], sums[:, 1], sums[:, 2], sums[:, 3:]
    expected = 2 * (number * squares - (totals**2).sum(axis=1)) / (number - 1)
    # Where everybody says the same, rounding leaves a speck.
    nothing = expected <= 1e-9 * np.maximum(squares, 1e-300)
    result: Floats = np.where(nothing, np.nan, 1 - observed / np.where(nothing, 1.0, expected))
    return result
