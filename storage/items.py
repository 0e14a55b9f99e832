"""The queue: items, and the leases that hand each to the right number of annotators."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, exists, func, select
from sqlalchemy.orm import Session

from storage import audit
from storage.enums import AnnotationStatus, AssignmentStatus, ItemKind, ItemStatus
from storage.errors import Conflict, Invalid, NotAllowed, NotFound
from storage.members import may_enter
from storage.models import (
    Annotation,
    Assignment,
    Completion,
    Item,
    ItemCompletion,
    JsonObject,
    Message,
    Project,
    Prompt,
    User,
    utc_now,
)
from storage.prompts import Added, insert_once, storable, text_hash
from storage.queue import QueueCounts, mark_stale, prompts_to_generate, queue_counts

__all__ = [
    "Lease",
    "QueueCounts",
    "add_item",
    "flag",
    "get_lease",
    "lease_next",
    "mark_stale",
    "prompts_to_generate",
    "queue_counts",
    "renew",
    "skip",
]

# How far back from a person's newest items the search for the next one begins; see `_start_of_search`.
_LOOK_BACK = 200
_TRIES = 30
_PAUSE_SECONDS = 0.01
# How many completions an item of a kind has, at least and at most.
_SIZES: dict[ItemKind, tuple[int, int | None]] = {
    ItemKind.PAIR: (2, None),
    ItemKind.SINGLE: (1, 1),
    ItemKind.RANKING: (3, 8),
}
_CLOSED = (AssignmentStatus.SUBMITTED, AssignmentStatus.SKIPPED)


@dataclass(frozen=True)
class Lease:
    """An item in one annotator's hands until `expires_at`; completions stand in the order shown, left to right."""

    assignment_id: int
    item_id: int
    prompt_messages: list[Message]
    completions: list[tuple[int, str]]
    expires_at: datetime
    draft: JsonObject | None
    kind: ItemKind = ItemKind.PAIR


def add_item(
    session: Session, prompt: Prompt, completions: Sequence[Completion], kind: ItemKind = ItemKind.PAIR
) -> Added[Item]:
    """Put completions of one prompt up for judgement; the same ones a second time are a no-op.

    A pair takes two or more distinct completions, a ranking 3 to 8, a single exactly one; raises `Invalid` otherwise.
    """
    ids = [completion.id for completion in completions]
    if len(set(ids)) < len(ids) or any(completion.prompt_id != prompt.id for completion in completions):
        raise Invalid("an item takes distinct completions of its own prompt")
    least, most = _SIZES.get(kind, (1, None))
    if len(ids) < least or (most is not None and len(ids) > most):
        raise Invalid(f"an item of kind '{kind}' cannot have {len(ids)} completions")
    fingerprint = text_hash(f"{kind}:{','.join(map(str, sorted(ids)))}")
    added = insert_once(
        session,
        Item,
        {"prompt_id": prompt.id, "fingerprint": fingerprint},
        {"project_id": prompt.project_id, "kind": kind},
    )
    if added.created:
        session.add_all(
            ItemCompletion(item_id=added.row.id, position=position, completion_id=completion_id)
            for position, completion_id in enumerate(ids)
        )
        session.flush()
    return added


def lease_next(
    session: Session, project: Project, user: User, *, now: datetime | None = None, rng: random.Random
) -> Lease | None:
    """The next item for `user`, leased for the project's `lease_seconds`; None when nothing is left to judge.

    A person's own lease comes back first, with its order and draft, also an expired one whose item is still free. An
    item that the person judged or skipped never comes again, and an item never has more than the project's `overlap`
    of annotations and live leases together, however many ask at the same moment.
    """
    moment = now or utc_now()
    own = _own_lease(session, project, user, moment)
    if own is not None:
        return _lease(session, own)
    item = _take_item(session, project, user, moment)
    if item is None:
        return None
    return _lease(session, _assign(session, project, user, item, moment, rng))


def _own_lease(session: Session, project: Project, user: User, now: datetime) -> Assignment | None:
    # Two tabs of one person take turns, so that both get the same item. Lock order everywhere: an item that is being
    # submitted, then the user; from here on nothing waits (SKIP LOCKED), so nobody can wait in a circle.
    session.execute(select(User.id).where(User.id == user.id).with_for_update(key_share=True))
    held = session.scalars(
        select(Assignment)
        .where(
            Assignment.user_id == user.id,
            Assignment.project_id == project.id,
            Assignment.status == AssignmentStatus.LEASED,
        )
        .order_by(Assignment.expires_at.desc(), Assignment.id)
        .execution_options(populate_existing=True)
    ).all()
    for assignment in held:
        if _still_theirs(session, assignment, user, now):
            assignment.expires_at = now + timedelta(seconds=project.lease_seconds)
            session.flush()
            return assignment
    return None


