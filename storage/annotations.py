"""What annotators say about an item: drafts, the submit that counts, revision, withdrawal, imported feedback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, exists, select
from sqlalchemy.orm import Session

from storage import audit, gold, practice, standings
from storage.at_once import write_submitted
from storage.engine import writes_alone
from storage.enums import AnnotationStatus, AssignmentStatus, CompletionOrigin, ItemStatus, SelectionReason
from storage.errors import Conflict, Invalid, NotFound
from storage.ingest.bulk import insert_all
from storage.leases import hold, lock_item, lock_own, prolong, texts_of
from storage.models import (
    Annotation,
    Assignment,
    Base,
    Completion,
    Critique,
    Item,
    ItemCompletion,
    JsonObject,
    Preference,
    Project,
    Ranking,
    Rating,
    Refinement,
    User,
    Webhook,
    utc_now,
)
from storage.one_row import insert_row, update_row
from storage.progress import Progress, annotation_counts, count_usable, my_progress
from storage.prompts import add_completion
from storage.selection import places
from storage.submissions import (
    CritiqueInput,
    PreferenceInput,
    RankInput,
    RatingInput,
    RefinementInput,
    Submission,
    checked,
)
from storage.taint import taint
from storage.webhooks import WebhookEvent, announce

__all__ = [
    "CritiqueInput",
    "PreferenceInput",
    "Progress",
    "RankInput",
    "RatingInput",
    "RefinementInput",
    "Submission",
    "annotation_counts",
    "count_usable",
    "draft_revision",
    "my_progress",
    "record_imported",
    "revise",
    "save_draft",
    "submit",
    "withdraw",
]

_MAX_DRAFT = 400_000


def save_draft(
    session: Session, assignment_id: int, user: User, draft: JsonObject, *, now: datetime | None = None
) -> None:
    """Keep what has been typed so far, and keep the lease alive while it lives; raises `Conflict` after the submit."""
    _check_length(draft)
    assignment, item = lock_own(session, assignment_id, user)
    moment = now or utc_now()  # not before the lock: somebody else may have the lease by then
    if assignment.status in (AssignmentStatus.SUBMITTED, AssignmentStatus.PRACTISED):
        raise Conflict("you have submitted this item already; load the next one")
    annotation = _live_annotation(session, item, user)
    if annotation is None:
        whose = {"item_id": item.id, "user_id": user.id, "assignment_id": assignment.id}
        insert_row(session, Annotation, **whose, status=AnnotationStatus.DRAFT, draft=draft)
    else:
        update_row(session, annotation, draft=draft)
    if assignment.status is AssignmentStatus.LEASED and assignment.expires_at > moment:
        prolong(session, assignment, session.get_one(Project, item.project_id), moment)


def submit(
    session: Session,
    assignment_id: int,
    user: User,
    submission: Submission | Callable[[list[tuple[int, str]]], Submission],
    *,
    now: datetime | None = None,
) -> Annotation:
    """Record the annotator's judgement for good; once the transaction is committed it is durable.

    `submission` may also be a function that makes it of the item's completions (id and text) in the order shown.

    Raises `Conflict` on a second submit and when the lease was lost, `Invalid` when something does not belong to the
    item, is out of range or too long, or when nothing was judged. A strength beside a tie is left out, as are
    refinements equal to their original and critiques without text and tags.
    """
    assignment, item = hold(session, assignment_id, user, now)
    practised = assignment.reason is SelectionReason.PRACTICE
    if practised and item.gold is None:
        raise Conflict("this is no practice item any more; load the next one")
    moment = now or utc_now()
    there = session.connection().execute(_THERE, {"item": item.id, "user": user.id, "project": item.project_id}).all()
    texts, (said, status, heard) = {row[0]: row[1] for row in there}, there[0][2:]
    if callable(submission):
        submission = submission([(one, texts[one]) for one in assignment.shown_order])
    cleaned = checked(session, item, submission, texts)
    if status not in (None, AnnotationStatus.DRAFT):
        raise Conflict("you have judged this item already; load the next one")
    closed = AssignmentStatus.PRACTISED if practised else AssignmentStatus.SUBMITTED
    if writes_alone(session):
        whose = {"user_id": user.id, "assignment_id": assignment.id}
        draft = None if said is None else session.get_one(Annotation, said)
        annotation = _store(session, item, whose, cleaned, moment, draft=draft, practised=practised)
        update_row(session, assignment, status=closed, closed_at=moment)
    else:
        values = _values(session, item, cleaned, moment, practised=practised)
        done = _fills(session, item, item.judged + (not practised))
        annotation = write_submitted(session, assignment, item, cleaned, closed, done, draft=said, **values)
        _refine(session, item, annotation, cleaned)
    if item.gold is not None:
        _answered_gold(session, item, assignment, user, moment)
    if heard:
        _tell(session, item, annotation, "submitted")
    return annotation


def _answered_gold(session: Session, item: Item, assignment: Assignment, user: User, now: datetime) -> None:
    project = session.get_one(Project, item.project_id)
    if assignment.reason is SelectionReason.PRACTICE:
        practice.after_practice(session, project, user, now)
    elif assignment.reason is SelectionReason.ATTENTION:
        standings.after_check(session, project, user, now)


def record_imported(
    session: Session, item: Item, user: User, submission: Submission, source_key: str, *, now: datetime | None = None
) -> Annotation | None:
    """Record feedback from a file under its annotator; None when `source_key`, or theirs on the item, is there already.

    The same checks as `submit`; no lease is involved.
    """
    if session.scalar(select(Annotation.id).where(Annotation.source_key == source_key)) is not None:
        return None
    locked = lock_item(session, item.id)
    if _live_annotation(session, locked, user) is not None:
        return None
    cleaned = checked(session, locked, submission, texts_of(session, locked.id))
    whose = {"user_id": user.id, "source_key": source_key}
    annotation = _store(session, locked, whose, cleaned, now or utc_now())
    _tell(session, locked, annotation, "imported")
    return annotation


def draft_revision(session: Session, annotation_id: int, user: User, draft: JsonObject | None) -> None:
    """Keep what a person has typed of a revision so far (None: throw it away), beside what still counts.

    Raises `NotFound` and `Conflict` as `revise` does.
    """
    if draft is not None:
        _check_length(draft)
    annotation, _ = _counting(session, annotation_id, user)
    annotation.draft = draft
    session.flush()


def revise(
    session: Session, annotation_id: int, user: User, submission: Submission, *, now: datetime | None = None
) -> Annotation:
    """Put a new annotation in the place of the person's own; the older one stays as it was, marked as superseded.

    The newest counts and trains next; nothing is tainted by it (see `storage.taint`). It is usable feedback as of
    now, so it moves the count that starts a training by itself. Raises `NotFound` unless it is the person's,
    `Conflict` when it does not count any more (revised in another tab, withdrawn), `Invalid` as `submit` does.
    """
    old, item = _counting(session, annotation_id, user)
    cleaned = checked(session, item, submission, texts_of(session, item.id))
    moment = now or utc_now()
    old.superseded_at, old.draft = moment, None
    item.judged -= 1
    session.flush()  # first out, then in: the index allows one that counts
    new = _store(session, item, {"user_id": user.id, "assignment_id": old.assignment_id}, cleaned, moment)
    old.superseded_by_id = new.id
    project = session.get_one(Project, item.project_id)
    audit.record(session, user, "annotation.revise", f"annotation {new.id}", project, instead_of=old.id)
    _tell(session, item, new, "revised")
    return new


def withdraw(session: Session, annotation_id: int, user: User, *, now: datetime | None = None) -> Annotation:
    """Mark an annotation as taken back by `user`, its author or an operator: it stays readable, never trains again.

    With it go the versions that it superseded, and every snapshot and model version that used any of them is tainted.
    Its item is open again for others. Raises `NotFound`, and `Conflict` when it does not count (any more).
    """
    annotation, item = _counting(session, annotation_id, None)
    moment = now or utc_now()
    whole = select(Annotation).where(Annotation.item_id == item.id, Annotation.user_id == annotation.user_id)
    # For update: whoever writes a snapshot with one of them holds its key.
    for one in session.scalars(whole.with_for_update()).all():
        one.withdrawn_at = one.withdrawn_at or moment
        one.draft = None
    item.judged -= 1
    if item.status is ItemStatus.DONE and item.gold is None and item.judged < places(session, item):
        item.status = ItemStatus.OPEN if item.owner_id is None else ItemStatus.OWN
    if annotation.assignment_id is not None:
        # The person does not get the item a second time, and it leaves their count.
        session.get_one(Assignment, annotation.assignment_id).status = AssignmentStatus.SKIPPED
    taint(session, whole.with_only_columns(Annotation.id), moment)
    project = session.get_one(Project, item.project_id)
    audit.record(session, user, "annotation.withdraw", f"annotation {annotation.id}", project)
    _tell(session, item, annotation, "withdrawn")
    return annotation


def _tell(session: Session, item: Item, annotation: Annotation, action: str) -> None:
    """Webhooks hear what happened to which row, in the shape that imports have too; never what was written.

    What is said on gold items is no feedback.
    """
    if item.gold is not None:
        return
    told = {"action": action, "annotations": [annotation.id], "count": 1, "item": item.id}
    announce(session, item.project_id, WebhookEvent.ANNOTATION, told)


def _counting(session: Session, annotation_id: int, author: User | None) -> tuple[Annotation, Item]:
    """The annotation with its item locked, while it counts; with `author`, only that person's."""
    annotation = session.get(Annotation, annotation_id)
    if annotation is None or (author is not None and annotation.user_id != author.id):
        raise NotFound(f"there is no annotation {annotation_id}" + (" of yours" if author else ""))
    item = lock_item(session, annotation.item_id)
    session.refresh(annotation)
    if annotation.superseded_at is not None:
        raise Conflict("this annotation was revised in the meantime; open it again to see the newer one")
    if annotation.withdrawn_at is not None or annotation.status is not AnnotationStatus.SUBMITTED:
        raise Conflict(f"annotation {annotation_id} does not count any more; there is nothing to revise or withdraw")
    return annotation, item


