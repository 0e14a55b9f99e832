"""Statements over many rows at once, the same on both databases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Select, SQLColumnExpression, Table, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage.models import Base

_KEYS = 400  # keys a look-up: two parameters each stay far below what SQLite takes


def look_up(
    session: Session, find: Select[*tuple[Any, ...]], key: SQLColumnExpression[Any], keys: Iterable[Any]
) -> dict[Any, int]:
    """Rows whose `key` is among `keys`: the columns before the last (one, or a tuple of several) -> the last."""
    wanted = list(keys)
    found: dict[Any, int] = {}
    for start in range(0, len(wanted), _KEYS):
        for *names, value in session.execute(find.where(key.in_(wanted[start : start + _KEYS]))):
            found[names[0] if len(names) == 1 else tuple(names)] = value
    return found


def insert_all(session: Session, kind: type[Base], rows: Iterable[dict[str, Any]]) -> None:
    """Insert rows in one statement; none is no statement."""
    values = list(rows)
    if values:
        session.connection().execute(insert(table_of(kind)), values)


def insert_missing(session: Session, kind: type[Base], rows: Iterable[dict[str, Any]]) -> None:
    """Insert rows; one that another process added since we looked is left as it is."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    session.connection().execute(dialect.insert(table_of(kind)).on_conflict_do_nothing(), list(rows))


def table_of(kind: type[Base]) -> Table:
    """The model's table, for statements that shall pass the unit of work by."""
    table = kind.__table__
    assert isinstance(table, Table)  # noqa: S101 - narrows the type: every model here is a plain table
    return table
