"""Signing in through an OpenID Connect provider: a real one on loopback, real HTTP, the whole dance of redirects."""

from __future__ import annotations

import logging
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import oidc_provider_mock
import pytest

from feedback_app.oidc import CALLBACK, Pending
from feedback_app.security import COOKIE
from feedback_app.server import create_app
from feedback_app.settings import load_settings
from storage import accounts, audit
from storage.engine import make_engine, make_sessions
from storage.enums import Role
from storage.errors import Invalid
from tests import factories
from tests.web.conftest import PASSWORD, House, serving
from tests.web.lying_provider import STRANGERS_KEY, Liar, lying


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def _house(home, template, issuer) -> Iterator[House]:
    home.mkdir()
    shutil.copy(template, home / "feedback.db")
    settings = load_settings(
        home=home, port=_free_port(), oidc_issuer=issuer, oidc_client_id="feedback", oidc_client_secret="shared",
        oidc_role_map="staff=operator, helpers=annotator, chiefs=admin",
    )  # fmt: skip
    engine = make_engine(settings.store_url)
    house = House(settings, create_app(settings), make_sessions(engine))
    with serving(house.app, settings):
        yield house
    engine.dispose()


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with oidc_provider_mock.run_server_in_thread() as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture(scope="module")
def joined(provider, sqlite_template, tmp_path_factory) -> Iterator[House]:
    """An application whose people sign in with the provider."""
    with _house(tmp_path_factory.mktemp("oidc") / "home", sqlite_template, provider) as house:
        yield house


def _known(provider: str, subject: str, **claims: Any) -> None:
    httpx.put(f"{provider}/users/{subject}", json=claims).raise_for_status()


_opened: list[httpx.Client] = []


def _browser(house: House) -> httpx.Client:
    made = httpx.Client(base_url=house.settings.url, follow_redirects=False, headers={"accept": "text/html"})
    _opened.append(made)
    return made


@pytest.fixture(autouse=True)
def close_browsers() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


def _callback(browser: httpx.Client, subject: str, onward: str = "") -> str:
    """From the button to the address the provider sends the browser back to."""
    begun = browser.get("/login/oidc", params={"next": onward} if onward else {})
    assert begun.status_code == 303, begun.text
    agreed = httpx.post(begun.headers["location"], data={"sub": subject})
    assert agreed.status_code == 302, agreed.text
    return agreed.headers["location"]


def _user(house: House, name: str):
    with house.sessions.begin() as session:
        return accounts.find_user(session, name)


def test_the_whole_way_in(provider, joined):
    _known(provider, "s-anna", preferred_username="anna@firm.example", groups=["helpers", "staff", "others"])
    browser = _browser(joined)
    page = browser.get("/login?next=/operate/?run=3").text
    assert f"Sign in with {urlsplit(provider).netloc}" in page
    back = _callback(browser, "s-anna", "/operate/?run=3")
    assert back.startswith(f"{joined.settings.url}{CALLBACK}?")
    entered = browser.get(back)
    assert (entered.status_code, entered.headers["location"]) == (303, "/operate/?run=3")
    assert _user(joined, "anna").role is Role.OPERATOR
    assert "You sign in through your organisation" in browser.get("/account").text
    assert "feedback_oidc" not in browser.cookies
    with joined.sessions.begin() as session:
        actions = [event.action for event in audit.list_events(session)]
    assert actions[:2] == ["sign in by provider", "user.add"]


