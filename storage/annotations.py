"""What annotators say about an item: drafts, the submit that counts, withdrawal, imported feedback, progress."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import audit
from storage.enums import AnnotationStatus, AssignmentStatus, CompletionOrigin, ItemStatus
from storage.errors import Conflict, Invalid, NotFound
from storage.items import hold, lock_item, own_assignment
from storage.models import (
    Annotation,
    Assignment,
    Critique,
    Item,
    JsonObject,
    Preference,
    Project,
    Rating,
    Refinement,
    User,
    utc_now,
)
from storage.progress import Progress, annotation_counts, count_usable, my_progress
from storage.prompts import add_completion
from storage.submissions import (
    CritiqueInput,
    PreferenceInput,
    RatingInput,
    RefinementInput,
    Submission,
    checked,
)

__all__ = [
    "CritiqueInput",
    "PreferenceInput",
    "Progress",
    "RatingInput",
    "RefinementInput",
    "Submission",
    "annotation_counts",
    "count_usable",
    "my_progress",
    "record_imported",
    "save_draft",
    "submit",
    "withdraw",
]

_MAX_DRAFT = 400_000


def save_draft(
    session: Session, assignment_id: int, user: User, draft: JsonObject, *, now: datetime | None = None
) -> None:
    """Keep what has been typed so far, and keep the lease alive while it lives; raises `Conflict` after the submit."""
    moment = now or utc_now()
    if len(json.dumps(draft)) > _MAX_DRAFT:
        raise Invalid("the draft is too long to be kept; shorten the texts")
    assignment = own_assignment(session, assignment_id, user)
    item = lock_item(session, assignment.item_id)
    session.refresh(assignment)
    if assignment.status is AssignmentStatus.SUBMITTED:
        raise Conflict("you have submitted this item already; load the next one")
    annotation = _live_annotation(session, item, user)
    if annotation is None:
        annotation = Annotation(
            item_id=item.id, user_id=user.id, assignment_id=assignment.id, status=AnnotationStatus.DRAFT
        )
        session.add(annotation)
    annotation.draft = draft
    if assignment.status is AssignmentStatus.LEASED and assignment.expires_at > moment:
        seconds = session.scalars(select(Project.lease_seconds).where(Project.id == item.project_id)).one()
        assignment.expires_at = moment + timedelta(seconds=seconds)
    session.flush()


def submit(
    session: Session, assignment_id: int, user: User, submission: Submission, *, now: datetime | None = None
) -> Annotation:
    """Record the annotator's judgement for good; once the transaction is committed it is durable.

    Raises `Conflict` on a second submit and when the lease was lost, `Invalid` when something does not belong to the
    item, is out of range or too long, or when nothing was judged. A strength beside a tie is left out, as are
    refinements equal to their original and critiques without text and tags.
    """
    moment = now or utc_now()
    assignment = own_assignment(session, assignment_id, user)
    item = hold(session, assignment, user, moment)
    cleaned = checked(session, item, submission)
    annotation = _live_annotation(session, item, user)
    if annotation is None:
        annotation = Annotation(item_id=item.id, user_id=user.id, assignment_id=assignment.id)
        session.add(annotation)
    elif annotation.status is not AnnotationStatus.DRAFT:
        raise Conflict("you have judged this item already; load the next one")
    annotation.assignment_id = assignment.id
    _store(session, item, annotation, cleaned, moment)
    assignment.status, assignment.closed_at = AssignmentStatus.SUBMITTED, moment
    session.flush()
    return annotation


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
    cleaned = checked(session, locked, submission)
    annotation = Annotation(item_id=locked.id, user_id=user.id, source_key=source_key)
    session.add(annotation)
    _store(session, locked, annotation, cleaned, now or utc_now())
    return annotation


def withdraw(session: Session, annotation_id: int, user: User, *, now: datetime | None = None) -> Annotation:
    """Mark an annotation as taken back by `user`: it stays readable and never trains again.

    Its item is open again for others. Raises `NotFound`, and `Conflict` when it does not count (any more).
    """
    annotation = session.get(Annotation, annotation_id)
    if annotation is None:
        raise NotFound(f"there is no annotation {annotation_id}")
    item = lock_item(session, annotation.item_id)
    session.refresh(annotation)
    live = annotation.withdrawn_at is None and annotation.superseded_at is None
    if not live or annotation.status is not AnnotationStatus.SUBMITTED:
        raise Conflict(f"annotation {annotation_id} does not count any more; there is nothing to withdraw")
    moment = now or utc_now()
    annotation.withdrawn_at = moment
    item.judged -= 1
    project = session.get_one(Project, item.project_id)
    if item.status is ItemStatus.DONE and item.judged < project.overlap:
        item.status = ItemStatus.OPEN
    if annotation.assignment_id is not None:
        # The person does not get the item a second time, and it leaves their count.
        session.get_one(Assignment, annotation.assignment_id).status = AssignmentStatus.SKIPPED
    audit.record(session, user, "annotation.withdraw", f"annotation {annotation.id}", project)
    return annotation


def _live_annotation(session: Session, item: Item, user: User) -> Annotation | None:
    return session.scalar(
        select(Annotation).where(
            Annotation.item_id == item.id,
            Annotation.user_id == user.id,
            Annotation.superseded_at.is_(None),
            Annotation.withdrawn_at.is_(None),
        )
    )


def _store(session: Session, item: Item, annotation: Annotation, cleaned: Submission, now: datetime) -> None:
    annotation.status = AnnotationStatus.SUBMITTED
    annotation.submitted_at = now
    annotation.draft = None
    annotation.seconds_spent = cleaned.seconds_spent
    session.flush()
    rows: list[Rating | Preference | Critique | Refinement] = [
        Rating(annotation_id=annotation.id, completion_id=r.completion_id, criterion_id=r.criterion_id, value=r.value)
        for r in cleaned.ratings
    ]
    if (p := cleaned.preference) is not None:
        rows.append(
            Preference(
                annotation_id=annotation.id,
                first_id=p.first_id,
                second_id=p.second_id,
                outcome=p.outcome,
                strength=p.strength,
            )
        )
    rows += [
        Critique(
            annotation_id=annotation.id,
            completion_id=c.completion_id,
            text=c.text,
            span_start=c.span_start,
            span_end=c.span_end,
            tags=c.tags,
        )
        for c in cleaned.critiques
    ]
    for refinement in cleaned.refinements:
        refined = add_completion(session, item.prompt, refinement.text, CompletionOrigin.REFINEMENT).row
        rows.append(
            Refinement(annotation_id=annotation.id, completion_id=refinement.completion_id, refined_id=refined.id)
        )
    session.add_all(rows)
    item.judged += 1
    overlap = session.scalars(select(Project.overlap).where(Project.id == item.project_id)).one()
    if item.status in (ItemStatus.OPEN, ItemStatus.STALE) and item.judged >= overlap:
        item.status = ItemStatus.DONE
    session.flush()
