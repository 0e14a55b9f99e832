"""What a project's annotators said, read window by window: the common ground of pairs and exports.

Every query here goes by ids that are known already (prompts of a window, annotations on them), so that its cost does
not depend on how large the project is, with or without a database's statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, ColumnElement, Float, Integer, Select, and_, bindparam, func, select, type_coerce
from sqlalchemy.orm import Session, aliased

from storage.enums import AnnotationStatus
from storage.models import Annotation, Criterion, Item, ItemCompletion, Project, Prompt, Rating
from storage.windows import Window, belongs, id_windows

PROMPTS = 500  # prompts looked at together: bounds memory, keeps the number of queries small
_CHUNK = 500  # annotation ids in one query
# A rating on the common scale of 1..5, whatever its criterion's own.
SCALED = type_coerce((Rating.value - Criterion.low) * 4.0 / (Criterion.high - Criterion.low) + 1, Float)


_gold = aliased(Item)


class Mark(NamedTuple):
    """Whose annotation it is, and what it is about."""

    prompt_id: int
    user_id: int
    completions: int  # how many the item has


def live_annotation() -> ColumnElement[bool]:
    """The condition for an annotation that counts: submitted, neither superseded nor withdrawn, not on a gold item."""
    return and_(
        Annotation.status == AnnotationStatus.SUBMITTED,
        Annotation.superseded_at.is_(None),
        Annotation.withdrawn_at.is_(None),
        not_gold(),
    )


def not_gold() -> ColumnElement[bool]:
    """The condition for an annotation on an ordinary item: what is said on gold items is no feedback."""
    # Gold items are few, and an index knows them: cheaper than a look at every annotation's item.
    return Annotation.item_id.not_in(select(_gold.id).where(_gold.gold.is_not(None)))


def prompt_windows(session: Session, project: Project) -> Iterator[Window]:
    """Windows over the ids of the project's prompts, in order."""
    return id_windows(session, select(Prompt.id).where(Prompt.project_id == project.id), PROMPTS)


def live_marks(session: Session, project: Project, window: Window) -> dict[int, Mark]:
    """The live annotations on the prompts of a window, by id."""
    session.flush()
    size = select(func.count()).where(ItemCompletion.item_id == Item.id).scalar_subquery()
    found = (
        select(Annotation.id, Item.prompt_id, Annotation.user_id, size)
        .select_from(Item)
        .join(Annotation, Annotation.item_id == Item.id)
        .where(belongs(Item.project_id, project), Item.prompt_id.between(*window), live_annotation())
    )
    return {row[0]: Mark(row[1], row[2], row[3]) for row in session.connection().execute(found)}


def rows_of(
    session: Session, marks: dict[int, Mark], query: Select[*tuple[Any, ...]], table: Any
) -> Iterator[Sequence[Any]]:
    """The rows of `query` that belong to the marked annotations by `table.annotation_id`, in no particular order.

    On the connection: plain columns need none of what a session does for objects, which costs as much as the reading.
    """
    connection = session.connection()
    if connection.dialect.name == "postgresql":  # one array instead of some hundred parameters
        query = query.where(table.annotation_id == func.any(bindparam("ids", type_=ARRAY(Integer))))
    else:
        query = query.where(table.annotation_id.in_(bindparam("ids", expanding=True)))
    ids = iter(marks)
    while chunk := list(islice(ids, _CHUNK)):
        yield from connection.execute(query, {"ids": chunk}).all()


class MeanRating(NamedTuple):
    """One annotator's mean over criteria for a completion, on 1..5."""

    annotation_id: int
    completion_id: int
    value: float


def mean_ratings(session: Session, marks: dict[int, Mark]) -> Iterator[MeanRating]:
    """The mean ratings of live annotations."""
    means = (
        select(Rating.annotation_id, Rating.completion_id, func.avg(SCALED))
        .join(Criterion, and_(Criterion.id == Rating.criterion_id, Criterion.high > Criterion.low))
        .group_by(Rating.annotation_id, Rating.completion_id)
    )
    for annotation_id, completion_id, mean in rows_of(session, marks, means, Rating):
        # PostgreSQL and SQLite add up in different orders: what is compared must not depend on it.
        yield MeanRating(annotation_id, completion_id, round(float(mean), 6))
