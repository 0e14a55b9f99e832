"""Reading a large table in pieces: memory stays flat, and no cursor is held open beside the queries of each piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from storage.models import Project


class Window(NamedTuple):
    """Ids from `low` to `high`, both included."""

    low: int
    high: int


def id_windows(session: Session, ids: Select[int], size: int) -> Iterator[Window]:
    """Ranges that hold `size` of the ids each, in order; `ids` selects one column of distinct ids."""
    id_ = ids.selected_columns[0]
    numbered = ids.with_only_columns(id_.label("id"), func.row_number().over(order_by=id_).label("number")).subquery()
    piece = (numbered.c.number - 1) // size
    low, high = func.min(numbered.c.id), func.max(numbered.c.id)
    for window in session.execute(select(low, high).group_by(piece).order_by(low)).all():
        yield Window(*window)


def belongs(column: InstrumentedAttribute[int], project: Project) -> ColumnElement[bool]:
    """The condition `column` = the project's id, for queries that are narrowed by a window already.

    SQLite keeps no statistics unless told to, and would rather look up the whole project by its index, once a window,
    than the window's few hundred ids: a sum has no index.
    """
    return column + 0 == project.id