def _still_theirs(session: Session, assignment: Assignment, user: User, now: datetime) -> bool:
    query = select(Item).where(Item.id == assignment.item_id)
    if assignment.expires_at <= now:
        query = query.with_for_update(skip_locked=True)
    item = session.scalar(query.execution_options(populate_existing=True))
    if item is None:
        return False
    if item.status is ItemStatus.OPEN and (assignment.expires_at > now or has_room(session, item, user, now)):
        return True
    assignment.status, assignment.closed_at = AssignmentStatus.EXPIRED, now
    session.flush()
    return False


def _take_item(session: Session, project: Project, user: User, now: datetime) -> Item | None:
    """Lock an item that `user` may judge: near the person's newest items first, then anywhere in the queue."""
    start = _start_of_search(session, project, user)
    for _ in range(_TRIES):
        for after in (start, 0) if start else (0,):
            item = _lock_candidate(session, project, user, now, after)
            if item is not None:
                return item
        if _writers_take_turns(session) or session.scalar(_candidates(project, user, now, 0)) is None:
            return None
        # Something is there, but others hold it this instant. Waiting for their lock could end in a circle with a
        # submit in this same transaction; they are done within milliseconds.
        time.sleep(_PAUSE_SECONDS)
    return None


def _lock_candidate(session: Session, project: Project, user: User, now: datetime, after: int) -> Item | None:
    while True:
        query = _candidates(project, user, now, after).with_for_update(skip_locked=True, of=Item)
        item = session.scalar(query.execution_options(populate_existing=True))
        if item is None:
            return None
        # PostgreSQL judged the conditions on what was committed when the statement began; whoever held the lock until
        # now may have leased the item since. A new statement sees it.
        if _writers_take_turns(session) or has_room(session, item, user, now):
            return item
        after = item.id


