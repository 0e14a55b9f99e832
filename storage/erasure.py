"""Erasing a person: their words and ways in go, the rows that others point at stay as empty shells.

Problem: a person asks to be forgotten, while items, snapshots and models rest on what they did. Decision: everything
they wrote or chose is deleted; what something else still refers to is blanked; each annotation stays as a withdrawn
shell, so that counts, lineage and marks stay true. Files are not touched: which of them hold the person's words is
named, and the operator decides. Invariant: no row refers to nothing, and no text, name or way in of theirs is left in
SQL. The shells keep times and the hash of an imported record: without it, importing the same file again would bring
their feedback back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Delete, Select, Update, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from storage import audit
from storage.accounts import disable_user
from storage.enums import AnnotationStatus, AssignmentStatus, CompletionOrigin, ItemStatus, RefinementStatus
from storage.errors import Conflict
from storage.models import (
    Annotation,
    ApiRequest,
    ApiToken,
    Assignment,
    AuditEvent,
    Completion,
    CompletionScore,
    Conversation,
    Critique,
    Identity,
    Item,
    ItemCompletion,
    OneTimeLink,
    Preference,
    Project,
    ProjectMember,
    Prompt,
    Ranking,
    Rating,
    Refinement,
    RefinementCritique,
    Resolution,
    Run,
    SnapshotRow,
    Standing,
    User,
    UserSession,
    utc_now,
)
from storage.rules import forget_words
from storage.taint import Tainted, taint

ERASED_SOURCE = "erased"  # of a prompt that was blanked; none is written for again
_ERASED_MESSAGES = [{"role": "user", "content": "[erased]"}]
_CHUNK = 500
# What is theirs alone and goes without a trace.
_WAYS_IN = (UserSession, OneTimeLink, Identity, ProjectMember, Conversation, Standing)
_SAID = (Rating, Preference, Ranking, Critique, Refinement)
# What can refer to a completion, beside the scores that go with it.
_POINTERS = (
    ItemCompletion.completion_id, SnapshotRow.chosen_id, SnapshotRow.rejected_id, Rating.completion_id,
    Preference.first_id, Preference.second_id, Ranking.completion_id, Critique.completion_id,
    Refinement.completion_id, Refinement.refined_id, Refinement.edited_id, Resolution.completion_id,
)  # fmt: skip


@dataclass
class Erased:
    """What was done, and what is left to decide. Counts are rows; folders are relative to FEEDBACK_HOME."""

    name: str  # how the account is called from now on
    annotations: int = 0  # that stay as shells
    deleted: dict[str, int] = field(default_factory=dict)  # table -> rows
    blanked: int = 0  # texts that other rows refer to: the row stays, empty
    snapshots: list[str] = field(default_factory=list)  # folders of Parquet files that still hold their texts
    runs: list[str] = field(default_factory=list)  # run folders with copies of these files
    versions: list[str] = field(default_factory=list)  # model versions trained on them, as `project: policy-v3`


def erase_person(session: Session, user: User, by: User | None, *, now: datetime | None = None) -> Erased:
    """Forget a person for good; there is no way back.

    Raises `Conflict` when they were erased before, and when they submit something at this very moment: nothing is
    changed then, and the next try succeeds once the account is disabled.
    """
    if user.erased_at is not None:
        raise Conflict(f"{user.name} was erased already")
    moment = now or utc_now()
    _hold(session, user)
    result = Erased(f"erased-{user.id}")
    tainted = _empty_annotations(session, user, moment, result)
    _empty_own_prompts(session, user, result)
    _close_account(session, user, moment, result)
    _name_what_stays(session, tainted, result)
    audit.record(
        session,
        by,
        "user.erase",
        result.name,
        annotations=result.annotations,
        blanked=result.blanked,
        snapshots=result.snapshots,
        runs=result.runs,
        versions=result.versions,
    )
    return result


def _hold(session: Session, user: User) -> None:
    """Take the locks in the order of everybody else: items by id, then the person."""
    wanted = _live_items(user)
    held = set(session.scalars(select(Item.id).where(Item.id.in_(wanted)).order_by(Item.id).with_for_update()))
    # Waits for every transaction that is about to add a row of theirs, and keeps others from adding one.
    session.execute(select(User.id).where(User.id == user.id).with_for_update())
    if not set(session.scalars(wanted)) <= held:
        raise Conflict(f"{user.name} is annotating at this moment; disable the account first, then erase it")


def _live_items(user: User) -> Select[int]:
    counting = select(Annotation.item_id).where(Annotation.user_id == user.id, _counts())
    return counting.union(
        select(Assignment.item_id).where(Assignment.user_id == user.id, Assignment.status == AssignmentStatus.LEASED)
    )  # type: ignore[return-value]  # a compound select of the same single column


def _counts() -> ColumnElement[bool]:
    return (
        (Annotation.status == AnnotationStatus.SUBMITTED)
        & Annotation.superseded_at.is_(None)
        & Annotation.withdrawn_at.is_(None)
    )


# --- what they said ---


def _empty_annotations(session: Session, user: User, now: datetime, result: Erased) -> Tainted:
    mine = select(Annotation.id).where(Annotation.user_id == user.id)
    written = _refinements_of(session, user)
    session.execute(mine.with_for_update())  # see storage.taint
    tainted = taint(session, mine, now)
    written += _answers_to(session, user)
    forget_words(session, session.scalars(select(Critique.id).where(Critique.annotation_id.in_(mine))).all())
    for table in _SAID:
        result.deleted[table.__tablename__] = _run(session, delete(table).where(table.annotation_id.in_(mine)))
    _free_items(session, user)
    shells = update(Annotation).where(Annotation.user_id == user.id)
    # A draft becomes a shell like the others: it may be the only row that says the item was begun.
    emptied = {"draft": None, "seconds_spent": None, "gold_score": None}
    values = {"withdrawn_at": func.coalesce(Annotation.withdrawn_at, now), **emptied}
    result.annotations = _run(session, shells.values(**values))
    leases = update(Assignment).where(Assignment.user_id == user.id, Assignment.status != AssignmentStatus.EXPIRED)
    closed = {"status": AssignmentStatus.SKIPPED, "closed_at": func.coalesce(Assignment.closed_at, now)}
    _run(session, leases.values(**closed))
    _forget_texts(session, written, result)
    return tainted


def _answers_to(session: Session, user: User) -> list[int]:
    """Take back what models made of their critiques and what they said in reviews; the texts that go with it.

    A refinement answers the words of a critique, often with them in it.
    """
    mine = select(Critique.id).join(Annotation).where(Annotation.user_id == user.id)
    answers = select(RefinementCritique.refinement_id).where(RefinementCritique.critique_id.in_(mine))
    reviewed = Refinement.reviewer_id == user.id
    gone = session.execute(select(Refinement.refined_id, Refinement.edited_id).where(Refinement.id.in_(answers))).all()
    edits = session.scalars(select(Refinement.edited_id).where(reviewed)).all()
    _run(session, delete(Resolution).where(Resolution.user_id == user.id))
    _run(session, delete(Refinement).where(Refinement.id.in_(answers)))
    anew = {"status": RefinementStatus.UNREVIEWED, "edited_id": None, "reviewer_id": None, "reviewed_at": None}
    _run(session, update(Refinement).where(reviewed).values(**anew))
    texts = {one for row in gone for one in row if one is not None} | {one for one in edits if one is not None}
    used = session.scalars(select(Refinement.refined_id).where(Refinement.refined_id.in_(texts))).all()
    return sorted(texts - set(used))


def _free_items(session: Session, user: User) -> None:
    """Their judgements leave the items' counts; an item that is short of annotators is open again."""
    counted = select(Annotation.item_id).where(Annotation.user_id == user.id, _counts())
    short = func.coalesce(Item.wanted, select(Project.overlap).where(Project.id == Item.project_id).scalar_subquery())
    _run(session, update(Item).where(Item.id.in_(counted)).values(judged=Item.judged - 1))
    short_of = Item.status == ItemStatus.DONE, Item.gold.is_(None), Item.judged < short
    reopened = update(Item).where(Item.id.in_(counted), Item.owner_id.is_(None), *short_of)
    _run(session, reopened.values(status=ItemStatus.OPEN))


