"""The page "Your account": sessions, tokens, language."""

from __future__ import annotations

import re

import pytest

from feedback_app.pages.account import device_of
from storage import accounts, members, projects, tokens
from storage.enums import Role
from storage.models import UserSession, utc_now
from tests import factories
from tests.web.conftest import PASSWORD

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def _user(house, name):
    with house.sessions.begin() as session:
        return accounts.get_user(session, name)


def _sessions(house, name):
    with house.sessions.begin() as session:
        return accounts.list_sessions(session, accounts.get_user(session, name))


def _tokens(house, name):
    with house.sessions.begin() as session:
        return tokens.list_tokens(session, accounts.get_user(session, name))


def test_strangers_are_sent_to_sign_in_and_come_back(client):
    assert client.get("/account").headers["location"] == "/login?next=%2Faccount"
    for path in ("/account/language", "/account/tokens", "/account/sessions/end-all"):
        answer = client.post(path, data={"days": 7})
        assert answer.headers["location"].startswith("/login")


def test_the_page_needs_no_script_and_allows_none(house, as_user):
    answer = as_user(house.person()).get("/account")
    assert answer.status_code == 200
    assert "script-src 'none'" in answer.headers["content-security-policy"]
    assert "<script" not in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_a_sign_in_is_listed_with_its_device_and_can_be_ended(house, client, as_user):
    name = house.person(password=True)
    client.post("/login", data={"name": name, "password": PASSWORD}, headers={"user-agent": FIREFOX})
    other = as_user(name)
    shown = other.get("/account").text
    assert "Firefox on Linux" in shown
    assert "testclient" in shown, "the address"
    assert shown.count("this browser") == 1
    theirs = next(row.id for row in _sessions(house, name) if row.user_agent == FIREFOX)
    assert other.post("/account/sessions/end", data={"session": theirs}).status_code == 303
    assert client.get("/account").headers["location"].startswith("/login")
    assert other.get("/account").status_code == 200
    again = other.post("/account/sessions/end", data={"session": theirs})
    assert (again.status_code, "signed out already" in again.text) == (422, True)


def test_nobody_ends_anothers_session_or_token(house, as_user):
    victim, stranger = house.person(), as_user(house.person(Role.ADMIN))
    at_home = as_user(victim)
    session_id = _sessions(house, victim)[0].id
    at_home.post("/account/tokens", data={"name": "mine", "scope": "read", "days": 7})
    token_id = _tokens(house, victim)[0].id
    assert stranger.post("/account/sessions/end", data={"session": session_id}).status_code == 422
    assert stranger.post("/account/tokens/revoke", data={"token": token_id}).status_code == 422
    assert at_home.get("/account").status_code == 200
    assert _tokens(house, victim)[0].revoked_at is None


def test_sign_out_everywhere_ends_every_session_of_that_person_alone(house, as_user):
    name, other = house.person(), house.person()
    here, there, neighbour = as_user(name), as_user(name), as_user(other)
    answer = here.post("/account/sessions/end-all")
    assert answer.headers["location"] == "/login"
    assert _sessions(house, name) == []
    assert there.get("/account").status_code == 303
    assert neighbour.get("/account").status_code == 200


def test_last_seen_is_noted_but_not_at_every_request(house, as_user):
    name = house.person()
    here = as_user(name)
    with house.sessions.begin() as session:
        row = session.query(UserSession).filter_by(id=_sessions(house, name)[0].id).one()
        row.last_seen_at = factories.later(minutes=-3)
    here.get("/account")
    noted = _sessions(house, name)[0].last_seen_at
    assert (utc_now() - noted).total_seconds() < 60
    here.get("/account")
    assert _sessions(house, name)[0].last_seen_at == noted


