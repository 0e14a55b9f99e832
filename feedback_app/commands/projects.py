"""`feedback-app project`: settings of a project, and who may enter it."""

from __future__ import annotations

from typing import Annotated

import typer

from feedback_app.commands import project_settings
from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, pick_project, table

app = typer.Typer(help="Projects: their settings; open to everybody, or to their members only.", no_args_is_help=True)
members_app = typer.Typer(help="Who may enter a project for members only: list, add, remove.", no_args_is_help=True)
app.add_typer(members_app, name="members")
app.command()(project_settings.show)
app.command(name="set")(project_settings.set_)
app.command()(project_settings.reset)
MemberName = Annotated[str, typer.Argument(metavar="NAME", help="The person's name.")]


@app.command()
def close(project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Let only members and admins see a project and work in it."""
    _set_members_only(project, True, as_json)


@app.command(name="open")
def open_(project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Let everybody see a project and work in it."""
    _set_members_only(project, False, as_json)


@members_app.command(name="list")
def list_(project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """The members of a project, and whether it is open to others too."""
    from storage.engine import read_only
    from storage.members import list_members

    with open_store() as store, read_only(store.sessions) as session:
        found = pick_project(session, project)
        rows = [{"name": user.name, "role": user.role} for user in list_members(session, found)]
    payload = {"project": found.name, "members_only": found.members_only, "members": rows}
    state = f"{found.name} is open to {'its members and admins only' if found.members_only else 'everybody'}"
    emit(payload, as_json, state, table(("name", "role"), [tuple(row.values()) for row in rows]))


@members_app.command()
def add(name: MemberName, project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Let a person into a project."""
    _change(name, project, True, as_json)


@members_app.command()
def remove(name: MemberName, project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Take a membership back; what the person wrote stays."""
    _change(name, project, False, as_json)


def _change(name: str, project: str | None, add: bool, as_json: bool) -> None:
    from storage.accounts import get_user
    from storage.audit import record
    from storage.members import add_member, remove_member

    with open_store() as store, store.sessions.begin() as session:
        found, user = pick_project(session, project), get_user(session, name)
        changed = (add_member if add else remove_member)(session, found, user)
        if changed:
            action = "project.member.add" if add else "project.member.remove"
            record(session, None, action, user.name, found, by="command line")
    state = "a member" if add else "no member"
    line = f"{user.name} {'is' if changed else 'was already'} {state} of {found.name}"
    if add and not found.members_only:
        line += "; the project is open to everybody until you close it: feedback-app project close"
    emit({"project": found.name, "user": user.name, "member": add, "changed": changed}, as_json, line)


def _set_members_only(project: str | None, only: bool, as_json: bool) -> None:
    from storage.audit import record
    from storage.members import list_members
    from storage.projects import update_project

    with open_store() as store, store.sessions.begin() as session:
        found = update_project(session, pick_project(session, project), members_only=only)
        record(session, None, "project.close" if only else "project.open", found.name, found, by="command line")
        count = len(list_members(session, found))
    state = f"open to its {count} members and to admins only" if only else "open to everybody"
    emit({"project": found.name, "members_only": only}, as_json, f"{found.name} is {state}")
