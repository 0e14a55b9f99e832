"""Every "may this user do that", in one file.

A policy takes the user as stored now and raises `NotAllowed` with one line; handlers name one for every transaction
they open (`feedback_app.handlers.context`), so no code path reaches the store without a decision made here.
"""

from __future__ import annotations

from collections.abc import Callable

from storage.enums import Role
from storage.errors import NotAllowed
from storage.models import User

Policy = Callable[[User], None]

OPERATORS = frozenset({Role.OPERATOR, Role.ADMIN})
EVERYONE = frozenset(Role)


def _active(user: User, roles: frozenset[Role], what: str) -> None:
    if user.disabled_at is not None:
        raise NotAllowed("this account is disabled; ask an operator to enable it")
    if user.role not in roles:
        raise NotAllowed(f"only operators may {what}; ask one of them")


def annotate(user: User) -> None:
    """Be served items, save drafts, submit, skip and flag."""
    _active(user, EVERYONE, "annotate")


def use_account(user: User) -> None:
    """Stay signed in, change one's own password and language, see and end one's own sessions."""
    _active(user, EVERYONE, "use this account")


def manage_own_tokens(user: User) -> None:
    """Make and revoke API tokens of one's own: a program with one may do what its user may."""
    _active(user, EVERYONE, "use tokens")


def see_operations(user: User) -> None:
    """Read runs, models, counts, users and settings of projects."""
    _active(user, OPERATORS, "see this page")


def train(user: User) -> None:
    """Start and cancel runs."""
    _active(user, OPERATORS, "start or cancel runs")


def manage_models(user: User) -> None:
    """Promote, roll back, retire and reject model versions."""
    _active(user, OPERATORS, "change which model is in use")


def import_data(user: User) -> None:
    """Add prompts and feedback from files or by hand."""
    _active(user, OPERATORS, "import data")


def export_data(user: User) -> None:
    """Download what was collected."""
    _active(user, OPERATORS, "export data")


def edit_project(user: User) -> None:
    """Create projects and change guidelines, criteria, sampling, the training policy and the members."""
    _active(user, OPERATORS, "change a project")


def manage_gold(user: User) -> None:
    """Say what is right on gold items, ask for practice and checks, waive practice and lift pauses."""
    _active(user, OPERATORS, "manage gold items")


def manage_rules(user: User) -> None:
    """Read rules and their critiques, write them, turn them on and off."""
    _active(user, OPERATORS, "manage rules")


def manage_users(user: User) -> None:
    """See the list of users and invite annotators."""
    _active(user, OPERATORS, "manage users")


def grant_role(user: User, role: Role) -> None:
    """Invite somebody as `role`: operators bring in annotators, admins anyone."""
    manage_users(user)
    if role is not Role.ANNOTATOR and user.role is not Role.ADMIN:
        raise NotAllowed(f"only an admin may invite an {role.value}; ask one of them")


def change_user(user: User, target: User) -> None:
    """Disable, enable or reset `target`: never oneself, and only admins reach operators and admins."""
    manage_users(user)
    if target.id == user.id:
        raise NotAllowed("you cannot do that to your own account; ask another operator")
    if target.role is not Role.ANNOTATOR and user.role is not Role.ADMIN:
        raise NotAllowed(f"{target.name} is an {target.role.value}: only an admin may do that")


def home_of(role: Role) -> str:
    """The page a user of `role` lands on after signing in."""
    return "/operate/" if role in OPERATORS else "/annotate/"
