"""Completions worth imitating, in TRL's prompt-completion columns for `SFTTrainer`.

Human refinements, demonstrations (written by people or imported, never put up for judgement), and of each prompt the
best rated completion, from a mean of 4 of 5 on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import fsum
from typing import Any

import pyarrow as pa
from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from storage.arrow import MESSAGES
from storage.enums import CompletionOrigin
from storage.export.rows import IDS, Table, assistant, by_name, messages
from storage.export.unpaired import GOOD
from storage.judged import Mark, live_marks, mean_ratings, prompt_windows, rows_of
from storage.models import Completion, ItemCompletion, Project, Prompt, Refinement
from storage.windows import Window, belongs

SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("completion", MESSAGES),
        ("split", pa.string()),
        ("source", pa.string()),
        ("prompt_id", pa.int64()),
        ("completion_id", pa.int64()),
        ("annotation_ids", IDS),
    ]
)
_REFINED = select(Refinement.refined_id, Refinement.annotation_id)
_Wanted = dict[int, tuple[str, set[int]]]  # completion -> why, and whose annotations say so


def table(session: Session, project: Project) -> Table:
    """One row a completion worth imitating."""
    return by_name(SCHEMA, _rows(session, project))


def _rows(session: Session, project: Project) -> Iterator[dict[str, Any]]:
    for window in prompt_windows(session, project):
        marks = live_marks(session, project, window)
        wanted = _demonstrations(session, project, window)
        for completion_id, annotation_ids in _best_rated(session, marks):
            wanted[completion_id] = ("rating", annotation_ids)
        for completion_id, annotation_ids in _refinements(session, marks).items():
            wanted[completion_id] = ("refinement", annotation_ids)
        completions = (
            select(Completion.id, Completion.text, Prompt.id.label("prompt_id"), Prompt.messages, Prompt.split)
            .join(Prompt, Prompt.id == Completion.prompt_id)
            .where(belongs(Prompt.project_id, project), Completion.prompt_id.between(*window))
            .where(Completion.text != "")  # erased
            .order_by(Completion.prompt_id, Completion.id)
        )
        for row in session.execute(completions):
            if row.id not in wanted:
                continue
            source, annotation_ids = wanted[row.id]
            yield {
                "prompt": messages(row.messages),
                "completion": assistant(row.text),
                "split": row.split.value,
                "source": source,
                "prompt_id": row.prompt_id,
                "completion_id": row.id,
                "annotation_ids": sorted(annotation_ids),
            }


def _demonstrations(session: Session, project: Project, window: Window) -> _Wanted:
    judged = select(ItemCompletion.completion_id).where(ItemCompletion.completion_id == Completion.id).exists()
    imported = and_(Completion.origin == CompletionOrigin.IMPORTED, ~judged)
    found = (
        select(Completion.id)
        .join(Prompt, Prompt.id == Completion.prompt_id)
        .where(belongs(Prompt.project_id, project), Completion.prompt_id.between(*window))
        .where(or_(Completion.origin == CompletionOrigin.HUMAN, imported))
    )
    return {completion_id: ("demonstration", set()) for completion_id in session.scalars(found)}


def _refinements(session: Session, marks: dict[int, Mark]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for refined, annotation_id in rows_of(session, marks, _REFINED, Refinement):
        found[refined].add(annotation_id)
    return found


def _best_rated(session: Session, marks: dict[int, Mark]) -> Iterator[tuple[int, set[int]]]:
    """Of each prompt the completion with the best mean rating over annotators, the oldest of equals."""
    values: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    annotations: dict[int, set[int]] = defaultdict(set)
    for annotation_id, completion_id, value in mean_ratings(session, marks):
        values[marks[annotation_id].prompt_id][completion_id].append(value)
        annotations[completion_id].add(annotation_id)
    for of_prompt in values.values():
        means = {completion_id: round(fsum(found) / len(found), 6) for completion_id, found in of_prompt.items()}
        best = min(means, key=lambda completion_id: (-means[completion_id], completion_id))
        if means[best] >= GOOD:
            yield best, annotations[best]
