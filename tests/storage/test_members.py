"""Projects for members only: who enters, and what the others get to know of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

import feedback_app.handlers
from storage import annotations, items, members, projects
from storage.enums import Role
from storage.errors import NotAllowed, NotFound
from storage.models import Project, User
from tests import factories


@pytest.fixture
def closed(session: Session) -> Project:
    """A project for members only, beside an open one."""
    factories.make_project(session, "open")
    made = factories.make_project(session, "closed")
    return projects.update_project(session, made, members_only=True)


def _names(session: Session, user: User) -> list[str]:
    return [project.name for project in members.list_projects(session, user)]


@pytest.mark.parametrize("role", [Role.ANNOTATOR, Role.OPERATOR])
def test_a_closed_project_is_there_for_its_members_only(session: Session, closed: Project, role: Role) -> None:
    inside, outside = factories.make_user(session, role=role), factories.make_user(session, role=role)
    assert members.add_member(session, closed, inside)
    assert not members.add_member(session, closed, inside), "a second time changes nothing"
    assert members.list_members(session, closed) == [inside]
    assert (_names(session, inside), _names(session, outside)) == (["closed", "open"], ["open"])
    assert members.get_project(session, inside, " closed ") == closed
    assert members.may_enter(session, inside, closed)
    assert not members.may_enter(session, outside, closed)
    assert members.find_project(session, outside, "closed") is None
    with pytest.raises(NotFound) as told:
        members.get_project(session, outside, "x")
    assert "closed" not in str(told.value), "its name is not told"
    assert members.remove_member(session, closed, inside)
    assert not members.remove_member(session, closed, inside)
    assert _names(session, inside) == ["open"]


def test_admins_enter_everywhere(session: Session, closed: Project) -> None:
    admin = factories.make_user(session, role=Role.ADMIN)
    assert members.may_enter(session, admin, closed)
    assert _names(session, admin) == ["closed", "open"]


def test_opening_a_project_lets_everybody_in(session: Session, closed: Project) -> None:
    user = factories.make_user(session)
    projects.update_project(session, closed, members_only=False)
    assert members.may_enter(session, user, closed)
    assert _names(session, user) == ["closed", "open"]


def test_who_lost_a_membership_can_do_nothing_with_an_item_in_hand(session: Session, closed: Project) -> None:
    user = factories.make_user(session)
    members.add_member(session, closed, user)
    factories.make_items(session, closed, 1)
    lease = factories.make_lease(session, closed, user)
    members.remove_member(session, closed, user)
    held = lease.assignment_id
    for act in (
        lambda: items.get_lease(session, held, user),
        lambda: items.skip(session, held, user),
        lambda: items.flag(session, held, user, "wrong"),
        lambda: annotations.save_draft(session, held, user, {}),
        lambda: annotations.submit(session, held, user, factories.prefer_first(lease)),
    ):
        with pytest.raises(NotAllowed, match="members only"):
            act()
    members.add_member(session, closed, user)
    annotations.submit(session, held, user, factories.prefer_first(lease))


def test_handlers_look_projects_up_for_somebody() -> None:
    """A handler that asks `storage.projects` for a project would forget who asks."""
    forgetful = {"get_project", "find_project", "list_projects"}
    for file in Path(feedback_app.handlers.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in forgetful:
                assert isinstance(node.value, ast.Name), f"{file.name}:{node.lineno}"
                assert node.value.id == "members", f"{file.name}:{node.lineno}"
            if isinstance(node, ast.ImportFrom) and node.module == "storage.projects":
                assert not forgetful & {name.name for name in node.names}, f"{file.name}:{node.lineno}"
