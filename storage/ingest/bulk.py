"""Statements over many rows at once, the same on both databases."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, any_, func, insert, literal
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from storage.models import Base
from storage.one_row import table_of

_KEYS = 400  # keys a look-up: two parameters each stay far below what SQLite takes


def look_up(
    session: Session, find: Select[*tuple[Any, ...]], key: InstrumentedAttribute[Any], keys: Iterable[Any]
) -> dict[Any, int]:
    """Rows whose `key` is among `keys`: the columns before the last (one, or a tuple of several) -> the last."""
    wanted = list(keys)
    session.flush()
    found: dict[Any, int] = {}
    for start in range(0, len(wanted), _KEYS):
        for *names, value in session.connection().execute(
            find.where(_among(session, key, wanted[start : start + _KEYS]))
        ):
            found[names[0] if len(names) == 1 else tuple(names)] = value
    return found


def look_up_pairs(
    session: Session,
    find: Select[*tuple[Any, ...]],
    key: tuple[InstrumentedAttribute[Any], InstrumentedAttribute[Any]],
    keys: Collection[tuple[Any, Any]],
) -> dict[tuple[Any, Any], int]:
    """As `look_up`, for keys of two columns."""
    wanted = list(keys)
    session.flush()
    found: dict[tuple[Any, Any], int] = {}
    for start in range(0, len(wanted), _KEYS):
        rows = session.connection().execute(find.where(among_pairs(session, key, wanted[start : start + _KEYS])))
        found |= {(one, other): value for one, other, value in rows if (one, other) in keys}
    return found


def _among(session: Session, key: InstrumentedAttribute[Any], keys: Sequence[Any]) -> ColumnElement[bool]:
    if session.get_bind().dialect.name == "postgresql":
        # One value, however many they are: the same statement each time, which is prepared and planned once.
        return key == any_(literal(list(keys), postgresql.ARRAY(key.type)))
    return key.in_(keys)


def among_pairs(
    session: Session,
    key: tuple[InstrumentedAttribute[Any], InstrumentedAttribute[Any]],
    keys: Sequence[tuple[Any, Any]],
) -> ColumnElement[bool]:
    """The condition that finds the rows of these keys of two columns by an index on both.

    On SQLite it finds others as well, of the one half of one key and the other half of another.
    """
    ones, others = (list(half) for half in zip(*keys, strict=True))
    if session.get_bind().dialect.name == "postgresql":
        # A table to be joined: each pair is one look into the index. By halves it would be the square of that.
        arrays = (literal(half, postgresql.ARRAY(part.type)) for half, part in zip((ones, others), key, strict=True))
        pairs = func.unnest(*arrays).table_valued("one", "other").render_derived()
        return and_(key[0] == pairs.c.one, key[1] == pairs.c.other)
    # Each half by itself: for pairs SQLite would read the whole table.
    return and_(*(part.in_(list(dict.fromkeys(half))) for part, half in zip(key, (ones, others), strict=True)))


def insert_all(session: Session, kind: type[Base], rows: Iterable[dict[str, Any]]) -> None:
    """Insert rows in one statement; none is no statement."""
    values = list(rows)
    if values:
        session.connection().execute(insert(table_of(kind)), values)


def insert_missing(session: Session, kind: type[Base], rows: Iterable[dict[str, Any]]) -> None:
    """Insert rows; one that another process added since we looked is left as it is."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    session.connection().execute(dialect.insert(table_of(kind)).on_conflict_do_nothing(), list(rows))
