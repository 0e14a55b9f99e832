"""Turns of the playground as the worker sees them: who waits, what is being written, what is finished.

See `storage.playground` for the whole. A turn is known by its `key`; whatever is said of one that was stopped, or taken
over by another run, changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.enums import CompletionOrigin, ItemKind, SelectionReason, TurnState
from storage.items import add_item
from storage.models import Assignment, Conversation, JsonObject, Message, Project, User, utc_now
from storage.playground import held, take_back
from storage.prompts import PLAYGROUND_SOURCE, add_completion, add_prompt, insert_once, storable
from storage.rule_scope import note_rules


class Turn(NamedTuple):
    """A message that waits to be answered."""

    conversation_id: int
    turn: int
    messages: list[Message]

    @property
    def key(self) -> str:
        """How the writing process calls it."""
        return f"{self.conversation_id}.{self.turn}"


class WrittenTurn(NamedTuple):
    """One completion of a turn, as its process wrote it."""

    text: str
    model_version_id: int
    sampling: JsonObject
    seed: int
    token_count: int
    mean_logprob: float
    latency_ms: float
    rules: Sequence[Sequence[int]] = ()  # that stood in the system prompt, as (id, revision)


def turns_waiting(session: Session, project_id: int) -> list[Turn]:
    """Messages that nobody answers yet, the oldest first."""
    rows = session.scalars(
        select(Conversation)
        .where(Conversation.project_id == project_id, Conversation.state == TurnState.QUEUED)
        .order_by(Conversation.sent_at, Conversation.id)
    )
    return [Turn(row.id, row.turn, row.messages) for row in rows]


def turns_of(session: Session, run_id: int) -> set[str]:
    """The keys of the turns that the run's process is to write."""
    query = select(Conversation.id, Conversation.turn).where(
        Conversation.run_id == run_id, Conversation.state == TurnState.WRITING
    )
    return {f"{row.id}.{row.turn}" for row in session.execute(query)}


def hand_over(session: Session, turn: Turn, run_id: int) -> bool:
    """Give a turn to the run's process; False when it was taken back, or by another run, in the meantime."""
    taken = session.execute(
        update(Conversation)
        .where(
            Conversation.id == turn.conversation_id,
            Conversation.turn == turn.turn,
            Conversation.state == TurnState.QUEUED,
        )
        .values(state=TurnState.WRITING, run_id=run_id, texts=[])
        .returning(Conversation.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return taken is not None


def take_up_again(session: Session, run_id: int) -> None:
    """The run begins anew: what an earlier process of it was writing waits again."""
    session.execute(
        update(Conversation)
        .where(Conversation.run_id == run_id, Conversation.state == TurnState.WRITING)
        .values(state=TurnState.QUEUED, run_id=None, texts=[])
        .execution_options(synchronize_session=False)
    )


def _writing(session: Session, run_id: int, key: str) -> Conversation | None:
    """The conversation, locked, if this turn of it is still the one that the run writes."""
    number, _, turn = key.partition(".")
    talk = held(session, int(number))
    current = talk.state is TurnState.WRITING and talk.run_id == run_id and talk.turn == int(turn)
    return talk if current else None


def add_pieces(session: Session, run_id: int, key: str, pieces: Sequence[tuple[int, str]]) -> None:
    """Put what was written into the turn's texts; a piece is (characters before it, text) and replaces what follows."""
    talk = _writing(session, run_id, key)
    if talk is None:
        return
    texts = [*talk.texts, *[""] * (len(pieces) - len(talk.texts))]
    talk.texts = [text[:at] + storable(new) for text, (at, new) in zip(texts, pieces, strict=True)]
    session.flush()


def refuse(session: Session, run_id: int, key: str, error: str) -> None:
    """The process cannot answer this message; it is the person's draft again."""
    talk = _writing(session, run_id, key)
    if talk is not None:
        take_back(session, talk, error)


def enter_written(
    session: Session, run_id: int, key: str, written: Sequence[WrittenTurn], *, now: datetime | None = None
) -> None:
    """A turn is finished: its completions and an item of the person's own, leased to them in the order shown.

    Completions that they had for the same messages before are not judged a second time.
    """
    talk = _writing(session, run_id, key)
    if talk is None:
        return
    project, user = session.get_one(Project, talk.project_id), session.get_one(User, talk.user_id)
    prompt = add_prompt(session, project, talk.messages, PLAYGROUND_SOURCE).row
    completions = []
    for one in written:
        added = add_completion(session, prompt, one.text, CompletionOrigin.MODEL, run_id=run_id, **_origin(one))
        if added.created:
            note_rules(session, added.row.id, one.rules)
        completions.append(added.row)
    distinct = list({completion.id: completion for completion in completions}.values())
    item = add_item(session, prompt, distinct, ItemKind.PLAYGROUND, owner=user).row
    moment = now or utc_now()
    assignment = insert_once(
        session,
        Assignment,
        {"item_id": item.id, "user_id": user.id},
        {
            "project_id": project.id,
            "shown_order": [completion.id for completion in distinct],
            "reason": SelectionReason.OWN,
            "propensity": 1.0,
            "leased_at": moment,
            "expires_at": moment + timedelta(seconds=project.lease_seconds),
        },
    ).row
    by_id = {completion.id: completion.text for completion in distinct}
    talk.texts = [by_id[completion_id] for completion_id in assignment.shown_order]
    talk.state, talk.assignment_id = TurnState.WRITTEN, assignment.id
    session.flush()


def _origin(one: WrittenTurn) -> JsonObject:
    return {key: value for key, value in one._asdict().items() if key not in ("text", "rules")}
