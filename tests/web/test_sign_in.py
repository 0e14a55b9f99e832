"""Passwords, one-time links, sessions."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from starlette.testclient import TestClient

from feedback_app import security
from feedback_app.security import (
    COOKIE,
    MIN_PASSWORD,
    Throttle,
    hash_password,
    network_of,
    password_matches,
    safe_next,
)
from storage import accounts
from storage.enums import LinkPurpose, Role
from storage.errors import Invalid
from tests import factories
from tests.web.conftest import PASSWORD


def _sign_in(client, name, password=PASSWORD, **more):
    return client.post("/login", data={"name": name, "password": password, **more})


def _link(house, name, purpose):
    with house.sessions.begin() as session:
        return factories.make_link(session, accounts.get_user(session, name), purpose)


@pytest.mark.parametrize(("role", "page"), [(Role.ANNOTATOR, "/annotate/"), (Role.OPERATOR, "/operate/")])
def test_the_right_password_leads_to_the_page_of_the_role(house, client, role, page):
    answer = _sign_in(client, house.person(role, password=True))
    assert (answer.status_code, answer.headers["location"]) == (303, page)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert client.get("/").headers["location"] == page


def test_wrong_password_unknown_name_and_disabled_user_look_the_same(house, client):
    known, disabled = house.person(password=True), house.person(password=True)
    with house.sessions.begin() as session:
        accounts.disable_user(session, accounts.get_user(session, disabled))
    answers = [_sign_in(client, known, "wrong"), _sign_in(client, disabled), _sign_in(client, "nobody at all")]
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert (
        len(
            {
                answer.text.replace(name, "")
                for answer, name in zip(answers, (known, disabled, "nobody at all"), strict=True)
            }
        )
        == 1
    )
    assert COOKIE not in client.cookies


def test_a_user_without_a_password_cannot_sign_in_with_an_empty_one(house, client):
    assert _sign_in(client, house.person(), "").status_code == 401


def test_five_failures_make_an_account_wait_and_others_not(house, client):
    name, other = house.person(password=True), house.person(password=True)
    for _ in range(5):
        assert _sign_in(client, name, "wrong").status_code == 401
    refused = _sign_in(client, name)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 200
    assert _sign_in(client, name.upper()).status_code == 429
    assert _sign_in(client, other).status_code == 303


def test_a_stranger_elsewhere_locks_nobody_out(house):
    name = house.person(password=True)
    stranger, owner = (
        TestClient(house.app, base_url="http://testserver", follow_redirects=False, client=(address, 1))
        for address in ("203.0.113.5", "198.51.100.7")
    )
    codes = [_sign_in(stranger, name, "wrong").status_code for _ in range(8)]
    assert codes == [401] * 5 + [429] * 3
    assert _sign_in(stranger, name).status_code == 429, "not even with the right one: they may have guessed it"
    assert _sign_in(owner, name).status_code == 303


def test_guessing_at_many_accounts_from_one_address_has_to_wait(house):
    guesser = TestClient(house.app, base_url="http://testserver", client=("203.0.113.6", 1))
    codes = [_sign_in(guesser, f"guess {number}", "wrong").status_code for number in range(51)]
    assert codes == [401] * 50 + [429]


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::2", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_is_what_one_customer_has(host, network):
    assert network_of(host) == network


def test_twenty_sign_ins_at_once_keep_nobody_else_waiting(address, monkeypatch):
    """The hashing is held up for as long as the test likes; everything else goes on."""
    go_on, hashing = threading.Event(), threading.Semaphore(0)

    def slow(_hash, _password):
        hashing.release()
        assert go_on.wait(60)
        return False

    monkeypatch.setattr(security, "password_matches", slow)
    with ThreadPoolExecutor(20) as pool:
        given = [{"name": f"slow {number}", "password": "wrong"} for number in range(20)]
        waiting = [pool.submit(httpx.post, f"{address}/login", data=data, timeout=90) for data in given]
        try:
            assert hashing.acquire(timeout=60)
            for _ in range(5):
                assert httpx.get(f"{address}/healthz", timeout=30).status_code == 200
            assert httpx.get(f"{address}/login", timeout=30).status_code == 200
            assert not any(one.done() for one in waiting)
        finally:
            go_on.set()
        assert {one.result().status_code for one in waiting} == {401}


@pytest.mark.parametrize("name", ["x" * 2001, "x" * 1_000_000])
def test_absurd_names_and_passwords_are_refused_without_hashing(house, client, monkeypatch, name):
    monkeypatch.setattr(security, "password_matches", lambda *_: pytest.fail("it was hashed"))
    for given in ({"name": name, "password": "x"}, {"name": "x", "password": name}):
        assert client.post("/login", data=given).status_code in (413, 422)


@pytest.mark.parametrize(
    "name", ["a\x00b", "a\r\nset-cookie: x=1", "\u202egnp", "דנה", "%00", "<script>alert(1)</script>"]
)
def test_strange_names_are_just_names_that_nobody_has(house, client, name):
    answer = client.post("/login", data={"name": name, "password": "x"})
    assert answer.status_code == 401
    assert "x=1" not in answer.headers.get("set-cookie", "")
    assert "<script" not in answer.text


def test_bytes_that_are_no_text_are_no_fault(house):
    client = TestClient(house.app, base_url="http://testserver", client=("203.0.113.7", 1))
    head = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/login", content=b"name=%ED%A0%80&password=%FF", headers=head).status_code in (401, 422)
    assert client.post("/login", content=b"\xff\xfe=&&&=%", headers=head).status_code in (401, 422)


@pytest.mark.parametrize("path", ["/login", "/set-password", "/logout"])
def test_another_site_cannot_post_our_forms(house, as_user, path):
    name = house.person(password=True)
    here = as_user(name)
    given = {"name": name, "password": PASSWORD, "again": PASSWORD, "current": PASSWORD}
    for sent_by in ({"sec-fetch-site": "cross-site"}, {"origin": "null"}, {"origin": "https://evil.example"}):
        assert here.post(path, data=given, headers=sent_by).status_code == 403
    assert here.get("/").headers["location"] == "/annotate/"


def test_a_name_written_from_right_to_left_turns_nothing_around_it(house, as_user):
    with house.sessions.begin() as session:
        factories.make_user(session, "דנה")
    assert "“\u2068דנה\u2069”" in as_user("דנה").get("/set-password").text


def test_throttle_opens_again_and_remembers_a_bounded_number():
    now = [0.0]
    throttle = Throttle(limit=2, window=10, capacity=3, clock=lambda: now[0])
    throttle.failed(("a",))
    now[0] = 4
    throttle.failed(("a",))
    assert throttle.wait(("a",)) == 6
    now[0] = 10.5
    assert throttle.wait(("a",)) == 0
    for key in "bcde":
        throttle.failed((key,))
    assert len(throttle._failures) == 3


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        ("/operate/?run=3", "/operate/?run=3"),
        ("//evil.example", None),
        ("/\\evil.example", None),
        ("https://evil.example", None),
        ("/ok\nSet-Cookie: x", None),
        ("", None),
        (None, None),
    ],
)
def test_after_sign_in_one_stays_on_this_site(house, client, wanted, kept):
    assert safe_next(wanted) == kept


def test_next_is_followed(house, client):
    answer = _sign_in(client, house.person(password=True), next="/annotate/?project=x")
    assert answer.headers["location"] == "/annotate/?project=x"


def test_opening_a_link_does_not_use_it_and_it_works_once(house, client):
    name = house.person()
    token = _link(house, name, LinkPurpose.LOGIN)
    for _ in range(2):
        assert client.get(f"/login/link/{token}").status_code == 200
    used = client.post(f"/login/link/{token}")
    assert (used.status_code, used.headers["location"]) == (303, "/annotate/")
    assert client.get("/").headers["location"] == "/annotate/"
    client.cookies.clear()
    again = client.post(f"/login/link/{token}")
    assert (again.status_code, "was used before" in again.text) == (410, True)
    assert "set-cookie" not in again.headers


def test_a_link_that_expired_or_was_cut_off_says_so(house, client):
    name = house.person()
    with house.sessions.begin() as session:
        user = accounts.get_user(session, name)
        token = accounts.issue_link(
            session, user, LinkPurpose.INVITE, timedelta(hours=1), now=factories.later(hours=-2)
        )
    expired, cut = client.post(f"/login/link/{token}"), client.post(f"/login/link/{token[:-3]}")
    assert (expired.status_code, cut.status_code) == (410, 410)
    assert "This link has expired; ask an operator for a new one." in expired.text
    assert "This link is not complete" in cut.text


def test_an_invited_person_chooses_a_password_and_signs_in_with_it(house, client):
    name = house.person()
    answer = client.post(f"/login/link/{_link(house, name, LinkPurpose.INVITE)}")
    assert answer.headers["location"] == "/set-password"
    assert "Current password" not in client.get("/set-password").text
    differing = client.post("/set-password", data={"password": PASSWORD, "again": PASSWORD + "x"})
    short = client.post("/set-password", data={"password": "a" * (MIN_PASSWORD - 1), "again": "a" * (MIN_PASSWORD - 1)})
    assert (differing.status_code, short.status_code) == (422, 422)
    assert client.post("/set-password", data={"password": PASSWORD, "again": PASSWORD}).status_code == 303
    client.cookies.clear()
    assert _sign_in(client, name).status_code == 303


def test_a_reset_link_ends_the_old_password_and_the_old_sessions(house, client, as_user):
    name = house.person(password=True)
    elsewhere = as_user(name)
    client.post(f"/login/link/{_link(house, name, LinkPurpose.RESET)}")
    assert elsewhere.get("/").headers["location"] == "/login"
    client.cookies.clear()
    assert _sign_in(client, name).status_code == 401


def test_changing_a_password_needs_the_current_one_and_signs_out_elsewhere(house, as_user):
    name = house.person(password=True)
    here, elsewhere = as_user(name), as_user(name)
    new = {"password": "another good one", "again": "another good one"}
    assert here.post("/set-password", data=new | {"current": "wrong"}).status_code == 401
    assert here.post("/set-password", data=new | {"current": PASSWORD}).status_code == 303
    assert here.get("/").headers["location"] == "/annotate/"
    assert elsewhere.get("/").headers["location"] == "/login"


def test_sign_out_ends_the_session_on_the_server_and_only_by_post(house, as_user, client):
    name = house.person()
    here = as_user(name)
    token = here.cookies[COOKIE]
    assert here.get("/logout").status_code == 200
    assert here.get("/").headers["location"] == "/annotate/"
    assert here.post("/logout").headers["location"] == "/login"
    client.cookies.set(COOKIE, token)
    assert client.get("/").headers["location"] == "/login"


def test_a_disabled_user_is_out_at_once(house, as_user):
    name = house.person()
    here = as_user(name)
    assert here.get("/annotate/", headers={"accept": "text/html"}).status_code == 200
    with house.sessions.begin() as session:
        accounts.disable_user(session, accounts.get_user(session, name))
    assert here.get("/annotate/config").status_code == 401


def test_hashes():
    hashed = hash_password(PASSWORD)
    assert password_matches(hashed, PASSWORD)
    assert not password_matches(hashed, PASSWORD + " ")
    assert not password_matches(None, PASSWORD)
    assert not password_matches("not a hash", PASSWORD)
    with pytest.raises(Invalid):
        hash_password("short")


def test_the_database_holds_neither_password_nor_tokens(house, as_user):
    name = house.person(password=True)
    token = as_user(name).cookies[COOKIE]
    link = _link(house, name, LinkPurpose.LOGIN)
    files = [path for path in house.settings.home.glob("feedback.db*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    for secret in (token, link, PASSWORD):
        assert secret.encode() not in content
