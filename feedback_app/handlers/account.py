"""Signing in and out, one-time links, and one's own account: password, language, sessions, API tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from feedback_app.i18n import LANGUAGES
from storage import accounts, audit, members, tokens
from storage.engine import read_only, translate_errors
from storage.enums import LinkPurpose, Role
from storage.errors import Invalid, NotAllowed
from storage.models import ApiToken, OneTimeLink, User, UserSession

TOKEN_DAYS = (7, 30, 90, 365, 0)  # 0: until revoked


class Credentials(NamedTuple):
    """What the store knows of a name: the hash to compare with; None when nobody can sign in under it."""

    password_hash: str | None


class Browser(NamedTuple):
    """Where a sign-in comes from, for the person's own list of sessions."""

    user_agent: str = ""
    address: str = ""


class Entry(NamedTuple):
    """A session that was just opened."""

    token: str
    role: Role
    choose_password: bool  # the link was an invitation or a reset


class Vouched(NamedTuple):
    """Whom an OpenID Connect provider vouches for; `role` is what their groups stand for, None when nothing does."""

    issuer: str
    subject: str
    name: str
    role: Role | None


@dataclass(frozen=True)
class AccountView:
    """A person's account as they see it; `made` is a token that was just made, shown once."""

    name: str
    role: Role
    language: str
    by_provider: bool
    has_password: bool
    sessions: list[UserSession]
    tokens: list[ApiToken]
    projects: dict[int, str]
    made: str = ""


def credentials(ctx: Context, name: str) -> Credentials:
    """The password hash of `name`; None when there is no such user, no password, or the user is disabled."""
    with translate_errors(), read_only(ctx.sessions) as session:
        user = accounts.find_user(session, name)
        return Credentials(user.password_hash if user and user.disabled_at is None else None)


def enter(ctx: Context, name: str, browser: Browser) -> Entry:
    """Open a session for `name`, whose password was right a moment ago; raises `NotAllowed` when disabled since."""
    with ctx.writing(name, policies.use_account) as (session, user):
        audit.record(session, user, "sign in", f"user {user.name}")
        return _open(ctx, session, user, browser)


def enter_by_link(ctx: Context, token: str, browser: Browser) -> Entry:
    """Redeem a one-time link and open a session; raises `Invalid` when it is used, expired or its user disabled.

    A reset forgets the old password and ends the sessions that it opened.
    """
    with translate_errors(), ctx.sessions.begin() as session:
        user = accounts.redeem_link(session, token)
        purpose = _newest_used(session, user)
        if purpose is LinkPurpose.RESET:
            accounts.close_sessions_of(session, user)
            user.password_hash = None
        audit.record(session, user, "sign in by link", f"user {user.name}")
        choose = purpose in (LinkPurpose.INVITE, LinkPurpose.RESET) and not accounts.has_identity(session, user)
        return _open(ctx, session, user, browser)._replace(choose_password=choose)


def enter_by_provider(ctx: Context, vouched: Vouched, browser: Browser) -> Entry:
    """Open a session for somebody an OpenID Connect provider vouches for; the first time makes the user.

    Their role follows their groups at every sign-in. Raises `NotAllowed` when none of the groups may enter, or the
    user is disabled here.
    """
    if vouched.role is None:
        raise NotAllowed("your account there is in none of the groups that may enter here; ask an operator")
    with translate_errors(), ctx.sessions.begin() as session:
        user = accounts.find_identity(session, vouched.issuer, vouched.subject)
        if user is None:
            user = accounts.create_from_identity(session, vouched.issuer, vouched.subject, vouched.name, vouched.role)
            audit.record(session, user, "user.add", user.name, role=user.role.value, by=vouched.issuer)
        policies.use_account(user)
        if user.role is not vouched.role:
            audit.record(session, user, "user.role", user.name, role=vouched.role.value, by=vouched.issuer)
            user.role = vouched.role
        audit.record(session, user, "sign in by provider", f"user {user.name}", issuer=vouched.issuer)
        return _open(ctx, session, user, browser)


def leave(ctx: Context, token: str) -> None:
    """End the session of a cookie; an unknown one is no error."""
    with translate_errors(), ctx.sessions.begin() as session:
        accounts.close_session(session, token)


