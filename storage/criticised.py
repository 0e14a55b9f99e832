"""What critiques say and which refinements rest on them, read for the prompts of a window.

A model's refinement counts while each critique it was made from still stands: the critique itself, or one with the
same words on the same completion (a revision that did not touch it makes a new row). Whoever edits or withdraws the
critique takes the refinement out with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.enums import PairSource, RefinementStatus
from storage.judged import Mark, rows_of
from storage.models import Critique, Refinement, RefinementCritique

_CHUNK = 500
SELECTED = (RefinementStatus.UNREVIEWED, RefinementStatus.ACCEPTED, RefinementStatus.EDITED)


class Said(NamedTuple):
    """The content of a critique: two with the same content on one completion are the same critique."""

    text: str
    span_start: int | None
    span_end: int | None
    tags: tuple[str, ...]
    fix: str | None


class LiveCritique(NamedTuple):
    """A critique of a live annotation."""

    id: int
    annotation_id: int
    completion_id: int
    said: Said


class ModelRefinement(NamedTuple):
    """A model's refinement that counts, with the live critiques that it does what is asked by."""

    id: int
    completion_id: int
    better_id: int  # as the reviewer edited it, else as the model wrote it
    source: PairSource
    critiques: tuple[LiveCritique, ...]


def live_critiques(session: Session, marks: dict[int, Mark]) -> dict[int, list[LiveCritique]]:
    """The critiques of the marked annotations by completion, in the order of their ids."""
    found: dict[int, list[LiveCritique]] = defaultdict(list)
    for annotation_id, *rest in rows_of(session, marks, _CRITIQUES, Critique):
        one = _critique(annotation_id, *rest)
        found[one.completion_id].append(one)
    for of_completion in found.values():
        of_completion.sort()
    return found


def model_refinements(
    session: Session, critiques: dict[int, list[LiveCritique]], statuses: Collection[RefinementStatus] = SELECTED
) -> Iterator[ModelRefinement]:
    """Model refinements with `statuses` that still rest on live critiques, in the order of their ids.

    `critiques` are the live ones by completion (`live_critiques`).
    """
    for chunk in chunks(sorted(critiques)):
        rows = session.execute(
            select(Refinement.id, Refinement.completion_id, Refinement.refined_id, Refinement.edited_id,
                   Refinement.status)
            .where(Refinement.completion_id.in_(chunk), Refinement.annotation_id.is_(None))
            .where(Refinement.status.in_(list(statuses)))
            .order_by(Refinement.id)
        ).all()  # fmt: skip
        asked = critiques_of(session, [row.id for row in rows])
        for row in rows:
            standing = _standing(asked.get(row.id, []), critiques[row.completion_id])
            if not standing:
                continue
            reviewed = row.status in (RefinementStatus.ACCEPTED, RefinementStatus.EDITED)
            source = PairSource.ACCEPTED_REFINEMENT if reviewed else PairSource.UNREVIEWED_REFINEMENT
            better = row.edited_id if row.edited_id is not None else row.refined_id
            yield ModelRefinement(row.id, row.completion_id, better, source, standing)


def critiques_of(session: Session, refinement_ids: Sequence[int]) -> dict[int, list[LiveCritique]]:
    """The critiques, live or not, that model refinements were made from."""
    found: dict[int, list[LiveCritique]] = defaultdict(list)
    for chunk in chunks(refinement_ids):
        rows = session.execute(
            _CRITIQUES.add_columns(RefinementCritique.refinement_id)
            .join(RefinementCritique, RefinementCritique.critique_id == Critique.id)
            .where(RefinementCritique.refinement_id.in_(chunk))
            .order_by(Critique.id)
        )
        for *columns, refinement_id in rows:
            found[refinement_id].append(_critique(*columns))
    return found


def chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Ids in portions that fit into one query."""
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))


_CRITIQUES = select(
    Critique.annotation_id,
    Critique.id,
    Critique.completion_id,
    Critique.text,
    Critique.span_start,
    Critique.span_end,
    Critique.tags,
    Critique.fix,
)


def _critique(
    annotation_id: int,
    critique_id: int,
    completion_id: int,
    text: str,
    start: int | None,
    end: int | None,
    tags: list[str] | None,
    fix: str | None,
) -> LiveCritique:
    return LiveCritique(
        critique_id, annotation_id, completion_id, Said(text, start, end, tuple(tags or ()), fix or None)
    )


def _standing(asked: list[LiveCritique], live: list[LiveCritique]) -> tuple[LiveCritique, ...]:
    """The live critiques that say what was asked for; none when one of those is gone."""
    kept: list[LiveCritique] = []
    for one in asked:
        same = [other for other in live if other.said == one.said]
        if not same:
            return ()
        kept += same
    return tuple(sorted(set(kept)))
