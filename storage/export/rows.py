"""What every export is: a schema and a stream of rows; and the columns that several of them share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import Session

from storage.enums import AnnotationStatus
from storage.models import Annotation, Criterion, Item, Message, Project, Rating
from storage.preferences import live_annotation
from storage.windows import Window, id_windows

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
MOMENT = pa.timestamp("us", tz="UTC")
IDS = pa.list_(pa.int64())
PROMPTS = 500  # prompts, or annotations, read together


class Table(NamedTuple):
    """Rows as dictionaries whose keys are the schema's names; every table has a `split` column."""

    schema: pa.Schema
    rows: Iterator[dict[str, Any]]


def messages(prompt: list[Message]) -> list[Message]:
    """A prompt's messages with TRL's two keys."""
    return [{"role": message["role"], "content": message["content"]} for message in prompt]


def assistant(text: str) -> list[Message]:
    """A completion in TRL's conversational form."""
    return [{"role": "assistant", "content": text}]


def judged_prompts(session: Session, project: Project) -> Iterator[Window]:
    """Windows over the ids of the prompts that somebody's live annotation is about."""
    ids = (
        select(Item.prompt_id)
        .join(Annotation, Annotation.item_id == Item.id)
        .where(Item.project_id == project.id, live_annotation())
        .distinct()
        .order_by(Item.prompt_id)
    )
    return id_windows(session, ids, PROMPTS)


def live_in(project: Project, window: Window) -> ColumnElement[bool]:
    """The condition for live annotations on the prompts of a window, in a query over items and annotations."""
    return and_(Item.project_id == project.id, Item.prompt_id.between(window.low, window.high), live_annotation())


def submitted(session: Session, project: Project) -> Iterator[Window]:
    """Windows over the ids of all annotations that were submitted, also those that no longer count."""
    ids = (
        select(Annotation.id)
        .join(Item, Item.id == Annotation.item_id)
        .where(Item.project_id == project.id, Annotation.status == AnnotationStatus.SUBMITTED)
        .order_by(Annotation.id)
    )
    return id_windows(session, ids, PROMPTS)


def submitted_in(project: Project, window: Window) -> ColumnElement[bool]:
    """The condition for the submitted annotations of a window, in a query over items and annotations."""
    return and_(
        Item.project_id == project.id,
        Annotation.id.between(window.low, window.high),
        Annotation.status == AnnotationStatus.SUBMITTED,
    )


def mean_ratings(project: Project, window: Window) -> Select[*tuple[Any, ...]]:
    """Rows (prompt, user, annotation, completion, mean rating over criteria, each scaled to 1..5)."""
    scaled = (Rating.value - Criterion.low) * 4.0 / (Criterion.high - Criterion.low) + 1
    return (
        select(Item.prompt_id, Annotation.user_id, Annotation.id, Rating.completion_id, func.avg(scaled))
        .select_from(Item)
        .join(Annotation, Annotation.item_id == Item.id)
        .join(Rating, Rating.annotation_id == Annotation.id)
        .join(Criterion, and_(Criterion.id == Rating.criterion_id, Criterion.high > Criterion.low))
        .where(live_in(project, window))
        .group_by(Item.prompt_id, Annotation.user_id, Annotation.id, Rating.completion_id)
    )
