"""Conditions on many ids, which come as one value.

A parameter for each takes longer than the reading does, and makes PostgreSQL plan anew for every number of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from sqlalchemy import ARRAY, ColumnElement, Integer, bindparam, func, select
from sqlalchemy.orm import InstrumentedAttribute


def among(column: InstrumentedAttribute[int], name: str, dialect: str) -> ColumnElement[bool]:
    """The column is one of the ids that are given as `name`, in the form of `as_value`."""
    if dialect == "postgresql":
        return column == func.any(bindparam(name, type_=ARRAY(Integer)))
    listed = func.json_each(bindparam(name)).table_valued("value")
    return column.in_(select(listed.c.value))


def as_value(ids: Iterable[int], dialect: str) -> Any:
    """The ids as the one value that `among` takes."""
    return list(ids) if dialect == "postgresql" else orjson.dumps(list(ids)).decode()
