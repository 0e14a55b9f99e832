"""The Project tab: guidelines, criteria, queue, sampling, training policy; creating a project."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback_app.handlers import project as handlers
from feedback_app.handlers import refining
from feedback_app.handlers.context import Context
from feedback_app.handlers.project import ProjectView
from feedback_app.i18n import later, message, sentence, t
from feedback_app.pages import cycle_fields, cycle_part, learning_fields, refining_fields, render
from feedback_app.pages.members_part import MembersPart
from feedback_app.pages.refining_fields import RefiningPart
from feedback_app.pages.wiring import QUEUED, QUICK, event
from storage.configs import PolicyMode
from storage.schedule import STARTED

_MODES = [
    (later("By hand only"), PolicyMode.OFF.value),
    (later("After so many annotations"), PolicyMode.EVERY_N.value),
    (later("At set times"), PolicyMode.CRON.value),
    (later("When too little was fixed"), PolicyMode.RESOLUTION.value),
]
_COLUMNS = [later("name"), later("what to look at"), later("lowest"), later("highest")]
_FIELDS = (
    "guidelines",
    "base_model",
    "overlap",
    "queue_target",
    "tags",
    "daily_target",
    "judge_first",
    "playground",
    "temperature",
    "top_p",
    "max_new_tokens",
    "best_of",
    "caution",
    "formats",
    "mode",
    "every_n",
    "cron",
    "kinds",
    *cycle_fields.FIELDS,
    *learning_fields.FIELDS,
    *refining_fields.FIELDS,
)
OUTPUTS = len(_FIELDS) + 2  # of `ProjectTab.outputs`: the criteria and when it trains next


class ProjectTab:
    """The tab's components; `outputs` stand in the order of `values`."""

    def __init__(self, project: gr.Dropdown) -> None:
        self.project = project
        self.fields: dict[str, Any] = {}
        with gr.Row(elem_classes="op-split"):
            with gr.Column(scale=5, min_width=320):
                with gr.Column(elem_classes="op-card"):
                    self._annotating()
                with gr.Column(elem_classes="op-card"):
                    self.refining = RefiningPart(self.fields)
            with gr.Column(scale=3, min_width=320):
                with gr.Column(elem_classes="op-card"):
                    self._training()
                with gr.Column(elem_classes="op-card"):
                    self._writing()
                with gr.Column(elem_classes="op-card"):
                    learning_fields.layout(self.fields)
                self.members = MembersPart(project)
        with gr.Row(elem_id="op-save-row"):
            self.save = gr.Button(later("Save project"), variant="primary", elem_id="op-save-project")
        with gr.Column(elem_classes="op-card"):
            gr.HTML(f"<h3>{later('Create a project')}</h3>", js_on_load=None)
            with gr.Row():
                self.new_name = gr.Textbox(
                    label=later("Name of the project"), max_lines=1, elem_id="op-new-project", scale=3
                )
                self.create = gr.Button(later("Create"), elem_id="op-create-project", scale=1, min_width=120)

    def _annotating(self) -> None:
        fields = self.fields
        gr.HTML(f"<h3>{later('What annotators see')}</h3>", js_on_load=None)
        fields["guidelines"] = gr.Textbox(
            label=later("Guidelines"), info=later("Markdown."), lines=9, max_lines=24, elem_id="op-guidelines"
        )
        self.criteria = gr.Dataframe(
            headers=_COLUMNS,
            datatype=["str", "str", "number", "number"],
            type="array",
            interactive=True,
            label=later("Criteria"),
            column_count=4,
            wrap=True,
            column_widths=["22%", "38%", "20%", "20%"],
            elem_id="op-criteria",
            buttons=[],
        )
        fields["tags"] = gr.Textbox(
            label=later("Quick tags of critiques"), info=later("One a line."), lines=3, max_lines=12, elem_id="op-tags"
        )
        with gr.Row():
            fields["overlap"] = gr.Number(1, label=later("Annotators per item"), precision=0, minimum=1, min_width=120)
            fields["queue_target"] = gr.Number(
                20, label=later("Items kept ready"), precision=0, minimum=0, min_width=120
            )
            fields["daily_target"] = gr.Number(
                0, label=later("Daily target"), info=later("A person; 0: none."), precision=0, minimum=0, min_width=120
            )
        fields["judge_first"] = gr.Checkbox(
            label=later("Judge first: critiques open after the verdict"), elem_id="op-judge-first"
        )
        fields["playground"] = gr.Checkbox(
            True, label=later("Playground: annotators may write to the model themselves"), elem_id="op-playground"
        )

    def _training(self) -> None:
        fields = self.fields
        gr.HTML(f"<h3>{later('Training by itself')}</h3>", js_on_load=None)
        self.due = gr.HTML("", elem_id="op-due", js_on_load=None)
        fields["mode"] = gr.Radio(_MODES, value=PolicyMode.OFF.value, label=later("When"), elem_id="op-mode")
        with gr.Row():
            fields["every_n"] = gr.Number(100, label=later("New annotations"), precision=0, minimum=1, min_width=120)
            fields["cron"] = gr.Textbox(label=later("Times (cron, UTC)"), max_lines=1, min_width=120)
        cycle_fields.layout_resolution(fields)
        kinds = [(later(kind.value), kind.value) for kind in sorted(STARTED, key=lambda one: one.trains)]
        fields["kinds"] = gr.CheckboxGroup(
            kinds,
            label=later("What to train"),
            info=later("A cycle trains all that is needed: choose it alone."),
            elem_id="op-kinds",
        )
        cycle_fields.layout(fields)

    def _writing(self) -> None:
        fields = self.fields
        gr.HTML(f"<h3>{later('How completions are written')}</h3>", js_on_load=None)
        fields["base_model"] = gr.Textbox(
            label=later("Base model"), info=later("Empty: the installation's. A local folder or hub id."), max_lines=1
        )
        with gr.Row():
            fields["temperature"] = gr.Number(0.8, label=later("Temperature"), min_width=90)
            fields["top_p"] = gr.Number(0.9, label=later("Top-p"), min_width=90)
            fields["max_new_tokens"] = gr.Number(160, label=later("Max. tokens"), precision=0, min_width=90)
        with gr.Row():
            fields["best_of"] = gr.Number(
                1,
                label=later("Best of"),
                info=later("So many are sampled for each that is kept, by the reward model; 1: each as it comes."),
                precision=0,
                minimum=1,
                maximum=16,
                min_width=150,
            )
            fields["caution"] = gr.Number(
                1.0,
                label=later("Caution"),
                info=later("Times the spread of its heads, taken off the reward."),
                minimum=0,
                maximum=10,
                step=0.1,
                min_width=150,
            )
        fields["formats"] = gr.Textbox(
            label=later("Format checks"),
            info=later(
                "NAME: KIND VALUE, one a line: contains, lacks, matches, at_most, at_least. Evaluations count it."
            ),
            lines=2,
            max_lines=10,
            elem_id="op-formats",
        )

    @property
    def outputs(self) -> list[Any]:
        """What a look at the project changes."""
        return [*(self.fields[name] for name in _FIELDS), self.criteria, self.due]

    def connect(self, ctx: Context, reload: Any, everything: list[Any]) -> None:
        """Wire the tab's events; `reload(name, project)` gives the values of `everything` after a project was made."""

        def save(name: str | None, project: str | None, criteria: Any, *given: Any) -> list[Any]:
            handlers.save(ctx, name, project, dict(zip(_FIELDS, given, strict=True)), criteria)
            gr.Info(t("The project is saved."))
            return values(handlers.see_project(ctx, name, project))

        def create(name: str | None, new_name: Any) -> list[Any]:
            made = handlers.create(ctx, name, new_name)
            gr.Info(t("Project “{name}” is there; add prompts on the Data tab.", name=made))
            return [*reload(name, made), ""]

        def our_wordings(name: str | None, project: str | None) -> list[Any]:
            ours = refining.default_wordings(ctx, name, project)
            return [ours[one] for one in refining.WORDINGS]

        self.members.connect(ctx)
        wordings = [self.fields[one] for one in refining.WORDINGS]
        self.refining.reset.click(event(our_wordings), [self.project], wordings, **QUICK)
        given = [self.project, self.criteria, *(self.fields[name] for name in _FIELDS)]
        self.save.click(event(save), given, self.outputs, concurrency_limit=2, **QUEUED)
        self.create.click(event(create), [self.new_name], [*everything, self.new_name], concurrency_limit=1, **QUEUED)