def _writers_take_turns(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def _start_of_search(session: Session, project: Project, user: User) -> int:
    """An item id below which the person has most likely seen everything.

    With an overlap above one, items stay open after a person judged them; without this bound each search would walk
    past all of them. What became free again further down is found when nothing newer is left.
    """
    seen = (
        select(Assignment.item_id)
        .where(Assignment.user_id == user.id, Assignment.project_id == project.id)
        .order_by(Assignment.item_id.desc())
        .offset(_LOOK_BACK)
        .limit(1)
    )
    return session.scalar(seen) or 0


def _candidates(project: Project, user: User, now: datetime, after: int) -> Select[Item]:
    closed_by_user = exists().where(
        Assignment.item_id == Item.id, Assignment.user_id == user.id, Assignment.status.in_(_CLOSED)
    )
    judged_by_user = exists().where(
        Annotation.item_id == Item.id,
        Annotation.user_id == user.id,
        Annotation.superseded_at.is_(None),
        Annotation.withdrawn_at.is_(None),
        Annotation.status == AnnotationStatus.SUBMITTED,
    )
    leases = (
        select(func.count())
        .select_from(Assignment)
        .where(Assignment.item_id == Item.id, Assignment.user_id != user.id, _live(now))
        .scalar_subquery()
    )
    return (
        select(Item)
        .where(
            Item.project_id == project.id,
            Item.status == ItemStatus.OPEN,
            Item.id > after,
            ~closed_by_user,
            ~judged_by_user,
            Item.judged + leases < project.overlap,
        )
        .order_by(Item.id)
        .limit(1)
    )


def _live(now: datetime) -> ColumnElement[bool]:
    return and_(Assignment.status == AssignmentStatus.LEASED, Assignment.expires_at > now)


def has_room(session: Session, item: Item, user: User, now: datetime) -> bool:
    """Whether one more annotator fits on the item beside its annotations and the live leases of others."""
    overlap = session.scalars(select(Project.overlap).where(Project.id == item.project_id)).one()
    others = session.scalars(
        select(func.count())
        .select_from(Assignment)
        .where(Assignment.item_id == item.id, Assignment.user_id != user.id, _live(now))
    ).one()
    return item.judged + others < overlap


def lock_item(session: Session, item_id: int) -> Item:
    """The item as it stands now, locked until the transaction ends: whoever decides about its places takes turns."""
    query = select(Item).where(Item.id == item_id).with_for_update().execution_options(populate_existing=True)
    return session.scalars(query).one()


def _assign(
    session: Session, project: Project, user: User, item: Item, now: datetime, rng: random.Random
) -> Assignment:
    assignment = session.scalar(select(Assignment).where(Assignment.item_id == item.id, Assignment.user_id == user.id))
    if assignment is None:
        order = list(
            session.scalars(
                select(ItemCompletion.completion_id)
                .where(ItemCompletion.item_id == item.id)
                .order_by(ItemCompletion.position)
            )
        )
        rng.shuffle(order)
        assignment = Assignment(project_id=project.id, item_id=item.id, user_id=user.id, shown_order=order)
        session.add(assignment)
    # A lease that ran out comes back with the order that the person saw before.
    assignment.status = AssignmentStatus.LEASED
    assignment.leased_at = now
    assignment.expires_at = now + timedelta(seconds=project.lease_seconds)
    assignment.closed_at = None
    session.flush()
    return assignment


def _lease(session: Session, assignment: Assignment) -> Lease:
    messages, kind = session.execute(
        select(Prompt.messages, Item.kind).join(Item, Item.prompt_id == Prompt.id).where(Item.id == assignment.item_id)
    ).one()
    members = session.execute(
        select(Completion.id, Completion.text)
        .join(ItemCompletion, ItemCompletion.completion_id == Completion.id)
        .where(ItemCompletion.item_id == assignment.item_id)
    )
    texts = dict(members.all())
    draft = session.scalar(
        select(Annotation.draft).where(
            Annotation.item_id == assignment.item_id,
            Annotation.user_id == assignment.user_id,
            Annotation.status == AnnotationStatus.DRAFT,
            Annotation.superseded_at.is_(None),
            Annotation.withdrawn_at.is_(None),
        )
    )
    return Lease(
        assignment_id=assignment.id,
        item_id=assignment.item_id,
        prompt_messages=messages,
        completions=[(completion_id, texts[completion_id]) for completion_id in assignment.shown_order],
        expires_at=assignment.expires_at,
        draft=draft,
        kind=kind,
    )


def own_assignment(session: Session, assignment_id: int, user: User) -> Assignment:
    """The assignment, if it is the user's; raises `NotFound` otherwise, also for those of others."""
    assignment = session.get(Assignment, assignment_id, populate_existing=True)
    if assignment is None or assignment.user_id != user.id:
        raise NotFound("this item was not handed to you; load the next one")
    if not may_enter(session, user, session.get_one(Project, assignment.project_id)):
        raise NotAllowed("this project is open to its members only, and you are not one now; ask an operator")
    return assignment


def hold(session: Session, assignment: Assignment, user: User, now: datetime) -> Item:
    """Make sure that the lease still counts, and lock its item; raises `Conflict` when it is closed or lost.

    A lease that ran out still counts while nobody else has taken the item's place.
    """
    item = lock_item(session, assignment.item_id)
    session.refresh(assignment)
    if assignment.status is AssignmentStatus.SUBMITTED:
        raise Conflict("you have submitted this item already; load the next one")
    if assignment.status is AssignmentStatus.SKIPPED:
        raise Conflict("you have skipped this item; load the next one")
    if item.status is ItemStatus.FLAGGED:
        raise Conflict("this item was flagged and taken out of the queue; load the next one")
    live = assignment.status is AssignmentStatus.LEASED and assignment.expires_at > now
    if not live and (item.status is ItemStatus.DONE or not has_room(session, item, user, now)):
        raise Conflict("your time for this item ran out and others have judged it; load the next one")
    return item


def get_lease(session: Session, assignment_id: int, user: User, *, now: datetime | None = None) -> Lease:
    """The user's lease as it stands; raises `Conflict` when it is closed, or ran out and the item was taken."""
    assignment = own_assignment(session, assignment_id, user)
    hold(session, assignment, user, now or utc_now())
    return _lease(session, assignment)


def renew(session: Session, assignment_id: int, user: User, *, now: datetime | None = None) -> datetime:
    """Extend the lease by the project's full time and return its new end; raises `Conflict` as `get_lease` does."""
    moment = now or utc_now()
    assignment = own_assignment(session, assignment_id, user)
    hold(session, assignment, user, moment)
    seconds = session.scalars(select(Project.lease_seconds).where(Project.id == assignment.project_id)).one()
    assignment.status, assignment.closed_at = AssignmentStatus.LEASED, None
    assignment.expires_at = moment + timedelta(seconds=seconds)
    session.flush()
    return assignment.expires_at


def skip(session: Session, assignment_id: int, user: User, *, now: datetime | None = None) -> None:
    """Give the item back for others; it never comes again for this person. A second skip changes nothing."""
    assignment = own_assignment(session, assignment_id, user)
    lock_item(session, assignment.item_id)
    session.refresh(assignment)
    if assignment.status is AssignmentStatus.SUBMITTED:
        raise Conflict("you have submitted this item already; load the next one")
    if assignment.status is not AssignmentStatus.SKIPPED:
        assignment.status, assignment.closed_at = AssignmentStatus.SKIPPED, now or utc_now()
        session.flush()


def flag(session: Session, assignment_id: int, user: User, reason: str, *, now: datetime | None = None) -> None:
    """Take the item out of the queue because something is wrong with it; says who and why in the audit log."""
    cleaned = storable(reason).strip()[:2000]
    if not cleaned:
        raise Invalid("say in a few words what is wrong with this item")
    skip(session, assignment_id, user, now=now)
    assignment = own_assignment(session, assignment_id, user)
    item = lock_item(session, assignment.item_id)
    item.status = ItemStatus.FLAGGED
    project = session.get_one(Project, item.project_id)
    audit.record(session, user, "item.flag", f"item {item.id}", project, reason=cleaned)
