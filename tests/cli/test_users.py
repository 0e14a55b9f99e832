"""`feedback-app user`: a way in for people, and out."""

import io

import pytest
from sqlalchemy.orm import Session, sessionmaker

from feedback_app.security import password_matches
from storage.accounts import find_user, open_session, redeem_link, session_user
from storage.audit import list_events
from storage.enums import Role
from tests import factories
from tests.cli.conftest import Cli


def _token(link: str) -> str:
    return link.rpartition("/")[2]


def test_a_new_person_gets_a_link_that_signs_in_once(cli: Cli, store: sessionmaker[Session]) -> None:
    added = cli("user", "add", "anna", "--role", "operator", "--json").json
    assert added["link"].startswith("http://127.0.0.1:7860/login/link/")
    with store.begin() as session:
        assert redeem_link(session, _token(added["link"])).role is Role.OPERATOR
    assert cli("user", "list", "--json").json["users"][0]["name"] == "anna"
    with store.begin() as session:
        assert [event.action for event in list_events(session)] == ["user.add"]


def test_a_name_is_taken_once(cli: Cli) -> None:
    assert cli("user", "add", "anna").code == 0
    again = cli("user", "add", "anna")
    assert (again.code, "taken" in again.error) == (1, True)


def test_passwd_sets_a_password_from_standard_input_and_ends_sessions(
    cli: Cli, store: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.begin() as session:
        cookie = factories.make_login(session, factories.make_user(session, "anna"))
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))
    assert cli("user", "passwd", "anna", "--stdin").code == 0
    with store.begin() as session:
        user = find_user(session, "anna")
        assert user is not None
        assert password_matches(user.password_hash, "correct horse battery")
        assert session_user(session, cookie) is None


def test_a_short_password_is_refused_and_the_old_one_kept(
    cli: Cli, store: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("user", "add", "anna")
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    ended = cli("user", "passwd", "anna", "--stdin")
    assert (ended.code, "characters" in ended.error) == (1, True)
    with store.begin() as session:
        user = find_user(session, "anna")
        assert user is not None
        assert user.password_hash is None


def test_disable_ends_sessions_and_enable_lets_in_again(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        user = factories.make_user(session, "anna")
        cookie = factories.make_login(session, user)
    assert cli("user", "disable", "anna", "--json").json == {"user": "anna", "disabled": True}
    with store.begin() as session:
        assert session_user(session, cookie) is None
    refused = cli("user", "passwd", "anna")
    assert (refused.code, "user enable anna" in refused.error) == (1, True)
    assert cli("user", "enable", "anna").code == 0
    link = cli("user", "passwd", "anna", "--json").json["link"]
    with store.begin() as session:
        cookie = open_session(session, redeem_link(session, _token(link)), factories.later(days=1) - factories.later())
        assert session_user(session, cookie) is not None


@pytest.mark.parametrize("command", ["passwd", "disable", "enable"])
def test_an_unknown_person_is_said_so(cli: Cli, command: str) -> None:
    ended = cli("user", command, "nobody")
    assert (ended.code, "no user 'nobody'" in ended.error) == (1, True)
