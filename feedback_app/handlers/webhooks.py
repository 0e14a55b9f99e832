"""Webhooks of a project: who is told what, and how it went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from feedback_app.handlers.values import text
from storage import audit, members, webhooks
from storage.errors import Invalid
from storage.models import Project, Webhook, WebhookDelivery, utc_now

LISTED = 20


@dataclass(frozen=True)
class WebhooksView:
    """The webhooks of a project; of the one selected, its secret and last deliveries."""

    project: str | None
    webhooks: list[Webhook]
    selected: Webhook | None
    deliveries: list[WebhookDelivery]
    now: datetime


def see_webhooks(ctx: Context, name: str | None, project: str | None, selected: Any = None) -> WebhooksView:
    """The webhooks of `project`; empty when it is not there for this person."""
    with ctx.reading(name, policies.see_operations) as (session, user):
        found = members.find_project(session, user, project) if project else None
        return _view(session, found, selected)


def add_webhook(ctx: Context, name: str | None, project: str | None, url: Any, events: Any) -> WebhooksView:
    """Tell another program from now on; the new webhook is selected, so that its secret is seen."""
    wanted = [text(event, "event", 60) for event in events] if isinstance(events, list) else []
    with ctx.writing(name, policies.edit_project) as (session, user):
        found = members.get_project(session, user, project or "")
        address = text(url, "address", webhooks.MAX_URL)
        row = webhooks.add_webhook(session, found, address, wanted, private=ctx.settings.webhook_private)
        audit.record(session, user, "webhook.add", f"webhook {row.id}", found, events=wanted)
        return _view(session, found, row.id)


def switch_webhook(ctx: Context, name: str | None, project: str | None, selected: Any) -> WebhooksView:
    """Switch the selected webhook off, or on again."""
    with ctx.writing(name, policies.edit_project) as (session, user):
        found = members.get_project(session, user, project or "")
        row = webhooks.get_webhook(session, _number(selected), found)
        on = row.disabled_at is not None
        webhooks.switch_webhook(session, row, on)
        audit.record(session, user, "webhook.enable" if on else "webhook.disable", f"webhook {row.id}", found)
        return _view(session, found, row.id)


def remove_webhook(ctx: Context, name: str | None, project: str | None, selected: Any) -> WebhooksView:
    """Forget the selected webhook with all its deliveries."""
    with ctx.writing(name, policies.edit_project) as (session, user):
        found = members.get_project(session, user, project or "")
        row = webhooks.get_webhook(session, _number(selected), found)
        audit.record(session, user, "webhook.remove", f"webhook {row.id}", found)
        webhooks.remove_webhook(session, row)
        return _view(session, found, None)


def _number(given: Any) -> int:
    try:
        number = int(given)
    except (TypeError, ValueError) as error:
        raise Invalid("choose a webhook first") from error
    if not 0 < number < 2**31:
        raise Invalid("choose a webhook first")
    return number


def _view(session: Session, project: Project | None, selected: Any) -> WebhooksView:
    if project is None:
        return WebhooksView(None, [], None, [], utc_now())
    rows = webhooks.list_webhooks(session, project)
    chosen = next((row for row in rows if str(row.id) == str(selected)), None)
    deliveries = webhooks.last_deliveries(session, chosen, LISTED) if chosen else []
    return WebhooksView(project.name, rows, chosen, deliveries, utc_now())
