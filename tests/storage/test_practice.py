"""Practice rounds and attention checks: who may be handed what, and how people are scored."""

from __future__ import annotations

import random
import threading
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from storage import annotations, audit, checks, erasure, gold, items, practice, standings
from storage.enums import Admission, AnnotationStatus, AssignmentStatus, ItemStatus, Role, SelectionReason
from storage.errors import Conflict, Invalid, NotAllowed
from storage.history import Filter, list_mine
from storage.models import Annotation, Assignment, Item, Standing, utc_now
from storage.practice import answers, begin_round, practise_next, see_round
from storage.standings import PAUSED, Stage, stage
from tests import factories
from tests.storage import golden


def test_a_new_annotator_practises_until_they_pass(session: Session) -> None:
    project = factories.make_project(session)
    olga = factories.make_user(session, role=Role.OPERATOR)
    with pytest.raises(Invalid, match="as many gold items; there are 0"):
        golden.ask(session, project, practice_items=2)
    golden.make_gold(session, project, 3)
    golden.ask(session, project, practice_items=2, practice_pass=0.8)
    (ordinary,) = factories.make_items(session, project, 1)
    ann = factories.make_user(session)

    assert (stage(session, project, ann), stage(session, project, olga)) == (Stage.PRACTICE, Stage.WORK)
    assert items.lease_next(session, project, ann, rng=random.Random(0)) is None
    assert practise_next(session, project, ann, rng=random.Random(0)) is None  # not begun
    golden.practise(session, project, ann, True, False)
    state = see_round(session, project, ann)
    assert (state.attempts, state.passed, state.going_on) == (1, False, False)
    assert state.score == pytest.approx(0.5)
    first, second = answers(session, project, ann)
    assert (first.judged.score, second.judged.score, second.explanation) == (1, 0, "It gives the *date*.")
    assert items.lease_next(session, project, ann, rng=random.Random(0)) is None

    # Again: one that was not seen comes first, then one comes a second time; what was said on it stays, superseded.
    golden.practise(session, project, ann, True, True)
    state = see_round(session, project, ann)
    assert (state.attempts, state.score, state.passed) == (2, 1, True)
    said = session.scalars(select(Annotation).where(Annotation.user_id == ann.id)).all()
    assert {one.status for one in said} == {AnnotationStatus.PRACTISED}
    assert (len({one.item_id for one in said}), sum(one.superseded_at is not None for one in said)) == (3, 1)
    assert session.scalars(select(Item.judged).where(Item.gold.is_not(None))).all() == [0, 0, 0]

    lease = factories.make_lease(session, project, ann)
    assert lease.item_id == ordinary.id
    # Practice is no work and no feedback.
    assert annotations.my_progress(session, project, ann) == (0, 0, 0)
    assert annotations.count_usable(session, project) == 0
    assert list_mine(session, ann, Filter(state=None)).lines == []
    with pytest.raises(Conflict):
        annotations.revise(session, said[0].id, ann, factories.prefer_first(lease))
    with pytest.raises(Conflict, match="need no practice"):
        begin_round(session, project, ann)
    actions = [event.action for event in audit.list_events(session, project)]
    assert actions[:2] == ["practice.pass", "practice.fail"]
    (line,) = standings.list_standings(session, project)
    assert (line.name, line.attempts, line.score, line.admitted) == (ann.name, 2, 1, Admission.PASSED)

    standings.reset(session, project, ann, olga)
    assert stage(session, project, ann) is Stage.PRACTICE
    standings.waive(session, project, ann, olga)
    assert stage(session, project, ann) is Stage.WORK


def test_practice_is_not_skipped_and_survives_a_reload_and_an_unmarked_item(session: Session) -> None:
    project = factories.make_project(session)
    golden.make_gold(session, project, 2)
    golden.ask(session, project, practice_items=2)
    ann = factories.make_user(session)
    begin_round(session, project, ann)
    lease = practise_next(session, project, ann, rng=random.Random(1))
    assert lease is not None
    annotations.save_draft(session, lease.assignment_id, ann, {"sides": []})
    again = practise_next(session, project, ann, rng=random.Random(2))
    assert again is not None
    assert (again.item_id, again.draft) == (lease.item_id, {"sides": []})
    with pytest.raises(Conflict, match="not skipped"):
        items.skip(session, lease.assignment_id, ann)
    with pytest.raises(Conflict, match="not skipped"):
        items.flag(session, lease.assignment_id, ann, "odd")
    gold.unmark(session, session.get_one(Item, lease.item_id), None)
    with pytest.raises(Conflict):
        annotations.submit(session, lease.assignment_id, ann, golden.right(lease, project))
    last = practise_next(session, project, ann, rng=random.Random(2))
    assert last is not None
    assert last.item_id != lease.item_id
    annotations.submit(session, last.assignment_id, ann, golden.right(last, project))
    # The round is as long as there are items for it.
    assert see_round(session, project, ann).passed
    back = session.get_one(Item, lease.item_id)
    assert back.status is ItemStatus.OPEN


