"""The Gold tab: what is right, who practises, who is checked, who is paused."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback_app.handlers import gold as handlers
from feedback_app.handlers.context import Context
from feedback_app.handlers.gold import GoldView
from feedback_app.i18n import later, t
from feedback_app.pages import render
from feedback_app.pages.render import Markup, Row
from feedback_app.pages.wiring import LOOK, QUEUED, event
from storage.enums import Admission, ItemStatus
from storage.gold import GoldLine, Standard
from storage.history import Line
from storage.standings import PersonLine, Stage

_EXCERPT = 90
# A project is chosen on every tab: the lists are read only where they are looked at.
_JS_IF_SEEN = """(project, ...chosen) =>
    [document.getElementById('op-gold')?.offsetParent ? project : null, ...chosen]"""
_SETTINGS = ("practice_items", "practice_pass", "practice_existing", "check_every", "check_mark", "check_pause",
             "show_agreement")  # fmt: skip


class GoldTab:
    """The tab's components; `outputs` stand in the order of `values`."""

    def __init__(self, project: gr.Dropdown) -> None:
        self.project = project
        self.settings: dict[str, Any] = {}
        with gr.Row(elem_classes="op-split", elem_id="op-gold"):
            with gr.Column(scale=5, min_width=320):
                with gr.Column(elem_classes="op-card"):
                    self._list()
                with gr.Column(elem_classes="op-card"):
                    self._people()
            with gr.Column(scale=3, min_width=320):
                with gr.Column(elem_classes="op-card"):
                    self._marking()
                with gr.Column(elem_classes="op-card"):
                    self._asking()

    def _list(self) -> None:
        self.lines, self.item = _chosen_from(later("Gold items"), "op-gold-items", later("Gold item"), "op-gold-item")
        with gr.Row():
            self.unmark = gr.Button(later("Make ordinary"), elem_id="op-gold-unmark", min_width=140)

    def _people(self) -> None:
        title = later("Practice and checks of people")
        self.people, self.person = _chosen_from(title, "op-gold-people", later("Person"), "op-gold-person")
        with gr.Row():
            self.decisions = {
                "waive": gr.Button(later("Waive practice"), elem_id="op-gold-waive", min_width=120),
                "reset": gr.Button(later("Practise from the beginning"), elem_id="op-gold-reset", min_width=120),
                "lift": gr.Button(later("Lift pause"), elem_id="op-gold-lift", min_width=120),
            }

    def _marking(self) -> None:
        gr.HTML(f"<h3>{later('Say what is right')}</h3>", js_on_load=None)
        self.annotation = _free_dropdown(later("Take this annotation as the gold standard"), "op-gold-annotation")
        self.by_item = gr.Textbox(
            label=later("Or the number of an item"),
            info=later("The one annotation on it is taken."),
            max_lines=1,
            elem_id="op-gold-by-item",
        )
        with gr.Row():
            self.tolerance = gr.Number(
                1, label=later("Ratings may differ by"), precision=0, minimum=0, min_width=120, elem_id="op-gold-steps"
            )
            self.tie = gr.Checkbox(label=later("A tie is right as well"), min_width=120)
        self.explanation = gr.Textbox(
            label=later("Why"),
            info=later("Markdown, read after practice. A and B change places: name completions by what they say."),
            lines=4,
            max_lines=16,
            elem_id="op-gold-why",
        )
        self.mark = gr.Button(later("Mark as gold"), variant="primary", elem_id="op-gold-mark")

    def _asking(self) -> None:
        fields = self.settings
        gr.HTML(f"<h3>{later('What is asked of annotators')}</h3>", js_on_load=None)
        with gr.Row():
            fields["practice_items"] = gr.Number(
                0,
                label=later("Practice items"),
                info=later("Before the queue opens; 0: none."),
                precision=0,
                minimum=0,
                min_width=130,
                elem_id="op-practice-items",
            )
            fields["practice_pass"] = gr.Number(
                80, label=later("Passed from, in %"), precision=0, minimum=0, maximum=100, min_width=130
            )
        fields["practice_existing"] = gr.Checkbox(label=later("Also of people who work here already"))
        with gr.Row():
            fields["check_every"] = gr.Number(
                0,
                label=later("One check in so many items"),
                info=later("Unannounced; 0: none."),
                precision=0,
                minimum=0,
                min_width=130,
                elem_id="op-check-every",
            )
            fields["check_mark"] = gr.Number(
                70,
                label=later("Too low under, in %"),
                info=later("Of the newest 20, from 5 checks on."),
                precision=0,
                minimum=0,
                maximum=100,
                min_width=130,
            )
        fields["check_pause"] = gr.Checkbox(label=later("Pause who falls under it, until an operator lifts it"))
        fields["show_agreement"] = gr.Checkbox(
            label=later("Show people how often they say what the others say"),
            info=later("On My annotations, each their own."),
        )
        self.save = gr.Button(later("Save"), elem_id="op-gold-save")

    @property
    def outputs(self) -> list[Any]:
        """What every event of the tab changes."""
        fields = [self.settings[name] for name in _SETTINGS]
        return [*fields, self.lines, self.item, self.annotation, self.people, self.person]

    def connect(self, ctx: Context, head: gr.Tab) -> None:
        """Wire the tab's events: it is filled when it is opened, and when another project is chosen meanwhile."""

        def gold_seen(name: str | None, project: str | None, *chosen: Any) -> list[Any]:
            if not project:
                return [gr.skip() for _ in self.outputs]
            return values(handlers.see_gold(ctx, name, project), chosen)

        def gold_saved(name: str | None, project: str | None, *given: Any) -> list[Any]:
            view = handlers.save_settings(ctx, name, project, dict(zip(_SETTINGS, given, strict=True)))
            gr.Info(t("Saved."))
            return values(view)

        def gold_marked(
            name: str | None, project: str | None, annotation: Any, item: Any, tolerance: Any, tie: Any, why: Any
        ) -> list[Any]:
            given = {"tolerance": tolerance, "tie_allowed": tie, "explanation": why}
            view = handlers.mark(ctx, name, project, annotation, item, given)
            gr.Info(t("It is a gold item now, and out of the ordinary queue."))
            return [*values(view), "", ""]

        def gold_unmarked(name: str | None, project: str | None, item: Any) -> list[Any]:
            return values(handlers.unmark(ctx, name, project, item))

        def decided(decision: str) -> Any:
            def gold_decided(name: str | None, project: str | None, person: Any) -> list[Any]:
                return values(handlers.decide(ctx, name, project, person, decision))

            return event(gold_decided)

        busy: dict[str, Any] = {"concurrency_limit": 2, **QUEUED}
        seen = [self.project, self.item, self.annotation, self.person]
        head.select(event(gold_seen), seen, self.outputs, **LOOK)
        self.project.change(event(gold_seen), seen, self.outputs, js=_JS_IF_SEEN, **LOOK)
        fields = [self.settings[name] for name in _SETTINGS]
        self.save.click(event(gold_saved), [self.project, *fields], self.outputs, **busy)
        given = [self.project, self.annotation, self.by_item, self.tolerance, self.tie, self.explanation]
        self.mark.click(event(gold_marked), given, [*self.outputs, self.by_item, self.explanation], **busy)
        self.unmark.click(event(gold_unmarked), [self.project, self.item], self.outputs, **busy)
        for decision, button in self.decisions.items():
            button.click(decided(decision), [self.project, self.person], self.outputs, **busy)


