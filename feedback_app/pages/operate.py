"""/operate: runs, models, data, users and the project; one file a tab."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback_app.handlers import data, models, people, project, runs
from feedback_app.handlers.context import Context
from feedback_app.i18n import later, said
from feedback_app.pages import (
    data_tab,
    gate_part,
    gold_tab,
    models_tab,
    project_tab,
    quality_tab,
    render,
    rules_tab,
    runs_tab,
    users_tab,
)
from feedback_app.pages.wiring import BRAND, HEADING, LOOK, SLOW_LOOK, account_links, event
from storage.errors import FeedbackError

JS_OF_URL = """(project, run) => {
  const query = new URLSearchParams(location.search);
  return [query.get('project') ?? project, query.get('run') ?? run];
}"""
JS_OTHER_PROJECT = """(project) => {
  const other = window.feedback.otherProject(project);
  if (other !== null) window.feedback.keep('run', '');
  return [other];
}"""


def build(ctx: Context) -> gr.Blocks:
    """The page's layout and its events."""
    with gr.Blocks(title=later("Operate · Feedback"), fill_width=True, delete_cache=(3600, 3600)) as demo:
        with gr.Row(elem_id="fb-top"):
            gr.HTML(BRAND + HEADING.format(later("Operate")), elem_id="fb-brand", js_on_load=None)
            chosen = gr.Dropdown(
                choices=[],
                label=later("Project"),
                show_label=False,
                container=False,
                elem_id="fb-project",
                # The server checks the name; Gradio would check it against the empty list above after a restart.
                allow_custom_value=True,
            )
            top = gr.HTML("", elem_id="fb-bar", js_on_load=None)
        with gr.Tabs(elem_id="op-tabs"):
            with gr.Tab(later("Runs"), id="runs") as runs_head:
                runs_part = runs_tab.RunsTab(chosen)
            with gr.Tab(later("Models"), id="models") as models_head:
                models_part = models_tab.ModelsTab(chosen)
            with gr.Tab(later("Data"), id="data") as data_head:
                data_part = data_tab.DataTab(chosen)
            with gr.Tab(later("Quality"), id="quality") as quality_head:
                quality_part = quality_tab.QualityTab(chosen)
            with gr.Tab(later("Rules"), id="rules") as rules_head:
                rules_part = rules_tab.RulesTab(chosen)
            with gr.Tab(later("Gold"), id="gold") as gold_head:
                gold_part = gold_tab.GoldTab(chosen)
            with gr.Tab(later("Users"), id="users") as users_head:
                users_part = users_tab.UsersTab()
            with gr.Tab(later("Project"), id="project") as project_head:
                project_part = project_tab.ProjectTab(chosen)

        see = _Looks(ctx)
        everything = [
            top,
            chosen,
            *project_part.outputs,
            *runs_part.outputs,
            *models_part.outputs,
            *models_part.gate.bars,
            *data_part.outputs,
            *users_part.outputs,
        ]
        for part in (runs_part, data_part, users_part):
            part.connect(ctx)
        models_part.connect(ctx, models_head)
        project_part.connect(ctx, see.everything, everything)
        quality_part.connect(ctx, quality_head)
        rules_part.connect(ctx, rules_head)
        gold_part.connect(ctx, gold_head)

        def other_project(name: str | None, project: str | None) -> list[Any]:
            # None: the list was opened and left.
            return see.everything(name, project) if project else [gr.skip() for _ in everything]

        demo.load(event(see.everything), [chosen, runs_part.selected], everything, js=JS_OF_URL, **LOOK)
        chosen.input(event(other_project), [chosen], everything, js=JS_OTHER_PROJECT, **LOOK)
        # Walking through all feedback takes a while in a large project: beside everything else, one at a time, and only
        # when somebody comes to look.
        gr.on(
            [chosen.change, runs_head.select, runs_part.again.click],
            event(see.preview),
            [chosen, runs_part.kind],
            [runs_part.preview, runs_part.says],
            concurrency_limit=1,
            **SLOW_LOOK,
        )
        here = [chosen, runs_part.selected]
        runs_head.select(event(see.runs), here, runs_part.outputs, **LOOK)
        models_head.select(event(see.models), [chosen, models_part.selected], models_part.outputs, **LOOK)
        data_head.select(event(see.data), [chosen], data_part.outputs, **LOOK)
        users_head.select(event(see.users), None, users_part.outputs, **LOOK)
        project_head.select(event(see.project), [chosen], project_part.outputs, **LOOK)
    demo.queue(api_open=False, default_concurrency_limit=4, max_size=200)
    return demo


class _Looks:
    """What reading events return: each tab alone, and the whole page."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx

    # A tab is also "selected" while the page loads, before a project is chosen: `everything` is on its way then.

    def runs(self, name: str | None, chosen: str | None, run: Any) -> list[Any]:
        """The Runs tab."""
        return (
            runs_tab.values(runs.see_runs(self.ctx, name, chosen, run)) if chosen else self._nothing(runs_tab.OUTPUTS)
        )

    def models(self, name: str | None, chosen: str | None, version: Any) -> list[Any]:
        """The Models tab."""
        if not chosen:
            return self._nothing(models_tab.OUTPUTS)
        return models_tab.values(models.see_models(self.ctx, name, chosen, version))

    def data(self, name: str | None, chosen: str | None) -> list[Any]:
        """The Data tab."""
        return data_tab.values(data.see_data(self.ctx, name, chosen)) if chosen else self._nothing(2)

    def users(self, name: str | None) -> list[Any]:
        """The Users tab."""
        return users_tab.values(people.see_users(self.ctx, name))

    def project(self, name: str | None, chosen: str | None) -> list[Any]:
        """The Project tab."""
        if not chosen:
            return self._nothing(project_tab.OUTPUTS)
        return project_tab.values(project.see_project(self.ctx, name, chosen))

    def preview(self, name: str | None, chosen: str | None, kind: Any) -> list[Any]:
        """What training would use, and what the kind of run that is chosen makes."""
        if not chosen:
            return self._nothing(2)
        try:
            choice = runs.what_auto_would_do(self.ctx, name, chosen) if kind == runs.AUTO else None
            used = runs_tab.preview(runs.what_training_uses(self.ctx, name, chosen))
            return [used, runs_tab.says(kind, choice)]
        except FeedbackError as error:
            return [render.note(said(error), "bad"), gr.skip()]

    @staticmethod
    def _nothing(outputs: int) -> list[Any]:
        return [gr.skip() for _ in range(outputs)]

    def everything(self, name: str | None, chosen: str | None, run: Any = None) -> list[Any]:
        """Every tab, for the project chosen or the first one."""
        view = project.see_project(self.ctx, name, chosen)
        here = view.project
        versions = models.see_models(self.ctx, name, here, None)
        return [
            f'<nav class="fb-nav">{account_links(view.me, view.my_role, "operate")}</nav>',
            gr.Dropdown(choices=view.projects, value=here),
            *project_tab.values(view),
            *runs_tab.values(runs.see_runs(self.ctx, name, here, run)),
            *models_tab.values(versions),
            *gate_part.bars(versions.bars),
            *data_tab.values(data.see_data(self.ctx, name, here)),
            *self.users(name),
        ]
