"""Reading a large table in pieces: memory stays flat, and no cursor is held open beside the queries of each piece."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Select
from sqlalchemy.orm import Session


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