def test_the_request_carries_pkce_state_and_nonce_and_the_cookie_is_for_the_callback_alone(joined):
    browser = _browser(joined)
    begun = browser.get("/login/oidc")
    asked = parse_qs(urlsplit(begun.headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["response_type"] == ["code"]
    assert asked["redirect_uri"] == [joined.settings.url + CALLBACK]
    pending = Pending.from_cookie(browser.cookies["feedback_oidc"].strip('"'))
    assert (asked["state"], asked["nonce"]) == ([pending.state], [pending.nonce])
    assert pending.verifier not in begun.headers["location"]
    cookie = begun.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert f"Path={CALLBACK}" in cookie
    assert "samesite=lax" in cookie.lower()


def test_the_role_follows_the_groups_at_every_sign_in(provider, joined):
    for groups, role in ((["helpers"], Role.ANNOTATOR), (["chiefs", "helpers"], Role.ADMIN), ("staff", Role.OPERATOR)):
        _known(provider, "s-ben", preferred_username="ben", groups=groups)
        browser = _browser(joined)
        assert browser.get(_callback(browser, "s-ben")).status_code == 303
        assert _user(joined, "ben").role is role


@pytest.mark.parametrize("groups", [["others"], [], "helper", 7, [["helpers"]], {"helpers": True}, None])
def test_without_a_group_that_may_enter_nobody_does(provider, joined, groups):
    _known(provider, "s-carl", preferred_username="carl", **({} if groups is None else {"groups": groups}))
    browser = _browser(joined)
    refused = browser.get(_callback(browser, "s-carl"))
    assert refused.status_code == 403
    assert "none of the groups that may enter here" in refused.text
    assert COOKIE not in browser.cookies


def test_somebody_disabled_here_is_refused_although_the_provider_knows_them(provider, joined):
    _known(provider, "s-dora", preferred_username="dora", groups=["helpers"])
    browser = _browser(joined)
    browser.get(_callback(browser, "s-dora"))
    with joined.sessions.begin() as session:
        accounts.disable_user(session, accounts.get_user(session, "dora"))
    refused = browser.get(_callback(_browser(joined), "s-dora"))
    assert refused.status_code == 403
    again = _browser(joined)
    refused = again.get(_callback(again, "s-dora"))
    assert (refused.status_code, "account is disabled" in refused.text) == (403, True)
    assert COOKIE not in again.cookies


def test_a_name_that_is_taken_is_not_taken_over(provider, joined):
    with joined.sessions.begin() as session:
        factories.make_user(session, "emil", Role.ADMIN)
    _known(provider, "s-emil", preferred_username="emil", groups=["helpers"])
    _known(provider, "s-emil-too", name="emil", groups=["helpers"])
    for subject, name in (("s-emil", "emil-2"), ("s-emil-too", "emil-3"), ("s-emil", "emil-2")):
        browser = _browser(joined)
        browser.get(_callback(browser, subject))
        assert f"\u2068{name}\u2069" in browser.get("/account").text
    assert _user(joined, "emil").role is Role.ADMIN


@pytest.mark.parametrize(
    ("given", "name"),
    [("x\u202egnp.exe\x00\n", "xgnp.exe"), ("n" * 5000, "n" * 110), ("\x00", "user"), ("דנה לוי", "דנה לוי")],
)
def test_hostile_names_become_names(provider, joined, given, name):
    subject = f"s-{abs(hash(given))}"
    _known(provider, subject, preferred_username=given, groups=["helpers"])
    browser = _browser(joined)
    assert browser.get(_callback(browser, subject)).status_code == 303
    assert f"\u2068{name}\u2069" in browser.get("/account").text


def test_who_signs_in_by_provider_has_no_password_here(provider, joined):
    _known(provider, "s-fay", preferred_username="fay", groups=["helpers"])
    browser = _browser(joined)
    browser.get(_callback(browser, "s-fay"))
    given = {"password": PASSWORD, "again": PASSWORD}
    assert browser.get("/set-password").status_code == 403
    assert browser.post("/set-password", data=given).status_code == 403
    assert _user(joined, "fay").password_hash is None


def test_an_answer_meant_for_another_browser_fits_nothing(provider, joined):
    _known(provider, "s-gil", preferred_username="gil", groups=["helpers"])
    theirs, mine = _browser(joined), _browser(joined)
    back = _callback(theirs, "s-gil")
    for browser in (mine, _browser(joined)):
        refused = browser.get(back)
        assert (refused.status_code, "another browser" in refused.text) == (403, True)
        browser.get("/login/oidc")  # with a sign-in of its own under way it still does not fit
    assert _user(joined, "gil") is None
    assert theirs.get(back).status_code == 303
    used = theirs.get(back)
    assert (used.status_code, "too long ago" in used.text) == (403, True)


def test_a_code_is_good_once(provider, joined):
    _known(provider, "s-hal", preferred_username="hal", groups=["helpers"])
    browser = _browser(joined)
    back = _callback(browser, "s-hal")
    cookie = browser.cookies["feedback_oidc"]
    assert browser.get(back).status_code == 303
    again = httpx.get(back, headers={"cookie": f"feedback_oidc={cookie}", "accept": "text/html"})
    assert (again.status_code, "does not hold" in again.text) == (403, True)


def test_a_refusal_of_the_provider_is_one_line_and_repeats_nothing_of_it(joined):
    browser = _browser(joined)
    state = parse_qs(urlsplit(browser.get("/login/oidc").headers["location"]).query)["state"][0]
    evil = "<script>alert(1)</script>"
    refused = browser.get(CALLBACK, params={"error": evil, "error_description": evil, "state": state})
    assert refused.status_code == 403
    assert "did not sign you in" in refused.text
    assert "alert(1)" not in refused.text


@pytest.mark.parametrize("onward", ["https://evil.example/", "//evil.example", "/\\evil.example", "/ok\r\nx: y"])
def test_the_way_in_leads_nowhere_else(provider, joined, onward):
    _known(provider, "s-ida", preferred_username="ida", groups=["helpers"])
    browser = _browser(joined)
    assert browser.get(_callback(browser, "s-ida", onward)).headers["location"] == "/annotate/"


# --- a provider that lies ---


@pytest.fixture(scope="module")
def liar_server() -> Iterator[Liar]:
    with lying() as liar:
        yield liar


@pytest.fixture(scope="module")
def deceived(liar_server, sqlite_template, tmp_path_factory) -> Iterator[House]:
    with _house(tmp_path_factory.mktemp("liar") / "home", sqlite_template, liar_server.issuer) as house:
        yield house


def _answered(house: House, liar: Liar, change: Any = None, **fields: Any) -> httpx.Response:
    browser = _browser(house)
    asked = parse_qs(urlsplit(browser.get("/login/oidc").headers["location"]).query)
    now = int(time.time())
    liar.claims = {
        "iss": liar.issuer, "sub": "42", "aud": "feedback", "nonce": asked["nonce"][0], "iat": now, "exp": now + 60,
        "preferred_username": "eve", "groups": ["chiefs"],
    }  # fmt: skip
    if change:
        change(liar.claims)
    kept = {name: getattr(liar, name) for name in fields}
    for name, value in fields.items():
        setattr(liar, name, value)
    try:
        return browser.get(CALLBACK, params={"code": "c", "state": asked["state"][0]})
    finally:
        for name, value in kept.items():
            setattr(liar, name, value)


_LIES = {
    "signed by somebody else": {"key": STRANGERS_KEY},
    "not signed at all": {"header": {"alg": "none"}},
    "signed with what everybody knows": {"header": {"alg": "HS256"}},
    "no answer in JSON": {"raw": b"<html>"},
    "no id_token": {"raw": b'{"access_token": "a", "token_type": "Bearer"}'},
    "an id_token that is none": {"raw": b'{"access_token": "a", "token_type": "Bearer", "id_token": "a.b.c"}'},
    "another nonce": {"change": lambda claims: claims.update(nonce="another")},
    "no nonce": {"change": lambda claims: claims.pop("nonce")},
    "for another application": {"change": lambda claims: claims.update(aud="another")},
    "for another application in our name": {"change": lambda claims: claims.update(aud="another", azp="feedback")},
    "of another provider": {"change": lambda claims: claims.update(iss="https://another.example")},
    "expired": {"change": lambda claims: claims.update(exp=claims["iat"] - 3600)},
    "without an end": {"change": lambda claims: claims.pop("exp")},
    "about nobody": {"change": lambda claims: claims.pop("sub")},
}  # fmt: skip


@pytest.mark.parametrize("lie", _LIES.values(), ids=_LIES.keys())
def test_an_answer_that_does_not_hold_lets_nobody_in(deceived, liar_server, lie):
    refused = _answered(deceived, liar_server, **lie)
    assert refused.status_code == 403, refused.headers
    assert "ask an operator" in refused.text
    assert COOKIE not in refused.headers.get("set-cookie", "")
    assert _user(deceived, "eve") is None


def test_an_honest_answer_of_the_same_provider_is_taken(deceived, liar_server):
    """Without this the table above could pass for any reason."""
    assert _answered(deceived, liar_server, lambda claims: claims.update(preferred_username="hon")).status_code == 303
    assert _user(deceived, "hon").role is Role.ADMIN


# --- a provider that is not there ---


def test_a_provider_that_is_down_leaves_the_password(sqlite_template, tmp_path):
    with _house(tmp_path / "home", sqlite_template, f"http://127.0.0.1:{_free_port()}") as house:
        name = house.person(password=True)
        browser = _browser(house)
        down = browser.get("/login/oidc?next=/annotate/")
        assert down.status_code == 503
        assert "cannot be reached just now" in down.text
        assert 'name="password"' in down.text
        entered = browser.post("/login", data={"name": name, "password": PASSWORD})
        assert entered.headers["location"] == "/annotate/"


def test_a_provider_that_calls_itself_otherwise_is_not_believed(liar_server, sqlite_template, tmp_path):
    liar_server.calls_itself = "https://another.example"
    try:
        with _house(tmp_path / "home", sqlite_template, liar_server.issuer) as house:
            assert _browser(house).get("/login/oidc").status_code == 503
    finally:
        liar_server.calls_itself = ""


def test_without_a_provider_the_page_offers_none(client):
    assert "/login/oidc" not in client.get("/login").text
    assert client.get("/login/oidc").headers["location"] == "/login"
    assert client.get(CALLBACK).headers["location"] == "/login"


# --- settings ---

GOOD = {"oidc_issuer": "https://id.example", "oidc_client_id": "feedback", "oidc_role_map": "a=b=annotator, *=operator"}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"oidc_issuer": "http://id.example"}, "FEEDBACK_OIDC_ISSUER"),
        ({"oidc_client_id": ""}, "set FEEDBACK_OIDC_CLIENT_ID as well"),
        ({"oidc_role_map": ""}, "set FEEDBACK_OIDC_ROLE_MAP as well"),
        ({"oidc_role_map": "staff=boss"}, "GROUP=ROLE"),
        ({"oidc_role_map": "=admin"}, "GROUP=ROLE"),
    ],
)
def test_wrong_settings_are_one_line_without_the_secret(wrong, says):
    assert load_settings(**GOOD).oidc_roles == {"a=b": Role.ANNOTATOR, "*": Role.OPERATOR}
    with pytest.raises(Invalid) as told:
        load_settings(**{**GOOD, "oidc_client_secret": "geheim", **wrong})
    assert says in str(told.value)
    assert "geheim" not in str(told.value)
