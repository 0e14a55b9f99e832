"""`feedback-app user`: people and their ways in."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, Store, emit, one_time_link, open_store, table

app = typer.Typer(help="People: add, list, give a new password, disable, erase; API tokens.", no_args_is_help=True)
UserName = Annotated[str, typer.Argument(metavar="NAME", help="The person's name.")]


@app.command()
def add(
    name: UserName,
    role: Annotated[str, typer.Option("--role", help="annotator, operator or admin.")] = "annotator",
    as_json: JsonFlag = False,
) -> None:
    """Add a person and print a one-time link with which they choose their password."""
    from storage.accounts import create_user
    from storage.audit import record
    from storage.enums import LinkPurpose, Role

    if role not in list(Role):
        raise typer.BadParameter(f"'{role}' is none; choose from: {', '.join(Role)}", param_hint="'--role'")
    with open_store() as store, store.sessions.begin() as session:
        user = create_user(session, name, Role(role))
        link = one_time_link(store.settings, session, user, LinkPurpose.INVITE)
        record(session, None, "user.add", user.name, role=role, by="command line")
    _show_link({"user": name, "role": role}, link, store, as_json)


@app.command()
def passwd(
    name: UserName,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read the new password from standard input.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print a one-time link with which a person chooses a new password; or set one with --stdin."""
    from storage.accounts import close_sessions_of, get_user, set_password_hash
    from storage.audit import record
    from storage.enums import LinkPurpose
    from storage.errors import Conflict

    with open_store() as store, store.sessions.begin() as session:
        user = get_user(session, name)
        if user.disabled_at is not None:
            raise Conflict(f"'{name}' is disabled; let them in again first: feedback-app user enable {name}")
        if stdin:
            from feedback_app.security import hash_password

            set_password_hash(session, user, hash_password(sys.stdin.readline().rstrip("\r\n")))
            close_sessions_of(session, user)
            link = None
        else:
            link = one_time_link(store.settings, session, user, LinkPurpose.RESET)
        record(session, None, "user.passwd", user.name, by="command line")
    if link is None:
        emit({"user": name, "changed": True}, as_json, f"the password of {name} is changed; they sign in again")
    else:
        _show_link({"user": name}, link, store, as_json)


@app.command()
def disable(name: UserName, as_json: JsonFlag = False) -> None:
    """Bar a person at once: their sessions and links end; what they wrote stays."""
    _switch(name, False, as_json)


@app.command()
def enable(name: UserName, as_json: JsonFlag = False) -> None:
    """Let a disabled person in again."""
    _switch(name, True, as_json)


@app.command()
def erase(
    name: UserName,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: there is no way back.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Forget a person for good: their words, name and ways in go; empty shells and counts stay."""
    from dataclasses import asdict

    from storage.accounts import disable_user, get_user
    from storage.erasure import erase_person

    if not yes:
        typer.confirm(f"Erase {name}, everything they wrote and chose? There is no way back.", abort=True, err=True)
    with open_store() as store:
        # First the door, in a transaction of its own: nothing is submitted while the rest goes on.
        with store.sessions.begin() as session:
            disable_user(session, get_user(session, name))
        with store.sessions.begin() as session:
            done = erase_person(session, get_user(session, name), None)
    facts = [
        ("account", done.name),
        ("annotations left as empty shells", done.annotations),
        ("texts blanked", done.blanked),
        *((f"{what} deleted", count) for what, count in done.deleted.items()),
        ("snapshots that hold their words", "\n".join(done.snapshots) or None),
        ("run folders with copies", "\n".join(done.runs) or None),
        ("model versions, now tainted", "\n".join(done.versions) or None),
    ]
    left = (
        "the folders above (under FEEDBACK_HOME) still hold their words, as do exports and backups: delete what must go"
        if done.snapshots
        else "no snapshot holds their words; exports, backups and imported files may"
    )
    emit(asdict(done), as_json, table(("", ""), facts), left)


@app.command(name="list")
def list_(as_json: JsonFlag = False) -> None:
    """Everybody, with role and state."""
    from storage.accounts import list_users
    from storage.engine import read_only

    with open_store() as store, read_only(store.sessions) as session:
        rows = [
            {
                "name": user.name,
                "role": user.role,
                "disabled": user.disabled_at is not None,
                "state": "erased" if user.erased_at else "disabled" if user.disabled_at else "active",
                "since": user.created_at,
            }
            for user in list_users(session)
        ]
    shown = [(row["name"], row["role"], row["state"], row["since"]) for row in rows]
    emit({"users": rows}, as_json, table(("name", "role", "state", "since"), shown))


def _switch(name: str, on: bool, as_json: bool) -> None:
    from storage.accounts import disable_user, enable_user, get_user
    from storage.audit import record

    with open_store() as store, store.sessions.begin() as session:
        user = get_user(session, name)
        (enable_user if on else disable_user)(session, user)
        record(session, None, "user.enable" if on else "user.disable", user.name, by="command line")
    emit({"user": name, "disabled": not on}, as_json, f"{name} is {'active' if on else 'disabled'}")


def _show_link(payload: dict[str, Any], link: str, store: Store, as_json: bool) -> None:
    hours = store.settings.link_hours
    emit(payload | {"link": link, "hours": hours}, as_json, f"one-time link, good for {hours:g} hours:", link)
