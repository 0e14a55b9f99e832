"""A share of a number of cases with its interval."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

_Z = 1.959964  # of 95 %


class Share(NamedTuple):
    """`hits` of `total` cases."""

    hits: int
    total: int

    @property
    def value(self) -> float | None:
        """The share; None of nothing."""
        return self.hits / self.total if self.total else None

    @property
    def bounds(self) -> tuple[float, float]:
        """Wilson's 95 % interval: sensible also for few cases and for shares near 0 and 1 (E. B. Wilson, 1927)."""
        if not self.total:
            return 0.0, 1.0
        share, square = self.hits / self.total, _Z**2 / self.total
        centre = (share + square / 2) / (1 + square)
        half = _Z / (1 + square) * sqrt(share * (1 - share) / self.total + square / (4 * self.total))
        return max(centre - half, 0.0), min(centre + half, 1.0)

    def leans(self, fair: float = 0.5) -> int:
        """1 or -1 where the whole interval lies above or below `fair`; else 0."""
        low, high = self.bounds
        return int(low > fair) - int(high < fair)