def _chosen_from(title: str, table_id: str, label: str, elem_id: str) -> tuple[gr.HTML, gr.Dropdown]:
    """A headed table, and the list to choose one of its rows from."""
    gr.HTML(f"<h3>{title}</h3>", js_on_load=None)
    return gr.HTML("", elem_id=table_id, js_on_load=None), _free_dropdown(label, elem_id)


def _free_dropdown(label: str, elem_id: str) -> gr.Dropdown:
    # The server checks the value; Gradio would check it against the empty list after a restart.
    return gr.Dropdown(choices=[], label=label, elem_id=elem_id, allow_custom_value=True)


def values(view: GoldView, chosen: tuple[Any, ...] = ()) -> list[Any]:
    """The values of `GoldTab.outputs` for `view`; a look leaves `chosen`, item, annotation and person, as they are."""
    if view.project is None:
        missing = render.note(t("Create a project first, on the Project tab."))
        return [*[gr.skip()] * len(_SETTINGS), missing, gr.skip(), gr.skip(), missing, gr.skip()]
    asked = view.settings
    fields = [
        asked.practice_items,
        round(asked.practice_pass * 100),
        asked.practice_existing,
        asked.check_every,
        round(asked.check_mark * 100),
        asked.check_pause,
        asked.show_agreement,
    ]
    names = {one.id: one.name for one in view.criteria}
    items = [(f"{line.item.id}: {_short(line.prompt)}", str(line.item.id)) for line in view.lines]
    own = [(_offer(line), str(line.annotation.id)) for line in view.own]
    people = [(one.name, one.name) for one in view.people]
    item, annotation, person = (
        _choices(offered, *chosen[place : place + 1]) for place, offered in enumerate((items, own, people))
    )
    return [*fields, _lines(view.lines, names), item, annotation, _people(view.people), person]


