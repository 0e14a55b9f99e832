"""How much feedback there is: a person's own progress, and a project's counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from storage.enums import AssignmentStatus
from storage.judged import live_annotation, not_gold
from storage.models import (
    Annotation,
    Assignment,
    Completion,
    Critique,
    Item,
    Preference,
    Project,
    Prompt,
    Rating,
    Refinement,
    User,
    utc_now,
)


class Progress(NamedTuple):
    """A person's work in a project; today begins at 0:00 UTC."""

    submitted_today: int
    submitted_total: int
    skipped: int


def my_progress(session: Session, project: Project, user: User, *, now: datetime | None = None) -> Progress:
    """What `user` has done in `project` through the queue; withdrawn annotations and practice do not count."""
    return Progress(*session.connection().execute(PROGRESS, progress_of(project, user, now)).one())


def progress_of(project: Project, user: User, now: datetime | None = None) -> dict[str, Any]:
    """The values of `PROGRESS`."""
    midnight = (now or utc_now()).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return {"user": user.id, "project": project.id, "midnight": midnight}


_SUBMITTED = Assignment.status == AssignmentStatus.SUBMITTED
PROGRESS = select(
    func.count().filter(and_(_SUBMITTED, Assignment.closed_at >= bindparam("midnight"))),
    func.count().filter(_SUBMITTED),
    func.count().filter(Assignment.status == AssignmentStatus.SKIPPED),
).where(Assignment.user_id == bindparam("user"), Assignment.project_id == bindparam("project"))


class Work(NamedTuple):
    """A person's work through the queue, as their pay may rest on it; days begin at 0:00 UTC, weeks on Monday."""

    today: int
    week: int
    total: int
    days: int  # of this week on which they submitted something
    median_seconds: float | None  # an item, of this week's


def my_work(session: Session, user: User, project: Project | None = None, *, now: datetime | None = None) -> Work:
    """What `user` has done, in `project` or in all of them; as `my_progress` counts."""
    midnight = (now or utc_now()).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    monday = midnight - timedelta(days=midnight.weekday())
    mine = Assignment.user_id == user.id, Assignment.status == AssignmentStatus.SUBMITTED
    here = (*mine, Assignment.project_id == project.id) if project else mine
    total = session.scalars(select(func.count()).select_from(Assignment).where(*here)).one()
    recent = (
        select(Assignment.closed_at, Annotation.seconds_spent)
        .outerjoin(Annotation, and_(Annotation.assignment_id == Assignment.id, Annotation.superseded_at.is_(None)))
        .where(*here, Assignment.closed_at >= monday)
    )
    rows = session.execute(recent).all()
    seconds = [row.seconds_spent for row in rows if row.seconds_spent is not None]
    return Work(
        today=sum(row.closed_at >= midnight for row in rows),
        week=len(rows),
        total=total,
        days=len({row.closed_at.date() for row in rows}),
        median_seconds=median(seconds) if seconds else None,
    )


def usable() -> ColumnElement[bool]:
    """The condition for an annotation, joined to its item, that may train (`storage.judged.live_annotation`)."""
    return live_annotation(with_item=True)


def count_usable(session: Session, project: Project, since: datetime | None = None) -> int:
    """How many annotations may train; with `since`, only those submitted after it."""
    query = (
        select(func.count())
        .select_from(Annotation)
        .join(Item, Item.id == Annotation.item_id)
        .where(Item.project_id == project.id, usable())
    )
    if since is not None:
        query = query.where(Annotation.submitted_at > since)
    return session.scalar(query) or 0


def annotation_counts(session: Session, project: Project) -> dict[str, int]:
    """How many rows of each sort a project has; feedback counts where its annotation may train.

    Keys: prompts, completions, items, annotations, withdrawn, annotators, ratings, preferences, critiques, refinements.
    """
    prompts = select(func.count()).select_from(Prompt).where(Prompt.project_id == project.id)
    completions = (
        select(func.count())
        .select_from(Completion)
        .join(Prompt, Prompt.id == Completion.prompt_id)
        .where(Prompt.project_id == project.id)
    )
    items = select(func.count()).select_from(Item).where(Item.project_id == project.id)
    withdrawn = _of_project(project, func.count()).where(
        # What was revised before it was withdrawn is one annotation to its author.
        Annotation.withdrawn_at.is_not(None),
        Annotation.superseded_at.is_(None),
        not_gold(with_item=True),
    )
    # Read once for all that hangs on them.
    live = _of_project(project, Annotation.id).add_columns(Annotation.user_id).where(usable()).cte("live")
    queries: dict[str, Select[Any]] = {
        "prompts": prompts,
        "completions": completions,
        "items": items,
        "annotations": select(func.count()).select_from(live),
        "withdrawn": withdrawn,
        "annotators": select(func.count(live.c.user_id.distinct())),
    }
    for name, kind in (
        ("ratings", Rating), ("preferences", Preference), ("critiques", Critique), ("refinements", Refinement)
    ):  # fmt: skip
        queries[name] = select(func.count()).select_from(live).join(kind, kind.annotation_id == live.c.id)
    counted = session.execute(select(*(query.scalar_subquery().label(name) for name, query in queries.items()))).one()
    return {name: getattr(counted, name) for name in queries}


def _of_project(project: Project, what: ColumnElement[int] | InstrumentedAttribute[int]) -> Select[Any]:
    return (
        select(what)
        .select_from(Annotation)
        .join(Item, Item.id == Annotation.item_id)
        .where(Item.project_id == project.id)
    )
