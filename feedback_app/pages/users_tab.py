"""The Users tab: invite, disable, enable, reset."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from feedback_app import policies
from feedback_app.handlers import people as handlers
from feedback_app.handlers.context import Context
from feedback_app.handlers.people import UserAction, UsersView
from feedback_app.i18n import later, listed, sentence, t
from feedback_app.pages import render
from feedback_app.pages.render import Markup, Row
from feedback_app.pages.wiring import QUEUED, event
from storage.enums import Role
from storage.erasure import Erased
from storage.models import User, utc_now


class UsersTab:
    """The tab's components; `outputs` stand in the order of `values`."""

    def __init__(self) -> None:
        with gr.Row(elem_classes="op-split"):
            with gr.Column(scale=2, min_width=320, elem_classes="op-card op-narrow"):
                gr.HTML(f"<h3>{later('Invite somebody')}</h3>", js_on_load=None)
                self.name = gr.Textbox(label=later("Name"), max_lines=1, elem_id="op-invite-name")
                self.role = gr.Radio(
                    [(later(role.value), role.value) for role in Role],
                    value=Role.ANNOTATOR.value,
                    label=later("Role"),
                    elem_id="op-invite-role",
                )
                self.invite = gr.Button(later("Make a one-time link"), variant="primary", elem_id="op-invite")
                self.link = gr.HTML("", elem_id="op-link", js_on_load=None)
            with gr.Column(scale=5, min_width=320, elem_classes="op-card"):
                gr.HTML(f"<h3>{later('Users')}</h3>", js_on_load=None)
                self.list = gr.HTML("", elem_id="op-users", js_on_load=None)
        self.target = gr.Textbox("", visible="hidden")
        self.action = gr.Textbox("", visible="hidden")
        self.act = gr.Button("Act on user", visible="hidden", elem_id="op-act-user")

    @property
    def outputs(self) -> list[Any]:
        """What a look at the users changes."""
        return [self.list, self.link]

    def connect(self, ctx: Context) -> None:
        """Wire the tab's events."""

        def invite(name: str | None, new_name: Any, role: Any) -> list[Any]:
            return [*values(handlers.invite(ctx, name, new_name, role)), ""]

        def act(name: str | None, target: Any, action: Any) -> list[Any]:
            view = handlers.act(ctx, name, target, action)
            if view.notice:
                gr.Info(sentence(view.notice))
            return values(view)

        self.invite.click(
            event(invite), [self.name, self.role], [*self.outputs, self.name], concurrency_limit=2, **QUEUED
        )
        self.act.click(
            event(act),
            [self.target, self.action],
            self.outputs,
            js="() => [window.feedback.chosen.user, window.feedback.chosen.action]",
            concurrency_limit=2,
            **QUEUED,
        )


def values(view: UsersView) -> list[Any]:
    """The values of `UsersTab.outputs` for `view`."""
    now = utc_now()
    rows = [
        Row(
            [
                Markup(f"<b><bdi>{escape(user.name)}</bdi></b>{_you(user, view)}"),
                t(user.role.value),
                render.badge(_state(user, view)),
                render.when(user.created_at, now),
                _buttons(user, view),
            ]
        )
        for user in view.users
    ]
    return [render.table([t("name"), t("role"), t("state"), t("since"), ""], rows, t("Nobody yet.")), _link(view)]


def _you(user: User, view: UsersView) -> str:
    return f" {t('(you)')}" if user.name == view.me else ""


def _state(user: User, view: UsersView) -> str:
    if user.erased_at:
        return "erased"
    if user.disabled_at:
        return "disabled"
    return "active" if user.password_hash or user.id in view.by_provider else "no password yet"


def _buttons(user: User, view: UsersView) -> Markup:
    reachable = user.role is Role.ANNOTATOR or view.my_role is Role.ADMIN
    if user.name == view.me or not reachable or view.my_role not in policies.OPERATORS:
        return Markup("")
    if user.erased_at is not None:
        return Markup("")
    # Erasing takes two steps: an account that is closed already submits nothing in between.
    actions = [UserAction.ENABLE, UserAction.ERASE] if user.disabled_at else [UserAction.RESET, UserAction.DISABLE]
    labels = {
        UserAction.ENABLE: t("Enable"),
        UserAction.RESET: t("Reset link"),
        UserAction.DISABLE: t("Disable"),
        UserAction.ERASE: t("Erase…"),
    }
    return Markup(
        " ".join(
            f'<button type="button" class="op-button" data-user="{escape(user.name)}" data-action="{one.value}">'
            f"{labels[one]}</button>"
            for one in actions
        )
    )


def _erased(erased: Erased) -> str:
    """What is gone, and what the operator still has to decide about."""
    gone = t(
        "{name}: {annotations} annotations are empty shells now; {texts} texts were blanked.",
        name=erased.name,
        annotations=f"{erased.annotations:,}",
        texts=f"{erased.blanked:,}",
    )
    if not erased.snapshots:
        return render.note(f"{gone} {t('No snapshot was made with them.')}", "good")
    rows = [
        (t("snapshots with their words"), listed(erased.snapshots)),
        (t("copies in run folders"), listed(erased.runs) or t("none")),
        (t("model versions, now tainted"), listed(erased.versions) or t("none")),
    ]
    told = t(
        "Files are left as they are: they freeze what models were trained on. Delete these "
        "folders under FEEDBACK_HOME if the words must go, and train anew; exports and backups are yours to find."
    )
    return f"{render.note(f'{gone} {told}', 'warn')}{render.facts(rows)}"


def _link(view: UsersView) -> str:
    if view.erased is not None:
        return _erased(view.erased)
    if not view.link:
        return ""
    told = t(
        "One-time link for {name}. It is shown only now and works once, within {hours} hours. Send it on a private "
        "channel.",
        name=f"<b><bdi>{escape(view.link_for)}</bdi></b>",
        hours=f"{view.link_hours:g}",
    )
    return (
        f'<div class="op-link"><p>{told}</p>'
        f'<input readonly value="{escape(view.link)}" aria-label="{t("One-time link")}" onfocus="this.select()">'
        f'<button type="button" class="op-button" data-copy>{t("Copy")}</button></div>'
    )