def _refinements_of(session: Session, user: User) -> list[int]:
    """The refined completions that nobody else wrote too."""
    theirs = Refinement.refined_id == Completion.id, Annotation.id == Refinement.annotation_id
    query = select(Completion.id).where(
        Completion.origin == CompletionOrigin.REFINEMENT,
        Completion.model_version_id.is_(None),
        exists().where(*theirs, Annotation.user_id == user.id),
        ~exists().where(*theirs, Annotation.user_id != user.id),
    )
    return list(session.scalars(query.order_by(Completion.id)))


def _forget_texts(session: Session, completion_ids: Sequence[int], result: Erased) -> None:
    """Delete completions, or blank those that something refers to; open items that show one leave the queue."""
    result.deleted.setdefault("completions", 0)
    for ids in _chunks(completion_ids):
        _run(session, delete(CompletionScore).where(CompletionScore.completion_id.in_(ids)))
        found = {one for column in _POINTERS for one in session.scalars(select(column).where(column.in_(ids)))}
        kept = sorted(one for one in found if one is not None)
        gone = delete(Completion).where(Completion.id.in_(set(ids) - set(kept)))
        result.deleted["completions"] += _run(session, gone)
        for completion_id in kept:
            # The hash is unique for the prompt and must not tell what stood there.
            digest = hashlib.sha256(f"erased completion {completion_id}".encode()).hexdigest()
            _run(
                session,
                update(Completion).where(Completion.id == completion_id).values(text="", content_hash=digest),
            )
        result.blanked += len(kept)
        showing = select(ItemCompletion.item_id).where(ItemCompletion.completion_id.in_(kept))
        stale = update(Item).where(Item.id.in_(showing), Item.status == ItemStatus.OPEN)
        _run(session, stale.values(status=ItemStatus.STALE))


