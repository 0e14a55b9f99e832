"""The queue when many ask at the same moment, in threads and in processes, on both databases."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from benchmarks import _crowd as trial
from storage import annotations, items, leases
from storage.enums import AnnotationStatus, AssignmentStatus, ItemStatus
from storage.errors import Conflict
from storage.models import Annotation, Assignment, Item, User, utc_now
from tests import factories


def in_threads(work: Callable[[int], None], count: int) -> None:
    """Run `work(0)` … `work(count - 1)` at once; the first error is raised here."""
    failures: list[BaseException] = []
    start = threading.Barrier(count)

    def guarded(number: int) -> None:
        try:
            start.wait()
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("overlap", [1, 2])
def test_no_item_is_handed_out_more_often_than_wanted(sessions: sessionmaker[Session], overlap: int) -> None:
    people, count = 6, 9
    with sessions.begin() as session:
        project = factories.make_project(session, overlap=overlap)
        users = [factories.make_user(session) for _ in range(people)]
        factories.make_items(session, project, count)
    taken: list[tuple[int, int]] = []

    def work(number: int) -> None:
        rng = random.Random(number)
        while True:
            with sessions.begin() as session:
                lease = items.lease_next(session, project, users[number], rng=rng)
            if lease is None:
                return
            taken.append((lease.item_id, users[number].id))
            with sessions.begin() as session:
                # As the page does it: submit and the next lease in one transaction now and then.
                annotations.submit(session, lease.assignment_id, users[number], factories.prefer_first(lease))

    in_threads(work, people)
    assert len(set(taken)) == len(taken), "nobody saw an item twice"
    with sessions() as session:
        found = session.scalars(select(Item)).all()
        live = session.execute(
            select(Annotation.item_id, func.count())
            .where(Annotation.status == AnnotationStatus.SUBMITTED)
            .group_by(Annotation.item_id)
        ).all()
    assert {item.status for item in found} == {ItemStatus.DONE}
    places = {item.id: item.wanted or overlap for item in found}  # one more where it was repeated
    assert all(item.judged <= places[item.id] for item in found)
    assert {row[0]: row[1] for row in live} == {item.id: item.judged for item in found}
    assert min(item.judged for item in found) == overlap
    assert len(taken) == sum(item.judged for item in found)


def test_leases_alone_fill_an_item_s_places(sessions: sessionmaker[Session]) -> None:
    """Nobody submits: with three items of two places each, six of eight people get one."""
    with sessions.begin() as session:
        project = factories.make_project(session, overlap=2)
        users = [factories.make_user(session) for _ in range(8)]
        factories.make_items(session, project, 3)
    got: list[int | None] = []

    def work(number: int) -> None:
        with sessions.begin() as session:
            lease = items.lease_next(session, project, users[number], rng=random.Random(number))
        got.append(lease.item_id if lease else None)

    in_threads(work, 8)
    assert sorted(Counter(got).values()) == [2, 2, 2, 2]
    assert Counter(got)[None] == 2


def test_expired_leases_are_taken_over_by_one_person_only(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        project = factories.make_project(session)
        gone = factories.make_user(session)
        users = [factories.make_user(session) for _ in range(5)]
        factories.make_item(session, project)
        factories.make_lease(session, project, gone, now=utc_now() - timedelta(hours=1))
    got: list[bool] = []

    def work(number: int) -> None:
        with sessions.begin() as session:
            got.append(items.lease_next(session, project, users[number], rng=random.Random(0)) is not None)

    in_threads(work, 5)
    assert Counter(got) == {True: 1, False: 4}


def test_two_tabs_of_one_person_show_the_same_item(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        project = factories.make_project(session)
        user = factories.make_user(session)
        factories.make_items(session, project, 6)
    shown: list[tuple[int, list[tuple[int, str]]]] = []

    def work(number: int) -> None:
        with sessions.begin() as session:
            lease = items.lease_next(session, project, user, rng=random.Random(number))
        assert lease is not None
        shown.append((lease.item_id, lease.completions))

    in_threads(work, 5)
    assert all(one == shown[0] for one in shown)
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(Assignment)) == 1


def test_of_many_submits_of_one_lease_one_counts(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        project = factories.make_project(session, overlap=3)
        user = factories.make_user(session)
        item = factories.make_item(session, project)
        lease = factories.make_lease(session, project, user)
        annotations.save_draft(session, lease.assignment_id, user, {"draft": True})
    outcomes: list[str] = []

    def work(number: int) -> None:
        try:
            with sessions.begin() as session:
                annotations.submit(session, lease.assignment_id, user, factories.prefer_first(lease))
            outcomes.append("stored")
        except Conflict:
            outcomes.append("refused")

    in_threads(work, 5)
    assert Counter(outcomes) == {"stored": 1, "refused": 4}
    with sessions() as session:
        assert session.get_one(Item, item.id).judged == 1
        stored = session.scalars(select(Annotation)).one()
        assert (stored.status, len(stored.preferences)) == (AnnotationStatus.SUBMITTED, 1)


def test_people_who_submit_and_go_on_in_one_transaction_never_block_each_other(
    sessions: sessionmaker[Session],
) -> None:
    with sessions.begin() as session:
        project = factories.make_project(session, overlap=4)
        users = [factories.make_user(session) for _ in range(4)]
        factories.make_items(session, project, 8)

    def work(number: int) -> None:
        rng = random.Random(number)
        with sessions.begin() as session:
            lease = items.lease_next(session, project, users[number], rng=rng)
        for _ in range(8):
            deadline = time.monotonic() + 30
            while lease is None and time.monotonic() < deadline:  # others held the last ones that instant: look again
                with sessions.begin() as session:
                    lease = items.lease_next(session, project, users[number], rng=rng)
            assert lease is not None
            with sessions.begin() as session:
                annotations.submit(session, lease.assignment_id, users[number], factories.prefer_first(lease))
                lease = items.lease_next(session, project, users[number], rng=rng)

    in_threads(work, 4)
    with sessions() as session:
        submitted = session.scalar(
            select(func.count()).select_from(Assignment).where(Assignment.status == AssignmentStatus.SUBMITTED)
        )
        assert max(session.scalars(select(Item.judged))) <= 4
    assert submitted == 32


def test_thirty_two_threads_double_lose_and_leave_nothing(database_url: str) -> None:
    """The small form of `python -m benchmarks.queue`, which has 2,000 items."""
    proof = trial.in_threads(database_url, 40, overlap=2)
    assert (proof.doubled, proof.lost, proof.stuck) == (0, 0, 0), proof.problems
    assert proof.annotations == 80


def test_processes_killed_in_the_middle_double_lose_and_leave_nothing(database_url: str, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    proof = trial.in_processes(database_url, 60, logs, processes=4, kills=3, overlap=2)
    assert (proof.doubled, proof.lost, proof.stuck) == (0, 0, 0), proof.problems
    assert (proof.annotations, proof.killed) == (120, 3)


def test_a_clock_read_before_a_wait_does_not_keep_a_lost_lease_alive(
    sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ann's submit waits while bob, whose item it is by now, submits his own."""
    with sessions.begin() as session:
        project = factories.make_project(session)
        ann, bob = factories.make_user(session), factories.make_user(session)
        factories.make_item(session, project)
        start = utc_now() - timedelta(minutes=20, seconds=-1)  # ann has a second left
        held = factories.make_lease(session, project, ann, now=start)
        late = start + timedelta(minutes=21)
        outcomes: list[str] = []
        waiting = threading.Event()
        own = leases.lock_own

        def lock(session: Session, assignment_id: int, user: User) -> leases.Held:
            waiting.set()
            return own(session, assignment_id, user)

        def submit() -> None:
            try:
                with sessions.begin() as session:
                    annotations.submit(session, held.assignment_id, ann, factories.prefer_first(held))
                outcomes.append("stored")
            except Conflict:
                outcomes.append("refused")

    with sessions.begin() as session:
        taken = factories.make_lease(session, project, bob, now=late)
        annotations.submit(session, taken.assignment_id, bob, factories.prefer_first(taken), now=late)
        monkeypatch.setattr(leases, "lock_own", lock)
        slow = threading.Thread(target=submit)
        slow.start()
        if session.get_bind().dialect.name == "postgresql":
            assert waiting.wait(60)
        while utc_now() < held.expires_at:
            time.sleep(0.01)
    slow.join()
    assert outcomes == ["refused"]
    with sessions() as session:
        assert session.scalars(select(Item.judged)).one() == 1