def test_a_token_is_shown_once_works_and_is_revoked(house, as_user):
    name = house.person()
    here = as_user(name)
    answer = here.post("/account/tokens", data={"name": "shop", "scope": ["read", "write"], "days": 30})
    plain = re.search(r"fb_[\w-]{43}", answer.text)[0]
    assert plain not in here.get("/account").text
    with house.sessions.begin() as session:
        found = tokens.find_token(session, plain)
        assert (found.user.name, found.name, found.scopes) == (name, "shop", ["read", "write"])
        assert 29 < (found.expires_at - utc_now()).total_seconds() / 86400 < 30
    assert here.post("/account/tokens/revoke", data={"token": found.id}).status_code == 303
    assert "revoked" in here.get("/account").text
    with house.sessions.begin() as session:
        assert tokens.find_token(session, plain) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "", "scope": "read", "days": 7}, "name is empty"),
        ({"name": "x", "days": 7}, "at least one scope"),
        ({"name": "x", "scope": "root", "days": 7}, "Unknown scope"),
        ({"name": "x", "scope": "read", "days": 8}, "lasts"),
        ({"name": "a\x00b", "scope": "read", "days": 7}, "control character"),
        ({"name": "x", "scope": "read", "days": 7, "project": "nowhere"}, "no project"),
    ],
)
def test_a_bad_token_is_refused_in_one_line(house, as_user, given, says):
    name = house.person()
    answer = as_user(name).post("/account/tokens", data=given)
    assert answer.status_code == 422
    assert says in answer.text
    assert _tokens(house, name) == []


def test_a_token_reaches_only_projects_of_its_person(house, as_user):
    name, closed = house.person(), house.project()
    with house.sessions.begin() as session:
        project = projects.get_project(session, closed)
        projects.update_project(session, project, members_only=True)
    here = as_user(name)
    given = {"name": "x", "scope": "read", "days": 7, "project": closed}
    assert here.post("/account/tokens", data=given).status_code == 422
    assert closed not in here.get("/account").text
    with house.sessions.begin() as session:
        members.add_member(session, projects.get_project(session, closed), accounts.get_user(session, name))
    assert here.post("/account/tokens", data=given).status_code == 200


def test_the_language_is_kept_and_only_known_ones(house, as_user):
    name = house.person()
    here = as_user(name)
    assert here.post("/account/language", data={"language": "zh-CN"}).status_code == 303
    assert _user(house, name).language == "zh-CN"
    assert here.post("/account/language", data={"language": "tlh"}).status_code == 422
    assert here.post("/account/language", data={"language": ""}).status_code == 303
    assert _user(house, name).language is None


@pytest.mark.parametrize("path", ["/account/tokens", "/account/sessions/end-all", "/account/language", "/logout"])
@pytest.mark.parametrize(
    "sent_by", [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "https://evil.example"}]
)
def test_another_site_can_change_nothing(house, as_user, path, sent_by):
    name = house.person()
    here = as_user(name)
    data = {"name": "x", "scope": "read", "days": 7, "language": "en"}
    assert here.post(path, data=data, headers=sent_by).status_code == 403
    assert (_tokens(house, name), _user(house, name).language) == ([], None)
    assert here.get("/account").status_code == 200


def test_markup_and_direction_in_names_stay_text(house, as_user):
    with house.sessions.begin() as session:
        factories.make_user(session, "<b>דנה</b>")
    here = as_user("<b>דנה</b>")
    here.post("/account/tokens", data={"name": "<img src=x>", "scope": "read", "days": 7})
    shown = here.get("/account", headers={"user-agent": "<script>alert(1)</script>"}).text
    assert "\u2068&lt;b&gt;דנה&lt;/b&gt;\u2069" in shown
    assert "<bdi>&lt;img src=x&gt;</bdi>" in shown


def test_long_forms_are_refused_before_they_are_read(house, as_user):
    here = as_user(house.person())
    assert here.post("/account/tokens", data={"name": "x" * 1_000_000, "days": 7}).status_code == 413
    assert here.post("/account/tokens", data={"name": "x" * 3000, "scope": "read", "days": 7}).status_code == 422


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        (FIREFOX, "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/120 Safari/537.36 Edg/120", "Edge on Windows"),
        ("Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/120 Mobile Safari/537.36", "Chrome on Android"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Version/17.0 Safari/604.1", "Safari on iPhone"),
        ("curl/8.5.0", "curl"),
        ("", "Unknown device"),
    ],
)
def test_devices_have_names_that_people_know(agent, device):
    assert device_of(agent) == device
