"""Which item comes next, why, and how probable that was."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import annotations, items, projects, scores, selection
from storage.enums import ItemStatus, ModelKind, SelectionReason
from storage.models import Assignment, Item, ModelVersion, Project, User, utc_now
from tests import factories


@pytest.fixture
def ann(session: Session) -> User:
    return factories.make_user(session, "ann")


@pytest.fixture
def bob(session: Session) -> User:
    return factories.make_user(session, "bob")


def make_project(session: Session, random_share: float = 0.0, repeat_share: float = 0.0, overlap: int = 1) -> Project:
    project = factories.make_project(session, overlap=overlap)
    shares = {"random_share": random_share, "repeat_share": repeat_share}
    return projects.update_project(session, project, annotation_settings=shares)


def assignment(session: Session, lease: items.Lease) -> Assignment:
    return session.get_one(Assignment, lease.assignment_id)


def draw(session: Session, project: Project, user: User, seed: int) -> tuple[int, SelectionReason | None, float]:
    """One draw, taken back again: item, reason, propensity."""
    chosen = selection.choose(session, project, user, utc_now(), random.Random(seed))
    assert chosen is not None
    chosen.item.wanted = None  # a repeat's place
    return chosen.item.id, chosen.reason, chosen.propensity


def make_rewards(session: Session, project: Project, count: int) -> list[ModelVersion]:
    return [factories.make_version(session, project, ModelKind.REWARD) for _ in range(count)]


def score(session: Session, item: Item, version: ModelVersion, values: Sequence[float]) -> None:
    pairs = zip(item.members, values, strict=True)
    scores.add_scores(session, [scores.Score(m.completion_id, version.id, value) for m, value in pairs])


def test_without_scores_the_oldest_comes_first_and_says_so(session: Session, ann: User) -> None:
    project = make_project(session)
    wanted = factories.make_items(session, project, 3)
    lease = factories.make_lease(session, project, ann)
    row = assignment(session, lease)
    assert (row.item_id, row.reason, row.propensity) == (wanted[0].id, SelectionReason.OLDEST, 1.0)


def test_stored_propensities_are_the_frequencies(session: Session, ann: User, bob: User) -> None:
    """Every way mixed, gaps between the ids: what comes how often is what each draw says of itself."""
    project = make_project(session, random_share=0.5, repeat_share=0.2)
    made = factories.make_items(session, project, 12)
    for number in (2, 3, 4, 9):  # gaps: judged by others, to be repeated
        made[number].status, made[number].judged = ItemStatus.DONE, 1
    made[6].gold = {"chosen": "first"}
    session.flush()
    times = 300
    drawn = [draw(session, project, ann, seed) for seed in range(times)]
    said = {item_id: propensity for item_id, _, propensity in drawn}
    assert sum(said.values()) == pytest.approx(1.0), "every item that can come came, with its whole probability"
    seen = Counter(item_id for item_id, _, _ in drawn)
    for item_id, propensity in said.items():
        spread = (propensity * (1 - propensity) / times) ** 0.5
        assert abs(seen[item_id] / times - propensity) < 4 * spread
    ids = [item.id for item in made]
    assert set(said) == set(ids) - {ids[6]}, "gold stays out"
    assert said[ids[0]] == pytest.approx(0.5 / 12 + 0.3), "the oldest: by chance or by age"
    assert said[ids[5]] == pytest.approx(0.5 * 4 / 12), "behind a gap of three"
    assert said[ids[7]] == pytest.approx(0.5 * 2 / 12)
    assert said[ids[3]] == pytest.approx(0.2 / 4)
    reasons = Counter(reason for _, reason, _ in drawn)
    assert set(reasons) == {SelectionReason.RANDOM, SelectionReason.REPEAT, SelectionReason.OLDEST}
    assert reasons[SelectionReason.REPEAT] == pytest.approx(0.2 * times, rel=0.4)
    assert reasons[SelectionReason.RANDOM] == pytest.approx(0.5 * times, rel=0.25)


def test_a_repeat_is_an_item_of_somebody_else_s_and_gets_one_place_more(session: Session, ann: User, bob: User) -> None:
    project = make_project(session, repeat_share=1.0)
    first, _ = factories.make_items(session, project, 2)
    factories.make_annotation(session, project, ann)
    assert factories.make_lease(session, project, ann).item_id != first.id, "nobody repeats their own"
    factories.make_item(session, project)  # something must be open for bob, else nothing comes at all
    lease = factories.make_lease(session, project, bob)
    row = assignment(session, lease)
    assert (row.item_id, row.reason, row.propensity) == (first.id, SelectionReason.REPEAT, 1.0)
    again = factories.make_lease(session, project, bob)
    assert again.assignment_id == lease.assignment_id, "a reload shows the same item, done or not"
    third = factories.make_user(session)
    assert factories.make_lease(session, project, third).item_id != first.id, "one place more, not two"
    late = utc_now() + timedelta(minutes=21)
    annotations.submit(session, lease.assignment_id, bob, factories.prefer_first(lease), now=late)
    session.refresh(first)
    assert (first.judged, first.wanted, first.status) == (2, 2, ItemStatus.DONE)


def test_the_end_of_the_queue_is_the_end_of_repeats(session: Session, ann: User, bob: User) -> None:
    project = make_project(session, repeat_share=1.0)
    factories.make_item(session, project)
    factories.make_annotation(session, project, ann)
    assert items.lease_next(session, project, bob, rng=random.Random(0)) is None


def test_a_higher_overlap_repeats_by_itself(session: Session, ann: User, bob: User) -> None:
    project = make_project(session, repeat_share=1.0, overlap=2)
    item, _ = factories.make_items(session, project, 2)
    factories.make_annotation(session, project, ann)
    row = assignment(session, factories.make_lease(session, project, bob))
    assert (row.item_id, row.reason, row.propensity) == (item.id, SelectionReason.OLDEST, 1.0)


def test_an_item_s_own_number_of_places_counts(session: Session, ann: User, bob: User) -> None:
    project = make_project(session, overlap=2)
    alone = factories.make_item(session, project)
    alone.wanted = 1
    session.flush()
    held = factories.make_lease(session, project, ann)
    assert items.lease_next(session, project, bob, rng=random.Random(0)) is None
    annotations.submit(session, held.assignment_id, ann, factories.prefer_first(held))
    session.refresh(alone)
    assert alone.status is ItemStatus.DONE


def test_items_of_a_person_are_theirs_only(session: Session, ann: User, bob: User) -> None:
    project = make_project(session)
    item = factories.make_item(session, project)
    item.owner_id = bob.id
    session.flush()
    assert items.lease_next(session, project, ann, rng=random.Random(0)) is None
    assert factories.make_lease(session, project, bob).item_id == item.id


def test_what_the_models_disagree_about_comes_first(session: Session, ann: User) -> None:
    project = make_project(session)
    first, second = make_rewards(session, project, 2)
    agreed, split, unscored = factories.make_items(session, project, 3)
    for version, toss in ((first, 2.0), (second, -2.0)):
        score(session, agreed, version, [0.1, 0.1])
        score(session, split, version, [toss, 0.0])
    row = assignment(session, factories.make_lease(session, project, ann))
    assert (row.item_id, row.reason, row.propensity) == (split.id, SelectionReason.UNCERTAIN, 1.0)
    items.skip(session, row.id, ann)
    row = assignment(session, factories.make_lease(session, project, ann))
    assert (row.item_id, row.reason) == (agreed.id, SelectionReason.UNCERTAIN)
    items.skip(session, row.id, ann)
    row = assignment(session, factories.make_lease(session, project, ann))
    assert (row.item_id, row.reason) == (unscored.id, SelectionReason.OLDEST)


def test_one_model_alone_sends_what_it_is_unsure_of(session: Session, ann: User) -> None:
    project = make_project(session)
    (version,) = make_rewards(session, project, 1)
    sure, unsure = factories.make_items(session, project, 2)
    score(session, sure, version, [3.0, -3.0])
    score(session, unsure, version, [101.0, 100.8])
    assert factories.make_lease(session, project, ann).item_id == unsure.id


def test_a_prompt_that_was_judged_often_waits(session: Session, ann: User, bob: User) -> None:
    project = make_project(session)
    (version,) = make_rewards(session, project, 1)
    known = factories.make_item(session, project)
    factories.make_annotation(session, project, bob)
    again = factories.make_item(session, project, prompt=known.prompt)
    new = factories.make_item(session, project)
    score(session, again, version, [1.0, 1.0])  # a coin toss: 1, halved for one annotation
    score(session, new, version, [1.0, 0.0])  # 0.54
    assert factories.make_lease(session, project, ann).item_id == new.id


def test_scores_of_rejected_models_do_not_count(session: Session, ann: User) -> None:
    project = make_project(session)
    (version,) = make_rewards(session, project, 1)
    oldest, scored = factories.make_items(session, project, 2)
    score(session, scored, version, [1.0, 1.0])
    version.status = type(version.status).REJECTED
    session.flush()
    assert factories.make_lease(session, project, ann).item_id == oldest.id


def test_disagreement_runs_from_none_to_one() -> None:
    assert scores.disagreement([]) is None

    def say(*values: float, spread: float = 0.0) -> dict[int, scores.Reward]:
        return {place: scores.Reward(value, spread) for place, value in enumerate(values)}

    assert scores.disagreement([say(1)]) is None, "one completion cannot be compared"
    assert scores.disagreement([say(1, 1)]) == 1.0
    assert scores.disagreement([say(900, -900)]) == pytest.approx(0.0)
    assert scores.disagreement([say(50, 0), say(0, 50)]) == pytest.approx(1.0)
    assert scores.disagreement([say(0, 0), say(7, 7)]) == 0.0, "units of different models never mix"
    assert scores.disagreement([say(0, 0, -90)]) == pytest.approx(1 / 3)
    far, near = (scores.disagreement([say(1, 1, spread=spread)]) or 0.0 for spread in (3.0, 0.1))
    assert 0.9 < far < 1
    assert near < 0.1, "heads that agree on a toss agree"
    alone = scores.disagreement([say(2, 0, spread=0.5)]) or 0.0
    assert alone < (scores.disagreement([say(2, 0, spread=0.5), say(0, 2)]) or 0.0), "versions add up"


def test_scoring_again_changes_nothing(session: Session) -> None:
    project = make_project(session)
    (version,) = make_rewards(session, project, 1)
    item = factories.make_item(session, project)
    for values in ([1.0, 2.0], [3.0, 4.0]):
        score(session, item, version, values)
    stored = session.execute(select(scores.CompletionScore.value).order_by(scores.CompletionScore.value)).scalars()
    assert list(stored) == [1.0, 2.0]


def test_a_stale_item_leaves_the_queue_but_not_the_hands_that_hold_it(session: Session, ann: User, bob: User) -> None:
    project = make_project(session)
    old, new = (factories.make_version(session, project) for _ in range(2))
    item, waiting = factories.make_items(session, project, 2, version=old)
    lease = factories.make_lease(session, project, ann)
    annotations.save_draft(session, lease.assignment_id, ann, {"critique": "half a sen"})
    item.status = ItemStatus.STALE  # promoted in the very moment in which the lease was made
    session.flush()
    assert items.mark_stale(session, project, [new.id]) == 1
    session.expire_all()
    assert waiting.status is ItemStatus.STALE
    assert items.lease_next(session, project, bob, rng=random.Random(0)) is None
    again = factories.make_lease(session, project, ann)
    assert (again.item_id, again.draft) == (item.id, {"critique": "half a sen"})
    annotations.submit(session, lease.assignment_id, ann, factories.prefer_first(lease))
    session.refresh(item)
    assert item.status is ItemStatus.DONE
    assert len(waiting.members) == 2, "marked, nothing deleted"
