"""`feedback-app db`: the database's schema."""

from __future__ import annotations

import typer

from feedback_app.commands.shared import JsonFlag, emit, prepare_home

app = typer.Typer(help="The database: bring its tables up to date, check them.", no_args_is_help=True)


@app.command()
def upgrade(as_json: JsonFlag = False) -> None:
    """Create the tables, or migrate them to this version of the program."""
    from feedback_app.settings import load_settings
    from storage import schema
    from storage.engine import translate_errors

    settings = load_settings()
    with translate_errors():
        prepare_home(settings)
        before = schema.check(settings.store_url)
        after = schema.upgrade(settings.store_url)
    changed = before.current != after.current
    emit(
        {"state": after.state, "from": before.current, "to": after.current, "changed": changed},
        as_json,
        f"upgraded to {after.current}" if changed else f"up to date ({after.current})",
    )


@app.command()
def check(as_json: JsonFlag = False) -> None:
    """Say whether the tables are those of this program; exit 1 when they are not."""
    from feedback_app.settings import load_settings
    from storage import schema
    from storage.engine import translate_errors

    settings = load_settings()
    with translate_errors():
        found = schema.check(settings.store_url)
    mends = {
        "current": "up to date",
        "empty": "no tables yet; run: feedback-app db upgrade",
        "behind": "made by an older version; run: feedback-app db upgrade",
        "newer": "made by a newer version of this program; install that version, or restore a backup",
    }
    payload = {"state": found.state, "current": found.current, "head": found.head}
    line = f"{mends[found.state]} (database {found.current or 'empty'}, program {found.head})"
    if found.state != "current":
        payload["error"] = line
    emit(payload, as_json, line)
    if found.state != "current":
        raise typer.Exit(1)
