"""What every handler needs: the settings, the store, and the one way to open a transaction as somebody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.orm import Session, sessionmaker

from feedback_app.policies import Policy
from feedback_app.settings import Settings
from storage.accounts import find_user
from storage.engine import read_only, translate_errors
from storage.errors import NotAllowed
from storage.models import User

SIGN_IN_AGAIN = "you are signed out; reload the page to sign in again"


@dataclass(frozen=True)
class Context:
    """Passed to every handler; made once by `feedback_app.server.create_app`."""

    settings: Settings
    sessions: sessionmaker[Session]

    @contextmanager
    def writing(self, name: str | None, policy: Policy) -> Iterator[tuple[Session, User]]:
        """One transaction that may write, as user `name`; raises `NotAllowed` when unknown or `policy` says no."""
        with translate_errors(), self.sessions.begin() as session:
            yield session, _admit(session, name, policy)

    @contextmanager
    def reading(self, name: str | None, policy: Policy) -> Iterator[tuple[Session, User]]:
        """One transaction that only reads (it takes no write lock), as user `name`; errors as in `writing`."""
        with translate_errors(), read_only(self.sessions) as session:
            yield session, _admit(session, name, policy)


def _admit(session: Session, name: str | None, policy: Policy) -> User:
    user = find_user(session, name) if name else None
    if user is None:
        raise NotAllowed(SIGN_IN_AGAIN)
    policy(user)
    return user
