"""Every completion that was rewritten because of critiques, by people and by models, with the critiques it answers.

Of models' refinements also those that nobody has reviewed, and those that people rejected: `status` says which. One
whose critique was taken back or changed is left out, as it trains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from storage.arrow import MESSAGES
from storage.criticised import LiveCritique, live_critiques, model_refinements
from storage.export.rows import IDS, Table, by_name, messages
from storage.judged import live_marks, prompt_windows, rows_of
from storage.models import Completion, ModelVersion, Project, Prompt, Refinement
from storage.windows import Window

SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("completion", pa.string()),
        ("refinement", pa.string()),
        ("critiques", pa.list_(pa.string())),
        ("by", pa.string()),  # a person, or the version that wrote it; an endpoint's model
        ("status", pa.string()),  # of a model's: unreviewed, accepted, edited or rejected
        ("judge_score", pa.float64()),
        ("reward", pa.float64()),
        ("split", pa.string()),
        ("prompt_id", pa.int64()),
        ("completion_id", pa.int64()),
        ("refinement_id", pa.int64()),
        ("critique_ids", IDS),
        ("annotation_ids", IDS),
        ("run_id", pa.int64()),
    ]
)
_PEOPLES = select(Refinement.annotation_id, Refinement.id, Refinement.completion_id)
_written, _edited = aliased(Completion), aliased(Completion)
_QUERY = (
    select(
        Prompt.messages.label("prompt"),
        Completion.text.label("completion"),
        func.coalesce(_edited.text, _written.text).label("refinement"),
        Refinement.annotation_id.is_not(None).label("person"),
        ModelVersion,
        _written.sampling,
        Refinement.status,
        Refinement.judge_score,
        Refinement.reward,
        Prompt.split,
        Prompt.id.label("prompt_id"),
        Completion.id.label("completion_id"),
        Refinement.id.label("refinement_id"),
        Refinement.run_id,
    )
    .select_from(Refinement)
    .join(Completion, Completion.id == Refinement.completion_id)
    .join(Prompt, Prompt.id == Completion.prompt_id)
    .join(_written, _written.id == Refinement.refined_id)
    .outerjoin(_edited, _edited.id == Refinement.edited_id)
    .outerjoin(ModelVersion, ModelVersion.id == _written.model_version_id)
    .order_by(Prompt.id, Refinement.id)
)


def table(session: Session, project: Project) -> Table:
    """One row a refinement, by prompts."""
    return by_name(SCHEMA, _rows(session, project))


def _rows(session: Session, project: Project) -> Iterator[dict[str, Any]]:
    for window in prompt_windows(session, project):
        answered = _answered(session, project, window)
        rows = session.execute(_QUERY.where(Prompt.project_id == project.id, Prompt.id.between(*window)))
        for row in rows.mappings():
            if row["refinement_id"] in answered:
                yield _row(dict(row), *answered[row["refinement_id"]])


def _answered(session: Session, project: Project, window: Window) -> dict[int, tuple[list[LiveCritique], list[int]]]:
    """By the id of each refinement that stands: the critiques it answers and the annotations it rests on."""
    marks = live_marks(session, project, window)
    critiques = live_critiques(session, marks)
    found: dict[int, tuple[list[LiveCritique], list[int]]] = {}
    for annotation_id, refinement_id, completion_id in rows_of(session, marks, _PEOPLES, Refinement):
        own = [one for one in critiques.get(completion_id, []) if one.annotation_id == annotation_id]
        found[refinement_id] = own, [annotation_id]
    for one in model_refinements(session, project, window, marks):
        if one.critiques:
            found[one.id] = list(one.critiques), sorted({said.annotation_id for said in one.critiques})
    return found


def _row(row: dict[str, Any], critiques: list[LiveCritique], annotation_ids: list[int]) -> dict[str, Any]:
    version = row["ModelVersion"]
    by = version.name if version else (row["sampling"] or {}).get("endpoint_model")
    return {
        **row,
        "prompt": messages(row["prompt"]),
        "critiques": [one.said.text for one in critiques],
        "by": "a person" if row["person"] else by,
        "status": row["status"].value if row["status"] else None,
        "split": row["split"].value,
        "critique_ids": [one.id for one in critiques],
        "annotation_ids": annotation_ids,
    }
