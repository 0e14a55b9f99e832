"""Statements over many rows at once, the same on both databases."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Select, SQLColumnExpression, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage.models import Base
from storage.one_row import table_of

_KEYS = 400  # keys a look-up: two parameters each stay far below what SQLite takes


def look_up(
    session: Session, find: Select[*tuple[Any, ...]], key: SQLColumnExpression[Any], keys: Iterable[Any]
) -> dict[Any, int]:
    """Rows whose `key` is among `keys`: the columns before the last (one, or a tuple of several) -> the last."""
    wanted = list(keys)
    session.flush()
    found: dict[Any, int] = {}
    for start in range(0, len(wanted), _KEYS):
        for *names, value in session.connection().execute(find.where(key.in_(wanted[start : start + _KEYS]))):
            found[names[0] if len(names) == 1 else tuple(names)] = value
    return found


def look_up_pairs(
    session: Session,
    find: Select[*tuple[Any, ...]],
    key: tuple[SQLColumnExpression[Any], SQLColumnExpression[Any]],
    keys: Collection[tuple[Any, Any]],
) -> dict[tuple[Any, Any], int]:
    """As `look_up`, for keys of two columns."""
    wanted = list(keys)
    session.flush()
    found: dict[tuple[Any, Any], int] = {}
    for start in range(0, len(wanted), _KEYS):
        # Each half by itself: for pairs SQLite would read the whole table. What that finds beyond is left out.
        ones, others = (list(dict.fromkeys(half)) for half in zip(*wanted[start : start + _KEYS], strict=True))
        rows = session.connection().execute(find.where(key[0].in_(ones), key[1].in_(others)))
        found |= {(one, other): value for one, other, value in rows if (one, other) in keys}
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
