"""How a request reaches the store: one transaction each, as the token's user, within its scopes and project."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Header, Query, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from feedback_app import policies
from feedback_app.api.auth import Access
from feedback_app.api.schemas import MAX_ID, Name
from feedback_app.handlers.context import Context
from storage import members
from storage.engine import read_only, translate_errors
from storage.enums import TokenScope
from storage.errors import Invalid
from storage.idempotency import MAX_KEY, begin_request, keep_answer
from storage.models import Project

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=MAX_KEY,
        # Not what a browser or proxy could mangle; a UUID is the usual choice.
        pattern=r"^[\x21-\x7e]+$",
        description="The same key with the same request gives the same answer again, for a week.",
    ),
]
ProjectAsked = Annotated[Name | None, Query(description="May be left out when the token is for one project.")]
After = Annotated[int, Query(ge=0, le=MAX_ID, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=500)]
REPLAYED = "idempotency-replayed"


def access_of(request: Request) -> Access:
    """Who is calling; `Authenticate` has let them in."""
    access = request.state.access
    if not isinstance(access, Access):  # an operator's browser, which may read the description only
        raise Invalid("a signed-in browser may read /api/v1/openapi.json only; send a token")
    return access


@contextmanager
def reading(ctx: Context, access: Access, policy: policies.Policy) -> Iterator[Session]:
    """A transaction that only reads; raises `NotAllowed` first."""
    access.require(TokenScope.READ, policy)
    with translate_errors(), read_only(ctx.sessions) as session:
        yield session


def pick(session: Session, access: Access, name: str | None) -> Project:
    """The project asked for, or the token's own, or the only one its user may enter."""
    if name is not None:
        return access.admit(members.get_project(session, access.user, name))
    if access.project_id is not None:
        own = session.get_one(Project, access.project_id)
        return members.get_project(session, access.user, own.name)
    entered = members.list_projects(session, access.user)
    if len(entered) != 1:
        raise Invalid("say which project; see: GET /api/v1/projects")
    return entered[0]


def digest(request: Request, body: BaseModel) -> str:
    """What a request is, for its idempotency key: where it goes and what it says, not how that is spaced."""
    said = f"{request.method} {request.url.path}\n{body.model_dump_json()}"
    return hashlib.sha256(said.encode()).hexdigest()


def writing(
    ctx: Context,
    request: Request,
    key: str | None,
    body: BaseModel,
    policy: policies.Policy,
    work: Callable[[Session, Access], BaseModel],
) -> Response:
    """Do `work` in one transaction, or give the answer it had when it was asked with this `key` before."""
    access = access_of(request)
    access.require(TokenScope.WRITE, policy)
    with translate_errors(), ctx.sessions.begin() as session:
        if key is not None:
            kept = begin_request(session, access.token_id, key, digest(request, body))
            if kept is not None:
                return JSONResponse(kept.response, kept.status, {REPLAYED: "true"})
        answer: dict[str, Any] = work(session, access).model_dump(mode="json")
        if key is not None:
            keep_answer(session, access.token_id, key, 200, answer)
    return JSONResponse(answer)
