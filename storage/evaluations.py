"""What was measured of model versions on frozen test prompts: asking for it, and reading it.

`Evaluation.metrics` is what `trainer.recipes.evaluate` found:

    {"kind": "policy" | "reward",
     "figures": {NAME: {"value", "low", "high", "n", "champion", "difference": {"value", "low", "high"} | None}},
     "slices": {"source:shop": {NAME: {…}}, …},
     "reliability": [{"low", "high", "confidence", "accuracy", "n"}], "reliability_before": […],
     "temperature": float | None, "notes": [one line each]}

A figure that could not be computed has no value, and a note says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.models import Evaluation, ModelVersion


class Figure(NamedTuple):
    """A figure with its 95 % interval; `n` rows behind it. `difference`: above the champion's, on the same prompts."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    champion: float | None = None
    difference: tuple[float | None, float | None, float | None] | None = None  # value, low, high


def figures(evaluation: Evaluation) -> dict[str, Figure]:
    """The figures of an evaluation by name; none for one that holds other things."""
    return figures_of(evaluation.metrics.get("figures"))


def figures_of(stored: Any) -> dict[str, Figure]:
    """Figures as they are stored, of the whole or of a slice."""
    if not isinstance(stored, Mapping):
        return {}
    return {name: _figure(values) for name, values in stored.items()}


def _figure(values: Mapping[str, Any]) -> Figure:
    difference = values.get("difference")
    return Figure(
        values.get("value"),
        values.get("low"),
        values.get("high"),
        int(values.get("n") or 0),
        values.get("champion"),
        None if difference is None else (difference.get("value"), difference.get("low"), difference.get("high")),
    )


def latest_evaluation(
    session: Session, version: ModelVersion, against: ModelVersion | None = None
) -> Evaluation | None:
    """The newest evaluation that a run of kind evaluate made of a version; with `against`, in comparison with it."""
    query = select(Evaluation).where(Evaluation.version_id == version.id).order_by(Evaluation.id.desc())
    if against is not None:
        query = query.where(Evaluation.champion_id == against.id)
    return next((one for one in session.scalars(query) if "figures" in one.metrics), None)


def as_shown(session: Session, version: ModelVersion) -> dict[str, Any] | None:
    """The newest evaluation of a version as commands and the interface of programs print it; None before the first."""
    found = latest_evaluation(session, version)
    if found is None:
        return None
    champion = session.get(ModelVersion, found.champion_id) if found.champion_id else None
    reward = session.get(ModelVersion, found.reward_id) if found.reward_id else None
    return {
        "evaluation": found.id,
        "run": found.run_id,
        "split": found.split,
        "against": champion.name if champion else None,
        "judged_by": reward.name if reward else None,
        "created_at": found.created_at,
        **found.metrics,
    }
