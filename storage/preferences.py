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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.configs import SnapshotSettings
from storage.criticised import LiveCritique, model_refinements
from storage.enums import AnnotationStatus, PairSource, Split
from storage.judged import in_window, live_marks, not_gold, prompt_windows, rows_in
from storage.models import Annotation, Completion, Item, Message, Project, Prompt
from storage.votes import (
    Leads,
    Led,
    Vote,
    Votes,
    read_comparisons,
    read_model_refinement,
    read_rankings,
    read_rating_gaps,
    read_refinements,
)
from storage.windows import Window

REFINED = frozenset({PairSource.REFINEMENT, PairSource.ACCEPTED_REFINEMENT, PairSource.UNREVIEWED_REFINEMENT})
PRECEDENCE = {
    PairSource.RATING_GAP: 0,
    PairSource.UNREVIEWED_REFINEMENT: 1,
    PairSource.ACCEPTED_REFINEMENT: 2,
    PairSource.REFINEMENT: 3,
    PairSource.COMPARISON: 4,
}

_PROMPTS = select(Prompt.id, Prompt.content_hash, Prompt.split, Prompt.messages).where(
    in_window(Prompt.project_id, Prompt.id)
)
_TEXTS = (
    select(Completion.id, Completion.text)
    .join(Prompt, Prompt.id == Completion.prompt_id)
    .where(in_window(Prompt.project_id, Completion.prompt_id))
)


class Pair(NamedTuple):
    """One preference pair: two different texts for one prompt, `chosen` preferred with `weight`.

    0 < weight <= 1.5 times the weight of its source. Critiques and refinements stand on pairs that came of them.
    """

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
    critiques: tuple[LiveCritique, ...] = ()
    refinement_ids: tuple[int, ...] = ()


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
    count_withdrawn(session, project, counts)
    for window in prompt_windows(session, project):
        yield from _window_pairs(session, project, settings, counts, window)


def _totals(counted: Iterable[tuple[str, int]]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for name, n in counted:
        totals[name] += n
    return dict(sorted(totals.items()))


def count_withdrawn(session: Session, project: Project, counts: PairCounts) -> None:
    """Count the annotations that were taken back, by split."""
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
            not_gold(),
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
    votes: Votes = defaultdict(list)
    # The most explicit first: see `_cast`.
    compared: set[int] = set()
    ranked: dict[int, int] = {}
    leads: Leads = defaultdict(list)
    if settings.use_comparisons and settings.comparison_weight:
        compared = read_comparisons(session, marks, settings.comparison_weight, votes)
        ranked = read_rankings(session, marks, settings.comparison_weight, votes)
    if settings.use_refinements:
        if settings.refinement_weight:
            read_refinements(session, marks, settings.refinement_weight, votes, leads)
        for one in model_refinements(session, project, window, marks):
            scale = settings.weight_of(one.source)
            if one.left_out or not scale:
                counts.left_out[one.split, one.left_out or one.source.value] += 1
            else:
                read_model_refinement(one, marks, scale, votes, leads)
    if settings.use_ratings and settings.rating_weight:
        # Whoever compared an item's only two completions, or ranked them all, has said it all: most ratings need not
        # be read.
        open_ = {
            one: mark
            for one, mark in marks.items()
            if ranked.get(one) != mark.completions and (one not in compared or mark.completions > 2)
        }
        read_rating_gaps(session, open_, settings, votes)
    if not votes:
        return
    texts: dict[int, str] = {row[0]: row[1] for row in rows_in(session, project, window, _TEXTS)}
    prompts = {row[0]: row for row in rows_in(session, project, window, _PROMPTS)}
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
            abs(weight), ids, *_led_to(leads.get(key, ()), source),
        )  # fmt: skip


def _led_to(led: Sequence[Led], source: PairSource) -> tuple[tuple[LiveCritique, ...], tuple[int, ...]]:
    """The critiques and refinements that a pair came of; none where a comparison or ratings decided it."""
    if not led or source not in REFINED:
        return (), ()
    critiques = {one.id: one for refinement in led for one in refinement.critiques}
    return tuple(critiques[one] for one in sorted(critiques)), tuple(sorted(one.refinement_id for one in led))


def _by_annotator(cast: list[Vote]) -> list[Vote]:
    """One vote an annotator."""
    own: dict[int, list[Vote]] = defaultdict(list)
    for vote in cast:
        own[vote.user_id].append(vote)
    return [_own_vote(votes) for votes in own.values()]


def _own_vote(votes: list[Vote]) -> Vote:
    """One annotator's vote on a pair: the mean of what they said in the most explicit way they used."""
    if len(votes) == 1:
        return votes[0]
    lean = round(fsum(vote.lean for vote in votes) / len(votes), 6)
    ids = tuple(sorted({i for vote in votes for i in vote.annotation_ids}))
    reason = "disagreement" if any(vote.lean for vote in votes) else votes[0].reason
    return Vote(votes[0].user_id, votes[0].source, lean, ids, reason)


def _aggregate(votes: list[Vote]) -> tuple[float, PairSource | None, str]:
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
    return weight, max(majority, key=lambda source: PRECEDENCE[source]), ""
