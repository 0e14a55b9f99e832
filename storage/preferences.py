"""From annotations to preference pairs: per annotator first, then aggregated per pair of completions.

The rules (METHODS: explicit comparison; rating gap >= margin; refinement over original):

1. Each annotator has at most one vote on two completions of a prompt. A comparison overrules a refinement, a
   refinement overrules a rating gap: what a person said outright counts more than what follows from it.
2. A vote has a weight: strength 1, 2, 3 of a comparison is 0.5, 1.0, 1.5 (1.0 where nobody said); a rating gap, on
   the mean over the criteria rated on both completions, each scaled to 1..5, weighs half its size within the same
   bounds; a refinement weighs 1.0. A tie or "both bad" is a vote of weight 0.
3. A ranking of n completions is a comparison of each pair of them, of weight 1 / (n - 1): each completion stands in
   n - 1 pairs and so weighs as much as in one comparison, however many it was ranked against (n (n - 1) / 2 pairs at
   weight 1 would let one ranking of eight outweigh 28 people's comparisons). Equal ranks are ties.
4. The pair's weight is the signed mean of its votes: the majority's margin over the total, times the mean strength.
   Votes that cancel out are left out as "disagreement", pairs with ties only as "tie" or "both_bad".

Drafts, superseded and withdrawn annotations never count. Whatever makes no pair is counted with its reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from math import fsum
from typing import NamedTuple

from sqlalchemy import String, and_, func, select, type_coerce
from sqlalchemy.orm import Session, aliased

from storage.configs import SnapshotSettings
from storage.enums import AnnotationStatus, Outcome, PairSource, Split
from storage.judged import SCALED, Mark, live_marks, prompt_windows, rows_of
from storage.models import (
    Annotation,
    Completion,
    Criterion,
    Item,
    Message,
    Preference,
    Project,
    Prompt,
    Ranking,
    Rating,
    Refinement,
)
from storage.windows import Window, belongs

STRENGTH_WEIGHT = {None: 1.0, 1: 0.5, 2: 1.0, 3: 1.5}
_FIRST = Outcome.FIRST.value
_DECIDED = {_FIRST, Outcome.SECOND.value}
_PRECEDENCE = {PairSource.RATING_GAP: 0, PairSource.REFINEMENT: 1, PairSource.COMPARISON: 2}


class Pair(NamedTuple):
    """One preference pair: two different texts for one prompt, `chosen` preferred with `weight` (0 < weight <= 1.5)."""

    prompt_id: int
    prompt_hash: str
    split: Split
    messages: list[Message]
    chosen_id: int
    rejected_id: int
    chosen: str
    rejected: str
    source: PairSource
    weight: float
    annotation_ids: tuple[int, ...]  # every annotation that voted, for either side; sorted


@dataclass
class PairCounts:
    """What became pairs and what did not, by split; filled while pairs stream."""

    used: Counter[tuple[Split, PairSource]] = field(default_factory=Counter)
    left_out: Counter[tuple[Split, str]] = field(default_factory=Counter)


@dataclass(frozen=True)
class PairSet:
    """All pairs of a project, in the order of their prompts, with the build's counts."""

    pairs: list[Pair]
    counts: PairCounts

    @property
    def left_out(self) -> dict[str, int]:
        """Reason -> how many. Pairs, except "withdrawn", which counts annotations."""
        return _totals((reason, n) for (_, reason), n in self.counts.left_out.items())

    @property
    def used(self) -> dict[str, int]:
        """Source -> pairs made from it."""
        return _totals((source.value, n) for (_, source), n in self.counts.used.items())


def derive_pairs(session: Session, project: Project, settings: SnapshotSettings) -> PairSet:
    """Every pair that the project's live annotations support; see the module's rules."""
    counts = PairCounts()
    pairs = list(stream_pairs(session, project, settings, counts))
    return PairSet(pairs, counts)


def stream_pairs(
    session: Session, project: Project, settings: SnapshotSettings, counts: PairCounts | None = None
) -> Iterator[Pair]:
    """Yield the pairs of `derive_pairs` with memory that does not grow with their number.

    `counts` is complete once the iterator is exhausted.
    """
    counts = PairCounts() if counts is None else counts
    _count_withdrawn(session, project, counts)
    for window in prompt_windows(session, project):
        yield from _window_pairs(session, project, settings, counts, window)


