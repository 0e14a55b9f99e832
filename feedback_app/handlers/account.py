"""Signing in and out, one-time links, and changing one's own password."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from storage import accounts, audit
from storage.engine import read_only, translate_errors
from storage.enums import LinkPurpose, Role
from storage.errors import NotAllowed
from storage.models import OneTimeLink, User


class Credentials(NamedTuple):
    """What the store knows of a name: the hash to compare with; None when nobody can sign in under it."""

    password_hash: str | None


class Entry(NamedTuple):
    """A session that was just opened."""

    token: str
    role: Role
    choose_password: bool  # the link was an invitation or a reset


def credentials(ctx: Context, name: str) -> Credentials:
    """The password hash of `name`; None when there is no such user, no password, or the user is disabled."""
    with translate_errors(), read_only(ctx.sessions) as session:
        user = accounts.find_user(session, name)
        return Credentials(user.password_hash if user and user.disabled_at is None else None)


def enter(ctx: Context, name: str) -> Entry:
    """Open a session for `name`, whose password was right a moment ago; raises `NotAllowed` when disabled since."""
    with ctx.writing(name, policies.use_account) as (session, user):
        token = accounts.open_session(session, user, timedelta(days=ctx.settings.session_days))
        audit.record(session, user, "sign in", f"user {user.name}")
        return Entry(token, user.role, choose_password=False)


def enter_by_link(ctx: Context, token: str) -> Entry:
    """Redeem a one-time link and open a session; raises `Invalid` when it is used, expired or its user disabled.

    A reset forgets the old password and ends the sessions that it opened.
    """
    with translate_errors(), ctx.sessions.begin() as session:
        user = accounts.redeem_link(session, token)
        purpose = _newest_used(session, user)
        if purpose is LinkPurpose.RESET:
            accounts.close_sessions_of(session, user)
            user.password_hash = None
        opened = accounts.open_session(session, user, timedelta(days=ctx.settings.session_days))
        audit.record(session, user, "sign in by link", f"user {user.name}")
        return Entry(opened, user.role, choose_password=purpose in (LinkPurpose.INVITE, LinkPurpose.RESET))


def leave(ctx: Context, token: str) -> None:
    """End the session of a cookie; an unknown one is no error."""
    with translate_errors(), ctx.sessions.begin() as session:
        accounts.close_session(session, token)


def own_password_hash(ctx: Context, name: str) -> str | None:
    """The present hash of the signed-in user; None when no password was chosen yet."""
    with ctx.reading(name, policies.use_account) as (_, user):
        return user.password_hash


def change_password(ctx: Context, name: str, previous: str | None, password_hash: str) -> Entry:
    """Store a new hash, end every other session, and open a fresh one.

    `previous` is the hash that the current password was checked against: raises `NotAllowed` when it changed since.
    """
    with ctx.writing(name, policies.use_account) as (session, user):
        _same(user, previous)
        accounts.set_password_hash(session, user, password_hash)
        accounts.close_sessions_of(session, user)
        token = accounts.open_session(session, user, timedelta(days=ctx.settings.session_days))
        audit.record(session, user, "change password", f"user {user.name}")
        return Entry(token, user.role, choose_password=False)


def _newest_used(session: Session, user: User) -> LinkPurpose | None:
    # The link that was redeemed a moment ago, in this transaction.
    query = select(OneTimeLink.purpose).where(OneTimeLink.user_id == user.id, OneTimeLink.used_at.is_not(None))
    return session.scalar(query.order_by(OneTimeLink.used_at.desc(), OneTimeLink.id.desc()).limit(1))


def _same(user: User, previous: str | None) -> None:
    if user.password_hash != previous:
        raise NotAllowed("the password was changed in the meantime; sign in again")
