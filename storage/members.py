"""Who may enter which project. A project is open to everybody unless it is for its members only; admins enter all.

Whatever acts for a person looks projects up here, never in `storage.projects`: a project that is closed to them is
not there for them, and its name is told to nobody who may not enter it.
"""

from __future__ import annotations

from sqlalchemy import BindParameter, ColumnElement, bindparam, delete, or_, select, true
from sqlalchemy.orm import Session

from storage.enums import Role
from storage.errors import NotFound
from storage.models import Project, ProjectMember, User, utc_now
from storage.prompts import insert_once


def add_member(session: Session, project: Project, user: User) -> bool:
    """Let a person into a project for members only; False when they are a member already."""
    return insert_once(
        session, ProjectMember, {"project_id": project.id, "user_id": user.id}, {"created_at": utc_now()}
    ).created


def remove_member(session: Session, project: Project, user: User) -> bool:
    """Take a membership back; False when there was none. What the person wrote stays."""
    gone = session.execute(
        delete(ProjectMember)
        .where(ProjectMember.project_id == project.id, ProjectMember.user_id == user.id)
        .returning(ProjectMember.user_id)
    ).all()
    return bool(gone)


def list_members(session: Session, project: Project) -> list[User]:
    """The members by name; disabled ones included."""
    query = select(User).join(ProjectMember, ProjectMember.user_id == User.id)
    return list(session.scalars(query.where(ProjectMember.project_id == project.id).order_by(User.name)))


def may_enter(session: Session, user: User, project: Project) -> bool:
    """Whether `user` may see and work in `project`: it is open, or they are a member or an admin."""
    if not project.members_only or user.role is Role.ADMIN:
        return True
    return session.get(ProjectMember, (project.id, user.id)) is not None


def list_projects(session: Session, user: User) -> list[Project]:
    """The projects that `user` may enter, by name."""
    return list(session.scalars(select(Project).where(_open_to(user)).order_by(Project.name)))


def project_ids(session: Session, user: User) -> dict[str, int]:
    """The projects that `user` may enter: their numbers by name, in the order of the names."""
    if user.role is Role.ADMIN:
        return dict(session.connection().execute(_NAMES).all())
    return dict(session.connection().execute(_NAMES_OPEN, {"user": user.id}).all())


def find_project(session: Session, user: User, name: str) -> Project | None:
    """The project of that name when `user` may enter it, else None."""
    if not name.isprintable():  # PostgreSQL takes no NUL, not even in a question
        return None
    return session.scalar(select(Project).where(Project.name == name.strip(), _open_to(user)))


def get_project(session: Session, user: User, name: str) -> Project:
    """The project of that name; raises `NotFound`, naming those that `user` may enter."""
    project = find_project(session, user, name)
    if project is None:
        known = ", ".join(row.name for row in list_projects(session, user)) or "none yet"
        raise NotFound(f"there is no project '{name}' for you; projects: {known}")
    return project


def _open_to(user: User) -> ColumnElement[bool]:
    if user.role is Role.ADMIN:
        return true()
    return _open_to_user(user.id)


def _open_to_user(user_id: int | BindParameter[int]) -> ColumnElement[bool]:
    own = select(ProjectMember.project_id).where(ProjectMember.user_id == user_id)
    return or_(Project.members_only.is_(False), Project.id.in_(own))


# Built once: it is asked with every submit.
_NAMES = select(Project.name, Project.id).order_by(Project.name)
_NAMES_OPEN = _NAMES.where(_open_to_user(bindparam("user")))
