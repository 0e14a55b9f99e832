"""The Runs tab: start a run, the newest runs, and the selected one live."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from feedback_app import plots
from feedback_app.handlers import runs as handlers
from feedback_app.handlers.context import Context
from feedback_app.handlers.runs import RunsView, RunView
from feedback_app.pages import render
from feedback_app.pages.render import Markup, Row
from feedback_app.pages.wiring import QUEUED, QUICK, event
from storage.enums import RunKind, RunStatus, Split
from storage.models import Run
from storage.training import Preview

LOOK_AGAIN = 2.0
LOOK_LATER = 15.0  # while nothing runs: a worker may start something by itself
KINDS = [
    ("Policy (DPO)", RunKind.DPO.value),
    ("Reward model", RunKind.REWARD.value),
    ("Completions", RunKind.GENERATE.value),
]
_MORE_HINT = "One name=value a line, e.g. max_steps=40, lora_r=8, rating_margin=0.5; for completions: prompts=50"


class RunsTab:
    """The tab's components; `outputs` stand in the order of `values`."""

    def __init__(self, project: gr.Dropdown) -> None:
        self.project = project
        with gr.Row(elem_classes="op-split"):
            with gr.Column(scale=2, min_width=320, elem_classes="op-narrow"):
                self._start_form()
            with gr.Column(scale=5, min_width=320):
                self._follow()
        self.selected = gr.Textbox("", visible="hidden", elem_id="op-run")
        self.select = gr.Button("Select run", visible="hidden", elem_id="op-select-run")
        self.timer = gr.Timer(LOOK_AGAIN, active=False)

    def _start_form(self) -> None:
        with gr.Column(elem_classes="op-card"):
            gr.HTML("<h3>Start a run</h3>", js_on_load=None)
            self.kind = gr.Radio(KINDS, value=RunKind.DPO.value, label="What to make", elem_id="op-kind")
            self.preview = gr.HTML("", elem_id="op-preview", js_on_load=None)
            with gr.Row():
                self.epochs, self.rate, self.beta = (
                    gr.Textbox(label=label, placeholder="auto", max_lines=1, min_width=80)
                    for label in ("Epochs", "Rate", "Beta")
                )
            with gr.Accordion("More settings", open=False, elem_classes="op-more"):
                self.more = gr.Textbox(label="name=value", info=_MORE_HINT, lines=4, max_lines=12)
            self.start = gr.Button("Start", variant="primary", elem_id="op-start")

    def _follow(self) -> None:
        with gr.Column(elem_classes="op-card"):
            self.header = gr.HTML("", elem_id="op-run-head", js_on_load=None)
            with gr.Row(elem_id="op-plots"):
                self.loss = _plot(plots.LOSS)
                self.accuracy = _plot(plots.ACCURACY)
            with gr.Row(elem_id="op-run-actions"):
                self.cancel = gr.Button("Cancel run", variant="stop", elem_id="op-cancel", visible=False)
            self.detail = gr.HTML("", elem_id="op-run-detail", js_on_load=None)
        with gr.Column(elem_classes="op-card"):
            gr.HTML("<h3>Runs</h3>", js_on_load=None)
            self.list = gr.HTML("", elem_id="op-runs", js_on_load=None)

    @property
    def outputs(self) -> list[Any]:
        """What a look at the runs changes."""
        return [
            self.list,
            self.selected,
            self.header,
            self.loss,
            self.accuracy,
            self.cancel,
            self.detail,
            self.timer,
        ]

    def connect(self, ctx: Context) -> None:
        """Wire the tab's events."""

        def look(name: str | None, project: str | None, run: Any) -> list[Any]:
            return values(handlers.see_runs(ctx, name, project, run))

        def start(
            name: str | None, project: str | None, kind: Any, epochs: Any, rate: Any, beta: Any, more: Any
        ) -> list[Any]:
            asked = {"epochs": epochs, "learning_rate": rate, "beta": beta}
            view = handlers.start(ctx, name, project, kind, asked, more)
            if view.selected:
                gr.Info(f"Run {view.selected.run.id} is queued.")
            return values(view)

        def cancel(name: str | None, project: str | None, run: Any) -> list[Any]:
            return values(handlers.cancel(ctx, name, project, run))

        here = [self.project, self.selected]
        form = [self.project, self.kind, self.epochs, self.rate, self.beta, self.more]
        self.timer.tick(event(look), here, self.outputs, **QUICK)
        self.select.click(event(look), here, self.outputs, js="(p) => [p, window.feedback.chosen.run]", **QUICK)
        begun = self.start.click(event(start), form, self.outputs, concurrency_limit=2, **QUEUED)
        begun.success(None, [self.selected], None, js="(run) => window.feedback.keep('run', run)")
        self.cancel.click(event(cancel), here, self.outputs, concurrency_limit=2, **QUEUED)


def _plot(plot: plots.Plot) -> gr.LinePlot:
    return gr.LinePlot(
        plots.frame(plot, {}),
        x="step",
        y="value",
        color="series",
        color_map=plot.colours,
        title=plot.title,
        x_title="step",
        y_title=" ",
        color_title=" ",
        height=230,
        min_width=260,
        buttons=["fullscreen", "export"],
    )


# --- what the components show ---


