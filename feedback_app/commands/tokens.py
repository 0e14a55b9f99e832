"""`feedback-app user token`: keys with which programs use the HTTP API as a person."""

from __future__ import annotations

from typing import Annotated

import typer

from feedback_app.commands.shared import JsonFlag, emit, open_store, table

app = typer.Typer(help="API tokens: add, list, revoke.", no_args_is_help=True)
UserName = Annotated[str, typer.Argument(metavar="NAME", help="The person's name.")]
Days = Annotated[int, typer.Option("--days", min=0, max=36500, help="Days until it ends; 0: until revoked.")]


@app.command()
def add(
    name: UserName,
    label: Annotated[str, typer.Option("--for", metavar="TEXT", help="What the token is for.")],
    scopes: Annotated[list[str], typer.Option("--scope", help="read, write or export; may be given several times.")],
    project: Annotated[str | None, typer.Option("--project", "-p", help="This project only.")] = None,
    days: Days = 90,
    as_json: JsonFlag = False,
) -> None:
    """Make an API token with which a program acts as a person; it is printed this once."""
    from datetime import timedelta

    from storage.accounts import get_user
    from storage.audit import record
    from storage.members import get_project
    from storage.tokens import create_token

    with open_store() as store, store.sessions.begin() as session:
        user = get_user(session, name)
        only = get_project(session, user, project) if project else None
        lifetime = timedelta(days=days) if days else None
        made = create_token(session, user, label, scopes, project=only, lifetime=lifetime)
        record(session, None, "token.create", made.row.name, only, scopes=made.row.scopes, by="command line")
    payload = {"id": made.row.id, "user": name, "token": made.plain, "expires_at": made.row.expires_at}
    emit(payload, as_json, "the token, shown only now:", made.plain)


@app.command(name="list")
def list_(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Whose; everybody's when left out.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """API tokens, the ended ones too, with their last use."""
    from storage.accounts import get_user
    from storage.engine import read_only
    from storage.tokens import list_tokens, token_state

    with open_store() as store, read_only(store.sessions) as session:
        rows = [
            {
                "id": row.id,
                "user": row.user.name,
                "for": row.name,
                "scopes": ", ".join(row.scopes),
                "state": token_state(row),
                "expires_at": row.expires_at,
                "last_used_at": row.last_used_at,
            }
            for row in list_tokens(session, get_user(session, name) if name is not None else None)
        ]
    shown = [tuple(row.values()) for row in rows]
    emit({"tokens": rows}, as_json, table(("id", "user", "for", "scopes", "state", "until", "last use"), shown))


@app.command()
def revoke(
    name: UserName,
    token: Annotated[int, typer.Argument(metavar="ID", help="Its number; see: feedback-app user token list.")],
    as_json: JsonFlag = False,
) -> None:
    """End an API token at once and for good."""
    from storage.accounts import get_user
    from storage.audit import record
    from storage.tokens import get_token, revoke_token

    with open_store() as store, store.sessions.begin() as session:
        row = get_token(session, token, get_user(session, name))
        revoke_token(session, row)
        record(session, None, "token.revoke", row.name, by="command line")
    emit({"id": token, "revoked": True}, as_json, f"token {token} of {name} is revoked")
