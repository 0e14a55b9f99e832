"""The gate on the Models tab: every figure with its interval and its bar, and the bars themselves as fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from feedback_app.handlers import gate as handlers
from feedback_app.handlers.context import Context
from feedback_app.handlers.gate import NUMBERS, SWITCHES, GateView
from feedback_app.i18n import later, listed, message, named, sentence, t
from feedback_app.pages import render
from feedback_app.pages.interval_plot import interval_plot
from feedback_app.pages.render import Markup, Row
from feedback_app.pages.wiring import QUEUED, event
from storage.enums import GateVerdict
from storage.gate_configs import POLICY_BARS, REWARD_BARS, GateSettings
from storage.models import utc_now

FIELDS = (*NUMBERS, *SWITCHES, "required")
_FIGURES = {
    "win_rate": later("Win rate by the reward model"),
    "human_win_rate": later("Win rate by people, blind"),
    "implicit_accuracy": later("Pair accuracy of the policy"),
    "chosen_logprob": later("Log-probability of chosen completions"),
    "perplexity": later("Perplexity"),
    "kl": later("Distance from the base model"),
    "length_ratio": later("Length"),
    "format_ok": later("Format"),
    "accuracy": later("Pair accuracy of the reward model"),
    "ece": later("Calibration error of the reward model"),
}
# Label, what it means, smallest step.
_NUMBERS = {
    "min_comparisons": (later("Fewest comparisons"), later("Behind a figure; fewer are inconclusive."), 1),
    "win_rate": (later("Win rate above"), later("The whole 95 % interval."), 0.01),
    "accuracy_drop": (later("Pair accuracy may drop by"), later("Below the champion's."), 0.01),
    "logprob_drop": (later("Log-probability may drop by"), later("Nats a token."), 0.01),
    "perplexity_rise": (later("Perplexity may rise by"), later("A share of the champion's."), 0.01),
    "kl_cap": (later("Distance from the base model"), later("Nats a completion, at most."), 1),
    "length_change": (later("Length may change by a factor of"), later("Longer or shorter."), 0.1),
    "format_drop": (later("Right format may drop by"), later("Below the champion's."), 0.01),
    "ece_target": (later("Calibration error at most"), later("Of a reward model."), 0.01),
    "canary_share": (later("Canary"), later("Share of new completions that the candidate writes."), 0.05),
    "test_error": (later("Error rate of a blind test"), later("To name a winner among equals."), 0.01),
    "test_most": (later("A blind test gives up after"), later("Decided comparisons."), 1),
    "watch_error": (
        later("Error rate of alerts"),
        later("To raise one though nothing fell, however often one looks."),
        0.01,
    ),
    "watch_least": (later("Judgements before an alert"), later("Of what the champion writes."), 1),
}


class GatePart:
    """A card with the verdict and the two buttons that lead to one, and the bars folded away under it."""

    def __init__(self, project: gr.Dropdown) -> None:
        self.project = project
        self.fields: dict[str, Any] = {}
        with gr.Column(elem_classes="op-card", elem_id="op-gate-card"):
            self.shown = gr.HTML("", elem_id="op-gate", js_on_load=None)
            with gr.Row():
                self.evaluate = gr.Button(later("Evaluate"), elem_id="op-evaluate", min_width=120)
                self.judge = gr.Button(later("Judge"), variant="primary", elem_id="op-judge", min_width=120)
            self.lacks = gr.HTML("", elem_id="op-gate-lacks", js_on_load=None)
            with gr.Accordion(later("What a candidate must show"), open=False, elem_id="op-bars"):
                self._bars()

    def _bars(self) -> None:
        defaults = GateSettings()
        choices = [(_FIGURES[name], name) for name in (*POLICY_BARS, *REWARD_BARS)]
        self.fields["required"] = gr.CheckboxGroup(
            choices,
            value=list(defaults.required),
            label=later("Required"),
            info=later("These must reach their bar; the others are shown."),
            elem_id="op-required",
        )
        with gr.Row():
            for name in NUMBERS:
                label, info, step = _NUMBERS[name]
                self.fields[name] = gr.Number(
                    getattr(defaults, name), label=label, info=info, step=step, minimum=0, min_width=180
                )
        self.fields["auto_promote"] = gr.Checkbox(label=later("A cycle promotes what has passed, by itself"))
        self.fields["roll_back"] = gr.Checkbox(label=later("An alert rolls the champion back by itself"))
        self.save = gr.Button(later("Save the bars"), elem_id="op-save-bars")

    @property
    def outputs(self) -> list[Any]:
        """What a look at a version changes."""
        return [self.shown, self.evaluate, self.judge, self.lacks]

    @property
    def bars(self) -> list[Any]:
        """The fields of the bars, which a look at a version leaves as somebody typed them."""
        return [self.fields[name] for name in FIELDS]

    def connect(self, ctx: Context) -> None:
        """Wire the fields; the buttons belong to the tab, which shows what comes of them."""

        def bars_saved(name: str | None, project: str | None, *given: Any) -> list[Any]:
            settings = handlers.save_bars(ctx, name, project, dict(zip(FIELDS, given, strict=True)))
            gr.Info(t("The bars are saved; judge again to hold a version to them."))
            return bars(settings)

        self.save.click(event(bars_saved), [self.project, *self.bars], self.bars, concurrency_limit=1, **QUEUED)


def values(view: GateView | None) -> list[Any]:
    """The values of `GatePart.outputs` for the version in `view`."""
    if view is None:
        hidden = gr.Button(visible=False)
        missing = render.note(t("There is no version to evaluate, judge or test yet: train one on the Runs tab."))
        return ["", hidden, hidden, missing]
    buttons = [gr.Button(visible=True, interactive=why is None) for why in (view.not_evaluated, view.not_judged)]
    return [verdict(view), *buttons, _lacks(view)]


def _lacks(view: GateView) -> str:
    """Why a button cannot be pressed."""
    told = []
    if view.not_evaluated is not None:
        told.append(t("Evaluate: {why}", why=sentence(message(str(view.not_evaluated)))))
    if view.not_judged is not None:
        told.append(t("Judge: {why}", why=sentence(message(str(view.not_judged)))))
    return "".join(f'<p class="op-muted">{render.h(one)}</p>' for one in told)


def bars(settings: GateSettings) -> list[Any]:
    """The values of `GatePart.bars`."""
    return [list(settings.required) if name == "required" else getattr(settings, name) for name in FIELDS]


def verdict(view: GateView) -> str:
    """The verdict in one line, what it means now, and the table."""
    result = view.result
    badge = render.badge(result.verdict.value) if result else ""
    head = f'<div class="op-head"><h3>{t("Gate")} {badge}</h3></div>'
    if result is None:
        return head + render.note(next_step(view))
    against = t("against {version}", version=view.against) if view.against else t("without a champion to compare with")
    when = render.when(result.created_at, utc_now())
    line = Markup(f'<p class="op-muted">{render.h(against)} · {when}. {render.h(why(result.figures))}</p>')
    stale = view.against != view.champion or view.newer
    hint = render.note(next_step(view), "warn") if stale else ""
    notes = "".join(f"<li>{render.h(sentence(message(note)))}</li>" for note in view.notes)
    below = f'<ul class="op-gate-notes">{notes}</ul>' if notes else ""
    return head + line + hint + table(result.figures.get("rows", [])) + below


def next_step(view: GateView) -> str:
    """What is missing for a promotion without a reason."""
    if view.passed:
        return t("It has passed the gate.")
    if not view.evaluated:
        return t("Not evaluated against the champion yet: press Evaluate, then Judge when the run has ended.")
    if view.newer:
        return t("There is an evaluation that was not judged yet: press Judge.")
    return t("It has not passed the gate: promoting it all the same takes a reason.")


def why(figures: Mapping[str, Any]) -> str:
    """Which figures decided, in words."""
    rows = [row for row in figures.get("rows", []) if row["required"]]
    for found, text in (
        (GateVerdict.FAIL, "below the bar: {0}"),
        (GateVerdict.INCONCLUSIVE, "not decided: {0}"),
    ):
        names = [named(row["name"]) for row in rows if row["verdict"] == found.value]
        if names:
            return sentence(message(text).format(listed(names)))
    return sentence(message(str(figures.get("why", ""))))


def table(rows: list[dict[str, Any]]) -> Markup:
    """One row a figure: measured, plotted against its bar, verdict and why."""
    columns = (t("figure"), t("measured"), t("interval and bar"), t("bar"), t("verdict"))
    shown = render.table(columns, [Row(_cells(row)) for row in rows], t("Nothing was measured."))
    return Markup(f'<div class="op-gate-table">{shown}</div>')


def _cells(row: Mapping[str, Any]) -> list[Any]:
    by = Markup(f"<b>{render.h(named(row['name']))}</b>")
    if row["required"]:
        by = Markup(f'{by} <span class="op-muted">{render.h(t("required"))}</span>')
    measured = render.number(row["value"])
    if row["low"] is not None:
        interval = t("{low} to {high}", low=render.number(row["low"]), high=render.number(row["high"]))
        measured = Markup(f'{render.h(measured)} <span class="op-muted">{render.h(interval)}</span>')
    badge = render.badge(row["verdict"]) if row["verdict"] else Markup("")
    reason = sentence(message(row["why"])) if row["why"] else ""
    said = Markup(f'{badge} <span class="op-muted op-why">{render.h(reason)}</span>')
    return [by, measured, interval_plot(row), _bar(row), said]


def _bar(row: Mapping[str, Any]) -> str:
    signs = {">= champion": "≥ " + t("champion"), "<= champion": "≤ " + t("champion"), ">=": "≥", "<=": "≤"}
    text = str(row["bar"] or "–").replace(" - ", " − ")
    for plain, sign in signs.items():
        text = text.replace(plain, sign)
    low, to, high = text.partition(" to ")
    return t("{low} to {high}", low=low, high=high) if to else text