def _choices(offered: list[tuple[str, str]], *chosen: Any) -> gr.Dropdown:
    """An empty choice of what is offered; after a look what is chosen stays, as long as it is offered.

    Its value is not sent back then: somebody may have chosen something since.
    """
    if chosen and (not chosen[0] or chosen[0] in [value for _, value in offered]):
        return gr.Dropdown(choices=offered)
    return gr.Dropdown(choices=offered, value=None)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…"


def _offer(line: Line) -> str:
    return t("{annotation} (item {item}): {prompt}", annotation=line.annotation.id, item=line.annotation.item_id,
             prompt=_short(line.prompt))  # fmt: skip


def _lines(lines: tuple[GoldLine, ...], names: dict[int, str]) -> str:
    empty = t(
        "No gold items yet: judge an item on the annotate page, then take your annotation as the gold standard here; "
        "or bring them in with feedback-app gold import."
    )
    rows = []
    for line in lines:
        score = "–" if line.score is None else f"{line.score:.0%}"
        number = Markup(f"<b>{line.item.id}</b>")
        if line.item.status is ItemStatus.FLAGGED:
            number = Markup(f"{number} {render.badge('flagged')}")
        right = _right(line.standard, [one.completion_id for one in line.item.members], names)
        rows.append(Row([number, _short(line.prompt), right, f"{line.answers:,}", score]))
    return render.table((t("item"), t("prompt"), t("what is right"), t("answers"), t("mean score")), rows, empty)


def _right(standard: Standard, members: list[int], names: dict[int, str]) -> str:
    """In short what is right; completions by their place in the item, not in an order shown."""
    place = {completion_id: number for number, completion_id in enumerate(members, start=1)}
    told = []
    compared = standard.comparison
    if compared is not None:
        if compared.better is not None:
            outcome = t("{number} is better", number=place.get(compared.better, "?"))
        else:
            outcome = t("Both bad") if compared.both_bad else t("Tie")
        told.append(t("{outcome}, or a tie", outcome=outcome) if compared.tie_allowed else outcome)
    if standard.ranking:
        ranked = sorted(standard.ranking, key=lambda one: one.rank)
        told.append(t("order {order}", order=", ".join(str(place.get(one.completion_id, "?")) for one in ranked)))
    if standard.ratings:
        by_name = sorted({names.get(one.criterion_id, "") for one in standard.ratings})
        told.append(t("ratings of {names}", names=", ".join(by_name)))
    if standard.tags:
        told.append(t("tags {names}", names=", ".join(sorted({one.tag for one in standard.tags}))))
    return "; ".join(told)


def _people(people: tuple[PersonLine, ...]) -> str:
    empty = t("Nobody has practised or met a check yet.")
    rows = [Row([Markup(f"<b>{render.h(one.name)}</b>"), _practice(one), _checks(one), _state(one)]) for one in people]
    return render.table((t("annotator"), t("practice"), t("checks"), t("state")), rows, empty)


def _practice(one: PersonLine) -> str:
    if one.admitted is Admission.WAIVED:
        return t("waived")
    if one.admitted is Admission.EXISTING:
        return t("worked here before")
    score = "–" if one.score is None else f"{one.score:.0%}"
    if one.admitted is Admission.PASSED:
        return t("passed with {score}, attempt {n}", score=score, n=one.attempts)
    if one.attempts:
        return t("not passed: {score}, attempts: {n}", score=score, n=one.attempts)
    return t("has begun") if one.practising else t("not begun")


def _checks(one: PersonLine) -> Markup:
    if one.checks.score is None:
        return Markup("–")
    told = t("{score} of {n}", score=f"{one.checks.score:.0%}", n=one.checks.checks)
    return Markup(f"{render.h(told)} {_warn(t('too low'))}") if one.below else Markup(render.h(told))


def _state(one: PersonLine) -> Markup | str:
    if one.stage is Stage.PAUSED:
        return _warn(t("paused"))
    return t("has to practise") if one.stage is Stage.PRACTICE else t("works")


def _warn(told: str) -> Markup:
    return Markup(f'<span class="op-badge" data-status="failed">{render.h(told)}</span>')
