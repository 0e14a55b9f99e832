"""One row written by one statement, and the object that shows it.

For what people wait for: the unit of work, which looks through everything that a session holds, takes five to ten times
as long as such a statement. What is written here is no change that a later flush would see.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Insert, Table, Update, bindparam, insert, update
from sqlalchemy.orm import Session, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

from storage.models import Annotation, Assignment, Base, Item

T = TypeVar("T", Annotation, Assignment)


def insert_row(session: Session, kind: type[T], **values: Any) -> T:
    """Insert a row; what `values` leave out is read from the store when somebody asks for it."""
    made = session.connection().execute(_insert_into(kind), values)
    key = made.inserted_primary_key
    assert key is not None  # noqa: S101 - narrows the type: an INSERT of one row has one
    row = kind(**values, id=key[0])
    make_transient_to_detached(row)
    session.add(row)
    return row


def update_row(session: Session, row: Annotation | Assignment | Item, **values: Any) -> None:
    """Change a row of this session that the caller has locked."""
    session.connection().execute(_update_of(type(row)), {"row": row.id, **values})
    for name, value in values.items():
        set_committed_value(row, name, value)


@lru_cache
def _insert_into(kind: type[Base]) -> Insert:
    return insert(table_of(kind))


@lru_cache
def _update_of(kind: type[Base]) -> Update:
    table = table_of(kind)
    return update(table).where(table.c.id == bindparam("row"))


def table_of(kind: type[Base]) -> Table:
    """The model's table, for statements that shall pass the unit of work by."""
    table = kind.__table__
    assert isinstance(table, Table)  # noqa: S101 - narrows the type: every model here is a plain table
    return table
