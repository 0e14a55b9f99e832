"""Completions labelled good or bad, in TRL's unpaired columns for `KTOTrainer`.

An annotator's opinion of a completion is what they said of it alone (ratings: 4 and more of 5 is good, 2 and less
bad; both bad); failing that, whether it won or lost their comparisons and whether they rewrote it. The label is the
majority of the annotators; a completion without one is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import fsum
from typing import Any

import pyarrow as pa
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.arrow import MESSAGES
from storage.enums import Outcome
from storage.export.rows import IDS, Table, assistant, by_name, messages
from storage.judged import Mark, live_marks, mean_ratings, prompt_windows, rows_of
from storage.models import Completion, Preference, Project, Prompt, Refinement
from storage.windows import belongs

GOOD, BAD = 4.0, 2.0  # mean ratings on 1..5 from which, and up to which, a completion has a label
SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("completion", MESSAGES),
        ("label", pa.bool_()),
        ("split", pa.string()),
        ("prompt_id", pa.int64()),
        ("completion_id", pa.int64()),
        ("annotation_ids", IDS),
    ]
)
_COMPARISONS = select(Preference.annotation_id, Preference.first_id, Preference.second_id, Preference.outcome)
_REFINEMENTS = select(Refinement.annotation_id, Refinement.completion_id, Refinement.refined_id)


class _Opinions:
    """What annotators think of one completion: by user, said outright and implied; and by which annotations."""

    def __init__(self) -> None:
        self.outright: dict[int, list[float]] = defaultdict(list)
        self.implied: dict[int, list[float]] = defaultdict(list)
        self.annotation_ids: set[int] = set()

    def add(self, kind: dict[int, list[float]], user_id: int, annotation_id: int, value: float) -> None:
        kind[user_id].append(value)
        self.annotation_ids.add(annotation_id)

    def balance(self) -> float:
        """The sum over annotators of their mean opinion, from -1 to 1 each."""
        means = (fsum(values) / len(values) for values in (self.implied | self.outright).values())
        return round(fsum(means), 6)


def table(session: Session, project: Project) -> Table:
    """One row a completion that most annotators find good or bad."""
    return by_name(SCHEMA, _rows(session, project))


def _rows(session: Session, project: Project) -> Iterator[dict[str, Any]]:
    for window in prompt_windows(session, project):
        marks = live_marks(session, project, window)
        opinions: dict[int, _Opinions] = defaultdict(_Opinions)
        _read_ratings(session, marks, opinions)
        _read_comparisons(session, marks, opinions)
        _read_refinements(session, marks, opinions)
        completions = (
            select(Completion.id, Completion.text, Prompt.id.label("prompt_id"), Prompt.messages, Prompt.split)
            .join(Prompt, Prompt.id == Completion.prompt_id)
            .where(belongs(Prompt.project_id, project), Completion.prompt_id.between(*window))
            .where(Completion.text != "")  # erased
            .order_by(Completion.prompt_id, Completion.id)
        )
        for row in session.execute(completions):
            found = opinions.get(row.id)
            if found is None or (balance := found.balance()) == 0:
                continue
            yield {
                "prompt": messages(row.messages),
                "completion": assistant(row.text),
                "label": balance > 0,
                "split": row.split.value,
                "prompt_id": row.prompt_id,
                "completion_id": row.id,
                "annotation_ids": sorted(found.annotation_ids),
            }


def _read_ratings(session: Session, marks: dict[int, Mark], opinions: dict[int, _Opinions]) -> None:
    for annotation_id, completion_id, value in mean_ratings(session, marks):
        found = opinions[completion_id]
        sign = float(value >= GOOD) - float(value <= BAD)
        found.add(found.outright, marks[annotation_id].user_id, annotation_id, sign)


def _read_comparisons(session: Session, marks: dict[int, Mark], opinions: dict[int, _Opinions]) -> None:
    for annotation_id, first, second, outcome in rows_of(session, marks, _COMPARISONS, Preference):
        user_id = marks[annotation_id].user_id
        for completion_id, won in ((first, Outcome.FIRST), (second, Outcome.SECOND)):
            found = opinions[completion_id]
            if outcome is Outcome.BOTH_BAD:
                found.add(found.outright, user_id, annotation_id, -1.0)
            elif outcome is not Outcome.TIE:
                found.add(found.implied, user_id, annotation_id, 1.0 if outcome is won else -1.0)


def _read_refinements(session: Session, marks: dict[int, Mark], opinions: dict[int, _Opinions]) -> None:
    for annotation_id, original, refined in rows_of(session, marks, _REFINEMENTS, Refinement):
        for completion_id, value in ((original, -1.0), (refined, 1.0)):
            found = opinions[completion_id]
            found.add(found.implied, marks[annotation_id].user_id, annotation_id, value)
