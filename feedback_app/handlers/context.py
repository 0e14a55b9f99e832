"""What every handler needs: the settings, the store, and the one way to open a transaction as somebody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.orm import Session, sessionmaker

from feedback_app.policies import Policy
from feedback_app.settings import Settings
from storage.accounts import find_user
from storage.engine import read_only, translate_errors
from storage.errors import NotAllowed
from storage.models import User

SIGN_IN_AGAIN = "you are signed out; reload the page to sign in again"
T = TypeVar("T")
_shared: ContextVar[Session | None] = ContextVar("shared", default=None)


class DoAlone(BaseException):
    """Something inside a shared transaction failed: nothing of it was kept, and each call is to be done again alone.

    No `Exception`: the handler that would explain its cause must not do so before it stands on its own.
    """


@dataclass(frozen=True)
class Context:
    """Passed to every handler; made once by `feedback_app.server.create_app`."""

    settings: Settings
    sessions: sessionmaker[Session]

    @contextmanager
    def writing(self, name: str | None, policy: Policy) -> Iterator[tuple[Session, User]]:
        """One transaction that may write, as user `name`; raises `NotAllowed` when unknown or `policy` says no.

        Inside `together` it is a part of that transaction.
        """
        shared = _shared.get()
        if shared is None:
            with translate_errors(), self.sessions.begin() as session:
                yield session, _admit(session, name, policy)
            return
        try:
            yield shared, _admit(shared, name, policy)
            shared.flush()
        except Exception as error:
            raise DoAlone from error

    def together(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Do calls of handlers in one transaction; what they return counts once this does.

        Raises `DoAlone`, with nothing kept, when one of them fails in the store.
        """
        with translate_errors(), self.sessions.begin() as session:
            token = _shared.set(session)
            try:
                return [call() for call in calls]
            finally:
                _shared.reset(token)

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
