"""Every rating that counts, one row each, with its scale and the text it is about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.arrow import MESSAGES
from storage.export.rows import MOMENT, Table, by_name, messages, submitted, submitted_in
from storage.judged import live_annotation
from storage.models import Annotation, Completion, Criterion, Item, Project, Prompt, Rating, User

SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("completion", pa.string()),
        ("criterion", pa.string()),
        ("value", pa.int64()),
        ("low", pa.int64()),
        ("high", pa.int64()),
        ("annotator", pa.string()),
        ("split", pa.string()),
        ("prompt_id", pa.int64()),
        ("completion_id", pa.int64()),
        ("annotation_id", pa.int64()),
        ("submitted_at", MOMENT),
    ]
)


def table(session: Session, project: Project) -> Table:
    """One row a rating of a live annotation."""
    return by_name(SCHEMA, _rows(session, project))


def _rows(session: Session, project: Project) -> Iterator[dict[str, Any]]:
    for window in submitted(session, project):
        ratings = (
            select(
                Prompt.messages.label("prompt"),
                Completion.text.label("completion"),
                Criterion.name.label("criterion"),
                Rating.value,
                Criterion.low,
                Criterion.high,
                User.name.label("annotator"),
                Prompt.split,
                Prompt.id.label("prompt_id"),
                Completion.id.label("completion_id"),
                Annotation.id.label("annotation_id"),
                Annotation.submitted_at,
            )
            .select_from(Annotation)
            .join(Item, Item.id == Annotation.item_id)
            .join(Rating, Rating.annotation_id == Annotation.id)
            .join(Completion, Completion.id == Rating.completion_id)
            .join(Prompt, Prompt.id == Completion.prompt_id)
            .join(Criterion, Criterion.id == Rating.criterion_id)
            .join(User, User.id == Annotation.user_id)
            .where(submitted_in(project, window), live_annotation())
            .order_by(Annotation.id, Rating.id)
        )
        for row in session.execute(ratings).mappings():
            yield {**row, "prompt": messages(row["prompt"]), "split": row["split"].value}
