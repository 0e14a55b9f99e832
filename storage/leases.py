"""Leases: an item in one person's hands for a while; renewed, given back, or lost to somebody else."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import and_, bindparam, or_, select
from sqlalchemy.orm import Session, joinedload

from storage import audit
from storage.asked import Asked, look_at
from storage.engine import writes_alone
from storage.enums import AssignmentStatus, ItemKind, ItemStatus, SelectionReason
from storage.errors import Conflict, Invalid, NotAllowed, NotFound
from storage.members import may_enter
from storage.models import (
    Assignment,
    Completion,
    Item,
    ItemCompletion,
    JsonObject,
    Message,
    Project,
    User,
    utc_now,
)
from storage.one_row import insert_row, update_row
from storage.prompts import storable
from storage.selection import Chosen, choose, has_room
from storage.standings import PAUSED, Stage, stage

# A lease that ends sooner than this may end before the transaction that looks at it: its item is locked first.
_NEAR = timedelta(seconds=60)


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


def lease_next(
    session: Session, project: Project, user: User, *, now: datetime | None = None, rng: random.Random
) -> Lease | None:
    """The next item for `user`, leased for the project's `lease_seconds`; None when nothing is left to judge.

    A person's own lease comes back first, with its order and draft, also an expired one whose item is still free. An
    item that the person judged or skipped never comes again, nothing comes to a person who has to practise first or is
    paused (`storage.standings.stage`), and an item never has more annotations and live leases
    together than it has places (`storage.selection.places`), however many ask at the same moment.
    """
    # Two tabs of one person take turns, so that both get the same item. Lock order everywhere: an item that is being
    # submitted, then the user; from here on nothing waits (SKIP LOCKED), so nobody can wait in a circle.
    if not writes_alone(session):
        session.execute(select(User.id).where(User.id == user.id).with_for_update(key_share=True))
    moment = now or utc_now()  # not before: a clock read before a wait takes a lost lease for a live one
    if stage(session, project, user) is not Stage.WORK:
        return None
    own = _own_lease(session, project, user, moment)
    if own is not None:
        return lease_of(session, own)
    chosen = choose(session, project, user, moment, rng)
    return None if chosen is None else lease_item(session, project, user, chosen, moment, rng)


def lease_item(
    session: Session, project: Project, user: User, chosen: Chosen, now: datetime, rng: random.Random
) -> Lease:
    """Lease a chosen item, which the caller has locked, to `user`."""
    asked = chosen.asked or look_at(session, chosen.item.id, user.id, now)
    return _lease(_assign(session, project, user, chosen, asked, now, rng), asked)


def lease_of(session: Session, assignment: Assignment) -> Lease:
    """A lease that is there already, with its draft."""
    return _lease(assignment, look_at(session, assignment.item_id, assignment.user_id, utc_now()))


def _own_lease(session: Session, project: Project, user: User, now: datetime) -> Assignment | None:
    for assignment, item in session.execute(_HELD, {"user": user.id, "project": project.id}).all():
        if _still_theirs(session, assignment, item, user, now):
            prolong(session, assignment, project, now)
            return assignment
    return None


def prolong(session: Session, assignment: Assignment, project: Project, now: datetime) -> None:
    """Let a lease last the project's full time from now; one that was prolonged this moment is left as it is.

    A page that is looked at asks again and again: within a twentieth of the time that is no reason to write.
    """
    full = timedelta(seconds=project.lease_seconds)
    if not now + full * 0.95 <= assignment.expires_at <= now + full:
        update_row(session, assignment, expires_at=now + full)


_HELD = (
    select(Assignment, Item)
    .join(Item, Item.id == Assignment.item_id)
    .where(
        Assignment.user_id == bindparam("user"),
        Assignment.project_id == bindparam("project"),
        Assignment.status == AssignmentStatus.LEASED,
        or_(
            Assignment.reason.is_(None),
            and_(Assignment.reason != SelectionReason.PRACTICE, Assignment.reason != SelectionReason.OWN),
        ),
    )
    .order_by(Assignment.expires_at.desc(), Assignment.id)
    # What another tab is submitting at this moment is theirs no more; waiting for it would end in a circle.
    .with_for_update(of=Assignment, skip_locked=True)
    .execution_options(populate_existing=True)
)


def _still_theirs(session: Session, assignment: Assignment, item: Item, user: User, now: datetime) -> bool:
    near = assignment.expires_at <= now + _NEAR and not writes_alone(session)
    if near and session.scalar(_LOCKED_NOW, {"item": item.id}) is None:
        return False
    # A live lease outlasts that its item became stale; an item that is done may have one place more for a repeat.
    if assignment.expires_at > now and item.status in (ItemStatus.OPEN, ItemStatus.STALE):
        return True
    if item.status in (ItemStatus.OPEN, ItemStatus.DONE) and has_room(session, item, user, now):
        return True
    update_row(session, assignment, status=AssignmentStatus.EXPIRED, closed_at=now)
    return False


def lock_item(session: Session, item_id: int) -> Item:
    """The item as it stands now, locked until the transaction ends: whoever decides about its places takes turns."""
    return session.scalars(_LOCKED, {"item": item_id}).one()


_ITEM = select(Item).where(Item.id == bindparam("item")).execution_options(populate_existing=True)
_LOCKED, _LOCKED_NOW = _ITEM.with_for_update(), _ITEM.with_for_update(skip_locked=True)


def texts_of(session: Session, item_id: int) -> dict[int, str]:
    """The texts of an item's completions by id, in the order of their places."""
    return dict(session.connection().execute(_TEXTS, {"item": item_id}).all())