def test_people_who_work_here_already_are_left_alone_unless_told_otherwise(session: Session) -> None:
    project = factories.make_project(session)
    factories.make_items(session, project, 3)
    golden.make_gold(session, project, 1)
    old = factories.make_user(session)
    factories.make_annotation(session, project, old)
    golden.ask(session, project, practice_items=1)
    new = factories.make_user(session)
    assert (stage(session, project, old), stage(session, project, new)) == (Stage.WORK, Stage.PRACTICE)
    golden.ask(session, project, practice_existing=True)
    assert stage(session, project, old) is Stage.PRACTICE
    golden.practise(session, project, old, True)
    assert stage(session, project, old) is Stage.WORK
    golden.ask(session, project, practice_items=0)
    assert stage(session, project, new) is Stage.WORK


def test_checks_come_unannounced_with_their_share_and_propensity(session: Session) -> None:
    project = factories.make_project(session)
    factories.make_items(session, project, 40)
    marked = {item.id for item in golden.make_gold(session, project, 10)}
    golden.ask(session, project, check_every=4, repeat_share=0.0)
    ann = factories.make_user(session)
    rng = random.Random(7)
    seen: list[int] = []
    while (lease := items.lease_next(session, project, ann, rng=rng)) is not None:
        assignment = session.get_one(Assignment, lease.assignment_id)
        left = 10 - len(marked & set(seen))
        if assignment.reason is SelectionReason.ATTENTION:
            assert assignment.propensity == pytest.approx(1 / 4 / left)
        else:
            # The only way to an item is by chance or in order, three times in four while there are checks.
            assert assignment.propensity is not None
            assert assignment.propensity <= (0.75 if left else 1) + 1e-9
        assert lease.kind.value == "pair"
        seen.append(lease.item_id)
        annotations.submit(session, lease.assignment_id, ann, golden.right(lease, project))
    assert len(set(seen)) == len(seen)
    assert 4 <= len(marked & set(seen)) <= 10  # 13 expected of 53 draws, were there as many
    assert len(set(seen) - marked) == 40
    # They cannot be told from work, they count as work, and they are no feedback.
    assert annotations.my_progress(session, project, ann).submitted_total == len(seen)
    assert annotations.count_usable(session, project) == 40
    scores = checks.check_scores(session, project)
    assert scores[ann.id] == (1.0, len(marked & set(seen)))
    # An empty queue brings no checks alone, and operators get none.
    assert items.lease_next(session, project, ann, rng=random.Random(1)) is None


def test_whoever_fails_checks_is_seen_and_paused_until_lifted(session: Session) -> None:
    project = factories.make_project(session)
    olga, ann, bob = factories.make_user(session, role=Role.OPERATOR), *(factories.make_user(session) for _ in "12")
    factories.make_items(session, project, 60)
    golden.make_gold(session, project, 12)
    golden.ask(session, project, check_every=2, check_mark=0.7)

    def work(user, answer, wanted: int) -> None:
        rng = random.Random(3)
        while checks.check_scores(session, project, user).get(user.id, checks.CheckScore(None, 0)).checks < wanted:
            lease = items.lease_next(session, project, user, rng=rng)
            assert lease is not None
            annotations.submit(session, lease.assignment_id, user, answer(lease, project))

    work(ann, golden.wrong, checks.ENOUGH)
    work(bob, golden.right, checks.ENOUGH)
    below = {line.name: line.below for line in standings.list_standings(session, project)}
    assert below == {ann.name: True, bob.name: False}
    assert stage(session, project, ann) is Stage.WORK  # told, not paused

    golden.ask(session, project, check_pause=True)
    held = items.lease_next(session, project, ann, rng=random.Random(0))
    assert held is not None
    while session.get_one(Assignment, held.assignment_id).reason is not SelectionReason.ATTENTION:
        annotations.submit(session, held.assignment_id, ann, golden.wrong(held, project))
        held = items.lease_next(session, project, ann, rng=random.Random(held.item_id))
        assert held is not None
    annotations.submit(session, held.assignment_id, ann, golden.wrong(held, project))
    assert stage(session, project, ann) is Stage.PAUSED
    assert items.lease_next(session, project, ann, rng=random.Random(0)) is None
    with pytest.raises(NotAllowed, match=PAUSED[:30]):
        items.renew(session, held.assignment_id, ann)
    event = audit.list_events(session, project)[0]
    assert (event.action, event.subject) == ("annotator.pause", f"user {ann.name}")
    standings.lift(session, project, ann, olga)
    assert stage(session, project, ann) is Stage.WORK
    assert checks.check_scores(session, project, ann) == {}  # begins anew
    with pytest.raises(Conflict, match="not paused"):
        standings.lift(session, project, ann, olga)
    erasure.erase_person(session, ann, olga)
    assert session.get(Standing, (project.id, ann.id)) is None
    assert {item.status for item in session.scalars(select(Item).where(Item.gold.is_not(None)))} == {ItemStatus.DONE}