def own_password_hash(ctx: Context, name: str) -> str | None:
    """The present hash of the signed-in user; None when no password was chosen yet.

    Raises `NotAllowed` for those who sign in through a provider: a password would outlive their account there.
    """
    with ctx.reading(name, policies.use_account) as (session, user):
        _by_password(session, user)
        return user.password_hash


def change_password(ctx: Context, name: str, previous: str | None, password_hash: str, browser: Browser) -> Entry:
    """Store a new hash, end every other session, and open a fresh one.

    `previous` is the hash that the current password was checked against: raises `NotAllowed` when it changed since.
    """
    with ctx.writing(name, policies.use_account) as (session, user):
        _by_password(session, user)
        if user.password_hash != previous:
            raise NotAllowed("the password was changed in the meantime; sign in again")
        accounts.set_password_hash(session, user, password_hash)
        accounts.close_sessions_of(session, user)
        audit.record(session, user, "change password", f"user {user.name}")
        return _open(ctx, session, user, browser)


# --- one's own account ---


def see_account(ctx: Context, name: str | None, made: str = "") -> AccountView:
    """The person's sessions, tokens and language."""
    with ctx.reading(name, policies.use_account) as (session, user):
        return AccountView(
            name=user.name,
            role=user.role,
            language=user.language or "",
            by_provider=accounts.has_identity(session, user),
            has_password=user.password_hash is not None,
            sessions=accounts.list_sessions(session, user),
            tokens=tokens.list_tokens(session, user),
            projects={project.id: project.name for project in members.list_projects(session, user)},
            made=made,
        )


def choose_language(ctx: Context, name: str | None, language: str) -> None:
    """Read the pages in `language`, or as the browser asks when it is empty; raises `Invalid` for another."""
    with ctx.writing(name, policies.use_account) as (_, user):
        if language and language not in LANGUAGES:
            raise Invalid(f"that language is not there; choose from: {', '.join(LANGUAGES)}")
        user.language = language or None


def end_session(ctx: Context, name: str | None, session_id: int) -> None:
    """Sign one of the person's browsers out; raises `NotFound`, also for another person's."""
    with ctx.writing(name, policies.use_account) as (session, user):
        accounts.end_session(session, user, session_id)


def end_all_sessions(ctx: Context, name: str | None) -> None:
    """Sign the person out everywhere, here too."""
    with ctx.writing(name, policies.use_account) as (session, user):
        accounts.close_sessions_of(session, user)
        audit.record(session, user, "sign out everywhere", f"user {user.name}")


def make_token(ctx: Context, name: str | None, label: str, scopes: Sequence[str], days: int, project: str = "") -> str:
    """A new API token of the person, for `days` (0: until revoked) and all their projects or one; shown once."""
    with ctx.writing(name, policies.manage_own_tokens) as (session, user):
        if days not in TOKEN_DAYS:
            raise Invalid(f"a token lasts {', '.join(str(number) for number in TOKEN_DAYS if number)} days or no end")
        only = members.get_project(session, user, project) if project else None
        lifetime = timedelta(days=days) if days else None
        made = tokens.create_token(session, user, label, scopes, project=only, lifetime=lifetime)
        audit.record(session, user, "token.create", made.row.name, only, scopes=made.row.scopes)
        return made.plain


def revoke_token(ctx: Context, name: str | None, token_id: int) -> None:
    """End one of the person's tokens at once; raises `NotFound`, also for another person's."""
    with ctx.writing(name, policies.manage_own_tokens) as (session, user):
        row = tokens.get_token(session, token_id, user)
        tokens.revoke_token(session, row)
        audit.record(session, user, "token.revoke", row.name)


def _open(ctx: Context, session: Session, user: User, browser: Browser) -> Entry:
    lifetime = timedelta(days=ctx.settings.session_days)
    token = accounts.open_session(session, user, lifetime, user_agent=browser.user_agent, address=browser.address)
    return Entry(token, user.role, choose_password=False)


def _newest_used(session: Session, user: User) -> LinkPurpose | None:
    # The link that was redeemed a moment ago, in this transaction.
    query = select(OneTimeLink.purpose).where(OneTimeLink.user_id == user.id, OneTimeLink.used_at.is_not(None))
    return session.scalar(query.order_by(OneTimeLink.used_at.desc(), OneTimeLink.id.desc()).limit(1))


def _by_password(session: Session, user: User) -> None:
    if accounts.has_identity(session, user):
        raise NotAllowed("you sign in through your organisation; change your password there")
