"""What every export is: a schema and a stream of rows; and the columns that several of them share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

import pyarrow as pa
from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from storage.enums import AnnotationStatus
from storage.models import Annotation, Item, Message, Project
from storage.windows import Window, belongs, id_windows

MOMENT = pa.timestamp("us", tz="UTC")
IDS = pa.list_(pa.int64())
_ANNOTATIONS = 500  # read together


class Table(NamedTuple):
    """Rows, whose values stand in the order of the schema; every table has a `split` column."""

    schema: pa.Schema
    rows: Iterator[tuple[Any, ...]]

    def named(self) -> Iterator[dict[str, Any]]:
        """The rows as dictionaries."""
        names = self.schema.names
        return (dict(zip(names, row, strict=True)) for row in self.rows)


def by_name(schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> Table:
    """The table of rows that are dictionaries with the schema's names among their keys."""
    return Table(schema, map(itemgetter(*schema.names), rows))


def messages(prompt: list[Message]) -> list[Message]:
    """A prompt's messages with TRL's two keys."""
    return [{"role": message["role"], "content": message["content"]} for message in prompt]


def assistant(text: str) -> list[Message]:
    """A completion in TRL's conversational form."""
    return [{"role": "assistant", "content": text}]


def submitted(session: Session, project: Project) -> Iterator[Window]:
    """Windows over the ids of all annotations that were submitted, also those that no longer count."""
    ids = (
        select(Annotation.id)
        .join(Item, Item.id == Annotation.item_id)
        .where(Item.project_id == project.id, Annotation.status == AnnotationStatus.SUBMITTED)
    )
    return id_windows(session, ids, _ANNOTATIONS)


def submitted_in(project: Project, window: Window) -> ColumnElement[bool]:
    """The condition for the submitted annotations of a window, in a query over items and annotations."""
    return and_(
        belongs(Item.project_id, project),
        Annotation.id.between(window.low, window.high),
        Annotation.status == AnnotationStatus.SUBMITTED,
    )
