"""The statements that `storage.selection` looks at the queue with. Built once: that costs more than they take."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Select,
    String,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute

from storage.asked import is_
from storage.enums import AnnotationStatus, AssignmentStatus, ItemStatus, ModelKind
from storage.models import Annotation, Assignment, Item, ModelVersion

REPEATS = 256
DICE_BITS = 31  # of a random start: as fine as ids can be
NO_LIMIT = 2**31 - 1
_CLOSED = (AssignmentStatus.SUBMITTED, AssignmentStatus.SKIPPED, AssignmentStatus.PRACTISED)
# Constants stand in the text. PostgreSQL then knows what they are when it plans a statement for all values to come;
# of constants that come as values it thinks so little that it plans anew each time, which takes longer than reading.
_ZERO, _ONCE = (literal_column(str(number), Item.id.type) for number in (0, 1))


def _taken(item_id: InstrumentedAttribute[int] | ColumnElement[int]) -> ColumnElement[int]:
    """How many others hold the item; more than any item has places where the person is done with it."""
    own = Assignment.user_id == bindparam("user")
    closed = and_(own, or_(*(is_(Assignment.status, closed) for closed in _CLOSED)))
    live = and_(~own, is_(Assignment.status, AssignmentStatus.LEASED), Assignment.expires_at > bindparam("now"))
    full = literal_column(str(NO_LIMIT), Item.id.type)
    return (
        select(func.coalesce(func.sum(case((own, full), else_=_ONCE)), _ZERO))
        .where(Assignment.item_id == item_id, or_(closed, live))
        .scalar_subquery()
    )


def _unjudged(
    item_id: InstrumentedAttribute[int] | ColumnElement[int], judged: InstrumentedAttribute[int] | ColumnElement[int]
) -> ColumnElement[bool]:
    """The person has not judged the item; also not without an assignment, as what is imported.

    Where nobody has there is nothing to look for. Counted: for an EXISTS PostgreSQL reads all that the person ever
    judged, to compare the items with it.
    """
    # The person is no condition of the search: it costs the same for everybody, and is planned once for all.
    theirs = select(func.count().filter(Annotation.user_id == bindparam("user"))).where(
        Annotation.item_id == item_id,
        Annotation.superseded_at.is_(None),
        Annotation.withdrawn_at.is_(None),
        is_(Annotation.status, AnnotationStatus.SUBMITTED),
    )
    return or_(judged == _ZERO, theirs.scalar_subquery() == _ZERO)


UNLOCKED = (
    select(Item)
    .where(Item.id == bindparam("item"))
    .with_for_update(skip_locked=True)
    .execution_options(populate_existing=True)
)
_OPEN = literal_column(f"'{ItemStatus.OPEN.value}'", Item.status.type)
_FOR_PERSON = and_(
    Item.gold.is_(None),
    or_(Item.owner_id.is_(None), Item.owner_id == bindparam("user")),
    _unjudged(Item.id, Item.judged),
    Item.judged + _taken(Item.id) < func.coalesce(Item.wanted, bindparam("overlap")),
)


class Way(NamedTuple):
    """How a database is made to follow the queue's index, which is of project, status and id."""

    open: ColumnElement[bool]
    upwards: tuple[ColumnElement[Any] | InstrumentedAttribute[Any], ...]
    downwards: tuple[ColumnElement[Any] | InstrumentedAttribute[Any], ...]

    def free(self, *more: ColumnElement[bool]) -> Select[int, int]:
        """Items that the person could get, and their prompts."""
        return select(Item.id, Item.prompt_id).where(self.open, _FOR_PERSON, *more)

    def ends(self) -> tuple[Select[int], Select[int]]:
        """The first and the last of the project's open items."""
        upwards, downwards = (
            select(Item.id).where(self.open).order_by(*order).limit(_ONCE) for order in (self.upwards, self.downwards)
        )
        return upwards, downwards


_PROJECT = Item.project_id == bindparam("project")
PLAIN = Way(and_(_PROJECT, Item.status == _OPEN), (Item.id,), (Item.id.desc(),))
# From "open" to "open", and in the order of status and id. By "= open" and id PostgreSQL would take the index of the
# ids, and walk past everything that is done; SQLite would make no use of an id behind a range.
RANGED = Way(
    and_(_PROJECT, Item.status.between(_OPEN, _OPEN)),
    (Item.status, Item.id),
    (Item.status.desc(), Item.id.desc()),
)


@lru_cache
def below(way: Way, most: int) -> Select[int, int]:
    """Up to `most` free items from `start` down, newest first."""
    free = way.free(Item.id <= bindparam("start"))
    return free.order_by(*way.downwards).limit(literal_column(str(most)))


_JUDGED = (
    select(Item.id, Item.judged)
    .where(
        Item.project_id == bindparam("project"),
        is_(Item.status, ItemStatus.DONE),
        Item.gold.is_(None),
        Item.owner_id.is_(None),
    )
    .order_by(Item.id.desc())
    .limit(literal_column(str(REPEATS)))
    .subquery()
)
REPEATABLE = (
    select(_JUDGED.c.id)
    .where(
        _JUDGED.c.judged > _ZERO,
        _unjudged(_JUDGED.c.id, _JUDGED.c.judged),
        _JUDGED.c.judged + _taken(_JUDGED.c.id) < bindparam("overlap") + _ONCE,
    )
    .subquery()
)
_REWARDS = exists().where(ModelVersion.project_id == bindparam("project"), is_(ModelVersion.kind, ModelKind.REWARD))


def _part(what: str, numbers: Select[*tuple[Any, ...]], most: int | None = None) -> Select[Any]:
    """Rows of a statement of many parts: which part it is, and the first column of `numbers`."""
    # A limit that stands in the statement: PostgreSQL would plan anew each time for one that comes as a value.
    found = (numbers if most is None else numbers.limit(literal_column(str(most)))).subquery()
    return select(literal_column(f"'{what}'", String), next(iter(found.c)))


@lru_cache
def look(way: Way, most: int, last: bool, by_chance: bool, repeats: bool) -> CompoundSelect[Any]:
    """One statement for all that is to be seen: each costs as much as the reading of a hundred rows."""
    low, high = way.ends()
    parts = [
        _part("low", low),
        _part("high", high),
        _part("rewards", select(_ONCE.label("one")).where(_REWARDS)),
        _part("oldest", way.free().order_by(*way.upwards), most),
    ]
    if last:
        parts.append(_part("last", way.free().order_by(*way.downwards), 1))
    if by_chance:
        first, width = low.scalar_subquery(), high.scalar_subquery() - low.scalar_subquery() + 1
        start = first + bindparam("dice", type_=BigInteger) * width // 2**DICE_BITS
        parts.append(_part("from start", way.free(Item.id >= start).order_by(*way.upwards), 1))
        parts.append(_part("below start", way.free(Item.id < start).order_by(*way.downwards), 1))
    if repeats:
        parts.append(_part("repeats", select(_ONCE.label("one")).where(exists(select(REPEATABLE.c.id)))))
    return union_all(*parts)
