"""The part of the Data tab that says which other programs are told what happens."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback_app.handlers import webhooks as handlers
from feedback_app.handlers.context import Context
from feedback_app.handlers.webhooks import WebhooksView
from feedback_app.i18n import later, listed, message, t
from feedback_app.pages import render
from feedback_app.pages.render import Markup, Row
from feedback_app.pages.wiring import LOOK, QUEUED, event
from storage.models import Webhook, WebhookDelivery
from storage.webhooks import WebhookEvent

_EVENTS = [event.value for event in WebhookEvent]
_CHOICES = [(later(event), event) for event in _EVENTS]


class WebhooksPart:
    """A form for a new webhook, the list, and the selected one's secret and last deliveries."""

    def __init__(self, project: gr.Dropdown) -> None:
        self.project = project
        with gr.Column(elem_classes="op-card"):
            gr.HTML(f"<h3>{later('Webhooks')}</h3>", js_on_load=None)
            with gr.Row():
                self.url = gr.Textbox(
                    label=later("Address"),
                    info=later("Another program's, as https://host/path. It gets a signed POST for each event."),
                    max_lines=1,
                    elem_id="op-webhook-url",
                    scale=3,
                )
                self.events = gr.CheckboxGroup(_CHOICES, value=_EVENTS, label=later("Events"), min_width=220, scale=2)
            self.add = gr.Button(later("Add webhook"), elem_id="op-webhook-add")
            self.selected = gr.Dropdown(
                choices=[],
                label=later("Webhook"),
                elem_id="op-webhook",
                # The server checks the number; Gradio would check it against the empty list above after a restart.
                allow_custom_value=True,
            )
            self.shown = gr.HTML("", elem_id="op-webhook-shown", js_on_load=None)
            with gr.Row():
                self.look = gr.Button(later("Look again"), elem_id="op-webhook-look", min_width=100)
                self.switch = gr.Button(later("Switch off or on"), elem_id="op-webhook-switch", min_width=100)
                self.remove = gr.Button(later("Remove"), elem_id="op-webhook-remove", min_width=100)

    def connect(self, ctx: Context) -> None:
        """Wire the part's events: it follows the chosen project by itself."""

        def webhooks_seen(name: str | None, project: str | None, selected: Any) -> list[Any]:
            return _values(handlers.see_webhooks(ctx, name, project, selected))

        def webhook_added(name: str | None, project: str | None, url: Any, events: Any) -> list[Any]:
            view = handlers.add_webhook(ctx, name, project, url, events)
            gr.Info(t("The webhook is added. Give its secret to the receiver, to check the signatures with."))
            return [*_values(view), ""]

        def webhook_switched(name: str | None, project: str | None, selected: Any) -> list[Any]:
            return _values(handlers.switch_webhook(ctx, name, project, selected))

        def webhook_removed(name: str | None, project: str | None, selected: Any) -> list[Any]:
            return _values(handlers.remove_webhook(ctx, name, project, selected))

        here, outputs = [self.project, self.selected], [self.selected, self.shown]
        self.project.change(event(webhooks_seen), here, outputs, **LOOK)
        self.selected.input(event(webhooks_seen), here, outputs, **LOOK)
        self.look.click(event(webhooks_seen), here, outputs, **LOOK)
        given = [self.project, self.url, self.events]
        self.add.click(event(webhook_added), given, [*outputs, self.url], concurrency_limit=2, **QUEUED)
        self.switch.click(event(webhook_switched), here, outputs, concurrency_limit=2, **QUEUED)
        self.remove.click(event(webhook_removed), here, outputs, concurrency_limit=2, **QUEUED)


def _values(view: WebhooksView) -> list[Any]:
    choices = [(_named(row), str(row.id)) for row in view.webhooks]
    chosen = str(view.selected.id) if view.selected else None
    return [gr.Dropdown(choices=choices, value=chosen), _shown(view)]


def _named(row: Webhook) -> str:
    name = f"{row.id}: {row.url}"
    return t("{name} (off)", name=name) if row.disabled_at else name


def _shown(view: WebhooksView) -> str:
    row = view.selected
    if row is None:
        none = t("No other program is told what happens here; add an address above.")
        return render.note(t("Choose a webhook to see its secret and its last deliveries.") if view.webhooks else none)
    facts = render.facts(
        [
            (t("address"), row.url),
            (t("events"), listed(t(one) for one in row.events)),
            (t("state"), t("off") if row.disabled_at else t("on")),
            (
                t("secret"),
                Markup(f"<details><summary>{t('show')}</summary><code>{render.h(row.secret)}</code></details>"),
            ),
        ]
    )
    rows = [
        Row([str(one.id), t(one.event), render.when(one.created_at, view.now), _outcome(one, view), str(one.attempts)])
        for one in view.deliveries
    ]
    columns = [t("number"), t("event"), t("happened"), t("outcome"), t("attempts")]
    return facts + render.table(columns, rows, t("Nothing was sent yet."))


def _outcome(one: WebhookDelivery, view: WebhooksView) -> Any:
    if one.delivered_at is not None:
        return Markup(t("delivered {when}", when=render.when(one.delivered_at, view.now)))
    if one.next_attempt_at is None:
        return t("given up: {why}", why=message(one.last_error or ""))
    if one.last_error is None:
        return t("waiting")
    again = render.when(one.next_attempt_at, view.now)
    return Markup(t("{why}; again {when}", why=render.h(message(one.last_error)), when=again))
