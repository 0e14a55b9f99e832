"""What critiques say and which refinements rest on them, read for the prompts of a window.

A model's refinement counts while each critique it was made from still stands: the critique itself, or one with the
same words on the same completion (a revision that did not touch it makes a new row). Whoever edits or withdraws the
critique takes the refinement out with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.enums import PairSource, RefinementStatus, Split
from storage.judged import Mark, in_window, rows_in, rows_of
from storage.models import Completion, Critique, Project, Prompt, Refinement, RefinementCritique
from storage.windows import Window

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
    """A model's refinement on a prompt of the window."""

    id: int
    prompt_id: int
    split: Split
    completion_id: int
    better_id: int  # as the reviewer edited it, else as the model wrote it
    status: RefinementStatus
    critiques: tuple[LiveCritique, ...]  # that it does what is asked by; none: what it answered is gone

    @property
    def source(self) -> PairSource:
        """What a row made of it is derived from."""
        if self.status is RefinementStatus.UNREVIEWED:
            return PairSource.UNREVIEWED_REFINEMENT
        return PairSource.ACCEPTED_REFINEMENT

    @property
    def left_out(self) -> str | None:
        """Why it makes no row; None when it may."""
        if self.status not in SELECTED:
            return "rejected_refinement"
        return None if self.critiques else "critique_gone"


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
    session: Session, project: Project, window: Window, marks: dict[int, Mark]
) -> list[ModelRefinement]:
    """What models refined on the prompts of a window, in the order of ids; `marks` are its live annotations."""
    rows = rows_in(session, project, window, _MODEL_REFINEMENTS)
    if not rows:
        return []
    asked = critiques_of(session, [row[0] for row in rows])
    prompts = {row[1] for row in rows}
    live = live_critiques(session, {one: mark for one, mark in marks.items() if mark.prompt_id in prompts})
    found = []
    for refinement_id, prompt_id, split, completion_id, better_id, status in rows:
        standing = _standing(asked.get(refinement_id, []), live.get(completion_id, []))
        status = status or RefinementStatus.UNREVIEWED
        found.append(ModelRefinement(refinement_id, prompt_id, split, completion_id, better_id, status, standing))
    return found


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

_MODEL_REFINEMENTS = (
    select(
        Refinement.id,
        Prompt.id,
        Prompt.split,
        Refinement.completion_id,
        func.coalesce(Refinement.edited_id, Refinement.refined_id),
        Refinement.status,
    )
    .join(Completion, Completion.id == Refinement.completion_id)
    .join(Prompt, Prompt.id == Completion.prompt_id)
    .where(in_window(Prompt.project_id, Prompt.id), Refinement.annotation_id.is_(None))
    .order_by(Refinement.id)
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
