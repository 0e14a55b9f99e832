"""Passwords, one-time links, sessions."""

from __future__ import annotations

import pytest

from feedback_app.security import COOKIE, MIN_PASSWORD, Throttle, hash_password, password_matches, safe_next
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
    assert again.status_code == 410
    assert "set-cookie" not in again.headers


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
