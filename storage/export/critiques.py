"""Every critique that counts, one row each, with the text it is about and what the annotator made of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from sqlalchemy import and_, select
from sqlalchemy.orm import Session, aliased

from storage.arrow import MESSAGES
from storage.export.rows import MOMENT, Table, by_name, messages, submitted, submitted_in
from storage.judged import live_annotation
from storage.models import Annotation, Completion, Critique, Item, Project, Prompt, Refinement, User

SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("completion", pa.string()),
        ("critique", pa.string()),
        ("span_start", pa.int64()),
        ("span_end", pa.int64()),
        ("span_text", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("fix", pa.string()),
        ("refinement", pa.string()),
        ("annotator", pa.string()),
        ("split", pa.string()),
        ("prompt_id", pa.int64()),
        ("completion_id", pa.int64()),
        ("critique_id", pa.int64()),
        ("annotation_id", pa.int64()),
        ("submitted_at", MOMENT),
    ]
)


def table(session: Session, project: Project) -> Table:
    """One row a critique of a live annotation; `refinement` is the same annotator's rewrite of the completion."""
    return by_name(SCHEMA, _rows(session, project))


def _rows(session: Session, project: Project) -> Iterator[dict[str, Any]]:
    refined = aliased(Completion, name="refined")
    for window in submitted(session, project):
        critiques = (
            select(
                Prompt.messages.label("prompt"),
                Completion.text.label("completion"),
                Critique.text.label("critique"),
                Critique.span_start,
                Critique.span_end,
                Critique.tags,
                Critique.fix,
                refined.text.label("refinement"),
                User.name.label("annotator"),
                Prompt.split,
                Prompt.id.label("prompt_id"),
                Completion.id.label("completion_id"),
                Critique.id.label("critique_id"),
                Annotation.id.label("annotation_id"),
                Annotation.submitted_at,
            )
            .select_from(Annotation)
            .join(Item, Item.id == Annotation.item_id)
            .join(Critique, Critique.annotation_id == Annotation.id)
            .join(Completion, Completion.id == Critique.completion_id)
            .join(Prompt, Prompt.id == Completion.prompt_id)
            .join(User, User.id == Annotation.user_id)
            .outerjoin(
                Refinement,
                and_(Refinement.annotation_id == Annotation.id, Refinement.completion_id == Critique.completion_id),
            )
            .outerjoin(refined, refined.id == Refinement.refined_id)
            .where(submitted_in(project, window), live_annotation())
            .order_by(Annotation.id, Critique.id)
        )
        for row in session.execute(critiques).mappings():
            start, end = row["span_start"], row["span_end"]
            span = None if start is None else row["completion"][start:end]
            yield {**row, "prompt": messages(row["prompt"]), "split": row["split"].value, "span_text": span}
