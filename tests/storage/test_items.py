"""The queue as one or a few people see it; what many at once see stands in test_queue_race.py."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import annotations, items, registry
from storage.enums import AssignmentStatus, ItemKind, ItemStatus, Split
from storage.errors import Conflict, Invalid, NotFound
from storage.models import Assignment, AuditEvent, Item, ModelVersion, Project, User, utc_now
from tests import factories

SOON = timedelta(minutes=5)
AFTER = timedelta(minutes=21)  # a lease lasts 20


@pytest.fixture
def project(session: Session) -> Project:
    return factories.make_project(session)


@pytest.fixture
def ann(session: Session) -> User:
    return factories.make_user(session, "ann")


@pytest.fixture
def bob(session: Session) -> User:
    return factories.make_user(session, "bob")


def test_an_item_is_the_same_whatever_the_order_of_its_completions(session: Session, project: Project) -> None:
    prompt = factories.make_prompt(session, project)
    a, b, c = (factories.make_completion(session, prompt) for _ in range(3))
    first = items.add_item(session, prompt, [a, b])
    assert first.created
    again = items.add_item(session, prompt, [b, a])
    assert not again.created
    assert again.row is first.row
    assert [m.completion_id for m in first.row.members] == [a.id, b.id]
    assert items.add_item(session, prompt, [a, c]).created
    assert items.add_item(session, prompt, [a], ItemKind.SINGLE).created


def test_an_item_takes_completions_of_its_prompt_only(session: Session, project: Project) -> None:
    prompt, other = factories.make_prompt(session, project), factories.make_prompt(session, project)
    a, b, foreign = (factories.make_completion(session, p) for p in (prompt, prompt, other))
    for wrong, kind in (
        ([], ItemKind.PAIR),
        ([a], ItemKind.PAIR),
        ([a, a], ItemKind.PAIR),
        ([a, foreign], ItemKind.PAIR),
        ([a, b], ItemKind.SINGLE),
    ):
        with pytest.raises(Invalid):
            items.add_item(session, prompt, wrong, kind)


def test_a_reload_gives_the_same_item_order_and_draft(session: Session, project: Project, ann: User) -> None:
    factories.make_items(session, project, 3)
    lease = factories.make_lease(session, project, ann)
    annotations.save_draft(session, lease.assignment_id, ann, {"critique": "half a sen"})
    for seed in range(8):
        again = factories.make_lease(session, project, ann, rng=random.Random(seed), now=utc_now() + SOON)
        assert (again.assignment_id, again.completions) == (lease.assignment_id, lease.completions)
        assert again.draft == {"critique": "half a sen"}
    assert again.expires_at > lease.expires_at, "looking at it again renews it"
    assert items.get_lease(session, lease.assignment_id, ann).completions == lease.completions


def test_completions_stand_in_random_order(session: Session, project: Project, ann: User) -> None:
    factories.make_items(session, project, 60)
    rng = random.Random(1)
    swapped = 0
    for _ in range(60):
        lease = factories.make_lease(session, project, ann, rng=rng)
        ids = [completion_id for completion_id, _ in lease.completions]
        swapped += ids != sorted(ids)
        items.skip(session, lease.assignment_id, ann)
    assert 15 < swapped < 45


def test_oldest_first_and_never_what_was_judged_or_skipped(session: Session, project: Project, ann: User) -> None:
    wanted = [item.id for item in factories.make_items(session, project, 4)]
    seen = []
    for n in range(4):
        lease = factories.make_lease(session, project, ann)
        seen.append(lease.item_id)
        if n % 2:
            items.skip(session, lease.assignment_id, ann)
            items.skip(session, lease.assignment_id, ann)  # a second click does nothing
        else:
            annotations.submit(session, lease.assignment_id, ann, factories.prefer_first(lease))
    assert seen == wanted
    assert items.lease_next(session, project, ann, rng=random.Random(0)) is None
    assert annotations.my_progress(session, project, ann) == (2, 2, 2)


def test_a_skipped_item_is_there_for_others(session: Session, project: Project, ann: User, bob: User) -> None:
    item = factories.make_item(session, project)
    items.skip(session, factories.make_lease(session, project, ann).assignment_id, ann)
    assert factories.make_lease(session, project, bob).item_id == item.id


def test_overlap_counts_annotations_and_live_leases(session: Session, ann: User, bob: User) -> None:
    project = factories.make_project(session, overlap=2)
    factories.make_item(session, project)
    third = factories.make_user(session)
    factories.make_annotation(session, project, ann)
    lease = factories.make_lease(session, project, bob)
    assert items.lease_next(session, project, third, rng=random.Random(0)) is None
    now = utc_now() + AFTER
    assert factories.make_lease(session, project, third, now=now).item_id == lease.item_id, "bob's lease ran out"
    with pytest.raises(Conflict, match="others have judged"):
        items.get_lease(session, lease.assignment_id, bob, now=now)
    assert items.lease_next(session, project, bob, now=now, rng=random.Random(0)) is None


def test_a_lease_that_ran_out_still_counts_while_nobody_took_the_item(
    session: Session, project: Project, ann: User
) -> None:
    factories.make_items(session, project, 2)
    lease = factories.make_lease(session, project, ann)
    now = utc_now() + AFTER
    annotations.save_draft(session, lease.assignment_id, ann, {"critique": "late"}, now=now)
    again = factories.make_lease(session, project, ann, now=now)
    assert (again.assignment_id, again.completions, again.draft) == (
        lease.assignment_id, lease.completions, {"critique": "late"},
    )  # fmt: skip
    later = now + AFTER
    annotations.submit(session, lease.assignment_id, ann, factories.prefer_first(lease), now=later)


def test_a_lost_lease_comes_back_with_its_order_once_it_is_free_again(
    session: Session, project: Project, ann: User, bob: User
) -> None:
    factories.make_item(session, project, texts=["one", "two"])
    first = factories.make_lease(session, project, ann, rng=random.Random(3))
    now = utc_now() + AFTER
    taken = factories.make_lease(session, project, bob, now=now)
    assert items.lease_next(session, project, ann, now=now, rng=random.Random(0)) is None
    assert session.get_one(Assignment, first.assignment_id).status is AssignmentStatus.EXPIRED
    items.skip(session, taken.assignment_id, bob, now=now)
    again = factories.make_lease(session, project, ann, now=now, rng=random.Random(4))
    assert (again.assignment_id, again.completions) == (first.assignment_id, first.completions)


def test_a_lease_is_its_owner_s_alone(session: Session, project: Project, ann: User, bob: User) -> None:
    factories.make_item(session, project)
    lease = factories.make_lease(session, project, ann)
    for use in (items.get_lease, items.skip, items.renew):
        with pytest.raises(NotFound, match="not handed to you"):
            use(session, lease.assignment_id, bob)
    with pytest.raises(NotFound):
        items.flag(session, lease.assignment_id, bob, "spam")
    with pytest.raises(NotFound):
        items.get_lease(session, 12345, ann)


def test_renewing_extends_and_a_closed_lease_cannot_be_renewed(session: Session, project: Project, ann: User) -> None:
    factories.make_item(session, project)
    lease = factories.make_lease(session, project, ann)
    now = utc_now() + SOON
    assert items.renew(session, lease.assignment_id, ann, now=now) == now + timedelta(seconds=1200)
    items.skip(session, lease.assignment_id, ann)
    with pytest.raises(Conflict, match="skipped"):
        items.renew(session, lease.assignment_id, ann)


def test_a_flagged_item_leaves_the_queue_and_says_why(session: Session, project: Project, ann: User, bob: User) -> None:
    item = factories.make_item(session, project)
    lease = factories.make_lease(session, project, ann)
    with pytest.raises(Invalid, match="what is wrong"):
        items.flag(session, lease.assignment_id, ann, "  ")
    items.flag(session, lease.assignment_id, ann, "holds a home address")
    assert session.get_one(Item, item.id).status is ItemStatus.FLAGGED
    assert items.lease_next(session, project, bob, rng=random.Random(0)) is None
    event = session.scalars(select(AuditEvent)).one()
    assert (event.action, event.user_id, event.detail) == ("item.flag", ann.id, {"reason": "holds a home address"})
    assert items.prompts_to_generate(session, project, 5) == [], "its prompt is not asked again"


def test_somebody_who_holds_a_flagged_item_is_told(session: Session, ann: User, bob: User) -> None:
    project = factories.make_project(session, overlap=2)
    factories.make_item(session, project)
    held = factories.make_lease(session, project, bob)
    items.flag(session, factories.make_lease(session, project, ann).assignment_id, ann, "broken")
    with pytest.raises(Conflict, match="flagged"):
        annotations.submit(session, held.assignment_id, bob, factories.prefer_first(held))


def test_a_project_serves_its_own_items_only(session: Session, project: Project, ann: User) -> None:
    other = factories.make_project(session)
    factories.make_item(session, other)
    assert items.lease_next(session, project, ann, rng=random.Random(0)) is None
    assert factories.make_lease(session, other, ann).item_id


def test_counts_say_how_full_the_queue_is(session: Session, ann: User, bob: User) -> None:
    project = factories.make_project(session, overlap=2)
    factories.make_items(session, project, 5)
    factories.make_annotation(session, project, ann)
    factories.make_annotation(session, project, bob)  # the first item is done
    factories.make_annotation(session, project, ann)
    factories.make_lease(session, project, ann)
    counts = items.queue_counts(session, project)
    assert counts == items.QueueCounts(open=4, unjudged=3, leased=1, done=1, flagged=0, stale=0)
    assert items.queue_counts(session, project, now=utc_now() + AFTER).leased == 0


def test_prompts_that_need_items_come_neediest_first(session: Session, project: Project, ann: User) -> None:
    judged = factories.make_prompt(session, project)
    waiting = factories.make_prompt(session, project)
    new = [factories.make_prompt(session, project, split=split) for split in (Split.TEST, Split.TRAIN)]
    factories.make_item(session, project, prompt=judged)
    factories.make_annotation(session, project, ann)
    factories.make_item(session, project, prompt=waiting)
    assert items.prompts_to_generate(session, project, 10) == [*new, judged]
    assert items.prompts_to_generate(session, project, 1) == new[:1]
    assert items.prompts_to_generate(session, project, 0) == []


def test_only_untouched_items_of_other_models_become_stale(session: Session, ann: User, bob: User) -> None:
    project = factories.make_project(session, overlap=2)
    old, new = (factories.make_version(session, project) for _ in range(2))
    judged = factories.make_item(session, project, version=old)
    factories.make_annotation(session, project, ann)
    held = factories.make_item(session, project, version=old)
    factories.make_lease(session, project, ann)
    expected = {
        judged: ItemStatus.OPEN,
        held: ItemStatus.OPEN,
        factories.make_item(session, project, version=old): ItemStatus.STALE,
        factories.make_item(session, project, version=new): ItemStatus.OPEN,
        factories.make_item(session, project): ItemStatus.OPEN,  # no model wrote it
    }
    mixed = factories.make_prompt(session, project)
    written = [factories.make_completion(session, mixed, model_version_id=v.id) for v in (old, new)]
    expected[items.add_item(session, mixed, written).row] = ItemStatus.OPEN
    assert items.mark_stale(session, project, [new.id]) == 1
    session.expire_all()
    assert {item.id: item.status for item in expected} == {item.id: wanted for item, wanted in expected.items()}
    assert items.mark_stale(session, project, [new.id]) == 0


@pytest.mark.parametrize("close", [registry.retire, registry.reject])
def test_items_of_a_retired_version_leave_the_queue_and_stay_in_the_store(
    session: Session, close: Callable[[Session, ModelVersion, User | None], None]
) -> None:
    project = factories.make_project(session)
    champion = registry.base_version(session, project, "starter")
    gone, other = (factories.make_version(session, project) for _ in range(2))
    mixed = factories.make_prompt(session, project)
    both = [factories.make_completion(session, mixed, model_version_id=v.id) for v in (champion, gone)]
    gold = factories.make_item(session, project, version=gone)
    gold.gold = {"chosen": "first"}
    expected = {
        factories.make_item(session, project, version=gone): ItemStatus.STALE,
        factories.make_item(session, project, version=other): ItemStatus.OPEN,
        factories.make_item(session, project, version=champion): ItemStatus.OPEN,
        items.add_item(session, mixed, both).row: ItemStatus.OPEN,
        gold: ItemStatus.OPEN,
    }
    close(session, gone, None)
    session.expire_all()
    assert {item.id: item.status for item in expected} == {item.id: wanted for item, wanted in expected.items()}
    assert items.queue_counts(session, project).stale == 1
    assert all(len(item.members) == 2 and item.members[0].completion.text for item in expected)
