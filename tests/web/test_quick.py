"""Events that are answered past Gradio, several in one transaction."""

from __future__ import annotations

import asyncio
from functools import partial

from sqlalchemy import event, func, select

from feedback_app.handlers import annotate
from feedback_app.quick import Quick
from storage.models import Annotation

SIDE = {"ratings": {}, "critiques": [], "refinement": ""}
FORM = {"outcome": "first", "strength": 2, "ranks": [], "sides": [SIDE, SIDE]}


def _submits(house, project, people):
    """What each of them would send, and their page's answer to it."""
    held = [annotate.open_page(house.ctx, name, project).item.assignment_id for name in people]
    return held, [
        partial(annotate.submit, house.ctx, name, project, one, 1, FORM) for name, one in zip(people, held, strict=True)
    ]


def _at_once(house, calls):
    """Their answers, and how many transactions it took."""
    commits = []
    engine = house.ctx.sessions.kw["bind"]
    count = commits.append
    event.listen(engine, "commit", count)

    async def all_of_them():
        quick = Quick(None, house.ctx, {})
        return await asyncio.gather(*(quick._together.ask(call) for call in calls))

    try:
        return asyncio.run(all_of_them()), len(commits)
    finally:
        event.remove(engine, "commit", count)


def _stored(house, held):
    with house.sessions() as session:
        return session.scalar(select(func.count()).where(Annotation.assignment_id.in_(held)))


def test_who_submits_at_the_same_moment_shares_a_transaction(house):
    people, project = [house.person() for _ in range(5)], house.project(items=12)
    held, calls = _submits(house, project, people)
    answers, commits = _at_once(house, calls)
    assert [answer.progress.submitted_total for answer in answers] == [1] * 5
    assert len({answer.item.assignment_id for answer in answers} - set(held)) == 5, "each has an item of their own"
    assert (_stored(house, held), commits) == (5, 1)


def test_one_that_fails_takes_no_other_with_it(house):
    people, project = [house.person() for _ in range(3)], house.project(items=12)
    held, calls = _submits(house, project, people)
    foreign = partial(annotate.submit, house.ctx, people[0], project, held[1], 1, FORM)

    def refused():
        try:
            return foreign()
        except Exception as error:  # as a page's function makes a message of it
            return str(error)

    answers, _ = _at_once(house, [calls[0], refused, calls[1], calls[1], calls[2]])
    assert "not handed to you" in answers[1]
    assert sorted(answer.notice.split(";")[0] for answer in (answers[2], answers[3])) == [
        "",
        "you have submitted this item already",
    ]
    assert _stored(house, held) == 3


def test_what_fits_no_event_is_left_to_gradio(house, as_user):
    name, project = house.person(), house.project(items=2)
    mount = next(route for route in house.app.routes if getattr(route, "path", "") == "/annotate")
    blocks = mount.app.get_blocks()
    number = {fn.name: index for index, fn in blocks.fns.items()}
    browser, address = as_user(name), "/annotate/gradio_api/run/predict"
    looked = {"fn_index": number["looked"], "data": [project], "session_hash": "s"}
    answer = browser.post(address, json=looked)
    assert (answer.status_code, len(answer.json()["data"])) == (200, len(blocks.fns[number["looked"]].outputs))
    assert browser.post(address, json={**looked, "data": []}).status_code == 500
    assert browser.post(address, content=b"no json").status_code == 422
    saved = {"fn_index": number["saved"], "data": [answer.json()["data"][2], 1, FORM], "session_hash": "s"}
    assert browser.post(address, json=saved).json()["data"] == []
    assert browser.post(address, json={**saved, "data": ["1", 1, "no form"]}).status_code == 500