def _check_length(draft: JsonObject) -> None:
    if len(json.dumps(draft)) > _MAX_DRAFT:
        raise Invalid("the draft is too long to be kept; shorten the texts")


def _live_annotation(session: Session, item: Item, user: User) -> Annotation | None:
    return session.scalar(_LIVE, {"item": item.id, "user": user.id})


_OF_USER = and_(
    Annotation.item_id == bindparam("item"),
    Annotation.user_id == bindparam("user"),
    Annotation.superseded_at.is_(None),
    Annotation.withdrawn_at.is_(None),
)
_LIVE = select(Annotation).where(_OF_USER)
# An item's texts in the order of their places, and beside each what the person said of the item, and whether webhooks
# may want to hear of it.
_THERE = (
    select(
        Completion.id,
        Completion.text,
        Annotation.id,
        Annotation.status,
        exists().where(Webhook.project_id == bindparam("project"), Webhook.disabled_at.is_(None)),
    )
    .select_from(ItemCompletion)
    .join(Completion, Completion.id == ItemCompletion.completion_id)
    .outerjoin(Annotation, _OF_USER)
    .where(ItemCompletion.item_id == bindparam("item"))
    .order_by(ItemCompletion.position)
)


def _store(
    session: Session,
    item: Item,
    whose: dict[str, Any],
    cleaned: Submission,
    now: datetime,
    *,
    draft: Annotation | None = None,
    practised: bool = False,
) -> Annotation:
    """Write what was said about the (locked) item, in the place of a draft where there is one."""
    values = {**whose, **_values(session, item, cleaned, now, practised=practised)}
    if draft is None:
        annotation = insert_row(session, Annotation, item_id=item.id, **values)
    else:
        annotation = draft
        update_row(session, annotation, draft=None, **values)

    def put(kind: type[Base], said: Iterable[RatingInput | PreferenceInput | RankInput | CritiqueInput]) -> None:
        # The fields of what is said are the columns.
        insert_all(session, kind, ({"annotation_id": annotation.id, **vars(one)} for one in said))

    put(Rating, cleaned.ratings)
    put(Preference, [cleaned.preference] if cleaned.preference else [])
    put(Ranking, cleaned.rankings)
    put(Critique, cleaned.critiques)
    _refine(session, item, annotation, cleaned)
    judged = item.judged + (not practised)
    done = _fills(session, item, judged)
    update_row(session, item, judged=judged, status=ItemStatus.DONE if done else item.status)
    return annotation


def _values(session: Session, item: Item, cleaned: Submission, now: datetime, *, practised: bool) -> dict[str, Any]:
    standard = gold.standard_of(session, item)
    return {
        "status": AnnotationStatus.PRACTISED if practised else AnnotationStatus.SUBMITTED,
        "submitted_at": now,
        "seconds_spent": cleaned.seconds_spent,
        "gold_score": None if standard is None else gold.judge(standard, cleaned).score,
    }


def _fills(session: Session, item: Item, judged: int) -> bool:
    """Whether nobody else is wanted once there are so many annotations."""
    waiting = item.status in (ItemStatus.OPEN, ItemStatus.STALE, ItemStatus.OWN)
    return waiting and judged >= places(session, item)


def _refine(session: Session, item: Item, annotation: Annotation, cleaned: Submission) -> None:
    for refinement in cleaned.refinements:
        refined = add_completion(session, item.prompt, refinement.text, CompletionOrigin.REFINEMENT).row
        row = {"annotation_id": annotation.id, "completion_id": refinement.completion_id, "refined_id": refined.id}
        insert_all(session, Refinement, [row])
