"""People, their sessions and one-time links."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from storage import accounts
from storage.enums import LinkPurpose, Role
from storage.errors import Conflict, Invalid, NotFound
from storage.models import OneTimeLink, User, UserSession
from tests import factories

DAY = timedelta(days=1)


def test_a_name_is_taken_once(session: Session) -> None:
    accounts.create_user(session, "  Ann ", Role.ANNOTATOR)
    with pytest.raises(Conflict, match="'Ann' is taken"):
        accounts.create_user(session, "Ann", Role.ADMIN)
    assert accounts.get_user(session, "Ann").role is Role.ANNOTATOR
    with pytest.raises(NotFound, match="no user 'Bob'"):
        accounts.get_user(session, "Bob")


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "x" * 121, "nul\x00"])
def test_bad_names_are_refused(session: Session, name: str) -> None:
    with pytest.raises(Invalid):
        accounts.create_user(session, name, Role.ANNOTATOR)


def test_a_session_lasts_its_lifetime_and_no_longer(session: Session) -> None:
    user = factories.make_user(session)
    token = accounts.open_session(session, user, DAY)
    assert accounts.session_user(session, token) == user
    assert accounts.session_user(session, token, now=factories.later(days=1, seconds=1)) is None
    assert accounts.session_user(session, token + "x") is None
    accounts.close_session(session, token)
    assert accounts.session_user(session, token) is None


def test_disabling_ends_every_session_and_link(session: Session) -> None:
    user, other = factories.make_user(session), factories.make_user(session)
    tokens = [accounts.open_session(session, user, DAY) for _ in range(2)]
    kept = accounts.open_session(session, other, DAY)
    link = accounts.issue_link(session, user, LinkPurpose.RESET, DAY)
    accounts.disable_user(session, user)
    assert [accounts.session_user(session, token) for token in tokens] == [None, None]
    assert accounts.session_user(session, kept) == other
    with pytest.raises(Invalid, match="new one"):
        accounts.redeem_link(session, link)
    accounts.enable_user(session, user)
    assert accounts.session_user(session, tokens[0]) is None, "an ended session stays ended"
    assert accounts.session_user(session, accounts.open_session(session, user, DAY)) == user


def test_expired_sessions_are_swept_at_the_next_login(session: Session) -> None:
    user = factories.make_user(session)
    accounts.open_session(session, user, DAY, now=factories.later(days=-3))
    accounts.open_session(session, user, DAY)
    assert len(session.scalars(select(UserSession)).all()) == 1


def test_a_link_works_once(session: Session) -> None:
    user = factories.make_user(session)
    token = accounts.issue_link(session, user, LinkPurpose.INVITE, DAY)
    found = accounts.find_link(session, token)
    assert found is not None
    assert found.purpose is LinkPurpose.INVITE
    assert accounts.redeem_link(session, token) == user
    assert accounts.find_link(session, token) is None
    for _ in range(2):
        with pytest.raises(Invalid, match="used before"):
            accounts.redeem_link(session, token)
    with pytest.raises(Invalid, match="not complete"):
        accounts.redeem_link(session, token[:-1])


def test_an_expired_or_replaced_link_is_refused(session: Session) -> None:
    user = factories.make_user(session)
    old = accounts.issue_link(session, user, LinkPurpose.LOGIN, DAY)
    new = accounts.issue_link(session, user, LinkPurpose.LOGIN, DAY)
    with pytest.raises(Invalid, match="newer one"):
        accounts.redeem_link(session, old)
    with pytest.raises(Invalid, match="expired"):
        accounts.redeem_link(session, new, now=factories.later(days=2))
    assert accounts.redeem_link(session, new) == user


def test_of_many_that_redeem_at_once_one_wins(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        token = accounts.issue_link(session, factories.make_user(session), LinkPurpose.LOGIN, DAY)
    start = threading.Barrier(6)
    outcomes: list[str] = []

    def redeem() -> None:
        start.wait()
        try:
            with sessions.begin() as session:
                accounts.redeem_link(session, token)
            outcomes.append("in")
        except Invalid:
            outcomes.append("refused")

    threads = [threading.Thread(target=redeem) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["in"] + ["refused"] * 5


def test_where_somebody_is_signed_in_is_listed_and_ended_one_by_one(session: Session) -> None:
    user, other = factories.make_user(session), factories.make_user(session)
    old = accounts.open_session(session, user, DAY, user_agent="Fire\x00fox" * 90, now=factories.later(hours=-2))
    new = accounts.open_session(session, user, DAY, address="10.0.0.7")
    accounts.open_session(session, user, DAY, now=factories.later(days=-2, hours=-1))
    theirs = accounts.open_session(session, other, DAY)
    first, second = accounts.list_sessions(session, user)
    assert (first.address, second.user_agent[:14], len(second.user_agent)) == ("10.0.0.7", "FirefoxFirefox", 300)
    accounts.end_session(session, user, second.id)
    assert [accounts.session_user(session, token) for token in (old, new, theirs)] == [None, user, other]
    for who, number in ((user, second.id), (other, first.id)):
        with pytest.raises(NotFound):
            accounts.end_session(session, who, number)


def test_being_seen_is_noted_at_most_once_a_minute(session: Session) -> None:
    user = factories.make_user(session)
    start = factories.later()
    accounts.open_session(session, user, DAY, now=start)
    (row,) = accounts.list_sessions(session, user)
    for seconds, noted in ((59, 0), (60, 60), (119, 60), (120, 120)):
        accounts.note_seen(session, row.id, now=start + timedelta(seconds=seconds))
        session.refresh(row)
        assert row.last_seen_at == start + timedelta(seconds=noted)


def test_somebody_a_provider_vouches_for_takes_over_no_name(session: Session) -> None:
    anna = factories.make_user(session, "anna", Role.ADMIN)
    made = accounts.create_from_identity(session, "https://id", "1", " anna\u202e ", Role.ANNOTATOR)
    also = accounts.create_from_identity(session, "https://id", "2", "anna", Role.OPERATOR)
    assert [user.name for user in (made, also)] == ["anna-2", "anna-3"]
    assert accounts.find_identity(session, "https://id", "1") == made
    assert accounts.find_identity(session, "https://other", "1") is None
    assert [accounts.has_identity(session, user) for user in (anna, made)] == [False, True]
    again = accounts.create_from_identity(session, "https://id", "1", "anna", Role.ADMIN)
    assert again == made, "the second of two at the same moment finds the first"


@pytest.mark.parametrize("name", ["a\x00b", "\ud800", "x\n"])
def test_a_name_that_nobody_can_have_is_not_looked_for(session: Session, name: str) -> None:
    assert accounts.find_user(session, name) is None


def test_no_token_stands_in_the_database(session: Session) -> None:
    user = factories.make_user(session)
    tokens = [factories.make_link(session, user), factories.make_login(session, user)]
    stored = [*session.scalars(select(OneTimeLink.token_hash)), *session.scalars(select(UserSession.token_hash))]
    assert len(stored) == 2
    assert not set(tokens) & set(stored)


def test_passwords_are_replaced(session: Session) -> None:
    user = factories.make_user(session, password_hash="old")
    accounts.set_password_hash(session, user, "new")
    session.expire_all()
    assert session.get_one(User, user.id).password_hash == "new"
    assert [row.name for row in accounts.list_users(session)] == [user.name]