_TEXTS = (
    select(Completion.id, Completion.text)
    .join(ItemCompletion, ItemCompletion.completion_id == Completion.id)
    .where(ItemCompletion.item_id == bindparam("item"))
    .order_by(ItemCompletion.position)
)


def _assign(
    session: Session,
    project: Project,
    user: User,
    chosen: Chosen,
    asked: Asked,
    now: datetime,
    rng: random.Random,
) -> Assignment:
    """Lease the item; one that the person had before comes back with the order that they saw."""
    values = {
        "status": AssignmentStatus.LEASED,
        "reason": chosen.reason,
        "propensity": chosen.propensity,
        "leased_at": now,
        "expires_at": now + timedelta(seconds=project.lease_seconds),
        "closed_at": None,
    }
    if asked.assignment_id is not None:
        earlier = session.get_one(Assignment, asked.assignment_id)
        update_row(session, earlier, **values)
        return earlier
    order = list(asked.texts)
    rng.shuffle(order)
    whose = {"project_id": project.id, "item_id": chosen.item.id, "user_id": user.id}
    return insert_row(session, Assignment, **whose, shown_order=order, **values)


def _lease(assignment: Assignment, asked: Asked) -> Lease:
    return Lease(
        assignment_id=assignment.id,
        item_id=assignment.item_id,
        prompt_messages=asked.messages,
        completions=[(completion_id, asked.texts[completion_id]) for completion_id in assignment.shown_order],
        expires_at=assignment.expires_at,
        draft=asked.draft,
        kind=asked.kind,
    )


def own_assignment(session: Session, assignment_id: int, user: User) -> Assignment:
    """The assignment, if it is the user's; raises `NotFound` otherwise, also for those of others."""
    assignment = session.get(Assignment, assignment_id, populate_existing=True)
    if assignment is None or assignment.user_id != user.id:
        raise NotFound(_NOT_THEIRS)
    _admit(session, assignment, user)
    return assignment


_NOT_THEIRS = "this item was not handed to you; load the next one"


def _admit(session: Session, assignment: Assignment, user: User) -> None:
    # With its criteria at once: it is whole anyway, and another statement costs more.
    project = session.get_one(Project, assignment.project_id, options=[_WHOLE])
    if not may_enter(session, user, project):
        raise NotAllowed("this project is open to its members only, and you are not one now; ask an operator")
    if stage(session, project, user) is Stage.PAUSED:
        raise NotAllowed(PAUSED)


