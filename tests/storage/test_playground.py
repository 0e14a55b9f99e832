"""The playground's rows: from a message sent to an annotation that counts, and back to the next message."""

from __future__ import annotations

import random

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import annotations, items, playground, projects, turns
from storage.configs import SnapshotSettings
from storage.enums import AssignmentStatus, ItemKind, ItemStatus, RunKind, RunStatus, SelectionReason, TurnState
from storage.erasure import erase_person
from storage.errors import Conflict, Invalid, NotAllowed
from storage.models import Assignment, Completion, Conversation, Item, Prompt, Run
from storage.preferences import PairCounts, stream_pairs
from storage.queue import prompts_to_generate, queue_counts
from storage.registry import base_version
from storage.runs import claim_run, finish_run, heartbeat, requeue_lost
from storage.submissions import RefinementInput, Submission
from storage.turns import WrittenTurn
from tests import factories


@pytest.fixture
def talk(session: Session) -> Conversation:
    """A conversation of ann's in a project of her own."""
    project, user = factories.make_project(session), factories.make_user(session, "ann")
    return playground.my_conversation(session, project, user)


def project_of(session: Session, talk: Conversation) -> projects.Project:
    return session.get_one(projects.Project, talk.project_id)


def user_of(session: Session, talk: Conversation) -> factories.User:
    return session.get_one(factories.User, talk.user_id)


def answer(session: Session, talk: Conversation, *texts: str) -> Assignment:
    """What a worker does with the turn that waits; a tenth of it is carried while it is written."""
    project = project_of(session, talk)
    run = claim_run(session, "w", [RunKind.PLAYGROUND]) or session.scalars(select(Run).order_by(Run.id.desc())).first()
    assert run is not None
    turn = turns.turns_waiting(session, project.id)[0]
    assert turns.hand_over(session, turn, run.id)
    turns.add_pieces(session, run.id, turn.key, [(0, text[:1]) for text in texts])
    session.refresh(talk)
    assert talk.texts == [text[:1] for text in texts]
    version = base_version(session, project, "starter")
    written = [WrittenTurn(text, version.id, {"temperature": 1.0}, 7, 3, -0.5, 20.0) for text in texts]
    turns.enter_written(session, run.id, turn.key, written)
    session.refresh(talk)
    assert talk.assignment_id is not None
    return session.get_one(Assignment, talk.assignment_id)


def judge(session: Session, talk: Conversation, assignment: Assignment, rewrite: str = "") -> None:
    lease = items.get_lease(session, assignment.id, user_of(session, talk))
    said = factories.prefer_first(lease)
    refined = [RefinementInput(lease.completions[0][0], rewrite)] if rewrite else []
    submission = Submission(preference=said.preference, refinements=refined)
    annotations.submit(session, assignment.id, user_of(session, talk), submission)


def test_a_conversation_becomes_ordinary_feedback(session: Session, talk: Conversation) -> None:
    project, ann = project_of(session, talk), user_of(session, talk)
    playground.keep_draft(session, talk, "Where is")
    assert playground.my_conversation(session, project, ann).draft == "Where is"
    playground.send(session, project, talk, " Where is my parcel?\x00 ")
    assert (talk.state, talk.draft) == (TurnState.QUEUED, "")
    playground.send(session, project, talk, " Where is my parcel?\x00 ")  # a double click
    assert (talk.turn, len(talk.messages)) == (1, 1)
    with pytest.raises(Conflict):
        playground.send(session, project, talk, "again")
    assignment = answer(session, talk, "On its way.", "Ask the courier.")
    assert (assignment.reason, assignment.propensity) == (SelectionReason.OWN, 1.0)
    item = session.get_one(Item, assignment.item_id)
    assert (item.kind, item.owner_id, item.status) == (ItemKind.PLAYGROUND, ann.id, ItemStatus.OWN)
    prompt = session.get_one(Prompt, item.prompt_id)
    assert (prompt.source, prompt.messages[-1]["content"]) == ("playground", "Where is my parcel?\ufffd")
    row = session.get_one(Completion, assignment.shown_order[0])
    assert (row.text, row.seed, row.token_count, row.mean_logprob) == ("On its way.", 7, 3, -0.5)
    for early in (lambda: playground.go_on(session, talk, 0), lambda: playground.send(session, project, talk, "more")):
        with pytest.raises(Conflict):
            early()

    judge(session, talk, assignment, rewrite="On its way, here today.")
    assert session.get_one(Item, item.id).status is ItemStatus.DONE
    pairs = stream_pairs(session, project, SnapshotSettings(), PairCounts())
    assert ("On its way.", "Ask the courier.") in {(pair.chosen, pair.rejected) for pair in pairs}
    with pytest.raises(Invalid):
        playground.go_on(session, talk, 1, rewritten=True)
    playground.go_on(session, talk, 0, rewritten=True)
    assert talk.messages[-1] == {"role": "assistant", "content": "On its way, here today."}
    playground.send(session, project, talk, "Thanks. And the other one?")
    second = answer(session, talk, "Tomorrow.", "Tomorrow.")  # the model has one answer: it is judged alone
    assert len(session.get_one(Prompt, session.get_one(Item, second.item_id).prompt_id).messages) == 3
    assert len(second.shown_order) == 1
    playground.begin_anew(session, talk)
    assert second.status is AssignmentStatus.SKIPPED
    assert (talk.state, talk.messages, talk.texts) == (TurnState.TYPING, [], [])