def values(view: ProjectView) -> list[Any]:
    """The values of `ProjectTab.outputs` for `view`."""
    sampling, policy = view.sampling, view.policy
    placeholder = gr.Textbox(value=view.base_model, placeholder=view.default_base_model)
    criteria = [[one.name, one.description, one.low, one.high] for one in view.criteria]
    due = ""
    if view.due:
        kind = "good" if view.due.kinds else "info"
        due = render.note(sentence(message(view.due.reason)), kind) + cycle_part.refused(view.due)
    return [
        view.guidelines,
        placeholder,
        view.overlap,
        view.queue_target,
        "\n".join(view.tags),
        view.annotating.daily_target,
        view.annotating.order == "judge_first",
        view.annotating.playground,
        sampling.temperature,
        sampling.top_p,
        sampling.max_new_tokens,
        sampling.best_of,
        sampling.caution,
        "\n".join(view.annotating.formats),
        policy.mode.value,
        policy.every_n,
        policy.cron,
        list(policy.kinds),
        *cycle_fields.values(view),
        *learning_fields.values(view),
        *refining_fields.values(view.refining),
        # With its heads: what a page is filled with later does not reach those of an event.
        {"headers": [t("name"), t("what to look at"), t("lowest"), t("highest")], "data": criteria or [["", "", 1, 5]]},
        due,
    ]