class _Vote(NamedTuple):
    user_id: int
    source: PairSource
    lean: float  # > 0: the completion with the lower id is preferred, by that weight; 0: neither
    annotation_ids: tuple[int, ...]
    reason: str  # what to count when the vote decides nothing: tie, both_bad or below_margin


_Key = tuple[int, int, int]  # a prompt's id and two of its completions', the lower first
_Votes = dict[_Key, list[_Vote]]  # flat: this is filled and read once a judgement, at every export and snapshot


def _totals(counted: Iterable[tuple[str, int]]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for name, n in counted:
        totals[name] += n
    return dict(sorted(totals.items()))


def _count_withdrawn(session: Session, project: Project, counts: PairCounts) -> None:
    withdrawn = (
        select(Prompt.split, func.count())
        .select_from(Annotation)
        .join(Item, Item.id == Annotation.item_id)
        .join(Prompt, Prompt.id == Item.prompt_id)
        .where(
            Item.project_id == project.id,
            Annotation.status == AnnotationStatus.SUBMITTED,
            Annotation.withdrawn_at.is_not(None),
            Annotation.superseded_at.is_(None),  # what was revised first is one annotation to its author
        )
        .group_by(Prompt.split)
    )
    for split, n in session.execute(withdrawn):
        counts.left_out[split, "withdrawn"] += n


def _window_pairs(
    session: Session, project: Project, settings: SnapshotSettings, counts: PairCounts, window: Window
) -> Iterator[Pair]:
    """The pairs of the project's prompts in a window of ids."""
    marks = live_marks(session, project, window)
    votes: _Votes = defaultdict(list)
    # The most explicit first: see `_cast`.
    compared: set[int] = set()
    ranked: dict[int, int] = {}
    if settings.use_comparisons:
        compared = _read_comparisons(session, marks, votes)
        ranked = _read_rankings(session, marks, votes)
    if settings.use_refinements:
        _read_refinements(session, marks, votes)
    if settings.use_ratings:
        # Whoever compared an item's only two completions, or ranked them all, has said it all: most ratings need not
        # be read.
        open_ = {
            one: mark
            for one, mark in marks.items()
            if ranked.get(one) != mark.completions and (one not in compared or mark.completions > 2)
        }
        _read_rating_gaps(session, open_, settings.rating_margin, votes)
    if not votes:
        return
    in_window = belongs(Prompt.project_id, project), Prompt.id.between(*window)
    connection = session.connection()  # see storage.judged.rows_of
    texts = dict(
        connection.execute(
            select(Completion.id, Completion.text)
            .join(Prompt, Prompt.id == Completion.prompt_id)
            .where(*in_window, Completion.prompt_id.between(*window))
        ).all()
    )
    prompts = {
        row[0]: row
        for row in connection.execute(
            select(Prompt.id, Prompt.content_hash, Prompt.split, Prompt.messages).where(*in_window)
        )
    }
    for key in sorted(votes):
        prompt_id, low, high = key
        _, prompt_hash, split, messages = prompts[prompt_id]
        cast = votes[key]
        weight, source, reason = _aggregate(cast if len(cast) == 1 else _by_annotator(cast))
        if source is not None and not (texts[low] and texts[high]):
            source, reason = None, "erased"
        elif source is not None and texts[low].strip() == texts[high].strip():
            source, reason = None, "same_text"
        if source is None:
            counts.left_out[split, reason] += 1
            continue
        counts.used[split, source] += 1
        chosen, rejected = (low, high) if weight > 0 else (high, low)
        ids = cast[0].annotation_ids
        if len(cast) > 1:
            ids = tuple(sorted({i for vote in cast for i in vote.annotation_ids}))
        yield Pair(
            prompt_id, prompt_hash, split, messages, chosen, rejected, texts[chosen], texts[rejected], source,
            abs(weight), ids,
        )  # fmt: skip


def _by_annotator(cast: list[_Vote]) -> list[_Vote]:
    """One vote an annotator."""
    own: dict[int, list[_Vote]] = defaultdict(list)
    for vote in cast:
        own[vote.user_id].append(vote)
    return [_own_vote(votes) for votes in own.values()]


def _own_vote(votes: list[_Vote]) -> _Vote:
    """One annotator's vote on a pair: the mean of what they said in the most explicit way they used."""
    if len(votes) == 1:
        return votes[0]
    lean = round(fsum(vote.lean for vote in votes) / len(votes), 6)
    ids = tuple(sorted({i for vote in votes for i in vote.annotation_ids}))
    reason = "disagreement" if any(vote.lean for vote in votes) else votes[0].reason
    return _Vote(votes[0].user_id, votes[0].source, lean, ids, reason)


def _aggregate(votes: list[_Vote]) -> tuple[float, PairSource | None, str]:
    """Signed weight (> 0: the lower id wins), the source of the majority (None: no pair) and why there is none."""
    if len(votes) == 1 and votes[0].lean:  # by far the most frequent case
        return votes[0].lean, votes[0].source, ""
    cast = [vote for vote in votes if vote.reason != "below_margin"]
    if not cast:
        return 0.0, None, "below_margin"
    # fsum is exact, so that the order of the annotators cannot change the last digit and with it the hash.
    weight = round(fsum(vote.lean for vote in cast) / len(cast), 6)
    if weight == 0:
        reasons = {vote.reason for vote in cast}
        if any(vote.lean for vote in cast) or "disagreement" in reasons:
            return 0.0, None, "disagreement"
        return 0.0, None, "both_bad" if reasons == {"both_bad"} else "tie"
    majority = [vote.source for vote in cast if vote.lean * weight > 0]
    return weight, max(majority, key=lambda source: _PRECEDENCE[source]), ""


def _cast(votes: _Votes, key: _Key, vote: _Vote) -> None:
    """Keep a vote, unless the annotator said something more explicit of the pair: that is read before."""
    cast = votes[key]
    for other in cast:
        if other.user_id == vote.user_id and other.source is not vote.source:
            return
    cast.append(vote)


def _read_comparisons(session: Session, marks: dict[int, Mark], votes: _Votes) -> set[int]:
    """Cast the votes of comparisons; returns the annotations that hold one."""
    compared = set()
    comparisons = select(
        Preference.annotation_id,
        Preference.first_id,
        Preference.second_id,
        type_coerce(Preference.outcome, String),
        Preference.strength,
    )
    for annotation_id, first, second, outcome, strength in rows_of(session, marks, comparisons, Preference):
        prompt_id, user_id, _ = marks[annotation_id]
        lean, reason = 0.0, outcome
        if outcome in _DECIDED:
            lean, reason = STRENGTH_WEIGHT.get(strength, 1.0), ""
            if (outcome == _FIRST) != (first < second):
                lean = -lean
        key = (prompt_id, first, second) if first < second else (prompt_id, second, first)
        _cast(votes, key, _Vote(user_id, PairSource.COMPARISON, lean, (annotation_id,), reason))
        compared.add(annotation_id)
    return compared


def _read_rankings(session: Session, marks: dict[int, Mark], votes: _Votes) -> dict[int, int]:
    """Cast the votes of rankings; returns how many completions each annotation that holds one has ranked."""
    several = {one: mark for one, mark in marks.items() if mark.completions > 2}
    if not several:
        return {}
    ranks: dict[int, list[tuple[int, int]]] = defaultdict(list)  # annotation -> (completion, rank)
    places = select(Ranking.annotation_id, Ranking.completion_id, Ranking.rank)
    for annotation_id, completion_id, rank in rows_of(session, several, places, Ranking):
        ranks[annotation_id].append((completion_id, rank))
    for annotation_id, ranked in ranks.items():
        prompt_id, user_id, _ = marks[annotation_id]
        weight = round(1 / max(1, len(ranked) - 1), 6)
        for (low, low_rank), (high, high_rank) in combinations(sorted(ranked), 2):
            lean = 0.0 if low_rank == high_rank else weight if low_rank < high_rank else -weight
            reason = "" if lean else Outcome.TIE.value
            _cast(votes, (prompt_id, low, high), _Vote(user_id, PairSource.COMPARISON, lean, (annotation_id,), reason))
    return {annotation_id: len(ranked) for annotation_id, ranked in ranks.items()}


def _read_refinements(session: Session, marks: dict[int, Mark], votes: _Votes) -> None:
    refinements = select(Refinement.annotation_id, Refinement.completion_id, Refinement.refined_id)
    for annotation_id, original, refined in rows_of(session, marks, refinements, Refinement):
        prompt_id, user_id, _ = marks[annotation_id]
        lean = 1.0 if refined < original else -1.0
        key = (prompt_id, min(original, refined), max(original, refined))
        _cast(votes, key, _Vote(user_id, PairSource.REFINEMENT, lean, (annotation_id,), ""))


def _read_rating_gaps(session: Session, marks: dict[int, Mark], margin: float, votes: _Votes) -> None:
    left, right = aliased(Rating), aliased(Rating)
    # The mean over shared criteria of the difference, each scale stretched to the width of 1..5.
    mean_gap = func.avg((left.value - right.value) * 4.0 / (Criterion.high - Criterion.low))
    both = and_(
        right.annotation_id == left.annotation_id,
        right.criterion_id == left.criterion_id,
        right.completion_id > left.completion_id,
    )
    gaps = (
        select(left.annotation_id, left.completion_id, right.completion_id, mean_gap)
        .join(right, both)
        .join(Criterion, and_(Criterion.id == left.criterion_id, Criterion.high > Criterion.low))
        .group_by(left.annotation_id, left.completion_id, right.completion_id)
    )
    for annotation_id, low, high, gap in rows_of(session, marks, gaps, left):
        prompt_id, user_id, _ = marks[annotation_id]
        _cast(votes, (prompt_id, low, high), _gap_vote(user_id, float(gap), margin, (annotation_id,)))
    _read_gaps_between_singles(session, marks, margin, votes)


def _gap_vote(user_id: int, gap: float, margin: float, annotation_ids: tuple[int, ...]) -> _Vote:
    gap = round(gap, 6)
    if abs(gap) < margin:
        return _Vote(user_id, PairSource.RATING_GAP, 0.0, annotation_ids, "below_margin")
    lean = round(min(max(abs(gap) / 2, 0.5), 1.5), 6)
    return _Vote(user_id, PairSource.RATING_GAP, lean if gap > 0 else -lean, annotation_ids, "")


def _read_gaps_between_singles(session: Session, marks: dict[int, Mark], margin: float, votes: _Votes) -> None:
    """Thumbs and unpaired imports: one annotator rated completions of a prompt one by one."""
    together: dict[tuple[int, int], list[int]] = defaultdict(list)
    for annotation_id, mark in marks.items():
        if mark.completions == 1:
            together[mark.prompt_id, mark.user_id].append(annotation_id)
    several = {one: marks[one] for ids in together.values() if len(ids) > 1 for one in ids}
    ratings = select(Rating.annotation_id, Rating.completion_id, Rating.criterion_id, SCALED).join(
        Criterion, and_(Criterion.id == Rating.criterion_id, Criterion.high > Criterion.low)
    )
    rated: dict[int, int] = {}  # annotation -> its completion
    values: dict[int, dict[int, float]] = defaultdict(dict)  # annotation -> criterion -> value on 1..5
    for annotation_id, completion_id, criterion_id, value in rows_of(session, several, ratings, Rating):
        rated[annotation_id] = completion_id
        values[annotation_id][criterion_id] = float(value)
    for (prompt_id, user_id), ids in together.items():
        for one, other in combinations(sorted((i for i in ids if i in rated), key=lambda i: rated[i]), 2):
            shared = values[one].keys() & values[other].keys()
            if shared:
                gap = fsum(values[one][c] - values[other][c] for c in shared) / len(shared)
                vote = _gap_vote(user_id, gap, margin, tuple(sorted((one, other))))
                _cast(votes, (prompt_id, rated[one], rated[other]), vote)
