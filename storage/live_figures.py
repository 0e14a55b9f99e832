"""What people say of model versions by what they do anyway: figures of a policy, with intervals.

- win_rate: of decided comparisons with completions of other versions, those it won;
- rating: the mean rating of its completions on the scale of 1 to 5, over criteria first, then over judgements;
- resolution: of old critiques that it answered anew, those whose authors call them fixed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from math import sqrt
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Float, and_, func, or_, select, type_coerce
from sqlalchemy.orm import Session, aliased

from storage.enums import ModelKind, Outcome, ResolutionVerdict
from storage.judged import SCALED, live_annotation
from storage.models import (
    Annotation,
    Completion,
    Criterion,
    Critique,
    ModelVersion,
    Preference,
    Project,
    Rating,
    Resolution,
)
from storage.registry import list_versions

NAMES = ("win_rate", "rating", "resolution")
VERSIONS = 12  # of the trend, the newest
_Z95 = 1.959964
_DECIDED = (Outcome.FIRST, Outcome.SECOND)


class Live(NamedTuple):
    """A mean over `n` judgements with the variance of one of them."""

    value: float | None
    n: int
    variance: float

    def bounds(self, z: float = _Z95) -> tuple[float | None, float | None]:
        """The interval of the mean; None where nothing was counted."""
        if self.value is None or not self.n:
            return None, None
        half = z * sqrt(self.variance / self.n)
        return self.value - half, self.value + half

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with a 95 % interval."""
        low, high = self.bounds()
        return {"value": self.value, "low": low, "high": high, "n": self.n}


NOTHING = Live(None, 0, 0.0)


@dataclass
class Trend:
    """The figures of one version by name."""

    version: ModelVersion
    figures: dict[str, Live] = field(default_factory=dict)


def trends(session: Session, project: Project) -> list[Trend]:
    """The figures of the newest policies that somebody has judged, oldest first."""
    versions = [one for one in list_versions(session, project) if one.kind is ModelKind.POLICY][:VERSIONS]
    found = figures_of(session, [one.id for one in versions])
    rows = [Trend(one, found[one.id]) for one in reversed(versions)]
    return [row for row in rows if any(figure.n for figure in row.figures.values())]


def figures_of(
    session: Session,
    ids: Collection[int],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> dict[int, dict[str, Live]]:
    """The figures of versions by id and name, of what was said from `since` on and before `until`."""
    ratings = _ratings(session, ids, since, until)
    wins = wins_of(session, ids, since, until)
    fixed = _fixed(session, ids, since, until)
    return {
        one: {
            "win_rate": share_of(*map(sum, zip(*wins[one].values(), strict=True))) if wins[one] else NOTHING,
            "rating": ratings.get(one, NOTHING),
            "resolution": fixed.get(one, NOTHING),
        }
        for one in ids
    }


def _within(column: Any, since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [] if since is None else [column >= since]
    return found if until is None else [*found, column < until]


def _ratings(session: Session, ids: Collection[int], since: datetime | None, until: datetime | None) -> dict[int, Live]:
    of_one = (
        select(Completion.model_version_id.label("version"), type_coerce(func.avg(SCALED), Float).label("value"))
        .select_from(Rating)
        .join(Criterion, and_(Criterion.id == Rating.criterion_id, Criterion.high > Criterion.low))
        .join(Completion, Completion.id == Rating.completion_id)
        .join(Annotation, Annotation.id == Rating.annotation_id)
        .where(Completion.model_version_id.in_(ids), live_annotation())
        .where(*_within(Annotation.submitted_at, since, until))
        .group_by(Completion.model_version_id, Rating.annotation_id, Rating.completion_id)
        .subquery()
    )
    value = of_one.c.value
    rows = session.execute(
        select(of_one.c.version, func.count(), func.avg(value), func.avg(value * value)).group_by(of_one.c.version)
    )
    found = {}
    for version, n, mean, square in rows:
        spread = max(float(square) - float(mean) ** 2, 0.0)
        found[version] = Live(float(mean), n, spread * n / (n - 1) if n > 1 else spread)
    return found


def wins_of(
    session: Session, ids: Collection[int], since: datetime | None, until: datetime | None
) -> dict[int, dict[int, tuple[int, int]]]:
    """Version -> whom it met -> (comparisons won, decided)."""
    first, second = aliased(Completion), aliased(Completion)
    one, other = first.model_version_id, second.model_version_id
    rows = session.execute(
        select(one, other, Preference.outcome, func.count())
        .select_from(Preference)
        .join(Annotation, Annotation.id == Preference.annotation_id)
        .join(first, first.id == Preference.first_id)
        .join(second, second.id == Preference.second_id)
        .where(or_(one.in_(ids), other.in_(ids)), one != other, Preference.outcome.in_(_DECIDED), live_annotation())
        .where(*_within(Annotation.submitted_at, since, until))
        .group_by(one, other, Preference.outcome)
    )
    found: dict[int, dict[int, tuple[int, int]]] = defaultdict(dict)
    for a, b, outcome, n in rows:
        if a is None or b is None:
            continue  # never: the comparison above leaves those of people and imports out
        for mine, met, won in ((a, b, outcome is Outcome.FIRST), (b, a, outcome is Outcome.SECOND)):
            hits, total = found[mine].get(met, (0, 0))
            found[mine][met] = (hits + (n if won else 0), total + n)
    return found


def _fixed(session: Session, ids: Collection[int], since: datetime | None, until: datetime | None) -> dict[int, Live]:
    rows = session.execute(
        select(Resolution.version_id, Resolution.verdict, func.count())
        .join(Critique, Critique.id == Resolution.critique_id)
        .join(Annotation, Annotation.id == Critique.annotation_id)
        .where(Resolution.version_id.in_(ids), Resolution.verdict.is_not(None), live_annotation())
        .where(*_within(Resolution.judged_at, since, until))
        .group_by(Resolution.version_id, Resolution.verdict)
    )
    counts: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for version, verdict, n in rows:
        counts[version][0] += n if verdict is ResolutionVerdict.FIXED else 0
        counts[version][1] += n
    return {version: share_of(hits, total) for version, (hits, total) in counts.items()}


def share_of(hits: int, total: int) -> Live:
    """A share; its variance with two hits and two misses more, which keeps it honest near 0 and 1 (Agresti, Coull)."""
    if not total:
        return NOTHING
    drawn = (hits + 2) / (total + 4)
    return Live(hits / total, total, drawn * (1 - drawn))
