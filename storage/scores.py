"""What reward models think of completions, and how little they agree: where a person's judgement teaches most.

Reward models that scored the same completions are an ensemble, and each may be one by itself (several heads). For two
completions each of them predicts the probability that the first is preferred, sigmoid(r1 - r2) (Bradley-Terry; only
differences within one model mean anything). Disagreement is the spread of these probabilities over the models. A model
of several heads says with each reward how far its heads are apart: it counts as two that lie one standard deviation of
the difference above and below (heads taken to err independently on two completions). A single model of one head has no
spread, so how close its prediction is to a coin toss stands in for it. Both run from 0 to 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from statistics import fmean
from typing import NamedTuple

from sqlalchemy import Select, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage.among import among, as_value
from storage.enums import ModelKind, VersionStatus
from storage.models import CompletionScore, Item, ItemCompletion, ModelVersion, Project

ENSEMBLE = 4  # reward models at most; each costs a forward pass over every completion
_ROWS = 500  # in one INSERT


class Score(NamedTuple):
    """The reward that a model version gives a completion, in the model's own units."""

    completion_id: int
    version_id: int
    value: float
    spread: float | None = None  # of an ensemble's heads


class Reward(NamedTuple):
    """What one model gave one completion; `spread` 0 of a model of one head."""

    value: float
    spread: float = 0.0


def ensemble(session: Session, project: Project) -> list[ModelVersion]:
    """The newest reward models that are neither retired nor rejected, newest first."""
    return list(
        session.scalars(
            select(ModelVersion)
            .where(
                ModelVersion.project_id == project.id,
                ModelVersion.kind == ModelKind.REWARD,
                ModelVersion.status.in_((VersionStatus.CHAMPION, VersionStatus.CANDIDATE)),
            )
            .order_by(ModelVersion.number.desc())
            .limit(ENSEMBLE)
        )
    )


def add_scores(session: Session, scores: Iterable[Score]) -> None:
    """Store scores; one that is there already keeps its first value (the same weights give the same again)."""
    rows = [score._asdict() for score in scores]
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    for start in range(0, len(rows), _ROWS):
        session.execute(insert(CompletionScore).on_conflict_do_nothing(), rows[start : start + _ROWS])


def disagreement(rewards: Sequence[Mapping[int, Reward]]) -> float | None:
    """How little the models agree about some completions, from 0 to 1; None when no model scored two of them.

    `rewards` holds one mapping a model, from the completion's place to its reward. With more than two completions it
    is the mean over their pairs.
    """
    predicted: dict[tuple[int, int], list[float]] = defaultdict(list)
    for model in rewards:
        for first, second in combinations(sorted(model), 2):
            margin = model[first].value - model[second].value
            reach = math.hypot(model[first].spread, model[second].spread)
            predicted[first, second] += [_sigmoid(margin - reach), _sigmoid(margin + reach)]
    if not predicted:
        return None
    # 1/2 is the largest standard deviation that numbers between 0 and 1 can have.
    return fmean(2 * _deviation(p) if len(p) > 2 or p[0] != p[1] else 1 - abs(2 * p[0] - 1) for p in predicted.values())


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation; `statistics.pstdev` reckons with fractions, 50 times as long."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))  # never overflows


def priorities(session: Session, prompt_of: Mapping[int, int], version_ids: Sequence[int]) -> dict[int, float]:
    """Disagreement times novelty of items, by id, where scores say something; `prompt_of` maps items to prompts.

    Novelty is 1 / (1 + annotations on the prompt's items): what people said about a prompt is known of it already.
    """
    rewards: dict[int, dict[int, dict[int, Reward]]] = defaultdict(lambda: defaultdict(dict))
    connection = session.connection()
    dialect = connection.dialect.name
    asked = {"items": as_value(prompt_of, dialect), "versions": as_value(version_ids, dialect)}
    for item_id, version_id, position, value, spread in connection.execute(_scored(dialect), asked):
        rewards[item_id][version_id][position] = Reward(value, spread or 0.0)
    found = {item_id: disagreement(list(models.values())) for item_id, models in rewards.items()}
    known = {item_id: value for item_id, value in found.items() if value is not None}
    if not known:
        return {}
    prompts = as_value({prompt_of[item_id] for item_id in known}, dialect)
    judged = dict(connection.execute(_judged(dialect), {"prompts": prompts}).all())
    return {item_id: value / (1 + int(judged[prompt_of[item_id]])) for item_id, value in known.items()}


@lru_cache
def _scored(dialect: str) -> Select[int, int, int, float, float | None]:
    return (
        select(
            ItemCompletion.item_id,
            CompletionScore.version_id,
            ItemCompletion.position,
            CompletionScore.value,
            CompletionScore.spread,
        )
        .join(CompletionScore, CompletionScore.completion_id == ItemCompletion.completion_id)
        .where(among(ItemCompletion.item_id, "items", dialect), among(CompletionScore.version_id, "versions", dialect))
    )


@lru_cache
def _judged(dialect: str) -> Select[int, int]:
    return (
        select(Item.prompt_id, func.sum(Item.judged))
        .where(among(Item.prompt_id, "prompts", dialect))
        .group_by(Item.prompt_id)
    )
