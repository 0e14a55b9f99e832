"""The Models tab: versions, lineage, before and after, and the decision about one."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from feedback_app.handlers import models as handlers
from feedback_app.handlers.context import Context
from feedback_app.handlers.models import Decision, ModelsView, VersionView
from feedback_app.i18n import later, listed, message, plural, sentence, t
from feedback_app.pages import chance, compare, gate_part, lineage, parts, render, service_part
from feedback_app.pages.gate_part import GatePart
from feedback_app.pages.render import Markup, Row
from feedback_app.pages.resolved import resolved
from feedback_app.pages.service_part import ServicePart
from feedback_app.pages.wiring import LOOK, QUEUED, event
from storage.models import ModelVersion
from storage.registry import BeforeAfter

# Shown in the table where a version has them.
_HEADLINE = ("test_accuracy", "eval_accuracy", "accuracy", "test.accuracy", "validation.accuracy")
_HINTS = {
    Decision.PROMOTE: later("Promote: it writes (or scores) from now on"),
    Decision.ROLL_BACK: later("Roll back: the champion's predecessor takes over again"),
    Decision.RETIRE: later("Retire: off the list of choices; can be promoted later"),
    Decision.REJECT: later("Reject: never to be promoted"),
}


OUTPUTS = 10  # of `ModelsTab.outputs`


class ModelsTab:
    """The tab's components; `outputs` stand in the order of `values`."""

    def __init__(self, project: gr.Dropdown) -> None:
        self.project = project
        self.alerts = gr.HTML("", elem_id="op-alerts", js_on_load=None)
        with gr.Row(elem_classes="op-split"):
            with gr.Column(min_width=320, elem_classes="op-card"):
                gr.HTML(f"<h3>{later('Model versions')}</h3>", js_on_load=None)
                self.list = gr.HTML("", elem_id="op-versions", js_on_load=None)
            with gr.Column(min_width=320, elem_classes="op-card"):
                self.detail = gr.HTML("", elem_id="op-version-detail", js_on_load=None)
        self.gate = GatePart(project)
        self.service = ServicePart()
        with gr.Column(elem_id="op-decide-panel", elem_classes="fb-panel"):
            gr.HTML(parts.panel_head(later("Decide")), js_on_load=None)
            self.about = gr.HTML("", js_on_load=None)
            self.decision = gr.Radio(
                [(hint, one.value) for one, hint in _HINTS.items()],
                value=Decision.PROMOTE.value,
                label=later("Decision"),
                elem_id="op-decision",
            )
            self.reason = gr.Textbox(
                label=later("Reason"),
                info=later("Kept in the history. Needed to retire, to reject, and to promote without a pass."),
                lines=3,
                elem_id="op-reason",
            )
            self.confirm = gr.Button(later("Confirm"), variant="primary", elem_id="op-confirm")
        self.cards = gr.HTML("", elem_id="op-cards", js_on_load=None)
        self.selected = gr.Textbox("", visible="hidden", elem_id="op-version")
        self.select = gr.Button("Select version", visible="hidden", elem_id="op-select-version")

    @property
    def outputs(self) -> list[Any]:
        """What a look at the versions changes."""
        return [self.list, self.selected, self.detail, self.about, self.cards, self.alerts, *self.gate.outputs]

    def connect(self, ctx: Context, head: gr.Tab) -> None:
        """Wire the tab's events; `head` opens it."""

        def look(name: str | None, project: str | None, version: Any) -> list[Any]:
            return values(handlers.see_models(ctx, name, project, version))

        def decide(name: str | None, project: str | None, version: Any, decision: Any, reason: Any) -> list[Any]:
            view = handlers.decide(ctx, name, project, version, decision, reason)
            return [*told(view), ""]

        def told(view: ModelsView) -> list[Any]:
            gr.Info(sentence(message(view.notice)))
            return values(view)

        def evaluate(name: str | None, project: str | None, version: Any) -> list[Any]:
            return told(handlers.evaluate(ctx, name, project, version))

        def judge(name: str | None, project: str | None, version: Any) -> list[Any]:
            return told(handlers.judge(ctx, name, project, version))

        def start_test(name: str | None, project: str | None, version: Any) -> list[Any]:
            return told(handlers.start_test(ctx, name, project, version))

        def stop_test(name: str | None, project: str | None, version: Any) -> list[Any]:
            return told(handlers.stop_test(ctx, name, project, version))

        self.gate.connect(ctx)
        chosen = [self.project, self.selected]
        self.gate.evaluate.click(event(evaluate), chosen, self.outputs, concurrency_limit=1, **QUEUED)
        tested = [
            button.click(event(wanted), chosen, self.outputs, concurrency_limit=1, **QUEUED)
            for button, wanted in ((self.service.start, start_test), (self.service.stop, stop_test))
        ]
        self.gate.judge.click(event(judge), chosen, self.outputs, concurrency_limit=1, **QUEUED)
        self.select.click(
            event(look),
            [self.project, self.selected],
            self.outputs,
            js="(p) => [p, window.feedback.chosen.version]",
            **LOOK,
        )
        asked = [self.project, self.selected, self.decision, self.reason]
        done = self.confirm.click(event(decide), asked, [*self.outputs, self.reason], concurrency_limit=1, **QUEUED)
        done.success(None, js="() => window.feedback.closePanels()")
        seen = [self.project.change, self.selected.change, head.select]
        self.service.connect(ctx, self.project, self.selected, seen, [*tested, done])


