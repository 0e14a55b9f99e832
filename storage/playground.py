"""The playground: a person writes to a project's models, judges two completions, and goes on with one of them.

Problem: completions must be seen while they are written, yet the web and the worker meet in rows only, and what is
judged must be feedback like any other. Decision: one row a person and project (`Conversation`) says where they are,

    typing -> send -> queued -> hand_over -> writing -> enter_written -> written -> judged -> go_on -> typing
       ^                └────────── stop, refuse ──────────┘ (the message is their draft again)

and a run of kind playground stays alive for the project as long as somebody talks (`wake`). A worker gives its process
the messages and carries what is written into `Conversation.texts`; what is finished becomes an ordinary prompt with
completions and an item of their own, with a lease. Invariant: a message sent is answered, or is back in the person's
draft with the reason; whatever was said of an older turn changes nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from storage.configs import AnnotationSettings, PlaygroundConfig, parse
from storage.enums import (
    AnnotationStatus,
    AssignmentStatus,
    Outcome,
    RunKind,
    RunStatus,
    TurnState,
)
from storage.errors import Conflict, Invalid, NotAllowed
from storage.models import (
    Annotation,
    Assignment,
    Completion,
    Conversation,
    Preference,
    Project,
    Refinement,
    Run,
    User,
    utc_now,
)
from storage.prompts import clean_messages, insert_once, storable
from storage.runs import queue_run
from storage.standings import PAUSED, Stage, stage
from storage.submissions import MAX_CHARACTERS

MAX_CONVERSATION = 200_000  # characters of all messages together
SILENT = timedelta(seconds=5)  # a worker that said nothing for so long is busy or gone
RESTING = timedelta(seconds=30)  # after a failure nothing is started again by itself
_LIVE = (TurnState.QUEUED, TurnState.WRITING)


class Writer(NamedTuple):
    """How a project's writing process is: `asleep`, `waiting` for a worker, `loading`, `ready`, `silent`, `failed`."""

    state: str
    error: str | None = None


def is_on(project: Project) -> bool:
    """Whether the project has a playground."""
    return parse(AnnotationSettings, project.annotation_settings or {}).playground


def closed_because(session: Session, project: Project, user: User) -> str | None:
    """Why the person has no playground in the project; None where they have one."""
    if not is_on(project):
        return "the playground is switched off in this project; ask an operator"
    where = stage(session, project, user)
    if where is Stage.PAUSED:
        return PAUSED
    return "finish the practice round on the Annotate page first" if where is Stage.PRACTICE else None


def my_conversation(session: Session, project: Project, user: User) -> Conversation:
    """The person's conversation in the project, made on first use, locked until the transaction ends.

    Raises `NotAllowed` where the project has no playground for them.
    """
    closed = closed_because(session, project, user)
    if closed is not None:
        raise NotAllowed(closed)
    made = insert_once(session, Conversation, {"project_id": project.id, "user_id": user.id}, {})
    return held(session, made.row.id)


def held(session: Session, conversation_id: int) -> Conversation:
    """The conversation as it stands, locked until the transaction ends."""
    query = select(Conversation).where(Conversation.id == conversation_id).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).one()


# --- what the person does ---


def keep_draft(session: Session, talk: Conversation, text: str) -> None:
    """Keep what they are typing; raises `Invalid` when it is too long."""
    if len(text) > MAX_CHARACTERS:
        raise Invalid(f"a message has {len(text):,} characters; at most {MAX_CHARACTERS:,} are kept: shorten it")
    if talk.state is TurnState.TYPING:
        talk.draft = storable(text)
        session.flush()


def send(session: Session, project: Project, talk: Conversation, text: str, *, now: datetime | None = None) -> None:
    """Ask for two completions of the conversation with `text` as the next message, and wake a process for them.

    Raises `Invalid` for a message that is empty or too long, `Conflict` while the one before is not judged. The message
    that is being answered, sent a second time (a double click), changes nothing.
    """
    if talk.state in _LIVE and talk.messages[-1]["content"] == storable(text.strip()):
        return
    if talk.state in _LIVE:
        raise Conflict("your last message is being answered; wait for it, or stop it")
    if talk.state is TurnState.WRITTEN:
        raise Conflict("judge these completions first, or begin a new conversation")
    if len(text) > MAX_CHARACTERS:
        raise Invalid(f"a message has {len(text):,} characters; at most {MAX_CHARACTERS:,} are taken: shorten it")
    if not text.strip():
        raise Invalid("write a message first")
    messages = clean_messages([*talk.messages, {"role": "user", "content": text.strip()}])
    if sum(len(message["content"]) for message in messages) > MAX_CONVERSATION:
        raise Invalid("this conversation has become too long; begin a new one")
    talk.messages, talk.draft, talk.texts, talk.error = messages, "", [], None
    talk.state, talk.turn, talk.sent_at = TurnState.QUEUED, talk.turn + 1, now or utc_now()
    talk.run_id, talk.assignment_id = None, None
    session.flush()
    wake(session, project, asked=True)


def stop(session: Session, talk: Conversation) -> None:
    """Take back the message that is being answered; it is the draft again. Nothing happens where none is."""
    if talk.state in _LIVE:
        take_back(session, talk, None)


def take_back(session: Session, talk: Conversation, error: str | None) -> None:
    """The message that is being answered is the draft again, because of `error` or of the person."""
    talk.draft, talk.messages = talk.messages[-1]["content"], talk.messages[:-1]
    talk.state, talk.texts, talk.error, talk.run_id = TurnState.TYPING, [], error, None
    session.flush()