def values(view: RunsView) -> list[Any]:
    """The values of `RunsTab.outputs` for `view`."""
    chosen = view.selected
    series = chosen.series if chosen else {}
    cancellable = chosen is not None and not chosen.run.status.ended
    return [
        run_list(view),
        str(chosen.run.id) if chosen else "",
        header(chosen, view),
        plots.frame(plots.LOSS, series),
        plots.frame(plots.ACCURACY, series),
        gr.Button(visible=cancellable),
        detail(chosen) if chosen else "",
        gr.Timer(LOOK_AGAIN if view.live else LOOK_LATER, active=True),
    ]


def run_list(view: RunsView) -> str:
    """The table of runs; a row is chosen with a click or Enter."""
    if view.project is None:
        return render.note("Create a project first, on the Project tab.")
    chosen = view.selected.run.id if view.selected else None
    rows = [
        Row(
            [
                Markup(f"<b>{run.id}</b>"),
                run.kind.value,
                render.badge(run.status.value),
                _progress(run),
                render.when(run.created_at, view.now),
            ],
            {
                "data-run": str(run.id),
                "tabindex": "0",
                "aria-selected": "true" if run.id == chosen else "false",
            },
        )
        for run in view.runs
    ]
    return render.table(["run", "kind", "status", "progress", "asked"], rows, "No runs yet: start the first one.")


def _progress(run: Run) -> Markup:
    if not run.total_steps:
        return Markup("–")
    share = 100 * min(1.0, (run.step or 0) / run.total_steps)
    return Markup(
        f'<span class="op-bar"><i style="width:{share:.0f}%"></i></span> {run.step or 0:,}/{run.total_steps:,}'
    )


def header(chosen: RunView | None, view: RunsView) -> str:
    """Name, status, progress with the time left, and why it failed."""
    if chosen is None:
        return render.note("Nothing has run yet. Start a run on the left; its progress appears here.")
    run = chosen.run
    line = f"<h3>Run {run.id} · {escape(run.kind.value)} {render.badge(run.status.value)}</h3>"
    parts: list[str] = [line, f'<p class="op-muted">{_told(chosen, view)}</p>']
    if run.status is RunStatus.RUNNING and run.total_steps:
        share = 100 * min(1.0, (run.step or 0) / run.total_steps)
        parts.append(
            f'<div class="op-progress" role="progressbar" aria-valuenow="{share:.0f}">'
            f'<i style="width:{share:.1f}%"></i></div>'
        )
    if run.error:
        parts.append(render.note(run.error, "bad" if run.status is RunStatus.FAILED else "warn"))
    return "".join(parts)


def _told(chosen: RunView, view: RunsView) -> str:
    run = chosen.run
    by = f" by {escape(chosen.asked_by)}" if chosen.asked_by else f" by {escape(run.cause)}" if run.cause else ""
    told = [f"asked {render.when(run.created_at, view.now)}{by}"]
    if run.status is RunStatus.QUEUED:
        told.append("waits for a worker")
    if run.status is RunStatus.RUNNING:
        if run.total_steps:
            told.append(f"step {run.step or 0:,} of {run.total_steps:,}")
        if chosen.seconds_left is not None:
            told.append(f"about {render.duration(chosen.seconds_left)} left")
        if run.cancel_requested_at:
            told.append("stopping")
    if run.status.ended and run.started_at and run.finished_at:
        told.append(f"took {render.duration((run.finished_at - run.started_at).total_seconds())}")
    if chosen.made:
        told.append(f"made <b>{escape(chosen.made)}</b>")
    return " · ".join(told)


def detail(chosen: RunView) -> str:
    """Result, data, settings and log, folded."""
    run = chosen.run
    log = "\n".join(escape(line) for line in chosen.log) or "Nothing yet."
    parts: list[str] = []
    if run.result:
        parts.append(
            render.fold("Result", render.facts((k, render.number(v)) for k, v in render.flat(run.result)), True)
        )
    if chosen.snapshot:
        parts.append(render.fold("Data", _snapshot(chosen)))
    own = set(run.asked)
    settings = [(key + (" (set)" if key in own else ""), render.number(value)) for key, value in run.config.items()]
    parts.append(render.fold("Settings", render.facts([("parent", chosen.parent), ("seed", run.seed), *settings])))
    if run.environment:
        parts.append(render.fold("Environment", render.facts(render.flat(run.environment))))
    parts.append(render.fold("Log", Markup(f'<pre class="op-log">{log}</pre>'), run.status is RunStatus.FAILED))
    return "".join(parts)


def _snapshot(chosen: RunView) -> Markup:
    if chosen.snapshot is None:
        return Markup("")
    report = chosen.snapshot.report
    pairs = [("snapshot", chosen.snapshot.content_hash[:12])]
    pairs += [(key, render.number(value)) for key, value in render.flat(report)]
    return render.facts(pairs)


def preview(found: Preview | None) -> str:
    """What training would use now, and what is missing."""
    if found is None:
        return render.note("Create a project first, on the Project tab.")
    figures = [(f"{split.value} pairs", f"{found.pairs.get(split, 0):,}") for split in Split]
    parts: list[str] = [render.stats([("annotations", f"{found.annotations:,}"), *figures])]
    if found.missing:
        parts.append(render.note(f"Training needs {found.missing}.", "warn"))
    told = [f"{n:,} {name.replace('_', ' ')}" for name, n in found.used.items() if n]
    left = [f"{n:,} {name.replace('_', ' ')}" for name, n in found.left_out.items() if n]
    if told:
        parts.append(f'<p class="op-muted">Used: {escape(", ".join(told))}</p>')
    if left:
        parts.append(f'<p class="op-muted">Left out: {escape(", ".join(left))}</p>')
    return "".join(parts)
