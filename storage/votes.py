"""The votes that annotators cast on pairs of completions, by what they said; see `storage.preferences` for the rules.

Read the most explicit first: `_cast` drops what an annotator said less explicitly of the same pair.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from math import fsum
from typing import NamedTuple

from sqlalchemy import String, and_, func, select, type_coerce
from sqlalchemy.orm import Session, aliased

from storage.configs import SnapshotSettings
from storage.criticised import LiveCritique, ModelRefinement, live_critiques
from storage.enums import Outcome, PairSource
from storage.judged import SCALED, Mark, rows_of
from storage.models import Criterion, Preference, Ranking, Rating, Refinement

STRENGTH_WEIGHT = {None: 1.0, 1: 0.5, 2: 1.0, 3: 1.5}
_FIRST = Outcome.FIRST.value
_DECIDED = {_FIRST, Outcome.SECOND.value}

_COMPARISONS = select(
    Preference.annotation_id,
    Preference.first_id,
    Preference.second_id,
    type_coerce(Preference.outcome, String),
    Preference.strength,
)
_RANKINGS = select(Ranking.annotation_id, Ranking.completion_id, Ranking.rank)
_REFINEMENTS = select(Refinement.annotation_id, Refinement.completion_id, Refinement.refined_id, Refinement.id)
_SCALE = and_(Criterion.id == Rating.criterion_id, Criterion.high > Criterion.low)
_RATINGS = select(Rating.annotation_id, Rating.completion_id, Rating.criterion_id, SCALED).join(Criterion, _SCALE)
_other = aliased(Rating)
_GAPS = (
    select(
        Rating.annotation_id,
        Rating.completion_id,
        _other.completion_id,
        # The mean over shared criteria of the difference, each scale stretched to the width of 1..5.
        func.avg((Rating.value - _other.value) * 4.0 / (Criterion.high - Criterion.low)),
    )
    .join(
        _other,
        and_(
            _other.annotation_id == Rating.annotation_id,
            _other.criterion_id == Rating.criterion_id,
            _other.completion_id > Rating.completion_id,
        ),
    )
    .join(Criterion, _SCALE)
    .group_by(Rating.annotation_id, Rating.completion_id, _other.completion_id)
)


class Vote(NamedTuple):
    """What one annotator says of a pair of completions, by one or several annotations."""

    user_id: int
    source: PairSource
    lean: float  # > 0: the completion with the lower id is preferred, by that weight; 0: neither
    annotation_ids: tuple[int, ...]
    reason: str  # what to count when the vote decides nothing: tie, both_bad or below_margin


Key = tuple[int, int, int]  # a prompt's id and two of its completions', the lower first
Votes = dict[Key, list[Vote]]  # flat: this is filled and read once a judgement, at every export and snapshot


class Led(NamedTuple):
    """A refinement behind a vote, and the critiques that led to it."""

    refinement_id: int
    critiques: tuple[LiveCritique, ...]


Leads = dict[Key, list[Led]]


def _cast(votes: Votes, key: Key, vote: Vote) -> None:
    """Keep a vote, unless the annotator said something more explicit of the pair: that is read before."""
    cast = votes[key]
    for other in cast:
        if other.user_id == vote.user_id and other.source is not vote.source:
            return
    cast.append(vote)


def read_comparisons(session: Session, marks: dict[int, Mark], scale: float, votes: Votes) -> set[int]:
    """Cast the votes of comparisons; returns the annotations that hold one."""
    compared = set()
    leans = {strength: round(weight * scale, 6) for strength, weight in STRENGTH_WEIGHT.items()}
    for annotation_id, first, second, outcome, strength in rows_of(session, marks, _COMPARISONS, Preference):
        prompt_id, user_id, _ = marks[annotation_id]
        lean, reason = 0.0, outcome
        if outcome in _DECIDED:
            lean, reason = leans.get(strength, scale), ""
            if (outcome == _FIRST) != (first < second):
                lean = -lean
        key = (prompt_id, first, second) if first < second else (prompt_id, second, first)
        _cast(votes, key, Vote(user_id, PairSource.COMPARISON, lean, (annotation_id,), reason))
        compared.add(annotation_id)
    return compared


def read_rankings(session: Session, marks: dict[int, Mark], scale: float, votes: Votes) -> dict[int, int]:
    """Cast the votes of rankings; returns how many completions each annotation that holds one has ranked."""
    several = {one: mark for one, mark in marks.items() if mark.completions > 2}
    if not several:
        return {}
    ranks: dict[int, list[tuple[int, int]]] = defaultdict(list)  # annotation -> (completion, rank)
    for annotation_id, completion_id, rank in rows_of(session, several, _RANKINGS, Ranking):
        ranks[annotation_id].append((completion_id, rank))
    for annotation_id, ranked in ranks.items():
        prompt_id, user_id, _ = marks[annotation_id]
        weight = round(scale / max(1, len(ranked) - 1), 6)
        for (low, low_rank), (high, high_rank) in combinations(sorted(ranked), 2):
            lean = 0.0 if low_rank == high_rank else weight if low_rank < high_rank else -weight
            reason = "" if lean else Outcome.TIE.value
            _cast(votes, (prompt_id, low, high), Vote(user_id, PairSource.COMPARISON, lean, (annotation_id,), reason))
    return {annotation_id: len(ranked) for annotation_id, ranked in ranks.items()}


def read_refinements(session: Session, marks: dict[int, Mark], scale: float, votes: Votes, leads: Leads) -> None:
    """Cast the votes of refinements by people."""
    found = rows_of(session, marks, _REFINEMENTS, Refinement)
    said = live_critiques(session, {row[0]: marks[row[0]] for row in found})
    for annotation_id, original, refined, refinement_id in found:
        prompt_id, user_id, _ = marks[annotation_id]
        lean = scale if refined < original else -scale
        key = (prompt_id, min(original, refined), max(original, refined))
        _cast(votes, key, Vote(user_id, PairSource.REFINEMENT, lean, (annotation_id,), ""))
        own = tuple(one for one in said.get(original, ()) if one.annotation_id == annotation_id)
        leads[key].append(Led(refinement_id, own))


def read_model_refinement(
    one: ModelRefinement, marks: dict[int, Mark], scale: float, votes: Votes, leads: Leads
) -> None:
    """Cast the votes of the critiques that a model's refinement answers."""
    lean = scale if one.better_id < one.completion_id else -scale
    key = (one.prompt_id, min(one.completion_id, one.better_id), max(one.completion_id, one.better_id))
    for critique in one.critiques:
        user_id = marks[critique.annotation_id].user_id
        _cast(votes, key, Vote(user_id, one.source, lean, (critique.annotation_id,), ""))
    leads[key].append(Led(one.id, one.critiques))