def test_what_is_one_s_own_stays_out_of_the_queue(session: Session, talk: Conversation) -> None:
    project, ann = project_of(session, talk), user_of(session, talk)
    other = factories.make_user(session, "bob")
    playground.send(session, project, talk, "Hello?")
    assignment = answer(session, talk, "Hi.", "Hello.")
    assert queue_counts(session, project).unjudged == 0
    assert prompts_to_generate(session, project, 5) == []
    for person in (ann, other):
        assert items.lease_next(session, project, person, rng=random.Random(0)) is None
    assert session.get_one(Assignment, assignment.id).status is AssignmentStatus.LEASED
    judge(session, talk, assignment)
    annotations.withdraw(session, session.scalars(select(annotations.Annotation.id)).one(), ann)
    assert items.lease_next(session, project, other, rng=random.Random(0)) is None
    # The same words of somebody else are theirs to judge.
    theirs = playground.my_conversation(session, project, other)
    playground.send(session, project, theirs, "Hello?")
    assert answer(session, theirs, "Hi.", "Hello.").item_id != assignment.item_id

    erase_person(session, ann, None)
    assert session.scalars(select(Conversation.user_id)).all() == [other.id]


def test_stop_and_late_words_change_nothing(session: Session, talk: Conversation) -> None:
    project = project_of(session, talk)
    playground.send(session, project, talk, "First")
    run = claim_run(session, "w", [RunKind.PLAYGROUND])
    assert run is not None
    turn = turns.turns_waiting(session, project.id)[0]
    assert turns.hand_over(session, turn, run.id)
    assert not turns.hand_over(session, turn, run.id)
    assert turns.turns_of(session, run.id) == {turn.key}
    playground.stop(session, talk)
    assert (talk.state, talk.draft, talk.messages) == (TurnState.TYPING, "First", [])
    assert turns.turns_of(session, run.id) == set()
    playground.send(session, project, talk, "Second")
    turns.add_pieces(session, run.id, turn.key, [(0, "late"), (0, "late")])
    turns.enter_written(session, run.id, turn.key, [])
    turns.refuse(session, run.id, turn.key, "late")
    session.refresh(talk)
    assert (talk.state, talk.texts, talk.error) == (TurnState.QUEUED, [], None)
    second = turns.turns_waiting(session, project.id)[0]
    turns.hand_over(session, second, run.id)
    turns.add_pieces(session, run.id, second.key, [(0, "On"), (0, "Not")])
    turns.add_pieces(session, run.id, second.key, [(2, " time"), (0, "Never")])
    turns.add_pieces(session, run.id, second.key, [(2, " time"), (0, "Never")])  # carried twice
    session.refresh(talk)
    assert talk.texts == ["On time", "Never"]
    turns.refuse(session, run.id, second.key, "too long for this model")
    session.refresh(talk)
    assert (talk.draft, talk.error) == ("Second", "too long for this model")


def test_a_message_is_never_left_alone(session: Session, talk: Conversation) -> None:
    project = project_of(session, talk)
    assert playground.writer_of(session, project).state == "asleep"
    playground.wake(session, project)
    playground.wake(session, project)  # one is on its way
    assert playground.writer_of(session, project).state == "waiting"
    run = claim_run(session, "w", [RunKind.PLAYGROUND])
    assert run is not None
    assert playground.writer_of(session, project).state == "loading"
    heartbeat(session, run.id, "w", 0, 0)
    assert playground.writer_of(session, project).state == "ready"
    assert playground.writer_of(session, project, now=factories.later(seconds=8)).state == "silent"
    # The worker is lost while it writes: whoever takes the run up begins the message again.
    playground.send(session, project, talk, "Are you there?")
    turns.hand_over(session, turns.turns_waiting(session, project.id)[0], run.id)
    lost = factories.timedelta(seconds=10)
    assert requeue_lost(session, lost, now=factories.later(seconds=30), kinds=[RunKind.GENERATE]) == []
    assert requeue_lost(session, lost, now=factories.later(seconds=30), kinds=[RunKind.PLAYGROUND]) == [run.id]
    assert claim_run(session, "v", [RunKind.PLAYGROUND]) is not None
    turns.take_up_again(session, run.id)
    turn = turns.turns_waiting(session, project.id)[0]
    turns.hand_over(session, turn, run.id)
    # The run ends properly although a message has just come: another one is woken.
    finish_run(session, run.id, "v", RunStatus.SUCCEEDED)
    session.refresh(talk)
    assert playground.left_alone(session, talk)
    playground.settle(session, project, talk)
    assert (talk.state, playground.writer_of(session, project).state) == (TurnState.QUEUED, "waiting")
    # The next one fails: the message is the draft again, with the reason, and nothing is started in a circle.
    failing = claim_run(session, "v", [RunKind.PLAYGROUND])
    assert failing is not None
    finish_run(session, failing.id, "v", RunStatus.FAILED, error="out of memory")
    playground.settle(session, project, talk)
    assert (talk.state, talk.draft) == (TurnState.TYPING, "Are you there?")
    assert talk.error == "the message was not answered: out of memory"
    playground.wake(session, project)
    assert playground.writer_of(session, project) == ("failed", "out of memory")
    playground.send(session, project, talk, "Are you there?")
    assert playground.writer_of(session, project).state == "waiting"


def test_messages_are_checked_and_a_playground_can_be_switched_off(session: Session, talk: Conversation) -> None:
    project, ann = project_of(session, talk), user_of(session, talk)
    for bad in ("", " \n", "x" * 20_001):
        with pytest.raises(Invalid):
            playground.send(session, project, talk, bad)
    with pytest.raises(Invalid):
        playground.keep_draft(session, talk, "x" * 20_001)
    with pytest.raises(Conflict):
        playground.go_on(session, talk, 0)
    projects.update_project(session, project, annotation_settings={"playground": False})
    with pytest.raises(NotAllowed, match="switched off"):
        playground.my_conversation(session, project, ann)
