"""Blind tests: people compare candidate and champion inside the normal queue, and do not know that they do.

Problem: what the reward model prefers is not what people prefer. Decision: a test's items are ordinary pairs, one
completion of each version for one prompt, in an order drawn anew for each person; nobody but operators can tell that
a test is going on. While it runs, whatever fills the queue writes such pairs (`trainer.filling`), and `advance` takes
those nobody has judged yet into the test. It ends by itself (`storage.sequential`), or with its last comparison.
Invariant: what was judged before a test began, and a second opinion on the same item, never count in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from storage import audit, sequential
from storage.configs import parse
from storage.enums import BlindTestState, GateVerdict, ItemStatus, ModelKind, Outcome, VersionStatus
from storage.errors import Conflict, FeedbackError, Invalid, NotEnoughData, NotFound
from storage.gate_configs import GateSettings
from storage.items import prompts_to_generate
from storage.judged import live_annotation
from storage.models import (
    Annotation,
    BlindTest,
    BlindTestItem,
    Completion,
    Item,
    ItemCompletion,
    ModelVersion,
    Preference,
    Project,
    User,
    utc_now,
)
from storage.registry import champion, newest_candidate
from storage.training import queue_generate
from storage.verdicts import Human, Interval

FIRST_ITEMS = 32  # written at the start; the queue is filled as ever afterwards
_DECIDED = (Outcome.FIRST, Outcome.SECOND)
_SUPPOSED = 0.6  # how often the candidate wins, in the estimate before anything is known


class Standing(NamedTuple):
    """How a test stands: decided comparisons, ties, pairs that wait, the candidate's share, and what is still needed.

    `share` is an interval that holds at every look together. `needed` are decided comparisons, about; None: none any
    more, or more than the test takes.
    """

    wins: int
    losses: int
    ties: int
    waiting: int
    share: Interval
    needed: int | None
    most: int
    error: float

    @property
    def decided(self) -> int:
        """Comparisons that count."""
        return self.wins + self.losses


def start(
    session: Session, project: Project, version: ModelVersion, *, default_base_model: str, user: User | None = None
) -> BlindTest:
    """Begin a test of the newest candidate against the champion, and queue completions for it.

    Raises `Conflict` while a test runs, `Invalid` for a version that cannot stand in one, `NotEnoughData` when there
    is neither a pair to judge nor a prompt to write one for.
    """
    _lock(session, project)
    rival = _rival_of(session, project, version)
    running = running_test(session, project)
    if running is not None:
        raise Conflict(f"blind test {running.id} is going on; stop it first, or wait for its end")
    settings = parse(GateSettings, project.gate_settings or {})
    test = BlindTest(
        project_id=project.id,
        candidate_id=version.id,
        champion_id=rival.id,
        settings={"error": settings.test_error, "most": settings.test_most},
        user_id=user.id if user else None,
    )
    session.add(test)
    session.flush()
    found = _adopt(session, test)
    free = len(prompts_to_generate(session, project, FIRST_ITEMS))
    if not found and not free:
        raise NotEnoughData("there is no prompt without an open item to write a pair for; add prompts first")
    if free:
        values = {"prompts": free, "candidate_share": 1.0}
        queue_generate(
            session, project, values, default_base_model=default_base_model, user=user, cause=f"blind test {test.id}"
        )
    audit.record(session, user, "blind_test.start", version.name, project, test=test.id, against=rival.name)
    return test


def refusal(session: Session, project: Project, version: ModelVersion) -> FeedbackError | None:
    """Why a version cannot stand in a blind test, whether one is going on or not; None where it can."""
    try:
        _rival_of(session, project, version)
    except Invalid as error:
        return error
    return None


def _rival_of(session: Session, project: Project, version: ModelVersion) -> ModelVersion:
    """Whom `version` can stand against; raises `Invalid`."""
    rival = champion(session, project)
    if version.kind is not ModelKind.POLICY:
        raise Invalid(f"{version.name} writes nothing that people could compare; a blind test takes a policy")
    if rival is None or version.status is not VersionStatus.CANDIDATE:
        raise Invalid(f"{version.name} is {version.status.value}; a blind test takes a candidate")
    newest = newest_candidate(session, project)
    if newest is None or newest.id != version.id or version.number < rival.number:
        name = newest.name if newest is not None else rival.name
        raise Invalid(f"{version.name} is not the newest version, which is the one that writes: test {name}")
    if version.folder is None or version.base_model != rival.base_model:
        raise Invalid(f"{version.name} and {rival.name} rest on different base models and cannot write side by side")
    return rival


def stop(session: Session, test: BlindTest, user: User | None, *, now: datetime | None = None) -> None:
    """End a test without a result; raises `Conflict` when it has ended already. What people said stays."""
    project = session.get_one(Project, test.project_id)
    _lock(session, project)
    session.refresh(test)
    if test.state is not BlindTestState.RUNNING:
        raise Conflict(f"blind test {test.id} has ended: {test.state.value}")
    _end(session, project, test, BlindTestState.STOPPED, user, now)


def advance(session: Session, project: Project, *, now: datetime | None = None) -> BlindTest | None:
    """Take new pairs into the running test, and end it when it is decided; the test, or None when there is none.

    Twice in a row is as good as once. A test whose champion or candidate has changed its place is stopped.
    """
    if running_test(session, project) is None:
        return None
    _lock(session, project)
    test = running_test(session, project)
    if test is None:
        return None
    rival, version = champion(session, project), session.get_one(ModelVersion, test.candidate_id)
    if rival is None or rival.id != test.champion_id or version.status is not VersionStatus.CANDIDATE:
        _end(session, project, test, BlindTestState.STOPPED, None, now)
        return test
    _adopt(session, test)
    reached = _reached(session, test)
    if reached.winner:
        state = BlindTestState.CANDIDATE if reached.winner > 0 else BlindTestState.CHAMPION
        _end(session, project, test, state, None, now)
    elif reached.wins + reached.losses >= test.settings["most"]:
        _end(session, project, test, BlindTestState.UNDECIDED, None, now)
    return test


def _end(
    session: Session, project: Project, test: BlindTest, state: BlindTestState, user: User | None, now: datetime | None
) -> None:
    test.state, test.ended_at = state, now or utc_now()
    session.flush()
    version = session.get_one(ModelVersion, test.candidate_id)
    audit.record(session, user, "blind_test.end", version.name, project, test=test.id, state=state.value)


def _lock(session: Session, project: Project) -> None:
    # One at a time per project, as promotions.
    session.execute(select(Project.id).where(Project.id == project.id).with_for_update(key_share=True))


def running_test(session: Session, project: Project) -> BlindTest | None:
    """The test that is going on, or None."""
    wanted = select(BlindTest).where(BlindTest.project_id == project.id, BlindTest.state == BlindTestState.RUNNING)
    return session.scalar(wanted.order_by(BlindTest.id.desc()).limit(1).execution_options(populate_existing=True))


def latest_test(session: Session, version: ModelVersion) -> BlindTest | None:
    """The newest test of a candidate, or None."""
    wanted = select(BlindTest).where(BlindTest.candidate_id == version.id)
    return session.scalar(wanted.order_by(BlindTest.id.desc()).limit(1))


def get_test(session: Session, project: Project, test_id: int | None = None) -> BlindTest:
    """A test of the project, by default the newest; raises `NotFound`."""
    wanted = select(BlindTest).where(BlindTest.project_id == project.id)
    if test_id is not None:
        wanted = wanted.where(BlindTest.id == test_id)
    found = session.scalar(wanted.order_by(BlindTest.id.desc()).limit(1))
    if found is None:
        which = "no blind test yet" if test_id is None else f"no blind test {test_id}"
        raise NotFound(f"project '{project.name}' has {which}; start one: feedback-app blind-test start")
    return found


def _adopt(session: Session, test: BlindTest) -> int:
    """Take pairs into the test that nobody has judged and that have one completion of each side; returns how many."""
    sides = (aliased(ItemCompletion), aliased(ItemCompletion))
    texts = (aliased(Completion), aliased(Completion))
    members = select(func.count()).where(ItemCompletion.item_id == Item.id).scalar_subquery()
    query = select(Item.id)
    for side, written, version_id in zip(sides, texts, (test.candidate_id, test.champion_id), strict=True):
        query = query.join(side, side.item_id == Item.id).join(written, written.id == side.completion_id)
        query = query.where(written.model_version_id == version_id)
    query = query.where(
        Item.project_id == test.project_id,
        Item.status == ItemStatus.OPEN,
        Item.judged == 0,
        Item.gold.is_(None),
        Item.owner_id.is_(None),
        members == 2,
        ~exists().where(BlindTestItem.item_id == Item.id),
    )
    ids = session.scalars(query.order_by(Item.id)).all()
    session.add_all(BlindTestItem(item_id=one, blind_test_id=test.id) for one in ids)
    session.flush()
    return len(ids)


class _Said(NamedTuple):
    """What the first person said of an item: whether the candidate won; None: a tie."""

    won: bool | None


def _verdicts(session: Session, test: BlindTest) -> list[_Said]:
    """One verdict an item, in the order in which they came; the first live one on each."""
    first = aliased(Completion)
    rows = session.execute(
        select(Annotation.item_id, Preference.outcome, first.model_version_id)
        .join(BlindTestItem, BlindTestItem.item_id == Annotation.item_id)
        .join(Preference, Preference.annotation_id == Annotation.id)
        .join(first, first.id == Preference.first_id)
        .where(BlindTestItem.blind_test_id == test.id, live_annotation())
        .order_by(Annotation.submitted_at, Annotation.id)
    )
    found: dict[int, _Said] = {}
    for item_id, outcome, first_by in rows:
        first_won = outcome is Outcome.FIRST
        won = first_won == (first_by == test.candidate_id) if outcome in _DECIDED else None
        found.setdefault(item_id, _Said(won))
    return list(found.values())


def _reached(session: Session, test: BlindTest) -> sequential.Reached:
    won = [said.won for said in _verdicts(session, test) if said.won is not None]
    return sequential.follow(won, test.settings["error"], test.settings["most"])


def standing(session: Session, test: BlindTest) -> Standing:
    """How a test stands, or stood when it ended."""
    error, most = test.settings["error"], test.settings["most"]
    said = _verdicts(session, test)
    reached = sequential.follow([one.won for one in said if one.won is not None], error, most)
    decided = reached.wins + reached.losses
    low, high = sequential.interval(reached.wins, reached.losses, error)
    needed = None
    if test.state is BlindTestState.RUNNING:
        supposed = None if decided else _SUPPOSED
        needed = sequential.still_needed(reached.wins, reached.losses, error, share=supposed)
        needed = None if needed is None or decided + needed > most else needed
    waiting = session.scalar(
        select(func.count())
        .select_from(BlindTestItem)
        .join(Item, Item.id == BlindTestItem.item_id)
        .where(BlindTestItem.blind_test_id == test.id, Item.status == ItemStatus.OPEN, Item.judged == 0)
    )
    return Standing(
        wins=reached.wins,
        losses=reached.losses,
        ties=sum(one.won is None for one in said),
        waiting=waiting or 0,
        share=Interval(reached.wins / decided if decided else None, low, high),
        needed=needed,
        most=most,
        error=error,
    )


_VERDICTS = {BlindTestState.CANDIDATE: GateVerdict.PASS, BlindTestState.CHAMPION: GateVerdict.FAIL}


def of_people(session: Session, version: ModelVersion, rival: ModelVersion | None) -> tuple[BlindTest, Human] | None:
    """The newest test of `version` against `rival` that was not stopped, and what it says to the gate."""
    test = session.scalar(
        select(BlindTest)
        .where(
            BlindTest.candidate_id == version.id,
            BlindTest.champion_id == (rival.id if rival else None),
            BlindTest.state != BlindTestState.STOPPED,
        )
        .order_by(BlindTest.id.desc())
        .limit(1)
    )
    if test is None:
        return None
    found = standing(session, test)
    return test, Human(found.share, found.decided, _VERDICTS.get(test.state, GateVerdict.INCONCLUSIVE))


def as_shown(session: Session, test: BlindTest) -> Mapping[str, Any]:
    """A test for JSON."""
    found = standing(session, test)
    names = {
        row.id: row.name
        for row in session.scalars(
            select(ModelVersion).where(ModelVersion.id.in_((test.candidate_id, test.champion_id)))
        )
    }
    return {
        "blind_test": test.id,
        "candidate": names[test.candidate_id],
        "champion": names[test.champion_id],
        "state": test.state.value,
        "started_at": test.created_at,
        "ended_at": test.ended_at,
        **{name: getattr(found, name) for name in ("wins", "losses", "ties", "waiting", "needed", "most", "error")},
        "share": found.share._asdict(),
    }
