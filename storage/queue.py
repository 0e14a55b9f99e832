"""The queue as a whole: how full it is, which prompts need new items, which items are out of date."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import CursorResult, and_, bindparam, exists, func, or_, select, update
from sqlalchemy.orm import Session

from storage.enums import AssignmentStatus, ItemStatus
from storage.erasure import ERASED_SOURCE
from storage.models import Assignment, Completion, Item, ItemCompletion, Project, Prompt, User, utc_now
from storage.progress import PROGRESS, Progress, progress_of
from storage.prompts import PLAYGROUND_SOURCE


class QueueCounts(NamedTuple):
    """Items of a project by state. `unjudged` are open items without any annotation, `leased` are live leases.

    `done` are those that people have judged as often as wanted: gold items, which nobody waits for, are not among them.
    """

    open: int
    unjudged: int
    leased: int
    done: int
    flagged: int
    stale: int = 0


def queue_counts(session: Session, project: Project, *, now: datetime | None = None) -> QueueCounts:
    """How full the project's queue is; counts on indexes only."""
    by_status = select(Item.status, func.count()).where(Item.project_id == project.id).group_by(Item.status)
    states = dict(session.execute(by_status).all())
    # Of their own, for they are few and an index knows them.
    gold = session.scalar(
        select(func.count())
        .select_from(Item)
        .where(Item.project_id == project.id, Item.status == ItemStatus.DONE, Item.gold.is_not(None))
    )
    unjudged = session.scalar(
        select(func.count())
        .select_from(Item)
        .where(Item.project_id == project.id, Item.status == ItemStatus.OPEN, Item.judged == 0)
    )
    leased = session.scalar(
        select(func.count())
        .select_from(Assignment)
        .where(
            Assignment.project_id == project.id,
            Assignment.status == AssignmentStatus.LEASED,
            Assignment.expires_at > (now or utc_now()),
        )
    )
    return QueueCounts(
        open=states.get(ItemStatus.OPEN, 0),
        unjudged=unjudged or 0,
        leased=leased or 0,
        done=states.get(ItemStatus.DONE, 0) - (gold or 0),
        flagged=states.get(ItemStatus.FLAGGED, 0),
        stale=states.get(ItemStatus.STALE, 0),
    )


class Ahead(NamedTuple):
    """What a person has done in a project, and how much is there to be done."""

    progress: Progress
    unjudged: int


def work_ahead(session: Session, project: Project, user: User, most: int, *, now: datetime | None = None) -> Ahead:
    """A person's progress, and how many open items nobody has judged, counted no further than `most`."""
    asked = {**progress_of(project, user, now), "most": most}
    *done, unjudged = session.connection().execute(_AHEAD, asked).one()
    return Ahead(Progress(*done), unjudged)


_UNJUDGED = select(func.count()).select_from(
    select(Item.id)
    .where(Item.project_id == bindparam("project"), Item.status == ItemStatus.OPEN, Item.judged == 0)
    .limit(bindparam("most"))
    .subquery()
)
_AHEAD = PROGRESS.add_columns(_UNJUDGED.scalar_subquery())


def prompts_to_generate(session: Session, project: Project, limit: int) -> list[Prompt]:
    """The prompts that most need a new item: none open or flagged, fewest annotations, then fewest items, then oldest.

    Prompts of every split: what people say about test prompts measures models and never trains one. Not what people
    wrote in the playground: that is theirs. Nor what gold items ask: nobody shall meet it twice.
    """
    waiting = Item.status.in_((ItemStatus.OPEN, ItemStatus.FLAGGED))
    taken = exists().where(Item.prompt_id == Prompt.id, or_(waiting, Item.gold.is_not(None)))
    judged = select(func.coalesce(func.sum(Item.judged), 0)).where(Item.prompt_id == Prompt.id).scalar_subquery()
    items = select(func.count()).select_from(Item).where(Item.prompt_id == Prompt.id).scalar_subquery()
    # Ids first: the sort then carries no messages.
    wanted = session.scalars(
        select(Prompt.id)
        .where(Prompt.project_id == project.id, Prompt.source.not_in((ERASED_SOURCE, PLAYGROUND_SOURCE)), ~taken)
        .order_by(judged, items, Prompt.id)
        .limit(limit)
    ).all()
    rows = {row.id: row for row in session.scalars(select(Prompt).where(Prompt.id.in_(wanted)))}
    return [rows[prompt_id] for prompt_id in wanted]


def mark_stale(
    session: Session, project: Project, keep_version_ids: Collection[int], *, now: datetime | None = None
) -> int:
    """Take open items out of the queue that nobody has judged or holds and that only other model versions wrote for.

    Items with a completion of a person or of an import stay, and so do gold items. Marked items keep their completions
    and scores. Returns how many were marked.
    """
    kept = exists().where(
        ItemCompletion.item_id == Item.id,
        Completion.id == ItemCompletion.completion_id,
        or_(Completion.model_version_id.is_(None), Completion.model_version_id.in_(list(keep_version_ids))),
    )
    held = exists().where(
        Assignment.item_id == Item.id,
        and_(Assignment.status == AssignmentStatus.LEASED, Assignment.expires_at > (now or utc_now())),
    )
    marked: CursorResult[Any] = session.execute(  # type: ignore[assignment]  # an UPDATE gives a CursorResult
        update(Item)
        .where(
            Item.project_id == project.id,
            Item.status == ItemStatus.OPEN,
            Item.judged == 0,
            Item.gold.is_(None),
            ~kept,
            ~held,
        )
        .values(status=ItemStatus.STALE)
        .execution_options(synchronize_session=False)
    )
    return marked.rowcount