_WHOLE = joinedload(Project.criteria)


class Held(NamedTuple):
    """An assignment and its item as they stand now, both locked until the transaction ends."""

    assignment: Assignment
    item: Item


def lock_own(session: Session, assignment_id: int, user: User) -> Held:
    """`own_assignment` with its item, both locked: the item first, as everywhere."""
    row = session.execute(_OWN, {"assignment": assignment_id, "user": user.id}).one_or_none()
    if row is None:
        raise NotFound(_NOT_THEIRS)
    held = Held(*row)
    _admit(session, held.assignment, user)
    return held


_OWN = (
    select(Assignment, Item)
    .join(Item, Item.id == Assignment.item_id)
    .where(Assignment.id == bindparam("assignment"), Assignment.user_id == bindparam("user"))
    .with_for_update(of=[Item, Assignment])
    .execution_options(populate_existing=True)
)


def hold(session: Session, assignment_id: int, user: User, now: datetime | None) -> Held:
    """`lock_own`, if the lease still counts; raises `Conflict` when it is closed or lost.

    A lease that ran out still counts while nobody else has taken the item's place. `now` None: the moment in which
    the item is locked, which may be long after the call.
    """
    assignment, item = held = lock_own(session, assignment_id, user)
    moment = now or utc_now()
    if assignment.status in (AssignmentStatus.SUBMITTED, AssignmentStatus.PRACTISED):
        raise Conflict("you have submitted this item already; load the next one")
    if assignment.status is AssignmentStatus.SKIPPED:
        raise Conflict("you have skipped this item; load the next one")
    if item.status is ItemStatus.FLAGGED:
        raise Conflict("this item was flagged and taken out of the queue; load the next one")
    live = assignment.status is AssignmentStatus.LEASED and assignment.expires_at > moment
    if not live and not has_room(session, item, user, moment):
        raise Conflict("your time for this item ran out and others have judged it; load the next one")
    return held


def get_lease(session: Session, assignment_id: int, user: User, *, now: datetime | None = None) -> Lease:
    """The user's lease as it stands; raises `Conflict` when it is closed, or ran out and the item was taken."""
    return lease_of(session, hold(session, assignment_id, user, now).assignment)


def renew(session: Session, assignment_id: int, user: User, *, now: datetime | None = None) -> datetime:
    """Extend the lease by the project's full time and return its new end; raises `Conflict` as `get_lease` does."""
    assignment, _ = hold(session, assignment_id, user, now)
    moment = now or utc_now()
    seconds = session.scalars(select(Project.lease_seconds).where(Project.id == assignment.project_id)).one()
    assignment.status, assignment.closed_at = AssignmentStatus.LEASED, None
    assignment.expires_at = moment + timedelta(seconds=seconds)
    session.flush()
    return assignment.expires_at


def skip(session: Session, assignment_id: int, user: User, *, now: datetime | None = None) -> Held:
    """Give the item back for others; it never comes again for this person. A second skip changes nothing."""
    assignment, _ = held = lock_own(session, assignment_id, user)
    if assignment.reason is SelectionReason.PRACTICE:
        raise Conflict("practice items are not skipped; answer as well as you can, you are told what is right")
    if assignment.status is AssignmentStatus.SUBMITTED:
        raise Conflict("you have submitted this item already; load the next one")
    if assignment.status is not AssignmentStatus.SKIPPED:
        assignment.status, assignment.closed_at = AssignmentStatus.SKIPPED, now or utc_now()
        session.flush()
    return held


def flag(session: Session, assignment_id: int, user: User, reason: str, *, now: datetime | None = None) -> None:
    """Take the item out of the queue because something is wrong with it; says who and why in the audit log."""
    cleaned = storable(reason).strip()[:2000]
    if not cleaned:
        raise Invalid("say in a few words what is wrong with this item")
    item = skip(session, assignment_id, user, now=now).item
    item.status = ItemStatus.FLAGGED
    project = session.get_one(Project, item.project_id)
    audit.record(session, user, "item.flag", f"item {item.id}", project, reason=cleaned)
