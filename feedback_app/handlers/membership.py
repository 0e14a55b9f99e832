"""Who may enter a project: everybody, or its members only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from feedback_app.handlers.values import text
from storage import accounts, audit, members, projects
from storage.enums import Role
from storage.errors import Invalid, NotAllowed
from storage.models import Project, User

MAX_CHANGED = 1000


@dataclass(frozen=True)
class MembershipView:
    """A project's members, and everybody who could be one."""

    project: str | None
    members_only: bool
    members: list[str]
    people: list[str]


def see_members(ctx: Context, name: str | None, project: str | None) -> MembershipView:
    """The members of `project`; empty when it is not there for this person."""
    with ctx.reading(name, policies.see_operations) as (session, user):
        return _view(session, members.find_project(session, user, project) if project else None)


def save_members(ctx: Context, name: str | None, project: str | None, only: Any, wanted: Any) -> MembershipView:
    """Make the members those named in `wanted`, and the project theirs only where `only` is true.

    Whoever closes a project stays in it. Raises `NotFound` for an unknown name, and `NotAllowed` when a person would
    shut themselves out; nothing is changed then.
    """
    with ctx.writing(name, policies.edit_project) as (session, user):
        found = members.get_project(session, user, project or "")
        if not isinstance(only, bool):
            raise Invalid("members only: give yes or no")
        closing = only and not found.members_only
        chosen = {person.id: person for person in _people(session, wanted)}
        present = {person.id: person for person in members.list_members(session, found)}
        if only and user.role is not Role.ADMIN and user.id not in chosen:
            if not closing:
                raise NotAllowed("you would shut yourself out; ask another operator to take you off the list")
            chosen[user.id] = user
        for person in (chosen[key] for key in chosen.keys() - present.keys()):
            members.add_member(session, found, person)
            audit.record(session, user, "project.member.add", person.name, found)
        for person in (present[key] for key in present.keys() - chosen.keys()):
            members.remove_member(session, found, person)
            audit.record(session, user, "project.member.remove", person.name, found)
        if only is not found.members_only:
            projects.update_project(session, found, members_only=only)
            audit.record(session, user, "project.close" if only else "project.open", found.name, found)
        return _view(session, found)


def _people(session: Session, names: Any) -> list[User]:
    if not isinstance(names, Sequence) or isinstance(names, str) or len(names) > MAX_CHANGED:
        raise Invalid(f"members: give a list of at most {MAX_CHANGED} names")
    return [accounts.get_user(session, text(name, "name", 200)) for name in names]


def _view(session: Session, project: Project | None) -> MembershipView:
    if project is None:
        return MembershipView(None, False, [], [])
    present = [user.name for user in members.list_members(session, project)]
    active = [user.name for user in accounts.list_users(session) if user.disabled_at is None]
    return MembershipView(project.name, project.members_only, present, sorted({*active, *present}))
