"""The audit log: newest first, of a project or of all."""

from __future__ import annotations

from sqlalchemy.orm import Session

from storage import audit
from tests import factories


def test_events_are_listed_newest_first_and_by_project(session: Session) -> None:
    user = factories.make_user(session)
    one, other = factories.make_project(session), factories.make_project(session)
    made = [
        audit.record(session, who, "test.act", "x" * 200, where, n=n)
        for n, (who, where) in enumerate([(user, one), (None, other), (user, None), (None, one)])
    ]
    assert audit.list_events(session) == made[::-1]
    assert audit.list_events(session, one) == [made[3], made[0]]
    assert audit.list_events(session, limit=1) == [made[3]]
    assert (made[0].user_id, made[1].user_id, made[0].detail, len(made[0].subject)) == (user.id, None, {"n": 0}, 120)
