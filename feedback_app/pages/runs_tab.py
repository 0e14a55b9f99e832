"""The Runs tab: start a run, the newest runs, and the selected one live."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import gradio as gr

from feedback_app import plots
from feedback_app.handlers import runs as handlers
from feedback_app.handlers.context import Context
from feedback_app.handlers.runs import AUTO, RunsView, RunView
from feedback_app.i18n import later, listed, message, named, sentence, t
from feedback_app.pages import cycle_part, evaluation_part, render
from feedback_app.pages.render import Markup, Row
from feedback_app.pages.wiring import LOOK, QUEUED, event
from storage.auto import Choice
from storage.enums import RunKind, RunStatus, Split
from storage.models import Run
from storage.runs import can_go_on
from storage.training import Preview

LOOK_AGAIN = 2.0
LOOK_LATER = 15.0  # while nothing runs: a worker may start something by itself
KINDS = [
    (later("Whatever is best now"), AUTO),
    (later("A whole cycle"), RunKind.CYCLE.value),
    (later("Refinements"), RunKind.REFINE.value),
    (later("Policy (DPO)"), RunKind.DPO.value),
    (later("Policy (SFT)"), RunKind.SFT.value),
    (later("Policy (KTO)"), RunKind.KTO.value),
    (later("Policy (conditional)"), RunKind.CONDITIONAL.value),
    (later("Policy (SDFT)"), RunKind.SDFT.value),
    (later("Reward model"), RunKind.REWARD.value),
    (later("Completions"), RunKind.GENERATE.value),
    (later("Evaluation"), RunKind.EVALUATE.value),
]
_MORE_HINT = later("One name=value a line, e.g. max_steps=40, lora_r=8, rating_margin=0.5; for completions: prompts=50")

OUTPUTS = 9  # of `RunsTab.outputs`


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
        self.again = gr.Button("Count again", visible="hidden", elem_id="op-count-again")
        self.timer = gr.Timer(LOOK_AGAIN, active=False)

    def _start_form(self) -> None:
        with gr.Column(elem_classes="op-card"):
            gr.HTML(f"<h3>{later('Start a run')}</h3>", js_on_load=None)
            self.kind = gr.Radio(KINDS, value=AUTO, label=later("What to make"), elem_id="op-kind")
            self.says = gr.HTML("", elem_id="op-kind-says", js_on_load=None)
            self.preview = gr.HTML("", elem_id="op-preview", js_on_load=None)
            with gr.Row():
                self.epochs, self.rate, self.beta = (
                    gr.Textbox(label=label, placeholder=later("auto"), max_lines=1, min_width=80)
                    for label in (later("Epochs"), later("Rate"), later("Beta"))
                )
            with gr.Accordion(later("More settings"), open=False, elem_classes="op-more"):
                self.more = gr.Textbox(label=later("name=value"), info=_MORE_HINT, lines=4, max_lines=12)
            self.start = gr.Button(later("Start"), variant="primary", elem_id="op-start")

    def _follow(self) -> None:
        with gr.Column(elem_classes="op-card"):
            self.header = gr.HTML("", elem_id="op-run-head", js_on_load=None)
            with gr.Row(elem_id="op-plots"):
                self.loss = _plot(plots.LOSS)
                self.accuracy = _plot(plots.ACCURACY)
            with gr.Row(elem_id="op-run-actions"):
                self.cancel = gr.Button(later("Cancel run"), variant="stop", elem_id="op-cancel", visible=False)
                self.resume = gr.Button(later("Go on"), elem_id="op-resume", visible=False)
            self.detail = gr.HTML("", elem_id="op-run-detail", js_on_load=None)
        with gr.Column(elem_classes="op-card"):
            gr.HTML(f"<h3>{later('Runs')}</h3>", js_on_load=None)
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
            self.resume,
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
                gr.Info(t("Run {number} is queued.", number=view.selected.run.id))
            return values(view)

        def cancel(name: str | None, project: str | None, run: Any) -> list[Any]:
            return values(handlers.cancel(ctx, name, project, run))

        def resume(name: str | None, project: str | None, run: Any) -> list[Any]:
            view = handlers.resume(ctx, name, project, run)
            gr.Info(t("Run {number} is queued again; it goes on from its last checkpoint.", number=str(run)))
            return values(view)

        def explain(name: str | None, project: str | None, kind: Any) -> str:
            choice = handlers.what_auto_would_do(ctx, name, project)  # asks the policy, whatever the kind
            return says(kind, choice if kind == AUTO else None)

        here = [self.project, self.selected]
        self.kind.input(event(explain), [self.project, self.kind], [self.says], **LOOK)
        form = [self.project, self.kind, self.epochs, self.rate, self.beta, self.more]
        self.timer.tick(event(look), here, self.outputs, **LOOK)
        self.select.click(event(look), here, self.outputs, js="(p) => [p, window.feedback.chosen.run]", **LOOK)
        begun = self.start.click(event(start), form, self.outputs, concurrency_limit=2, **QUEUED)
        begun.success(None, [self.selected], None, js="(run) => window.feedback.keep('run', run)")
        self.resume.click(event(resume), here, self.outputs, concurrency_limit=2, **QUEUED)
        self.cancel.click(event(cancel), here, self.outputs, concurrency_limit=2, **QUEUED)


def _plot(plot: plots.Plot) -> gr.LinePlot:
    return gr.LinePlot(
        plots.frame(plot, {}, later),
        x="step",
        y="value",
        color="series",
        color_map={later(label): colour for _, label, colour in plot.lines},
        title=later(plot.title),
        x_title=later("step"),
        y_title=" ",
        color_title=" ",
        height=230,
        min_width=260,
        buttons=["fullscreen", "export"],
        visible=False,
    )


# --- what the components show ---


def values(view: RunsView) -> list[Any]:
    """The values of `RunsTab.outputs` for `view`."""
    chosen = view.selected
    cancellable = chosen is not None and not chosen.run.status.ended
    return [
        run_list(view),
        str(chosen.run.id) if chosen else "",
        header(chosen, view),
        _drawn(plots.LOSS, chosen),
        _drawn(plots.ACCURACY, chosen),
        gr.Button(visible=cancellable),
        gr.Button(visible=chosen is not None and can_go_on(chosen.run)),
        detail(chosen) if chosen else "",
        gr.Timer(LOOK_AGAIN if view.live else LOOK_LATER, active=True),
    ]


def _drawn(plot: plots.Plot, chosen: RunView | None) -> gr.LinePlot:
    """The plot, there when it has points or a training that has not ended will give it some."""
    if chosen is None:
        return gr.LinePlot(visible=False)
    run = chosen.plotted
    awaited = run.kind.form in plot.forms and not run.status.ended
    begun = any(chosen.series.get(metric) for metric, _, _ in plot.lines)
    return gr.LinePlot(plots.frame(plot, chosen.series), visible=begun or awaited)


def run_list(view: RunsView) -> str:
    """The table of runs; a row is chosen with a click or Enter."""
    if view.project is None:
        return render.note(t("Create a project first, on the Project tab."))
    chosen = view.selected.run.id if view.selected else None
    rows = [
        Row(
            [
                Markup(f"<b>{run.id}</b>"),
                t(run.kind.value),
                render.badge(run.status.value),
                _progress(run),
                render.when(run.created_at, view.now),
            ],
            {
                "data-run": str(run.id),
                "tabindex": "0",
                "aria-selected": "true" if run.id == chosen else "false",
                **({"data-step": "true"} if run.parent_run_id else {}),
            },
        )
        for run in _by_cycle(view.runs)
    ]
    heads = [t("run"), t("kind"), t("status"), t("progress"), t("asked")]
    return cycle_part.due(view.due) + render.table(heads, rows, t("No runs yet: start the first one."))


def _by_cycle(runs: list[Run]) -> list[Run]:
    """The newest first, the steps of a cycle below it in their order."""
    there = {run.id for run in runs}
    ordered = []
    for run in runs:
        if run.parent_run_id not in there:
            steps = [one for one in runs if one.parent_run_id == run.id]
            ordered += [run, *reversed(steps)]
    return ordered


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
        return render.note(
            t(
                "Nothing has run yet. Add prompts on the Data tab, let a run write completions for them, and train "
                "once annotators have judged some; what runs is followed here."
            )
        )
    run = chosen.run
    title = t("Run {number} · {kind}", number=run.id, kind=t(run.kind.value))
    line = f"<h3>{escape(title)} {render.badge(run.status.value)}</h3>"
    parts: list[str] = [line, f'<p class="op-muted">{_told(chosen, view)}</p>']
    if run.status is RunStatus.RUNNING and run.total_steps:
        share = 100 * min(1.0, (run.step or 0) / run.total_steps)
        parts.append(
            f'<div class="op-progress" role="progressbar" aria-label="{t("Progress")}" aria-valuenow="{share:.0f}">'
            f'<i style="width:{share:.1f}%"></i></div>'
        )
    if run.error:
        parts.append(render.note(sentence(message(run.error)), "bad" if run.status is RunStatus.FAILED else "warn"))
    parts.append(cycle_part.steps(chosen))
    return "".join(parts)


def _told(chosen: RunView, view: RunsView) -> str:
    run = chosen.run
    asked = render.when(run.created_at, view.now)
    if by := chosen.asked_by or (run.cause and message(run.cause.removesuffix(f":{run.kind.value}"))):
        told = [t("asked {when} by {who}", when=asked, who=escape(by))]
    else:
        told = [t("asked {when}", when=asked)]
    if run.status is RunStatus.QUEUED:
        told.append(t("waits for a worker"))
    if run.status is RunStatus.RUNNING:
        if run.total_steps:
            told.append(t("step {n} of {all}", n=f"{run.step or 0:,}", all=f"{run.total_steps:,}"))
        if chosen.seconds_left is not None:
            told.append(t("about {span} left", span=render.duration(chosen.seconds_left)))
        if run.cancel_requested_at:
            told.append(t("stopping"))
    if run.status.ended and run.started_at and run.finished_at:
        span = render.duration((run.finished_at - run.started_at).total_seconds())
        told.append(t("took {span}", span=span))
    if run.parent_run_id:
        told.append(t("step of cycle {number}", number=run.parent_run_id))
    if chosen.made:
        told.append(t("made {version}", version=f"<b>{escape(chosen.made)}</b>"))
    return " · ".join(told)


def detail(chosen: RunView) -> str:
    """Result, data, settings and log, folded."""
    run = chosen.run
    log = "\n".join(escape(line) for line in chosen.log) or escape(t("Nothing yet."))
    parts: list[str] = []
    result = {name: value for name, value in (run.result or {}).items() if name != "steps"}
    if chosen.evaluation:
        parts.append(evaluation_part.found(chosen.evaluation, chosen.seeds))
    elif result:
        parts.append(render.fold(t("Result"), render.facts(render.figures(result)), True))
    if chosen.snapshot:
        parts.append(render.fold(t("Data"), _snapshot(chosen)))
    own = set(run.asked)
    settings = [(_setting(key, key in own), render.number(value)) for key, value in run.config.items()]
    known = [(t("parent"), chosen.parent), (named("seed"), run.seed)]
    parts.append(render.fold(t("Settings"), render.facts([*known, *settings])))
    if run.environment:
        parts.append(render.fold(t("Environment"), render.facts(render.figures(run.environment))))
    parts.append(render.fold(t("Log"), Markup(f'<pre class="op-log">{log}</pre>'), run.status is RunStatus.FAILED))
    return "".join(parts)


def _setting(key: str, own: bool) -> Markup:
    """A setting by the name that "More settings" takes, in other languages with what it means."""
    code, words = Markup(f"<code>{escape(key)}</code>"), named(key)
    told = code if words == key.replace("_", " ") else Markup(f"{escape(words)} {code}")
    return Markup(t("{name} (set)", name=told)) if own else told


def _snapshot(chosen: RunView) -> Markup:
    if chosen.snapshot is None:
        return Markup("")
    return render.facts([(t("snapshot"), chosen.snapshot.content_hash[:12]), *render.figures(chosen.snapshot.report)])


def says(kind: Any, choice: Choice | None) -> str:
    """A sentence on what a kind of run makes; for the application's own choice, what it would be now and why."""
    told = _sentence(kind)
    if choice is not None:
        what = t(choice.kind.value) if choice.kind else t("nothing yet")
        told = f"{t('Now: {what}.', what=what)} {' '.join(message(reason) for reason in choice.reasons)}"
    return f'<p class="op-muted">{escape(told)}</p>' if told else ""


