"""`feedback-app webhooks`: which other programs are told what happens."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, pick_project, table

app = typer.Typer(help="Webhooks: add, list, remove, see what was delivered.", no_args_is_help=True)
Number = Annotated[int, typer.Argument(metavar="NUMBER", min=1, max=2**31 - 1, help="As `webhooks list` shows it.")]


@app.command()
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="https://host/path of the receiver.")],
    project: OptionalProject = None,
    event: Annotated[
        list[str] | None, typer.Option("--event", help="annotation, run, promotion or alert; may be repeated. [all]")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell another program from now on; prints the secret that signs the deliveries."""
    from storage.audit import record
    from storage.webhooks import WebhookEvent, add_webhook

    with open_store() as store, store.sessions.begin() as session:
        found = pick_project(session, project)
        row = add_webhook(session, found, url, event or list(WebhookEvent), private=store.settings.webhook_private)
        record(session, None, "webhook.add", f"webhook {row.id}", found, by="command line")
        payload = {"webhook": row.id, "url": row.url, "events": row.events, "secret": row.secret}
    emit(payload, as_json, f"webhook {row.id} is told of {', '.join(row.events)}", f"secret: {row.secret}")


@app.command(name="list")
def list_(project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """The project's webhooks."""
    from storage.engine import read_only
    from storage.webhooks import last_deliveries, list_webhooks

    with open_store() as store, read_only(store.sessions) as session:
        rows: list[dict[str, Any]] = []
        for one in list_webhooks(session, pick_project(session, project)):
            last = next(iter(last_deliveries(session, one, 1)), None)
            state = "off" if one.disabled_at else "on"
            error = last.last_error if last else None
            rows.append({"webhook": one.id, "url": one.url, "events": one.events, "state": state, "last_error": error})
    shown = [(row["webhook"], row["url"], ", ".join(row["events"]), row["state"], row["last_error"]) for row in rows]
    emit({"webhooks": rows}, as_json, table(("number", "address", "events", "state", "last error"), shown))


@app.command()
def remove(number: Number, as_json: JsonFlag = False) -> None:
    """Forget a webhook and what was to be sent to it."""
    from storage.audit import record
    from storage.webhooks import get_webhook, remove_webhook

    with open_store() as store, store.sessions.begin() as session:
        row = get_webhook(session, number)
        record(session, None, "webhook.remove", f"webhook {number}", by="command line")
        remove_webhook(session, row)
    emit({"webhook": number, "removed": True}, as_json, f"webhook {number} is removed")


@app.command()
def deliveries(
    number: Number,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, newest first.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """What was sent, is tried again or was given up, with the last error."""
    from storage.engine import read_only
    from storage.webhooks import get_webhook, last_deliveries

    columns = ("id", "event", "created_at", "attempts", "delivered_at", "next_attempt_at", "last_status", "last_error")
    with open_store() as store, read_only(store.sessions) as session:
        found = last_deliveries(session, get_webhook(session, number), limit)
        rows = [{name: getattr(one, name) for name in columns} for one in found]
    emit({"deliveries": rows}, as_json, table(columns, [tuple(row.values()) for row in rows]))