def read_rating_gaps(session: Session, marks: dict[int, Mark], settings: SnapshotSettings, votes: Votes) -> None:
    """Cast the votes of ratings on both completions of a pair."""
    for annotation_id, low, high, gap in rows_of(session, marks, _GAPS, Rating):
        prompt_id, user_id, _ = marks[annotation_id]
        _cast(votes, (prompt_id, low, high), _gap_vote(user_id, float(gap), settings, (annotation_id,)))
    _read_gaps_between_singles(session, marks, settings, votes)


def _gap_vote(user_id: int, gap: float, settings: SnapshotSettings, annotation_ids: tuple[int, ...]) -> Vote:
    gap = round(gap, 6)
    if abs(gap) < settings.rating_margin:
        return Vote(user_id, PairSource.RATING_GAP, 0.0, annotation_ids, "below_margin")
    lean = round(min(max(abs(gap) / 2, 0.5), 1.5) * settings.rating_weight, 6)
    return Vote(user_id, PairSource.RATING_GAP, lean if gap > 0 else -lean, annotation_ids, "")


def _read_gaps_between_singles(
    session: Session, marks: dict[int, Mark], settings: SnapshotSettings, votes: Votes
) -> None:
    """Thumbs and unpaired imports: one annotator rated completions of a prompt one by one."""
    together: dict[tuple[int, int], list[int]] = defaultdict(list)
    for annotation_id, mark in marks.items():
        if mark.completions == 1:
            together[mark.prompt_id, mark.user_id].append(annotation_id)
    several = {one: marks[one] for ids in together.values() if len(ids) > 1 for one in ids}
    rated: dict[int, int] = {}  # annotation -> its completion
    values: dict[int, dict[int, float]] = defaultdict(dict)  # annotation -> criterion -> value on 1..5
    for annotation_id, completion_id, criterion_id, value in rows_of(session, several, _RATINGS, Rating):
        rated[annotation_id] = completion_id
        values[annotation_id][criterion_id] = float(value)
    for (prompt_id, user_id), ids in together.items():
        for one, other in combinations(sorted((i for i in ids if i in rated), key=lambda i: rated[i]), 2):
            shared = values[one].keys() & values[other].keys()
            if shared:
                gap = fsum(values[one][c] - values[other][c] for c in shared) / len(shared)
                vote = _gap_vote(user_id, gap, settings, tuple(sorted((one, other))))
                _cast(votes, (prompt_id, rated[one], rated[other]), vote)