def _sentence(kind: Any) -> str:
    return {
        RunKind.CYCLE.value: t(
            "Everything in turn: reward model, refinements, policy, evaluation, gate and, where it may, promotion."
        ),
        RunKind.REFINE.value: t(
            "Rewrites what was criticised as each critique asks, judges the results and keeps the best: so critiques "
            "train."
        ),
        RunKind.DPO.value: t("A better policy from pairs: comparisons, rating gaps and refinements over originals."),
        RunKind.SFT.value: t("A policy that writes like the refinements, held near the base model elsewhere."),
        RunKind.KTO.value: t("A better policy from thumbs and ratings of single completions, without pairs."),
        RunKind.CONDITIONAL.value: t(
            "A policy that knows what feedback means, from every criticised or rated completion, and writes under the "
            "best."
        ),
        RunKind.SDFT.value: t("For large models: the model that sees the critiques teaches the one that does not."),
        RunKind.REWARD.value: t("A model that scores completions as the annotators would."),
        RunKind.GENERATE.value: t("Completions for the prompts that need them most, for annotators to judge."),
        RunKind.EVALUATE.value: t(
            "Measures a version beside the champion on prompts that never train: the newest candidate, or the one that "
            "“More settings” names, as in version=policy-v3."
        ),
    }.get(str(kind), "")


def preview(found: Preview | None) -> str:
    """What training would use now, and what is missing."""
    if found is None:
        return render.note(t("Create a project first, on the Project tab."))
    figures = [(t(f"{split.value} pairs"), f"{found.pairs.get(split, 0):,}") for split in Split]
    parts: list[str] = [render.stats([(t("annotations"), f"{found.annotations:,}"), *figures])]
    if found.missing:
        parts.append(render.note(t("Training needs {what}.", what=message(found.missing)), "warn"))
    told, left = _counted(found.used), _counted(found.left_out)
    if told:
        parts.append(f'<p class="op-muted">{escape(t("Used: {what}", what=told))}</p>')
    if left:
        parts.append(f'<p class="op-muted">{escape(t("Left out: {what}", what=left))}</p>')
    return "".join(parts)


def _counted(counts: Mapping[str, int]) -> str:
    return listed(f"{t(name.replace('_', ' '))} {n:,}" for name, n in counts.items() if n)
