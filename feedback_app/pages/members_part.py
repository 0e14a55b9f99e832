"""The part of the Project tab that says who may enter the project."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback_app.handlers import membership as handlers
from feedback_app.handlers.context import Context
from feedback_app.handlers.membership import MembershipView
from feedback_app.i18n import later, t
from feedback_app.pages.wiring import LOOK, QUEUED, event


class MembersPart:
    """A switch, the list of members, and a button that saves both."""

    def __init__(self, project: gr.Dropdown) -> None:
        self.project = project
        with gr.Column(elem_classes="op-card"):
            gr.HTML(f"<h3>{later('Who may enter')}</h3>", js_on_load=None)
            self.only = gr.Checkbox(
                label=later("Members only"),
                info=later("Everybody else, operators too, does not see this project. Admins enter all."),
                elem_id="op-members-only",
            )
            self.members = gr.Dropdown(
                choices=[],
                multiselect=True,
                label=later("Members"),
                elem_id="op-members",
                # The server checks the names; Gradio would check them against the empty list above after a restart.
                allow_custom_value=True,
            )
            self.save = gr.Button(later("Save members"), elem_id="op-save-members")

    def connect(self, ctx: Context) -> None:
        """Wire the part's events: it follows the chosen project by itself."""

        def members_seen(name: str | None, project: str | None) -> list[Any]:
            return _values(handlers.see_members(ctx, name, project))

        def members_saved(name: str | None, project: str | None, only: Any, wanted: Any) -> list[Any]:
            view = handlers.save_members(ctx, name, project, only, wanted)
            gr.Info(t("The members are saved."))
            return _values(view)

        outputs = [self.only, self.members]
        self.project.change(event(members_seen), [self.project], outputs, **LOOK)
        self.save.click(event(members_saved), [self.project, *outputs], outputs, concurrency_limit=2, **QUEUED)


def _values(view: MembershipView) -> list[Any]:
    return [view.members_only, gr.Dropdown(choices=view.people, value=view.members)]