# --- what they asked (playground) ---


def _empty_own_prompts(session: Session, user: User, result: Erased) -> None:
    """Prompts that only this person's own items were made for are their words too, and so is what answers them."""
    mine, other = aliased(Item), aliased(Item)
    query = select(Prompt.id).where(
        exists().where(mine.prompt_id == Prompt.id, mine.owner_id == user.id),
        ~exists().where(other.prompt_id == Prompt.id, or_(other.owner_id.is_(None), other.owner_id != user.id)),
    )
    for ids in _chunks(session.scalars(query.order_by(Prompt.id)).all()):
        for prompt_id in ids:
            digest = hashlib.sha256(f"erased prompt {prompt_id}".encode()).hexdigest()
            emptied = update(Prompt).where(Prompt.id == prompt_id)
            _run(session, emptied.values(messages=_ERASED_MESSAGES, content_hash=digest, source=ERASED_SOURCE))
        result.blanked += len(ids)
        answers = session.scalars(select(Completion.id).where(Completion.prompt_id.in_(ids))).all()
        _forget_texts(session, answers, result)


# --- who they were ---


def _close_account(session: Session, user: User, now: datetime, result: Erased) -> None:
    _run(session, delete(ApiRequest).where(ApiRequest.token_id.in_(select(ApiToken.id).filter_by(user_id=user.id))))
    for table in (ApiToken, *_WAYS_IN):
        result.deleted[table.__tablename__] = _run(session, delete(table).where(table.user_id == user.id))
    disable_user(session, user, now=now)
    named = AuditEvent.subject == user.name, AuditEvent.action.like("user.%")
    _run(session, update(AuditEvent).where(*named).values(subject=result.name))
    signed_in = update(AuditEvent).where(AuditEvent.subject == f"user {user.name}")
    _run(session, signed_in.values(subject=f"user {result.name}"))
    # Reasons for a flag are written by annotators.
    flags = update(AuditEvent).where(AuditEvent.user_id == user.id, AuditEvent.action == "item.flag")
    _run(session, flags.values(detail={}))
    user.name, user.password_hash, user.language, user.erased_at = result.name, None, None, now
    session.flush()
    session.expire_all()


def _name_what_stays(session: Session, tainted: Tainted, result: Erased) -> None:
    result.snapshots = [snapshot.folder for snapshot in tainted.snapshots]
    used = select(Run.id).where(Run.snapshot_id.in_([snapshot.id for snapshot in tainted.snapshots]))
    result.runs = [f"runs/{run_id}" for run_id in session.scalars(used.order_by(Run.id))]
    names = dict(session.execute(select(Project.id, Project.name)).all())
    result.versions = [f"{names[version.project_id]}: {version.name}" for version in tainted.versions]


def _run(session: Session, statement: Update | Delete) -> int:
    done: CursorResult[Any] = session.execute(  # type: ignore[assignment]  # a change gives a CursorResult
        statement.execution_options(synchronize_session=False)
    )
    return done.rowcount


def _chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
