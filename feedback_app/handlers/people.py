"""Users: list, invite, disable, enable, reset. A link is returned once and stands nowhere in clear."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from feedback_app.handlers.values import text, to_enum
from storage import accounts, audit, erasure
from storage.enums import LinkPurpose, Role
from storage.erasure import Erased
from storage.models import User


class UserAction(StrEnum):
    """What can be done to an account."""

    DISABLE = "disable"
    ENABLE = "enable"
    RESET = "reset"
    ERASE = "erase"


@dataclass(frozen=True)
class UsersView:
    """Every user, who looks, and the link that was just made."""

    users: list[User]
    me: str
    my_role: Role
    link: str = ""
    link_for: str = ""
    link_hours: float = 0
    notice: str = ""
    erased: Erased | None = None
    by_provider: frozenset[int] = frozenset()  # who needs no password here


def see_users(ctx: Context, name: str | None) -> UsersView:
    """The list of users."""
    with ctx.reading(name, policies.manage_users) as (session, user):
        return _view(session, user)


def invite(ctx: Context, name: str | None, new_name: Any, role: Any) -> UsersView:
    """Add a user and make the one-time link that lets them in; raises `Conflict` when the name is taken."""
    with ctx.writing(name, policies.manage_users) as (session, user):
        wanted = to_enum(Role, role, "role")
        policies.grant_role(user, wanted)
        added = accounts.create_user(session, text(new_name, "name", 200), wanted)
        audit.record(session, user, "user.invite", added.name, role=wanted.value)
        return _with_link(ctx, session, user, added, LinkPurpose.INVITE)


def act(ctx: Context, name: str | None, target: Any, action: Any) -> UsersView:
    """Disable, enable, reset or erase a user; a reset makes a one-time link, using it forgets the old password.

    There is no way back from erasing: what they wrote and their ways in are gone (`storage.erasure`).
    """
    with ctx.writing(name, policies.manage_users) as (session, user):
        wanted = to_enum(UserAction, action, "action")
        other = accounts.get_user(session, text(target, "name", 200))
        policies.change_user(user, other)
        if wanted is UserAction.ERASE:
            erased = erasure.erase_person(session, other, user)
            return _view(session, user, notice=f"the account is {erased.name} now", erased=erased)
        audit.record(session, user, f"user.{wanted.value}", other.name)
        if wanted is UserAction.RESET:
            return _with_link(ctx, session, user, other, LinkPurpose.RESET)
        if wanted is UserAction.DISABLE:
            accounts.disable_user(session, other)
            return _view(session, user, notice=f"{other.name} is disabled and signed out everywhere")
        accounts.enable_user(session, other)
        return _view(session, user, notice=f"{other.name} may sign in again")


def _with_link(ctx: Context, session: Session, user: User, target: User, purpose: LinkPurpose) -> UsersView:
    hours = ctx.settings.link_hours
    token = accounts.issue_link(session, target, purpose, timedelta(hours=hours))
    link = f"{ctx.settings.url}/login/link/{token}"
    return _view(session, user, link=link, link_for=target.name, link_hours=hours)


def _view(session: Session, user: User, **extra: Any) -> UsersView:
    provided = accounts.users_by_provider(session)
    return UsersView(accounts.list_users(session), user.name, user.role, by_provider=provided, **extra)