def go_on(session: Session, talk: Conversation, side: int, *, rewritten: bool = False) -> None:
    """Make the completion shown at place `side` (0 is left), or the person's rewrite of it, the assistant's turn.

    Raises `Conflict` before the completions were judged, `Invalid` where there is no such completion or rewrite.
    """
    assignment = judged_assignment(session, talk)
    if assignment is None:
        raise Conflict("judge these completions first, or begin a new conversation")
    if not 0 <= side < len(assignment.shown_order):
        raise Invalid("there is no such completion; reload the page")
    completion_id = assignment.shown_order[side]
    text = rewrites(session, assignment).get(completion_id) if rewritten else None
    if rewritten and text is None:
        raise Invalid("you have not rewritten this completion; go on with it as it is")
    text = text or session.get_one(Completion, completion_id).text
    talk.messages = [*talk.messages, {"role": "assistant", "content": text}]
    talk.state, talk.texts, talk.assignment_id, talk.draft = TurnState.TYPING, [], None, ""
    session.flush()


def begin_anew(session: Session, talk: Conversation, *, now: datetime | None = None) -> None:
    """Leave the conversation; completions that were not judged stay unjudged."""
    stop(session, talk)
    assignment = session.get(Assignment, talk.assignment_id) if talk.assignment_id else None
    if assignment is not None and assignment.status is AssignmentStatus.LEASED:
        assignment.status, assignment.closed_at = AssignmentStatus.SKIPPED, now or utc_now()
    if talk.messages or talk.state is TurnState.WRITTEN:
        talk.draft = ""
    talk.messages, talk.texts, talk.error, talk.assignment_id = [], [], None, None
    talk.state = TurnState.TYPING
    session.flush()


def judged_assignment(session: Session, talk: Conversation) -> Assignment | None:
    """The lease of the completions once they are judged (or that was taken back since); None before."""
    if talk.state is not TurnState.WRITTEN or talk.assignment_id is None:
        return None
    assignment = session.get_one(Assignment, talk.assignment_id, populate_existing=True)
    return assignment if assignment.status in (AssignmentStatus.SUBMITTED, AssignmentStatus.SKIPPED) else None


def rewrites(session: Session, assignment: Assignment) -> dict[int, str]:
    """The person's own rewrites of the lease's completions that count, by the completion's id."""
    found = session.execute(
        select(Refinement.completion_id, Completion.text)
        .join(Annotation, Annotation.id == Refinement.annotation_id)
        .join(Completion, Completion.id == Refinement.refined_id)
        .where(Annotation.item_id == assignment.item_id, Annotation.user_id == assignment.user_id, _counts())
    )
    return dict(found.all())


def preferred(session: Session, assignment: Assignment) -> int | None:
    """The completion that the person prefers in what they said of the lease's, None without one."""
    said = session.execute(
        select(Preference.outcome, Preference.first_id, Preference.second_id)
        .join(Annotation, Annotation.id == Preference.annotation_id)
        .where(Annotation.item_id == assignment.item_id, Annotation.user_id == assignment.user_id, _counts())
    ).one_or_none()
    if said is None:
        return None
    return {Outcome.FIRST: said.first_id, Outcome.SECOND: said.second_id}.get(said.outcome)


def _counts() -> ColumnElement[bool]:
    return and_(
        Annotation.status == AnnotationStatus.SUBMITTED,
        Annotation.superseded_at.is_(None),
        Annotation.withdrawn_at.is_(None),
    )


# --- the process that writes ---


def wake(session: Session, project: Project, *, asked: bool = False, now: datetime | None = None) -> None:
    """See that a writing process is there, or on its way. After a failure it rests, unless somebody asked for it."""
    newest = _newest_run(session, project.id)
    if newest is not None and not newest.status.ended:
        return
    failed_at = newest.finished_at if newest is not None and newest.status is RunStatus.FAILED else None
    if failed_at is not None and not asked and failed_at > (now or utc_now()) - RESTING:
        return
    try:
        cause = f"playground after run {newest.id if newest else 0}"
        queue_run(session, project, RunKind.PLAYGROUND, asked={}, config=PlaygroundConfig(), cause=cause)
    except Conflict:
        return  # another page has just done it


def _newest_run(session: Session, project_id: int) -> Run | None:
    runs = select(Run).where(Run.project_id == project_id, Run.kind == RunKind.PLAYGROUND)
    return session.scalar(runs.order_by(Run.id.desc()).limit(1).execution_options(populate_existing=True))


def writer_of(session: Session, project: Project, *, now: datetime | None = None) -> Writer:
    """How the project's writing process is."""
    run = _newest_run(session, project.id)
    if run is None or run.status in (RunStatus.SUCCEEDED, RunStatus.CANCELLED):
        return Writer("asleep")
    if run.status is RunStatus.FAILED:
        return Writer("failed", run.error)
    if run.status is RunStatus.QUEUED:
        return Writer("waiting")
    if run.heartbeat_at is not None and run.heartbeat_at < (now or utc_now()) - SILENT:
        return Writer("silent")
    return Writer("loading" if run.step is None else "ready")


def left_alone(session: Session, talk: Conversation) -> bool:
    """Whether a message waits although no process will come for it: `settle` is due."""
    if talk.state not in _LIVE:
        return False
    run = _newest_run(session, talk.project_id)
    return run is None or run.status.ended


def settle(session: Session, project: Project, talk: Conversation) -> None:
    """A process ended while a message waits: wake another one, or give the message back with the reason."""
    if not left_alone(session, talk):
        return
    run = _newest_run(session, talk.project_id)
    ended = run.finished_at if run is not None else None
    if run is not None and run.status is not RunStatus.SUCCEEDED and ended and talk.sent_at and ended >= talk.sent_at:
        reason = run.error or run.status.value
        take_back(session, talk, f"the message was not answered: {reason}")
        return
    talk.state, talk.texts, talk.run_id = TurnState.QUEUED, [], None
    session.flush()
    wake(session, project, asked=True)
