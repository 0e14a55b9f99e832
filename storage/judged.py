"""What a project's annotators said, read window by window: the common ground of pairs and exports.

Every query here goes by ids that are known already (prompts of a window, annotations on them), so that its cost does
not depend on how large the project is, with or without a database's statistics. The queries stand as constants, whose
parameters are filled in: to put one together takes as long as to read fifty rows with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Float, Select, and_, bindparam, func, select, type_coerce
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from storage.among import among, as_value
from storage.enums import AnnotationStatus
from storage.models import Annotation, Criterion, Item, ItemCompletion, Project, Prompt, Rating
from storage.windows import Window, id_windows

PROMPTS = 500  # prompts looked at together: bounds memory, keeps the number of queries small
# A rating on the common scale of 1..5, whatever its criterion's own.
SCALED = type_coerce((Rating.value - Criterion.low) * 4.0 / (Criterion.high - Criterion.low) + 1, Float)


_gold = aliased(Item)


class Mark(NamedTuple):
    """Whose annotation it is, and what it is about."""

    prompt_id: int
    user_id: int
    completions: int  # how many the item has


def live_annotation(*, with_item: bool = False) -> ColumnElement[bool]:
    """The condition for an annotation that counts: submitted, neither superseded nor withdrawn, not on a gold item.

    `with_item`: the query has the annotation's item joined.
    """
    return and_(
        Annotation.status == AnnotationStatus.SUBMITTED,
        Annotation.superseded_at.is_(None),
        Annotation.withdrawn_at.is_(None),
        not_gold(with_item=with_item),
    )


def not_gold(*, with_item: bool = False) -> ColumnElement[bool]:
    """The condition for an annotation on an ordinary item: what is said on gold items is no feedback."""
    if with_item:
        return Item.gold.is_(None)
    # Gold items are few, and an index knows them: cheaper than a look at every annotation's item.
    return Annotation.item_id.not_in(select(_gold.id).where(_gold.gold.is_not(None)))


def prompt_windows(session: Session, project: Project) -> Iterator[Window]:
    """Windows over the ids of the project's prompts, in order."""
    return id_windows(session, select(Prompt.id).where(Prompt.project_id == project.id), PROMPTS)


def in_window(project_id: InstrumentedAttribute[int], prompt_id: InstrumentedAttribute[int]) -> ColumnElement[bool]:
    """The condition for the window of a project's prompts that `rows_in` fills in; see `storage.windows.belongs`."""
    return and_(project_id + 0 == bindparam("project"), prompt_id.between(bindparam("low"), bindparam("high")))


def rows_in(
    session: Session, project: Project, window: Window, query: Select[*tuple[Any, ...]]
) -> Sequence[Sequence[Any]]:
    """The rows of `query`, which has the condition `in_window`.

    On the connection: plain columns need none of what a session does for objects, which costs as much as the reading.
    """
    session.flush()
    return session.connection().execute(query, {"project": project.id, **window._asdict()}).all()


_LIVE = (
    select(
        Annotation.id,
        Item.prompt_id,
        Annotation.user_id,
        select(func.count()).where(ItemCompletion.item_id == Item.id).scalar_subquery(),
    )
    .select_from(Item)
    .join(Annotation, Annotation.item_id == Item.id)
    .where(in_window(Item.project_id, Item.prompt_id), live_annotation())
)


def live_marks(session: Session, project: Project, window: Window) -> dict[int, Mark]:
    """The live annotations on the prompts of a window, by id."""
    return {row[0]: Mark(row[1], row[2], row[3]) for row in rows_in(session, project, window, _LIVE)}


def rows_of(
    session: Session, marks: dict[int, Mark], query: Select[*tuple[Any, ...]], table: Any
) -> Sequence[Sequence[Any]]:
    """The rows of `query` that belong to the marked annotations by `table.annotation_id`, in no particular order."""
    if not marks:
        return ()
    connection = session.connection()
    dialect = connection.dialect.name
    return connection.execute(_of_marked(query, table, dialect), {"ids": as_value(marks, dialect)}).all()


@lru_cache(64)
def _of_marked(query: Select[*tuple[Any, ...]], table: Any, dialect: str) -> Select[*tuple[Any, ...]]:
    return query.where(among(table.annotation_id, "ids", dialect))


class MeanRating(NamedTuple):
    """One annotator's mean over criteria for a completion, on 1..5."""

    annotation_id: int
    completion_id: int
    value: float


_MEANS = (
    select(Rating.annotation_id, Rating.completion_id, func.avg(SCALED))
    .join(Criterion, and_(Criterion.id == Rating.criterion_id, Criterion.high > Criterion.low))
    .group_by(Rating.annotation_id, Rating.completion_id)
)


def mean_ratings(session: Session, marks: dict[int, Mark]) -> Iterator[MeanRating]:
    """The mean ratings of live annotations."""
    for annotation_id, completion_id, mean in rows_of(session, marks, _MEANS, Rating):
        # PostgreSQL and SQLite add up in different orders: what is compared must not depend on it.
        yield MeanRating(annotation_id, completion_id, round(float(mean), 6))
