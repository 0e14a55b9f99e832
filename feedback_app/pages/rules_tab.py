"""The Rules tab: what critiques say again and again, in the system prompt at once and then in the model."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from feedback_app.handlers import rules as handlers
from feedback_app.handlers.context import Context
from feedback_app.handlers.rules import NEW, RulesView
from feedback_app.i18n import later, listed, plural, t
from feedback_app.pages import render
from feedback_app.pages.render import Markup, Row
from feedback_app.pages.wiring import LOOK, QUEUED, event
from storage.enums import RuleState
from storage.models import Rule
from storage.quality.shares import Share
from storage.rule_figures import RuleFigures
from storage.rule_scope import Fitting
from storage.rules import Origin

# A project is chosen on every tab: rules are read only where they are looked at.
_JS_IF_SEEN = "(project) => [document.getElementById('op-rules')?.offsetParent ? project : null]"
_EXCERPT = 160


class RulesTab:
    """The tab's components; `outputs` stand in the order of `values`."""

    def __init__(self, project: gr.Dropdown) -> None:
        self.project = project
        with gr.Row(elem_classes="op-split", elem_id="op-rules"):
            with gr.Column(scale=5, min_width=320):
                with gr.Column(elem_classes="op-card"):
                    self._list()
                with gr.Column(elem_classes="op-card"):
                    gr.HTML(f"<h3>{later('Where it comes from, and what came of it')}</h3>", js_on_load=None)
                    self.behind = gr.HTML("", elem_id="op-rule-behind", js_on_load=None)
            with gr.Column(scale=3, min_width=320):
                with gr.Column(elem_classes="op-card"):
                    self._words()
                with gr.Column(elem_classes="op-card"):
                    self._finding()

    def _list(self) -> None:
        gr.HTML(f"<h3>{later('Rules')}</h3>", js_on_load=None)
        self.lines = gr.HTML("", elem_id="op-rule-list", js_on_load=None)
        self.chosen = gr.Dropdown(
            choices=[],
            label=later("Rule"),
            elem_id="op-rule",
            # The server checks the value; Gradio would check it against the empty list after a restart.
            allow_custom_value=True,
        )
        with gr.Row():
            self.switches = {
                RuleState.ON: gr.Button(later("Turn on"), elem_id="op-rule-on", min_width=100),
                RuleState.LEARNED: gr.Button(later("Learned"), elem_id="op-rule-learned", min_width=100),
                RuleState.OFF: gr.Button(later("Turn off"), elem_id="op-rule-off", min_width=100),
                RuleState.DISMISSED: gr.Button(later("Dismiss"), elem_id="op-rule-dismiss", min_width=100),
            }
        gr.HTML(
            f'<p class="op-muted">{later("On: in the system prompt from the next completion on, and in training.")} '
            f"{later('Learned: in training alone, once the champion does it without being told.')} "
            f"{later('Off: in neither.')}</p>",
            js_on_load=None,
        )

    def _words(self) -> None:
        gr.HTML(f"<h3>{later('What it says, and where it holds')}</h3>", js_on_load=None)
        self.name = gr.Textbox(label=later("Name of the rule"), max_lines=1, elem_id="op-rule-name")
        self.instruction = gr.Textbox(
            label=later("Instruction"),
            info=later("Enters the system prompt as it stands here."),
            lines=4,
            max_lines=16,
            elem_id="op-rule-instruction",
        )
        self.phrases = gr.Textbox(
            label=later("Only for prompts with one of these, one a line"),
            info=later("Whole words, upper or lower case; nothing: every prompt."),
            lines=3,
            max_lines=12,
            elem_id="op-rule-phrases",
        )
        self.sources = gr.Textbox(
            label=later("Only for prompts from one of these sources, one a line"),
            lines=1,
            max_lines=6,
            elem_id="op-rule-sources",
        )
        self.position = gr.Number(
            0, label=later("Place among the rules"), precision=0, minimum=0, elem_id="op-rule-position"
        )
        with gr.Row():
            self.test = gr.Button(later("Try the scope"), elem_id="op-rule-try", min_width=130)
            self.save = gr.Button(later("Save"), variant="primary", elem_id="op-rule-save", min_width=130)
        self.fits = gr.HTML("", elem_id="op-rule-fits", js_on_load=None)

    def _finding(self) -> None:
        gr.HTML(f"<h3>{later('From critiques')}</h3>", js_on_load=None)
        self.at_least = gr.Number(
            5,
            label=later("Critiques that say the same, at least"),
            info=later("On as many different prompts."),
            precision=0,
            minimum=2,
            elem_id="op-rule-least",
        )
        self.suggest = gr.Button(later("Suggest rules"), elem_id="op-rule-suggest")
        self.write = gr.Button(later("Write what trains them"), elem_id="op-rule-write")
        gr.HTML(
            f'<p class="op-muted">{later("Prompts in scope are answered with and without the rules, and some out of scope by the base model. DPO learns from the first what the rules ask for, and from the second to leave everything else as it was.")}</p>',  # noqa: E501  one text
            js_on_load=None,
        )

    @property
    def outputs(self) -> list[Any]:
        """What every event of the tab changes."""
        fields = [self.name, self.instruction, self.phrases, self.sources, self.position]
        return [self.lines, self.chosen, *fields, self.behind, self.fits]

    def connect(self, ctx: Context, head: gr.Tab) -> None:
        """Wire the tab's events: it is filled when it is opened, and when another project is chosen meanwhile."""

        def rules_seen(name: str | None, project: str | None, chosen: Any = None) -> list[Any]:
            if not project:
                return [gr.skip() for _ in self.outputs]
            return values(handlers.see_rules(ctx, name, project, chosen))

        def rule_saved(name: str | None, project: str | None, chosen: Any, *given: Any) -> list[Any]:
            fields = dict(zip(("name", "instruction", "phrases", "sources", "position"), given, strict=True))
            view = handlers.save(ctx, name, project, chosen, fields)
            gr.Info(t("Saved."))
            return values(view)

        def rules_suggested(name: str | None, project: str | None, at_least: Any) -> list[Any]:
            view, new, critiques = handlers.suggest(ctx, name, project, at_least)
            told = plural(new, "{n} new suggestion from {critiques} critiques.",
                          "{n} new suggestions from {critiques} critiques.", critiques=f"{critiques:,}")  # fmt: skip
            gr.Info(told)
            return values(view)

        def scope_tried(name: str | None, project: str | None, phrases: Any, sources: Any) -> str:
            return _fits(handlers.try_scope(ctx, name, project, phrases, sources))

        def rules_written(name: str | None, project: str | None) -> None:
            gr.Info(t("Run {number} is queued.", number=handlers.write(ctx, name, project)))

        def switched(state: RuleState) -> Any:
            def rule_switched(name: str | None, project: str | None, chosen: Any) -> list[Any]:
                return values(handlers.switch(ctx, name, project, chosen, state))

            return event(rule_switched)

        busy: dict[str, Any] = {"concurrency_limit": 2, **QUEUED}
        head.select(event(rules_seen), [self.project], self.outputs, **LOOK)
        self.project.change(event(rules_seen), [self.project], self.outputs, js=_JS_IF_SEEN, **LOOK)
        self.chosen.input(event(rules_seen), [self.project, self.chosen], self.outputs, **LOOK)
        fields = [self.name, self.instruction, self.phrases, self.sources, self.position]
        self.save.click(event(rule_saved), [self.project, self.chosen, *fields], self.outputs, **busy)
        self.test.click(event(scope_tried), [self.project, self.phrases, self.sources], [self.fits], **busy)
        # One at a time: it reads all critiques.
        once = {**busy, "concurrency_limit": 1}
        self.suggest.click(event(rules_suggested), [self.project, self.at_least], self.outputs, **once)
        self.write.click(event(rules_written), [self.project], None, **busy)
        for state, button in self.switches.items():
            button.click(switched(state), [self.project, self.chosen], self.outputs, **busy)


