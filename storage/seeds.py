"""How far figures move with nothing but the seed: versions of one recipe, settings and data that differ in it alone.

A figure that one run reports holds what the recipe does and what its seed happened to do. Where a project trained the
same several times (`seed=1`, `seed=2`, …), the spread of each figure over the seeds says how much of a difference
between two versions is luck. Each is measured on the same held-out prompts against the same champion; the spread is the
sample standard deviation, beside which the bootstrap interval of one version knows of the prompts only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean, stdev
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.evaluations import figures, latest_evaluation
from storage.models import ModelVersion, Run

SEED = "seed"


class Spread(NamedTuple):
    """A figure over seeds; `deviation` is that of one version, of the mean it is less."""

    mean: float
    deviation: float
    low: float
    high: float
    n: int


class OverSeeds(NamedTuple):
    """Versions that differ in their seed alone, oldest first, and the figures that at least two of them have.

    They are those whose figures count; where fewer than two do, all of them.
    """

    versions: list[str]
    seeds: list[int]
    figures: dict[str, Spread]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        spreads = {name: one._asdict() for name, one in self.figures.items()}
        return {"versions": self.versions, "seeds": self.seeds, "figures": spreads}


def over_seeds(session: Session, version: ModelVersion) -> OverSeeds | None:
    """The figures of a version over the seeds with which the same was trained; None where there is one seed only."""
    alike = _alike(session, version)
    if len(alike) < 2:
        return None
    own = latest_evaluation(session, version)
    values: dict[str, list[float]] = {}
    counted = []
    for one, run in alike:
        found = latest_evaluation(session, one)
        if own is None or found is None or found.champion_id != own.champion_id:
            continue
        known = {name: figure.value for name, figure in figures(found).items() if figure.value is not None}
        for name, value in known.items():
            values.setdefault(name, []).append(value)
        counted += [(one, run)] if known else []
    spreads = {name: _spread(held) for name, held in values.items() if len(held) > 1}
    told = counted if spreads else alike
    return OverSeeds([one.name for one, _ in told], [run.seed for _, run in told], spreads)


def groups(session: Session, versions: Iterable[ModelVersion]) -> list[OverSeeds]:
    """`over_seeds` of each version, those that belong together once."""
    found = (over_seeds(session, version) for version in versions)
    return list({tuple(one.versions): one for one in found if one is not None}.values())


def _alike(session: Session, version: ModelVersion) -> list[tuple[ModelVersion, Run]]:
    """The newest version of each seed, itself instead of another of its own seed; oldest first."""
    run = session.get(Run, version.run_id) if version.run_id else None
    if run is None or run.snapshot_id is None:
        return []
    rows = session.execute(
        select(ModelVersion, Run)
        .join(Run, Run.id == ModelVersion.run_id)
        .where(
            ModelVersion.project_id == version.project_id,
            ModelVersion.kind == version.kind,
            ModelVersion.base_model == version.base_model,
            ModelVersion.snapshot_id == version.snapshot_id,
            Run.kind == run.kind,
            Run.parent_version_id.is_not_distinct_from(run.parent_version_id),
        )
        .order_by(ModelVersion.id)
    )
    by_seed = {other.seed: (one, other) for one, other in rows if _rest(other.config) == _rest(run.config)}
    by_seed[run.seed] = (version, run)
    return sorted(by_seed.values(), key=lambda pair: pair[0].id)


def _rest(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != SEED}


def _spread(values: list[float]) -> Spread:
    return Spread(fmean(values), stdev(values), min(values), max(values), len(values))
