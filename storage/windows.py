"""Reading a large table in pieces: memory stays flat, and no cursor is held open beside the queries of each piece."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from storage.models import Project


class Window(NamedTuple):
    """Ids from `low` to `high`, both included."""

    low: int
    high: int


def id_windows(session: Session, ids: Select[int], size: int) -> Iterator[Window]:
    """Ranges that hold `size` of the ids each, in order; `ids` selects them ordered and once each."""
    found = array("q", session.scalars(ids.execution_options(yield_per=10_000)))  # eight bytes each, no objects
    for start in range(0, len(found), size):
        window = found[start : start + size]
        yield Window(window[0], window[-1])


def belongs(column: InstrumentedAttribute[int], project: Project) -> ColumnElement[bool]:
    """The condition `column` = the project's id, for queries that are narrowed by a window already.

    SQLite keeps no statistics unless told to, and would rather look up the whole project by its index, once a window,
    than the window's few hundred ids: a sum has no index.
    """
    return column + 0 == project.id