def values(view: RulesView) -> list[Any]:
    """The values of `RulesTab.outputs` for `view`."""
    if view.project is None:
        missing = render.note(t("Create a project first, on the Project tab."))
        return [missing, *[gr.skip()] * 6, missing, ""]
    rule = view.chosen
    choices = [(t("A new rule"), NEW), *((f"{one.id}: {one.name}", str(one.id)) for one in view.rules)]
    chosen = gr.Dropdown(choices=choices, value=str(rule.id) if rule else NEW)
    if rule is None:
        fields: list[Any] = ["", "", "", "", len(view.rules)]
    else:
        scope = rule.current.scope
        lines = ["\n".join(scope.get(name, ())) for name in ("phrases", "sources")]
        fields = [rule.name, rule.current.instruction, *lines, rule.position]
    return [_lines(view), chosen, *fields, _behind(view), ""]


def _lines(view: RulesView) -> str:
    empty = t(
        "No rules yet. Look for suggestions once critiques have come in, or write one: say what it is about and what "
        "the model should do, save it, and turn it on."
    )
    rows = [
        Row(
            [
                Markup(f"<b>{rule.id}</b>"),
                Markup(
                    f"{render.h(rule.name)} {_state(rule)}<br><span class='op-muted'>{render.h(_short(rule))}</span>"
                ),
                _critiques(view.origin(rule)),
                f"{view.figures_of(rule).written:,}",
            ]
        )
        for rule in view.rules
        if rule.state is not RuleState.DISMISSED or rule is view.chosen
    ]
    table = render.table((t("rule"), t("what it says"), t("critiques"), t("written under it")), rows, empty)
    return table + _to_do(view)


