"""Two layers keep annotators from operators' functions: the gate before Gradio, and the policy inside each handler."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from starlette.requests import HTTPConnection

from feedback_app import policies
from feedback_app.handlers import data, models, people, project, runs
from feedback_app.security import SignedIn, auth_dependency
from storage import accounts
from storage.enums import Role
from storage.errors import NotAllowed


def _calls(house, page):
    """Every event of a page as (index, a payload of the right length)."""
    mount = next(route for route in house.app.routes if getattr(route, "path", "") == f"/{page}")
    blocks = mount.app.get_blocks()
    return [(index, [None] * len(fn.inputs)) for index, fn in blocks.fns.items()]


def _post(browser, page, index, values):
    body = {"fn_index": index, "data": values, "session_hash": "s"}
    return [
        browser.post(f"/{page}/gradio_api/run/predict", json=body),
        browser.post(f"/{page}/gradio_api/run/predict/", json=body),
        browser.post(f"/{page}/gradio_api/queue/join", json=body),
    ]


@pytest.mark.parametrize("page", ["annotate", "operate"])
def test_a_stranger_can_call_no_function(house, client, page):
    calls = _calls(house, page)
    assert len(calls) > 5
    for index, values in calls:
        assert {answer.status_code for answer in _post(client, page, index, values)} == {401}


def test_an_annotator_can_call_no_operator_function(house, as_user):
    annotator = as_user(house.person())
    for index, values in _calls(house, "operate"):
        assert {answer.status_code for answer in _post(annotator, "operate", index, values)} == {403}
    for path in ("config", "gradio_api/info", "gradio_api/queue/data?session_hash=s"):
        assert annotator.get(f"/operate/{path}").status_code == 403
    assert annotator.post("/operate/gradio_api/upload", files={"files": b"x"}).status_code == 403
    page = annotator.get("/operate/", headers={"accept": "text/html"})
    assert page.status_code == 403
    assert "gradio_config" not in page.text


def test_the_annotate_page_holds_no_operator_function(house):
    mount = next(route for route in house.app.routes if getattr(route, "path", "") == "/annotate")
    names = {fn.name for fn in mount.app.get_blocks().fns.values() if fn.fn is not None}
    assert names == {"opened", "changed", "looked", "submitted", "skipped", "flagged", "saved"}


def test_queued_functions_cannot_be_run_around_the_queue(house, as_user):
    mount = next(route for route in house.app.routes if getattr(route, "path", "") == "/annotate")
    queued = [index for index, fn in mount.app.get_blocks().fns.items() if fn.queue and fn.name == "submitted"]
    body = {"fn_index": queued[0], "data": [None] * 10, "session_hash": "s"}
    assert as_user(house.person()).post("/annotate/gradio_api/run/predict", json=body).status_code == 404


# Handlers whose first argument after the name is filled with harmless values; every one must refuse an annotator.
_HANDLERS = [
    function
    for module in (runs, models, data, people, project)
    for name, function in vars(module).items()
    if inspect.isfunction(function) and function.__module__ == module.__name__
    if list(inspect.signature(function).parameters)[:2] == ["ctx", "name"]
]


@pytest.mark.parametrize("handler", _HANDLERS, ids=lambda function: f"{function.__module__}.{function.__name__}")
def test_every_operator_handler_refuses_annotators_strangers_and_the_disabled(house, handler):
    disabled = house.person(Role.OPERATOR)
    with house.sessions.begin() as session:
        accounts.disable_user(session, accounts.get_user(session, disabled))
    more = len(inspect.signature(handler).parameters) - 2
    # Valid enough to come as far as the policy wherever values are looked at first.
    values = {"add_prompts": ["p", "text"], "start": ["p", "dpo", {}, ""], "save": ["p", {}, []]}.get(
        handler.__name__, ["p"] * more
    )
    for name in (house.person(), disabled, "nobody", None, ""):
        with pytest.raises(NotAllowed):
            handler(house.ctx, name, *values)


def test_handlers_were_found():
    assert len(_HANDLERS) >= 13


async def _ask(role):
    scope = {"type": "http", "headers": [], "state": {"user": SignedIn("x", role)} if role else {}}
    return await auth_dependency(policies.OPERATORS)(HTTPConnection(scope))


@pytest.mark.parametrize(
    ("role", "name"), [(Role.ANNOTATOR, None), (Role.OPERATOR, "x"), (Role.ADMIN, "x"), (None, None)]
)
def test_gradio_is_told_nobody_when_the_role_does_not_fit(role, name):
    assert asyncio.run(_ask(role)) == name


def test_operators_reach_annotators_and_admins_reach_everyone(house):
    operator, other, annotator = house.person(Role.OPERATOR), house.person(Role.OPERATOR), house.person()
    admin = house.person(Role.ADMIN)
    people.act(house.ctx, operator, annotator, "disable")
    for target, action in ((other, "disable"), (admin, "reset"), (operator, "disable")):
        with pytest.raises(NotAllowed):
            people.act(house.ctx, operator, target, action)
    with pytest.raises(NotAllowed):
        people.invite(house.ctx, operator, "new admin", "admin")
    people.act(house.ctx, admin, other, "disable")
    with pytest.raises(NotAllowed):
        people.act(house.ctx, admin, admin, "disable")
