"""The part of the Data tab that says which other programs are told what happens."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback_app.handlers import webhooks as handlers
from feedback_app.handlers.context import Context
from feedback_app.handlers.webhooks import WebhooksView
from feedback_app.pages import render
from feedback_app.pages.render import Markup, Row
from feedback_app.pages.wiring import QUEUED, QUICK, event
from storage.models import WebhookDelivery
from storage.webhooks import WebhookEvent

_EVENTS = [event.value for event in WebhookEvent]


class WebhooksPart:
    """A form for a new webhook, the list, and the selected one's secret and last deliveries."""

    def __init__(self, project: gr.Dropdown) -> None:
        self.project = project
        with gr.Column(elem_classes="op-card"):
            gr.HTML("<h3>Webhooks</h3>", js_on_load=None)
            with gr.Row():
                self.url = gr.Textbox(
                    label="Address",
                    info="Another program's, as https://host/path. It gets a signed POST for each event.",
                    max_lines=1,
                    elem_id="op-webhook-url",
                    scale=3,
                )
                self.events = gr.CheckboxGroup(_EVENTS, value=_EVENTS, label="Events", min_width=220, scale=2)
            self.add = gr.Button("Add webhook", elem_id="op-webhook-add")
            self.selected = gr.Dropdown(
                choices=[],
                label="Webhook",
                elem_id="op-webhook",
                # The server checks the number; Gradio would check it against the empty list above after a restart.
                allow_custom_value=True,
            )
            self.shown = gr.HTML("", elem_id="op-webhook-shown", js_on_load=None)
            with gr.Row():
                self.look = gr.Button("Look again", elem_id="op-webhook-look", min_width=100)
                self.switch = gr.Button("Switch off or on", elem_id="op-webhook-switch", min_width=100)
                self.remove = gr.Button("Remove", elem_id="op-webhook-remove", min_width=100)

    def connect(self, ctx: Context) -> None:
        """Wire the part's events: it follows the chosen project by itself."""

        def webhooks_seen(name: str | None, project: str | None, selected: Any) -> list[Any]:
            return _values(handlers.see_webhooks(ctx, name, project, selected))

        def webhook_added(name: str | None, project: str | None, url: Any, events: Any) -> list[Any]:
            view = handlers.add_webhook(ctx, name, project, url, events)
            gr.Info("The webhook is added. Give its secret to the receiver, to check the signatures with.")
            return [*_values(view), ""]

        def webhook_switched(name: str | None, project: str | None, selected: Any) -> list[Any]:
            return _values(handlers.switch_webhook(ctx, name, project, selected))

        def webhook_removed(name: str | None, project: str | None, selected: Any) -> list[Any]:
            return _values(handlers.remove_webhook(ctx, name, project, selected))

        here, outputs = [self.project, self.selected], [self.selected, self.shown]
        self.project.change(event(webhooks_seen), here, outputs, **QUICK)
        self.selected.input(event(webhooks_seen), here, outputs, **QUICK)
        self.look.click(event(webhooks_seen), here, outputs, **QUICK)
        given = [self.project, self.url, self.events]
        self.add.click(event(webhook_added), given, [*outputs, self.url], concurrency_limit=2, **QUEUED)
        self.switch.click(event(webhook_switched), here, outputs, concurrency_limit=2, **QUEUED)
        self.remove.click(event(webhook_removed), here, outputs, concurrency_limit=2, **QUEUED)


def _values(view: WebhooksView) -> list[Any]:
    choices = [(f"{row.id}: {row.url}{' (off)' if row.disabled_at else ''}", str(row.id)) for row in view.webhooks]
    chosen = str(view.selected.id) if view.selected else None
    return [gr.Dropdown(choices=choices, value=chosen), _shown(view)]


def _shown(view: WebhooksView) -> str:
    row = view.selected
    if row is None:
        none = "No other program is told what happens here; add an address above."
        return render.note("Choose a webhook to see its secret and its last deliveries." if view.webhooks else none)
    facts = render.facts(
        [
            ("address", row.url),
            ("events", ", ".join(row.events)),
            ("state", "off" if row.disabled_at else "on"),
            ("secret", Markup(f"<details><summary>show</summary><code>{render.h(row.secret)}</code></details>")),
        ]
    )
    rows = [
        Row([str(one.id), one.event, render.when(one.created_at, view.now), _outcome(one, view), str(one.attempts)])
        for one in view.deliveries
    ]
    columns = ["number", "event", "happened", "outcome", "attempts"]
    return facts + render.table(columns, rows, "Nothing was sent yet.")


def _outcome(one: WebhookDelivery, view: WebhooksView) -> Any:
    if one.delivered_at is not None:
        return Markup(f"delivered {render.when(one.delivered_at, view.now)}")
    if one.next_attempt_at is None:
        return f"given up: {one.last_error}"
    if one.last_error is None:
        return "waiting"
    return Markup(f"{render.h(one.last_error)}; again {render.when(one.next_attempt_at, view.now)}")