def test_a_score_rests_on_the_newest_checks_and_on_what_is_right_now(session: Session) -> None:
    project = factories.make_project(session)
    factories.make_items(session, project, 3)
    (item,) = golden.make_gold(session, project, 1)
    golden.ask(session, project, check_every=2)
    ann = factories.make_user(session)
    rng = random.Random(1)
    while ann.id not in checks.check_scores(session, project):
        lease = items.lease_next(session, project, ann, rng=rng)
        assert lease is not None
        annotations.submit(session, lease.assignment_id, ann, golden.wrong(lease, project))
    assert checks.check_scores(session, project)[ann.id] == (0.0, 1)
    # The operator was wrong: everybody's score follows.
    standard = gold.standard_of(session, item)
    assert standard is not None
    assert standard.comparison is not None
    other = next(one.completion_id for one in item.members if one.completion_id != standard.comparison.better)
    gold.mark(session, item, gold.Standard(comparison=gold.GoldComparison(better=other)), None)
    assert checks.check_scores(session, project)[ann.id] == (1.0, 1)
    (line,) = gold.list_gold(session, project)
    assert (line.answers, line.score) == (1, 1.0)


def test_eight_tabs_at_once_never_get_one_check_twice(sessions: sessionmaker[Session]) -> None:
    """Two people with four tabs each, where half of what comes is a check."""
    with sessions.begin() as session:
        project = factories.make_project(session, overlap=2)
        factories.make_items(session, project, 12)
        golden.make_gold(session, project, 5)
        golden.ask(session, project, check_every=2)
        people = [factories.make_user(session) for _ in range(2)]
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        user, rng = people[number % 2], random.Random(number)
        try:
            start.wait()
            while True:
                with sessions.begin() as session:
                    lease = items.lease_next(session, project, user, rng=rng)
                if lease is None:
                    return
                try:
                    with sessions.begin() as session:
                        annotations.submit(session, lease.assignment_id, user, golden.right(lease, project))
                        items.lease_next(session, project, user, rng=rng)
                except Conflict:
                    continue  # another tab was first
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with sessions() as session:
        handed = session.execute(
            select(Assignment.user_id, Assignment.item_id, Assignment.status).where(
                Assignment.reason == SelectionReason.ATTENTION
            )
        ).all()
        said = session.execute(
            select(Annotation.user_id, Annotation.item_id).where(Annotation.gold_score.is_not(None))
        ).all()
        left = session.scalars(select(Item.judged).where(Item.gold.is_(None))).all()
    assert len(set(said)) == len(said) == len(handed)
    assert {row.status for row in handed} == {AssignmentStatus.SUBMITTED}
    assert len(handed) >= 2
    assert left == [2] * 12


def test_a_pause_ends_with_the_project_s_wish_for_it(session: Session) -> None:
    project = factories.make_project(session)
    ann = factories.make_user(session)
    standings.get_standing(session, project, ann).paused_at = utc_now() - timedelta(days=1)
    session.flush()
    assert stage(session, project, ann) is Stage.WORK
    golden.ask(session, project, check_pause=True)
    assert stage(session, project, ann) is Stage.PAUSED
    assert practice.see_round(session, project, ann).size == 0


def test_nothing_more_is_written_for_what_gold_items_ask(session: Session) -> None:
    project = factories.make_project(session)
    (item,) = golden.make_gold(session, project, 1)
    other = factories.make_prompt(session, project)
    assert [prompt.id for prompt in items.prompts_to_generate(session, project, 10)] == [other.id]
    gold.unmark(session, item, None)
    assert item.status is ItemStatus.OPEN
