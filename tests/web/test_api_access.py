"""Who may call the API, and how it says no."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from sqlalchemy import update

from feedback_app.api import PATH, create_api
from storage import accounts, members, projects, tokens
from storage.enums import Role
from storage.models import ApiToken, utc_now
from tests.web.api_door import make_token, program

READS = ("/projects", "/prompts", "/items", "/annotations", "/models", "/runs")
BODIES = {
    "/prompts": {"prompts": ["One?"]},
    "/completions": {"sets": [{"prompt": "p", "completions": ["a"]}]},
    "/feedback": {"feedback": [{"prompt": "p", "completions": ["a"], "thumb": "up"}]},
    "/runs": {"kind": "generate"},
}
CALLS = [("GET", path) for path in (*READS, "/export")] + [("POST", path) for path in BODIES]


def call(api, method, path, project=None):
    if method == "GET":
        return api.get(path, params={"project": project} if project and path != "/projects" else None)
    return api.post(path, json=BODIES[path] | ({"project": project} if project else {}))


def test_the_list_of_calls_is_every_route(house):
    paths = create_api(house.ctx).openapi()["paths"]
    routes = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert routes == set(CALLS)


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_nobody_without_a_token_in_force(house, client, method, path):
    tries = [program(house, token=text) for text in ("fb_unknown", "x", "x" * 500, "fb_a b")]
    for api in tries:
        answer = call(api, method, path)
        assert answer.status_code in (401, 429)
        assert set(answer.json()) == {"error", "mend"}
    bare = client.request(method, PATH + path)
    assert (bare.status_code, bare.headers["www-authenticate"]) == (401, "Bearer")


def test_a_session_cookie_is_no_token(house, as_user):
    assert as_user(house.person(Role.ADMIN)).get(f"{PATH}/projects").status_code == 401


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_who_may_what(house, idle_queue, method, path):
    project = house.project(items=1)
    needed = "export" if path == "/export" else "read" if method == "GET" else "write"
    for role in Role:
        for scope in ("read", "write", "export"):
            api = program(house, role=role, scopes=[scope], project=project)
            may = scope == needed and (role is not Role.ANNOTATOR or path == "/projects")
            answer = call(api, method, path)
            assert answer.status_code == (200 if may else 403), (role, scope, answer.text)
            if not may:
                assert answer.json()["error"]


@pytest.mark.parametrize(("method", "path"), [one for one in CALLS if one[1] != "/projects"])
def test_a_token_for_one_project_reaches_no_other(house, method, path):
    mine, other = house.project(items=1), house.project(items=1)
    api = program(house, project=mine)
    assert call(api, method, path, other).status_code == 404
    assert [one["name"] for one in api.get("/projects").json()["projects"]] == [mine]


def test_a_project_for_members_only_is_not_there_for_others(house):
    closed = house.project(items=1)
    with house.sessions.begin() as session:
        projects.get_project(session, closed).members_only = True
    token = make_token(house)
    api = program(house, token)
    assert closed not in api.get("/projects").text
    assert api.get("/items", params={"project": closed}).status_code == 404
    with house.sessions.begin() as session:
        user = tokens.find_token(session, token).user
        members.add_member(session, projects.get_project(session, closed), user)
    assert api.get("/items", params={"project": closed}).status_code == 200


def test_revoking_and_disabling_take_effect_within_a_second(house):
    one, two = make_token(house), make_token(house)
    for token in (one, two):
        assert program(house, token).get("/projects").status_code == 200
    with house.sessions.begin() as session:
        tokens.revoke_token(session, tokens.find_token(session, one))
        accounts.disable_user(session, tokens.find_token(session, two).user)
    deadline = time.monotonic() + 1.0
    apis = [program(house, token) for token in (one, two)]
    asked = time.monotonic()
    while any(api.get("/projects").status_code == 200 for api in apis):
        assert asked < deadline, "asked a second later, it still was let in"
        asked = time.monotonic()


def test_an_expired_token_is_refused(house):
    token = make_token(house, lifetime=timedelta(days=1))
    with house.sessions.begin() as session:
        row = tokens.find_token(session, token)
        session.execute(update(ApiToken).where(ApiToken.id == row.id).values(expires_at=utc_now()))
    assert program(house, token).get("/projects").status_code in (401, 429)


def test_the_description_is_for_token_holders_and_operators(house, client, as_user):
    path = f"{PATH}/openapi.json"
    assert client.get(path).status_code == 401
    assert as_user(house.person()).get(path).status_code == 401
    described = as_user(house.person(Role.OPERATOR)).get(path)
    assert described.status_code == 200
    assert program(house, scopes=["read"]).get("/openapi.json").json() == described.json()
    assert set(described.json()["paths"]) == {path for _, path in CALLS}
    assert client.get(f"{PATH}/docs").status_code == 401
    assert program(house).get("/docs").status_code == 404


def test_refusals_have_one_shape_and_the_status_that_fits(house):
    api = program(house)
    json_type = {"content-type": "application/json"}
    answers = {
        404: api.get("/nothing"),
        405: api.delete("/prompts"),
        413: api.post("/feedback", content=b"[" * (9 * 2**20), headers=json_type),
        415: api.post("/prompts", content=b"prompts=1", headers={"content-type": "text/plain"}),
        422: api.post("/prompts", content=b"{", headers=json_type),
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert set(answer.json()) <= {"error", "mend"}
        assert "\n" not in answer.json()["error"]
    assert "GET" in answers[405].headers["allow"]
    assert "max-age" not in answers[404].headers.get("cache-control", "")


def test_many_unknown_tokens_from_one_address_are_told_to_wait(house):
    good = program(house)
    bad = program(house, token="fb_wrong")
    answers = [bad.get("/projects") for _ in range(70)]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert good.get("/projects").status_code == 200  # others behind the same address go on