def values(view: ModelsView) -> list[Any]:
    """The values of `ModelsTab.outputs` for `view`."""
    chosen = view.selected
    return [
        version_list(view),
        chosen.version.name if chosen else "",
        detail(chosen, view) if chosen else render.note(t("No version yet: the first appears with the first run.")),
        _about(chosen) if chosen else "",
        cards(chosen) if chosen else "",
        service_part.alerts(view.alerts),
        *gate_part.values(chosen.gate if chosen else None),
    ]


def version_list(view: ModelsView) -> str:
    """The table of versions; a row is chosen with a click or Enter."""
    if view.project is None:
        return render.note(t("Create a project first, on the Project tab."))
    chosen = view.selected.version.id if view.selected else None
    rows = [
        Row(
            [
                Markup(f"<b>{escape(version.name)}</b>"),
                _badges(version),
                headline(version),
                t("run {number}", number=version.run_id) if version.run_id else t("base model"),
                render.when(version.created_at, view.now),
            ],
            {
                "data-version": version.name,
                "tabindex": "0",
                "aria-selected": "true" if version.id == chosen else "false",
            },
        )
        for version in view.versions
    ]
    empty = t("No versions yet: the first run makes the base model version 0.")
    return render.table([t("version"), t("status"), t("accuracy"), t("from"), t("made")], rows, empty)


def _badges(version: ModelVersion) -> Markup:
    status = render.badge(version.status.value)
    return Markup(f"{status} {render.badge('tainted')}") if version.tainted_at else status


def _taint(chosen: VersionView, view: ModelsView) -> Markup:
    """That something it was trained on was taken back: since when, how much, and by which way."""
    found = chosen.standing
    if found.since is None:
        return Markup("")
    told = plural(
        found.withdrawn,
        "Tainted since {when}: {n} annotation that trained it was withdrawn or erased.",
        "Tainted since {when}: {n} annotations that trained it were withdrawn or erased.",
        when=render.when(found.since, view.now),
    )
    by = t("Through: {versions}.", versions=escape(listed(found.through))) if found.through else ""
    advice = t("A version trained from now on does without them; retire this one when it must not be used.")
    return render.note(Markup(" ".join(filter(None, (told, by, advice, _again(chosen, view))))), "warn")


def _again(chosen: VersionView, view: ModelsView) -> str:
    """Where it is trained again without what was taken back, or what was."""
    project = view.project or ""
    found = lineage.rebuilding(project, chosen.rebuilds, chosen.rebuilt_as)
    if found is None:
        told = t("It can be trained again without them:")
        here = lineage.address_of(project, chosen.version.name)
        return f'{told} <a href="{here}">{t("Train it again without them")}</a>'
    text, link = found
    return f'<a href="{link}">{escape(text)}</a>' if link else escape(text)


def headline(version: ModelVersion) -> str:
    """The accuracy that stands for the version, on test prompts where it was measured."""
    figures = dict(render.flat(version.metrics))
    found = next((figures[name] for name in _HEADLINE if isinstance(figures.get(name), float)), None)
    return "–" if found is None else f"{found:.1%}"


