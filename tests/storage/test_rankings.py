"""Rankings: how many completions an item may rank, and what is taken as an order."""

from __future__ import annotations

import pytest

from storage.annotations import RankInput, Submission, submit
from storage.enums import ItemKind
from storage.errors import Invalid
from storage.items import add_item
from tests import factories


@pytest.mark.parametrize(("count", "taken"), [(2, False), (3, True), (8, True), (9, False)])
def test_an_item_ranks_three_to_eight_completions(sessions, count, taken):
    with sessions.begin() as session:
        prompt = factories.make_prompt(session, factories.make_project(session))
        completions = [factories.make_completion(session, prompt) for _ in range(count)]
        if taken:
            assert len(add_item(session, prompt, completions, ItemKind.RANKING).row.members) == count
        else:
            with pytest.raises(Invalid, match=f"'ranking' cannot have {count}"):
                add_item(session, prompt, completions, ItemKind.RANKING)


@pytest.fixture
def desk(sessions):
    with sessions.begin() as session:
        project, user = factories.make_project(session), factories.make_user(session)
        factories.make_item(session, project, texts=["a", "b", "c"], kind=ItemKind.RANKING)
        yield session, user, factories.make_lease(session, project, user)


@pytest.mark.parametrize(
    ("places", "why"),
    [
        ([(0, 1)], "two completions or more"),
        ([(0, 1), (0, 2)], "two ranks"),
        ([(0, 0), (1, 1)], "1 for the best"),
        ([(0, True), (1, 2)], "1 for the best"),
        ([(None, 1), (1, 2)], "another item"),
    ],
)
def test_what_is_no_order_is_refused(desk, places, why):
    session, user, lease = desk
    ids = [one for one, _ in lease.completions]
    ranks = [RankInput(10**6 if n is None else ids[n], rank) for n, rank in places]
    with pytest.raises(Invalid, match=why):
        submit(session, lease.assignment_id, user, Submission(rankings=ranks))


def test_equal_orders_are_equal_rows(desk):
    session, user, lease = desk
    ids = [one for one, _ in lease.completions]
    ranks = [RankInput(one, rank) for one, rank in zip(ids, (40, 7, 40), strict=True)]
    row = submit(session, lease.assignment_id, user, Submission(rankings=ranks))
    session.refresh(row)
    assert {one.completion_id: one.rank for one in row.rankings} == dict(zip(ids, (2, 1, 2), strict=True))
