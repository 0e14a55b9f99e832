"""API tokens: a program's key to the HTTP API. The plain token is shown once; the store keeps its SHA-256 only."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session, joinedload

from storage.accounts import clean_name
from storage.enums import TokenScope
from storage.errors import Conflict, Invalid, NotFound
from storage.models import ApiToken, Project, User, utc_now

PREFIX = "fb_"
MAX_PLAIN = 200
# Enough for a person with many programs; a list somebody can still read through.
MAX_LIVE = 50
# `last_used_at` is for people who look for forgotten tokens: a minute is exact enough, and saves a write per request.
USE_NOTED_EVERY = timedelta(minutes=1)


class NewToken(NamedTuple):
    """A token that was just made; `plain` can never be read again."""

    row: ApiToken
    plain: str


def create_token(
    session: Session,
    user: User,
    name: str,
    scopes: Collection[TokenScope | str],
    *,
    project: Project | None = None,
    lifetime: timedelta | None,
    now: datetime | None = None,
) -> NewToken:
    """A new token of `user`, for every project of theirs or for one; `lifetime` None: until it is revoked.

    Raises `Invalid` for an empty name, no or unknown scopes or a lifetime that is over, and `Conflict` when the
    person has `MAX_LIVE` tokens in force.
    """
    moment = now or utc_now()
    label = clean_name(name, "token's name")
    wanted = _scopes(scopes)
    if lifetime is not None and lifetime <= timedelta(0):
        raise Invalid("the token's lifetime must be longer than nothing")
    live = select(func.count()).select_from(ApiToken).where(ApiToken.user_id == user.id, *_in_force(moment))
    if (session.scalar(live) or 0) >= MAX_LIVE:
        raise Conflict(f"there are {MAX_LIVE} tokens in force already; revoke one that is not used any more")
    plain = PREFIX + secrets.token_urlsafe(32)
    row = ApiToken(
        user_id=user.id,
        user=user,
        project_id=project.id if project else None,
        name=label,
        token_hash=_digest(plain),
        scopes=wanted,
        created_at=moment,
        expires_at=moment + lifetime if lifetime is not None else None,
    )
    session.add(row)
    session.flush()
    return NewToken(row, plain)


def find_token(session: Session, plain: str, *, now: datetime | None = None, note_use: bool = True) -> ApiToken | None:
    """The token in force behind `plain`, with its user loaded; None when unknown, ended or of a disabled user.

    Notes the use, at most once a minute. In a transaction that only reads, call it with `note_use=False`.
    """
    if not plain.startswith(PREFIX) or len(plain) > MAX_PLAIN:
        return None
    moment = now or utc_now()
    row = session.scalar(
        select(ApiToken)
        .join(ApiToken.user)
        .options(joinedload(ApiToken.user))
        .where(ApiToken.token_hash == _digest(plain), User.disabled_at.is_(None), *_in_force(moment))
    )
    if row is not None and note_use and (row.last_used_at is None or moment - row.last_used_at >= USE_NOTED_EVERY):
        session.execute(
            update(ApiToken)
            .where(ApiToken.id == row.id)
            .values(last_used_at=moment)
            .execution_options(synchronize_session="evaluate")
        )
    return row


def get_token(session: Session, token_id: int, user: User) -> ApiToken:
    """A token of `user` by its number; raises `NotFound` for another person's as for one that never was."""
    row = session.get(ApiToken, token_id)
    if row is None or row.user_id != user.id:
        raise NotFound(f"there is no token {token_id} of {user.name}")
    return row


def list_tokens(session: Session, user: User | None = None) -> list[ApiToken]:
    """The tokens of `user` (None: everybody's), newest first, the revoked and expired ones included."""
    query = select(ApiToken).options(joinedload(ApiToken.user)).order_by(ApiToken.id.desc())
    return list(session.scalars(query if user is None else query.where(ApiToken.user_id == user.id)))


def revoke_token(session: Session, token: ApiToken, *, now: datetime | None = None) -> None:
    """End a token at once and for good; ending it again changes nothing."""
    token.revoked_at = token.revoked_at or now or utc_now()
    session.flush()


def token_state(token: ApiToken, now: datetime | None = None) -> str:
    """`in force`, `revoked` or `expired`."""
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and token.expires_at <= (now or utc_now()) else "in force"


def _scopes(given: Collection[TokenScope | str]) -> list[str]:
    try:
        wanted = {TokenScope(scope) for scope in given}
    except ValueError as error:
        raise Invalid(f"unknown scope; choose from: {', '.join(TokenScope)}") from error
    if not wanted:
        raise Invalid(f"a token needs at least one scope; choose from: {', '.join(TokenScope)}")
    return [scope.value for scope in TokenScope if scope in wanted]


def _in_force(moment: datetime) -> tuple[ColumnElement[bool], ...]:
    return ApiToken.revoked_at.is_(None), or_(ApiToken.expires_at.is_(None), ApiToken.expires_at > moment)


def _digest(plain: str) -> str:
    # 256 random bits: a plain hash is enough, nobody can guess their way back.
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()