def detail(chosen: VersionView, view: ModelsView) -> str:
    """Lineage in words, metrics, and the button that opens the decision."""
    version, line = chosen.version, chosen.lineage
    pair = [chosen.against, version.name] if chosen.against else []
    chain = " ← ".join(escape(one.name) for one in line.chain[1:])
    pairs = [
        (t("made"), render.when(version.created_at, view.now)),
        (t("comes from"), Markup(chain) if chain else t("the base model")),
        (t("base model"), version.base_model),
        (t("run"), f"{line.run.id} ({t(line.run.kind.value)})" if line.run else None),
        (t("snapshot"), line.snapshot.content_hash[:12] if line.snapshot else None),
        (t("rests on"), _basis(chosen)),
        (t("files"), f"sha256 {version.sha256[:12]}…" if version.sha256 else None),
    ]
    pairs += resolved(chosen.rates)
    figures = render.figures(version.metrics)
    metrics = render.fold(t("Metrics"), render.facts(figures), is_open=True) if figures else ""
    return (
        f'<div class="op-head"><h3>{escape(version.name)} {_badges(version)}</h3>'
        f'<a class="op-button" href="{escape(compare.address_of(view.project or "", pair))}">{t("Compare")}</a>'
        f'<a class="op-button" href="{lineage.address_of(view.project or "", version.name)}">{t("Lineage")}</a>'
        f'<button type="button" class="op-button" data-panel="op-decide-panel">{t("Decide…")}</button></div>'
        f"{_taint(chosen, view)}{render.facts(pairs)}{metrics}"
    )


def _basis(chosen: VersionView) -> str:
    line = chosen.lineage
    if line.run is None:
        return t("the base model itself; no feedback went into it")
    rests = plural(line.basis.annotations, "{n} annotation", "{n} annotations")
    changed = [t("{n} withdrawn since", n=f"{line.basis.withdrawn:,}")] if line.basis.withdrawn else []
    if chosen.standing.revised:
        changed.append(t("{n} revised since", n=f"{chosen.standing.revised:,}"))
    return t("{what} ({more})", what=rests, more=listed(changed)) if changed else rests


def _about(chosen: VersionView) -> str:
    name, status = f"<b>{escape(chosen.version.name)}</b>", escape(t(chosen.version.status.value))
    text = t("{version} is {status}.", version=name, status=status)
    if chosen.against:
        champion = f"<b>{escape(chosen.against)}</b>"
        text += " " + t("It stands against {version}; look at before and after first.", version=champion)
        text += " " + escape(gate_part.next_step(chosen.gate))
    return f"<p>{text}</p>"


def cards(chosen: VersionView) -> str:
    """The same prompts, written by both versions."""
    if chosen.against is None:
        return ""
    title = t(
        "Before and after: {old} and {new} on the same prompts",
        old=escape(chosen.against),
        new=escape(chosen.version.name),
    )
    head = f"<h3>{title}</h3>"
    if not chosen.cards:
        hint = t(
            "No prompt has completions of both yet. Start a run for completions with candidate_share=0.5 to let the "
            "candidate write beside the champion."
        )
        return f'<div class="op-card">{head}{render.note(hint)}</div>'
    inner = "".join(
        f'<article class="op-compare"><p class="op-prompt">{escape(card.prompt_messages[-1]["content"])}</p>'
        f"<div><section><h4>{escape(chosen.against)}</h4><p>{escape(card.old_text)}</p></section>"
        f"<section><h4>{escape(chosen.version.name)}</h4><p>{escape(card.new_text)}</p>"
        f"{_chance(chosen, card)}</section></div></article>"
        for card in chosen.cards
    )
    told = chance.note(chosen.chances, chosen.cards)
    note = f'<p class="op-muted">{escape(told)}</p>' if told else ""
    return f'<div class="op-card">{head}{inner}{note}</div>'


def _chance(chosen: VersionView, card: BeforeAfter) -> str:
    found = chosen.chances.of.get((card.new_id, card.old_id))
    return f'<p class="op-muted">{escape(chance.over(found, chosen.against or ""))}</p>' if found else ""
