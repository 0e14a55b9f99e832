"""Who may what: one table of every route and every function of every page, held against the application.

Two layers keep people from what is not theirs: the gate before Gradio, and the policy inside each handler. A route or
a function without a line in the table fails the test, and so does a line without one.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import gradio as gr
import pytest
from starlette.requests import HTTPConnection
from starlette.routing import Mount

from feedback_app import policies
from feedback_app.handlers import people
from feedback_app.security import SignedIn, auth_dependency
from storage import accounts
from storage.enums import Role
from storage.errors import NotAllowed
from tests.web.api_door import make_token
from tests.web.test_api_access import BODIES

ANYBODY = frozenset({None, *Role})  # None: nobody is signed in
PEOPLE = frozenset(Role)
OPERATORS = frozenset({Role.OPERATOR, Role.ADMIN})

ROUTES = {
    ("GET", "/"): ANYBODY,
    ("GET", "/healthz"): ANYBODY,
    ("GET", "/login"): ANYBODY,
    ("POST", "/login"): ANYBODY,
    ("GET", "/login/oidc"): ANYBODY,
    ("GET", "/login/oidc/callback"): ANYBODY,
    ("GET", "/login/link/{token}"): ANYBODY,
    ("POST", "/login/link/{token}"): ANYBODY,
    ("GET", "/logout"): ANYBODY,
    ("POST", "/logout"): ANYBODY,
    ("GET", "/set-password"): PEOPLE,
    ("POST", "/set-password"): PEOPLE,
    ("POST", "/language"): ANYBODY,
    ("GET", "/account"): PEOPLE,
    ("POST", "/account/language"): PEOPLE,
    ("POST", "/account/sessions/end"): PEOPLE,
    ("POST", "/account/sessions/end-all"): ANYBODY,  # as signing out: nobody has nothing to end
    ("POST", "/account/tokens"): PEOPLE,
    ("POST", "/account/tokens/revoke"): PEOPLE,
    ("GET", "/questions"): PEOPLE,
    ("POST", "/questions/answer"): PEOPLE,
    ("POST", "/questions/pass"): PEOPLE,
    ("GET", "/critiques"): PEOPLE,
    ("GET", "/exports/{project}/{what}.{format}"): OPERATORS,
    ("GET", "/compare/{project}"): OPERATORS,
    ("GET", "/lineage/annotation/{annotation}"): OPERATORS,
    ("GET", "/lineage/{project}/{version}"): OPERATORS,
    ("POST", "/lineage/{project}/{version}/rebuild"): OPERATORS,
    ("GET", "/lineage/{project}/{version}/adapter.zip"): OPERATORS,
    # By an API token of such a person, never by their session: but the description, which they read in the browser.
    ("GET", "/api/v1/openapi.json"): OPERATORS,
    ("GET", "/api/v1/projects"): PEOPLE,
    ("GET", "/api/v1/prompts"): OPERATORS,
    ("GET", "/api/v1/items"): OPERATORS,
    ("GET", "/api/v1/annotations"): OPERATORS,
    ("GET", "/api/v1/models"): OPERATORS,
    ("GET", "/api/v1/runs"): OPERATORS,
    ("GET", "/api/v1/export"): OPERATORS,
    ("POST", "/api/v1/prompts"): OPERATORS,
    ("POST", "/api/v1/completions"): OPERATORS,
    ("POST", "/api/v1/feedback"): OPERATORS,
    ("POST", "/api/v1/runs"): OPERATORS,
}
# Signing in and out shows itself in a redirect to the login page too: that is its answer, not a refusal.
GOES_TO_LOGIN = {"/", "/login/oidc", "/login/oidc/callback", "/logout", "/account/sessions/end-all"}

# Pages of Gradio: who may enter, and the names of their functions.
PAGES: dict[str, tuple[frozenset[Role], set[str]]] = {
    "/annotate": (PEOPLE, {"opened", "changed", "looked", "submitted", "practised", "skipped", "flagged", "saved"}),
    "/mine": (PEOPLE, {"opened", "looked", "chosen", "saved", "dropped", "revised", "withdrawn"}),
    "/play": (
        PEOPLE,
        {"opened", "changed", "kept", "sent", "followed", "stopped", "left", "saved", "submitted", "continued"},
    ),
    "/operate": (
        OPERATORS,
        {
            "everything", "runs", "models", "data", "users", "project", "preview", "look", "members_seen",
            "start", "explain", "cancel", "resume", "decide", "take", "add", "invite", "act", "create", "save",
            "rules_seen", "rule_saved", "rules_suggested", "scope_tried", "rules_written", "rule_switched",
            "gold_seen", "gold_saved", "gold_marked", "gold_unmarked", "gold_decided", "other_project",
            "our_wordings", "judge", "evaluate", "bars_saved", "start_test", "stop_test", "people_said",
            "members_saved", "webhooks_seen", "webhook_added", "webhook_switched", "webhook_removed",
        },
    ),
}  # fmt: skip


class Door(NamedTuple):
    """One route of the application."""

    method: str
    path: str


def _doors(routes: Any, prefix: str = "") -> Iterator[Door]:
    for route in routes:
        if hasattr(route, "original_router"):  # a router that FastAPI includes by reference
            yield from _doors(route.original_router.routes, prefix + route.include_context.prefix)
        elif isinstance(route, Mount):
            # Static files answer to everybody; pages of Gradio stand in a table of their own.
            yield from [] if route.path in PAGES else _doors(getattr(route.app, "routes", []), prefix + route.path)
        else:
            yield from (Door(method, prefix + route.path) for method in route.methods - {"HEAD"})


def _functions(house: Any, page: str) -> dict[int, Any]:
    mount = next(route for route in house.app.routes if getattr(route, "path", "") == page)
    return {index: fn for index, fn in mount.app.get_blocks().fns.items() if fn.fn is not None}


def test_every_route_is_in_the_table(house):
    assert set(_doors(house.app.routes)) == set(ROUTES)


def test_every_page_and_every_function_is_in_the_table(house):
    mounts = {route.path: route.app for route in house.app.routes if isinstance(route, Mount)}
    assert {path for path, app in mounts.items() if hasattr(app, "get_blocks")} == set(PAGES)
    for page, (_, functions) in PAGES.items():
        assert {fn.name for fn in _functions(house, page).values()} == functions, page


@pytest.mark.parametrize("who", [None, *Role])
@pytest.mark.parametrize("door", ROUTES, ids=" ".join)
def test_who_may_call_a_route(house, client, as_user, idle_queue, door, who):
    method, path = door
    project = house.project(items=1)
    real = path.format(token="x", project=project, what="preference", format="jsonl", version="policy-v0", annotation=1)
    sent: dict[str, Any] = {"headers": {"accept": "text/html"}}
    if path.startswith("/api/"):
        sent = {"headers": {"authorization": f"Bearer {make_token(house, who, project=project)}"} if who else {}}
        if method == "POST":
            sent["json"] = BODIES[path.removeprefix("/api/v1")] | {"project": project}
    elif method == "POST":
        sent["data"] = {"session": 1, "token": 1, "days": 7}
    browser = client if who is None or path.startswith("/api/") else as_user(house.person(who))
    if path == "/api/v1/openapi.json":
        browser, sent = client if who is None else as_user(house.person(who)), {}
    answer = browser.request(method, real, **sent)
    to_login = answer.status_code == 303 and answer.headers["location"].startswith("/login")
    refused = answer.status_code == 403 or (to_login and path not in GOES_TO_LOGIN)
    if answer.status_code == 401 and path != "/login":
        refused = True
    assert answer.status_code < 500
    assert (not refused) == (who in ROUTES[door]), (answer.status_code, answer.text[:300])


@pytest.mark.parametrize("who", [None, *Role])
@pytest.mark.parametrize("page", PAGES)
def test_the_gate_lets_nobody_to_a_page_of_others(house, client, as_user, page, who):
    browser = client if who is None else as_user(house.person(who))
    allowed, status = who in PAGES[page][0], 401 if who is None else 403
    for index, fn in _functions(house, page).items():
        body = {"fn_index": index, "data": [None] * len(fn.inputs), "session_hash": "s"}
        paths = ("run/predict", "run/predict/", "queue/join")
        # Who may is not asked here: a call that waits in the queue would have to be answered first.
        if not allowed:
            codes = {browser.post(f"{page}/gradio_api/{path}", json=body).status_code for path in paths}
            assert codes == {status}, fn.name
    for path in ("config", "gradio_api/info", "gradio_api/queue/data?session_hash=none"):
        if not allowed:
            assert browser.get(f"{page}/{path}").status_code == status
    entered = browser.get(f"{page}/", headers={"accept": "text/html"})
    assert ("gradio_config" in entered.text) is allowed
    if not allowed:
        assert browser.post(f"{page}/gradio_api/upload", files={"files": b"x"}).status_code in (status, 404)


@pytest.mark.parametrize("who", [None, "nobody", "disabled", *Role])
@pytest.mark.parametrize("page", PAGES)
def test_the_handlers_themselves_refuse_whom_the_table_does_not_name(house, page, who):
    allowed = PAGES[page][0]
    name = house.person(Role.ADMIN if who == "disabled" else who) if who not in (None, "nobody") else who
    if who == "disabled":
        with house.sessions.begin() as session:
            accounts.disable_user(session, accounts.get_user(session, name))
    for fn in _functions(house, page).values():
        # Something for everything: enough to come as far as the policy, too little to change anything.
        values = [_anything(one) for one in fn.inputs]
        assert _refuses(fn.fn, name, values) is (who not in allowed), fn.name


def _anything(component: Any) -> Any:
    if isinstance(component, gr.State):  # kept by the server, never taken from the browser
        return component.value
    return 0 if isinstance(component, gr.Number) else "p"


_REFUSALS = ("only operators may", "you are signed out", "account is disabled")


def _refuses(function: Any, name: str | None, values: list[Any]) -> bool:
    request = gr.Request(username=name)
    try:
        made = function(request, *values)
        if inspect.isgenerator(made):
            next(made, None)
        if inspect.isasyncgen(made):
            made = asyncio.run(anext(made, None))
    except gr.Error as error:
        return isinstance(error.__cause__, NotAllowed)
    # Some parts of a page show what their handler said in place of a toast.
    said = [one.lower() for one in (made if isinstance(made, list) else [made]) if isinstance(one, str)]
    return any(line in one for one in said for line in _REFUSALS)


def test_queued_functions_cannot_be_run_around_the_queue(house, as_user):
    queued = [index for index, fn in _functions(house, "/annotate").items() if fn.queue and fn.name == "skipped"]
    body = {"fn_index": queued[0], "data": [None] * 10, "session_hash": "s"}
    assert as_user(house.person()).post("/annotate/gradio_api/run/predict", json=body).status_code == 404


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
