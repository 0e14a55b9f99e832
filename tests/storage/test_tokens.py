"""API tokens: shown once, scoped, ending on time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.orm import Session, sessionmaker

from storage import accounts, tokens
from storage.engine import read_only
from storage.enums import TokenScope
from storage.errors import Conflict, Invalid, NotFound
from storage.models import ApiToken
from tests import factories

DAY = timedelta(days=1)


def test_a_token_leads_to_its_user_and_keeps_its_scopes(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        user, project = factories.make_user(session), factories.make_project(session)
        made = tokens.create_token(session, user, " shop ", ["write", "read", "read"], project=project, lifetime=DAY)
        assert made.plain.startswith("fb_")
        user_id, project_id = user.id, project.id
    with sessions.begin() as session:
        found = tokens.find_token(session, made.plain)
        assert found is not None
        assert (found.user.id, found.project_id, found.name) == (user_id, project_id, "shop")
        assert found.scopes == [TokenScope.READ, TokenScope.WRITE]
        assert made.plain[3:] not in str(vars(found)), "the plain token is stored nowhere"


def test_unknown_expired_revoked_and_disabled_do_not_enter(session: Session) -> None:
    user = factories.make_user(session)
    brief = tokens.create_token(session, user, "a", ["read"], lifetime=DAY)
    lasting = tokens.create_token(session, user, "b", ["read"], lifetime=None)
    assert tokens.find_token(session, brief.plain, now=factories.later(hours=23)) is not None
    assert tokens.find_token(session, brief.plain, now=factories.later(days=1, seconds=1)) is None
    assert tokens.find_token(session, lasting.plain, now=factories.later(days=9999)) is not None
    for wrong in ("", "fb_", lasting.plain + "x", lasting.plain[3:], "fb_\ud800", "fb_" + "x" * 1_000_000):
        assert tokens.find_token(session, wrong) is None
    accounts.disable_user(session, user)
    assert tokens.find_token(session, lasting.plain) is None
    accounts.enable_user(session, user)
    tokens.revoke_token(session, lasting.row)
    assert tokens.find_token(session, lasting.plain) is None


def test_use_is_noted_at_most_once_a_minute_and_not_where_one_only_reads(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        made = tokens.create_token(session, factories.make_user(session), "a", ["read"], lifetime=None)
    start = factories.later()

    def used(seconds: int) -> float:
        with sessions.begin() as session:
            assert tokens.find_token(session, made.plain, now=start + timedelta(seconds=seconds)) is not None
        with sessions.begin() as session:
            noted = session.get_one(ApiToken, made.row.id).last_used_at
            assert noted is not None
            return (noted - start).total_seconds()

    with read_only(sessions) as session:
        found = tokens.find_token(session, made.plain, note_use=False)
        assert found is not None
        assert found.last_used_at is None
    assert [used(0), used(59), used(60), used(61)] == [0, 0, 60, 60]


@pytest.mark.parametrize(
    ("name", "scopes", "lifetime"),
    [("", ["read"], DAY), ("a\x00", ["read"], DAY), ("a", [], DAY), ("a", ["root"], DAY), ("a", ["read"], -DAY)],
)
def test_bad_tokens_are_refused(session: Session, name: str, scopes: list[str], lifetime: timedelta) -> None:
    with pytest.raises(Invalid):
        tokens.create_token(session, factories.make_user(session), name, scopes, lifetime=lifetime)


def test_a_person_has_a_bounded_number_in_force(session: Session) -> None:
    user = factories.make_user(session)
    made = [tokens.create_token(session, user, f"t{n}", ["read"], lifetime=DAY) for n in range(tokens.MAX_LIVE)]
    with pytest.raises(Conflict, match="revoke"):
        tokens.create_token(session, user, "more", ["read"], lifetime=DAY)
    tokens.revoke_token(session, made[0].row)
    tokens.create_token(session, user, "more", ["read"], lifetime=DAY)


def test_people_see_and_reach_their_own_tokens_only(session: Session) -> None:
    ann, bob = factories.make_user(session), factories.make_user(session)
    mine = [tokens.create_token(session, ann, name, ["read"], lifetime=DAY).row for name in ("old", "new")]
    theirs = tokens.create_token(session, bob, "theirs", ["read"], lifetime=DAY).row
    assert tokens.list_tokens(session, ann) == mine[::-1]
    assert tokens.list_tokens(session) == [theirs, *mine[::-1]]
    assert tokens.get_token(session, mine[0].id, ann) == mine[0]
    with pytest.raises(NotFound):
        tokens.get_token(session, theirs.id, ann)
