"""How probably one completion is better than another: what a measured reward model says, as operators read it.

A reward model that was evaluated has a temperature, fitted on validation pairs and reported on test pairs
(`trainer.calibration`): p(A is better than B) = sigmoid((r_A - r_B) / T), with the mean reward of its heads. Its heads
are taken to err independently on two completions, as in `storage.scores`: one standard deviation of the difference
below and above makes the range. It would say what to answer: annotators see none of it, and an operator who is asked a
question has to unfold it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.criticised import chunks
from storage.enums import ModelKind
from storage.evaluations import latest_evaluation
from storage.models import CompletionScore, ModelVersion, Project
from storage.registry import champion
from storage.scores import Reward, ensemble

Two = tuple[int, int]  # the ids of two completions


class Chance(NamedTuple):
    """The probability that the first of two completions is better; the range is None of a model of one head."""

    value: float
    low: float | None
    high: float | None
    judge: str  # the reward model's name


class Chances(NamedTuple):
    """What is known of some pairs, and in one line why of the others nothing is."""

    of: dict[Two, Chance]
    why: str


def chances(session: Session, project: Project, pairs: Iterable[Two]) -> Chances:
    """The probability that the first completion of each pair is better than the second.

    It is the reward champion's, and where that has not scored both completions the newest other measured one's.
    """
    wanted = list(dict.fromkeys(pairs))
    judges = _judges(session, project)
    measured = {one.id: warmth for one, warmth in judges if warmth is not None}
    if not measured:
        if not judges:
            return Chances({}, "no reward model is there to say; train one on the Runs tab")
        return Chances({}, f"{judges[0][0].name} was not evaluated yet, so that its rewards make no probabilities")
    rewards = _rewards(session, {one for pair in wanted for one in pair}, list(measured))
    found = {}
    for first, second in wanted:
        for version, warmth in judges:
            of_version = rewards[version.id]
            if warmth is not None and first in of_version and second in of_version:
                found[first, second] = _chance(of_version[first], of_version[second], warmth, version.name)
                break
    names = ", ".join(version.name for version, warmth in judges if warmth is not None)
    return Chances(found, f"not scored by {names}: a reward model scores what is written once it is there")


def _judges(session: Session, project: Project) -> list[tuple[ModelVersion, float | None]]:
    """The reward models, the champion first, each with its temperature; None: not measured."""
    best = champion(session, project, ModelKind.REWARD)
    every = [*([best] if best else []), *ensemble(session, project)]
    return [(one, _temperature(session, one)) for one in dict.fromkeys(every)]


def _temperature(session: Session, version: ModelVersion) -> float | None:
    found = latest_evaluation(session, version)
    value = found.metrics.get("temperature") if found else None
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _rewards(session: Session, completion_ids: set[int], version_ids: list[int]) -> dict[int, dict[int, Reward]]:
    """Version -> completion -> reward."""
    rewards: dict[int, dict[int, Reward]] = defaultdict(dict)
    for chunk in chunks(sorted(completion_ids)):
        rows = session.execute(
            select(
                CompletionScore.version_id, CompletionScore.completion_id, CompletionScore.value, CompletionScore.spread
            ).where(CompletionScore.completion_id.in_(chunk), CompletionScore.version_id.in_(version_ids))
        )
        for version_id, completion_id, value, spread in rows:
            rewards[version_id][completion_id] = Reward(value, spread or 0.0)
    return rewards


def _chance(first: Reward, second: Reward, warmth: float, judge: str) -> Chance:
    margin, reach = first.value - second.value, math.hypot(first.spread, second.spread)
    low, high = (_sigmoid((margin + sign * reach) / warmth) if reach else None for sign in (-1, 1))
    return Chance(_sigmoid(margin / warmth), low, high, judge)


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))  # never overflows