def _to_do(view: RulesView) -> str:
    if not view.to_write:
        return ""
    told = plural(
        view.to_write,
        "{n} rule is in training, but nothing was written for it since it changed: write what trains it.",
        "{n} rules are in training, but nothing was written for them since they changed: write what trains them.",
    )
    return render.note(told)


def _state(rule: Rule) -> Markup:
    """The state as a word in the colour of what works, or of what waits."""
    colours = {RuleState.ON: "succeeded", RuleState.LEARNED: "succeeded", RuleState.SUGGESTED: "queued"}
    colour = colours.get(rule.state, "retired")
    return Markup(f'<span class="op-badge" data-status="{colour}">{escape(t(rule.state.value))}</span>')


def _short(rule: Rule) -> str:
    told = " ".join(rule.current.instruction.split())
    return told if len(told) <= _EXCERPT else f"{told[:_EXCERPT]}…"


def _critiques(origin: Origin) -> str:
    if not origin.gathered:
        return "–"
    told = t("{n} by {people}", n=f"{len(origin.live):,}", people=plural(origin.people, "{n} person", "{n} people"))
    return told


def _behind(view: RulesView) -> str:
    rule = view.chosen
    if rule is None:
        return render.note(t("Choose a rule to see the critiques behind it and what came of it."))
    return _came_of_it(view.figures_of(rule), rule) + _origin(view, rule)


def _origin(view: RulesView, rule: Rule) -> str:
    origin = view.origin(rule)
    if not origin.gathered:
        return render.note(t("An operator wrote it; no critique is behind it."))
    parts = []
    if origin.gone:
        told = plural(
            origin.gone,
            "{n} of the {all} critiques it came from was taken back, reworded or erased since.",
            "{n} of the {all} critiques it came from were taken back, reworded or erased since.",
            all=f"{origin.gathered:,}",
        )
        parts.append(render.note(told, "warn"))
    rows = [
        Row([Markup(f"<b>{one.id}</b>"), one.text[:_EXCERPT], (one.fix or "–")[:_EXCERPT], listed(one.tags) or "–"])
        for one in view.critiques
    ]
    columns = (t("critique"), t("says"), t("should say"), t("tags"))
    parts.append(render.table(columns, rows, t("None of its critiques stands any more.")))
    return "".join(parts)


def _came_of_it(found: RuleFigures, rule: Rule) -> str:
    if rule.state in (RuleState.SUGGESTED, RuleState.DISMISSED):
        return ""
    facts = [
        (t("revision"), rule.current.number),
        (t("written under it"), f"{found.written:,}"),
        (t("criticised without it"), _share(found.before)),
        (t("criticised under it"), _share(found.under)),
    ]
    told = [
        t("{version}, with {rows} rows", version=one.version, rows=f"{one.rows:,}")
        + (t(" (champion)") if one.champion else "")
        for one in found.versions
    ]
    facts.append((t("trained into"), listed(told) or t("no version yet")))
    hint = ""
    if rule.state is RuleState.ON and any(one.champion for one in found.versions):
        hint = render.note(
            t(
                "The champion was trained with this rule. You can set it to learned: it leaves the system prompt and "
                "stays in training, as every training begins at the base model."
            )
        )
    return render.facts(facts) + hint


def _share(share: Share) -> str:
    if share.value is None:
        return t("nothing judged yet")
    low, high = share.bounds
    return t(
        "{share} of {n} (95 %: {low} to {high})",
        share=f"{share.value:.0%}",
        n=f"{share.total:,}",
        low=f"{low:.0%}",
        high=f"{high:.0%}",
    )


def _fits(found: Fitting) -> str:
    told = t("Fits {matched} of {prompts} prompts.", matched=f"{found.matched:,}", prompts=f"{found.prompts:,}")
    examples = "".join(f"<li>{escape(' '.join(one.split())[:_EXCERPT])}</li>" for one in found.examples)
    return render.note(told, "good" if found.matched else "warn") + (f"<ul>{examples}</ul>" if examples else "")
