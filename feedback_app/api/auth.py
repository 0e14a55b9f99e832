"""Who is calling: the bearer token, looked up before anything of the request is read."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass

import anyio.to_thread
from sqlalchemy.orm import Session, sessionmaker
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from feedback_app import policies
from feedback_app.api.errors import refusal, refusal_of
from feedback_app.security import Throttle, signed_in
from storage.engine import read_only, translate_errors
from storage.enums import TokenScope
from storage.errors import FeedbackError, NotAllowed, NotFound
from storage.models import ApiToken, Project, User, utc_now
from storage.tokens import USE_NOTED_EVERY, find_token

# Seconds for which a token that was found counts without another look: so long a revoked one may still be used.
REMEMBERED = 0.5
_CAPACITY = 1_000
_NO_TOKEN = "send a token: Authorization: Bearer fb_…; tokens are made on the account page"  # noqa: S105  no secret
_BAD_TOKEN = "this token is unknown, revoked or expired; make a new one on the account page"  # noqa: S105  no secret


@dataclass(frozen=True)
class Access:
    """What a request may do: as whom, within which scopes, and in which project (None: all of the user's)."""

    token_id: int
    user: User
    scopes: frozenset[str]
    project_id: int | None

    def require(self, scope: TokenScope, policy: policies.Policy) -> None:
        """Raise `NotAllowed` unless both the token and its user may."""
        if scope.value not in self.scopes:
            raise NotAllowed(f"this token may not {scope.value}; make one with the scope '{scope.value}'")
        policy(self.user)

    def admit(self, project: Project) -> Project:
        """The project, unless the token is for another; raises `NotFound` then, as for one that is not there."""
        if self.project_id is not None and project.id != self.project_id:
            raise NotFound(f"this token is for another project than '{project.name}'; leave the project out")
        return project


class Authenticate:
    """Refuses every request without a token in force with 401; `scope["state"]["access"]` is set for the others.

    The description of the API is for signed-in operators too: they read it in the browser.
    """

    def __init__(self, app: ASGIApp, sessions: sessionmaker[Session]) -> None:
        self.app, self.sessions = app, sessions
        self._found: OrderedDict[bytes, tuple[float, Access]] = OrderedDict()
        self._failures = Throttle(limit=60, window=60.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 415 or 429."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            access = await self._access(headers.get("authorization", ""))
            described = access is None and await self._may_read_description(scope)
        except FeedbackError as error:
            await refusal_of(error)(scope, receive, send)
            return
        if access is None and not described:
            await self._refuse(scope, receive, send, "authorization" in headers)
            return
        if scope["method"] == "POST" and headers.get("content-type", "").split(";")[0].strip() != "application/json":
            line = "the body must be JSON; send Content-Type: application/json"
            await refusal(415, line)(scope, receive, send)
            return
        scope.setdefault("state", {})["access"] = access
        await self.app(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, tried: bool) -> None:
        address = (scope.get("client") or ("",))[0]
        wait = self._failures.wait((address,)) if tried else 0.0
        if wait:
            line = "too many unknown tokens from your address; wait, then send a valid one"
            await refusal(429, line, {"retry-after": str(int(wait) + 1)})(scope, receive, send)
            return
        if tried:
            self._failures.failed((address,))
        answer = refusal(401, _BAD_TOKEN if tried else _NO_TOKEN, {"www-authenticate": "Bearer"})
        await answer(scope, receive, send)

    async def _access(self, header: str) -> Access | None:
        kind, _, plain = header.partition(" ")
        if kind.lower() != "bearer" or not plain:
            return None
        digest = hashlib.sha256(plain.encode("utf-8", "surrogatepass")).digest()
        until, access = self._found.get(digest, (0.0, None))
        if access is not None and time.monotonic() < until:
            return access
        access = await anyio.to_thread.run_sync(self._look_up, plain.strip())
        if access is None:
            self._found.pop(digest, None)
            return None
        self._found[digest] = (time.monotonic() + REMEMBERED, access)
        while len(self._found) > _CAPACITY:
            self._found.popitem(last=False)
        return access

    def _look_up(self, plain: str) -> Access | None:
        with translate_errors(), read_only(self.sessions) as session:
            token = find_token(session, plain, note_use=False)
            access = _access_of(token) if token else None
        if token is not None and (token.last_used_at is None or utc_now() - token.last_used_at >= USE_NOTED_EVERY):
            with translate_errors(), self.sessions.begin() as session:
                find_token(session, plain)
        return access

    async def _may_read_description(self, scope: Scope) -> bool:
        if not scope["path"].endswith("/openapi.json"):
            return False
        user = await signed_in(self.sessions, HTTPConnection(scope))
        return user is not None and user.role in policies.OPERATORS


def _access_of(token: ApiToken) -> Access:
    return Access(token.id, token.user, frozenset(token.scopes), token.project_id)
