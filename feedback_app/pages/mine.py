"""/mine: what a person has said so far; found again, opened with its history, said anew or taken back.

An annotation is opened in the annotate page's own form (`parts.form`, static/annotate.js), shown only while it is
being revised. Lists and history are drawn by static/mine.js from plain data, with times in the reader's zone.
"""

from __future__ import annotations

import itertools
import time
from html import escape
from typing import Any

import gradio as gr

from feedback_app.handlers import mine as handlers
from feedback_app.handlers.annotate_form import MAX_SIDES
from feedback_app.handlers.context import Context
from feedback_app.handlers.mine import ListView, MineView, OneView
from feedback_app.i18n import later, message, sentence, t
from feedback_app.pages import parts, render
from feedback_app.pages.annotate import LETTERS, shown_message
from feedback_app.pages.wiring import BRAND, QUEUED, QUICK, account_links, event
from storage.models import JsonObject

# Gradio adds the page's scripts while it starts: they may arrive after the components, and in any order.
_JS_DRAW = """const start = () => {{
  if (window.feedback?.mine && window.feedback.keep) window.feedback.mine.{part}(element, props, watch);
  else setTimeout(start, 10);
}};
start();"""
JS_ASKED = """async (filters, kept) => {
  while (!window.feedback?.mine || !window.feedback.keep) await new Promise((done) => setTimeout(done, 10));
  return [window.feedback.mine.asked(), kept];
}"""
_CRITIQUES = f'<div><a href="/critiques">{later("Your critiques: what came of them")}</a></div>'
_openings = itertools.count(int(time.time() * 1000))
JS_WANTED = "() => [window.feedback.mine.wanted()]"
JS_CHOSEN = "() => [window.feedback.mine.chosen()]"
JS_OPEN = "(chosen, kept) => [window.feedback.mine.chosen(), kept]"
JS_KEEP = "() => ({assignment: window.feedback.mine.chosen(), form: window.feedback.said(), at: Date.now()})"
JS_NOW = "() => [window.feedback.mine.chosen(), Date.now(), window.feedback.said()]"
JS_SECONDS = "() => [window.feedback.mine.chosen(), window.feedback.seconds(), window.feedback.said()]"


def build(ctx: Context) -> gr.Blocks:
    """The page's layout and its events."""
    with gr.Blocks(title=later("My annotations · Feedback"), fill_width=True, delete_cache=(3600, 3600)) as demo:
        ui = _Ui()
        _connect(ctx, demo, ui)
    demo.queue(api_open=False, default_concurrency_limit=8, max_size=200)
    return demo


class _Ui:
    """The components that events touch."""

    def __init__(self) -> None:
        with gr.Row(elem_id="fb-top"):
            gr.HTML(BRAND, elem_id="fb-brand", js_on_load=None)
            self.top = gr.HTML("", elem_id="fb-bar", js_on_load=None)
        with gr.Column(elem_id="mi-list"):
            gr.HTML(f"<h1>{later('My annotations')}</h1>{_CRITIQUES}", elem_id="mi-title", js_on_load=None)
            self.work = gr.HTML("", elem_id="mi-work-box", js_on_load=None)
            self.filters = _drawn("filters", {"projects": [], "project": None, "notice": ""})
            self.list = _drawn("lines", {"lines": None})
        with gr.Column(elem_id="mi-one"):
            self.head = _drawn("head", None)
            with gr.Column(elem_id="fb-work"):
                self.prompt = parts.prompt()
                with gr.Row(elem_id="fb-sides", equal_height=False):
                    self.texts = [parts.side(letter) for letter in LETTERS]
            self.said = _drawn("said", None)
            with gr.Row(elem_id="fb-actions"):
                self.form = parts.form()
                self.drop = gr.Button(later("Leave as it was"), elem_id="mi-drop", min_width=80)
                self.revise = gr.Button(later("Save change"), variant="primary", elem_id="fb-submit", min_width=150)
        self.look = gr.Button("Look", visible="hidden", elem_id="mi-look")
        self.open = gr.Button("Open", visible="hidden", elem_id="mi-open")
        self.save = gr.Button("Save draft", visible="hidden", elem_id="fb-save")
        self.withdraw = gr.Button("Withdraw", visible="hidden", elem_id="mi-withdraw")
        self.chosen = gr.Textbox("", visible="hidden")
        self.clock = gr.Number(0, visible="hidden")
        # As on the annotate page: what is typed while the session is lost comes back after the sign-in.
        self.kept = gr.BrowserState(None, storage_key="feedback-revision", secret="feedback-draft-v1")  # noqa: S106  no secret

    @property
    def one(self) -> list[Any]:
        """What changes with the annotation that is open, in the order of `_one_values`."""
        return [self.head, self.prompt, *self.texts, self.form, self.said]


def _drawn(part: str, value: Any) -> gr.HTML:
    """A part that static/mine.js draws from its value."""
    return gr.HTML(
        value,
        html_template=f'<div class="mi-{part}"></div>',
        js_on_load=_JS_DRAW.format(part=part),
        elem_id=f"mi-{part}-box",
        apply_default_css=False,
    )


def _connect(ctx: Context, demo: gr.Blocks, ui: _Ui) -> None:
    def opened(name: str | None, asked: Any, kept: Any) -> list[Any]:
        asked = asked if isinstance(asked, dict) else {}
        view = handlers.open_page(ctx, name, asked.get("project"), asked.get("open"), asked.get("last"), kept)
        return _page_values(view)

    def looked(name: str | None, wanted: Any) -> JsonObject:
        after = wanted.get("after") if isinstance(wanted, dict) else None
        return _list_value(handlers.look(ctx, name, wanted, after), more=bool(after))

    def chosen(name: str | None, annotation: Any, kept: Any) -> list[Any]:
        return _one_values(handlers.open_one(ctx, name, annotation, kept))

    def saved(name: str | None, annotation: Any, at: Any, form: Any) -> None:
        handlers.save_draft(ctx, name, annotation, at, form)

    def dropped(name: str | None, annotation: Any) -> list[Any]:
        handlers.save_draft(ctx, name, annotation, 0, None)
        return _one_values(handlers.open_one(ctx, name, annotation))

    def revised(name: str | None, annotation: Any, seconds: Any, form: Any) -> list[Any]:
        return _one_values(handlers.revise(ctx, name, annotation, seconds, form))

    def withdrawn(name: str | None, annotation: Any) -> list[Any]:
        return _one_values(handlers.withdraw(ctx, name, annotation))

    page = [ui.top, ui.filters, ui.list, ui.work, *ui.one]
    demo.load(event(opened), [ui.filters, ui.kept], page, js=JS_ASKED, **QUICK)
    ui.look.click(event(looked), [ui.filters], [ui.list], js=JS_WANTED, **QUICK)
    ui.open.click(event(chosen), [ui.chosen, ui.kept], ui.one, js=JS_OPEN, **QUICK)
    ui.save.click(event(saved), [ui.chosen, ui.clock, ui.form], None, js=JS_NOW, **QUICK)
    ui.save.click(None, None, [ui.kept], js=JS_KEEP, api_visibility="private")
    ui.drop.click(None, None, [ui.kept], js="() => ({})", api_visibility="private")
    ui.drop.click(event(dropped), [ui.chosen], ui.one, js=JS_CHOSEN, **QUEUED)
    sent = [ui.chosen, ui.clock, ui.form]
    ui.revise.click(event(revised), sent, ui.one, js=JS_SECONDS, concurrency_limit=8, **QUEUED)
    ui.withdraw.click(event(withdrawn), [ui.chosen], ui.one, js=JS_CHOSEN, concurrency_limit=8, **QUEUED)


# --- what the components show ---


def _page_values(view: MineView) -> list[Any]:
    return [
        f'<nav class="fb-nav">{account_links(view.user, view.role, "mine")}</nav>',
        {"projects": view.projects, "project": view.project, "notice": sentence(message(view.notice))},
        _list_value(view.found, more=False),
        _work(view),
        *_one_values(view.one),
    ]


def _work(view: MineView) -> str:
    """What a person has done, as their pay may rest on it."""
    if view.work is None or not view.work.total:
        return ""
    today, week, total, days, seconds = view.work
    told = [
        (t("today"), t("{n} of {target}", n=f"{today:,}", target=f"{view.target:,}") if view.target else f"{today:,}"),
        (t("this week"), f"{week:,}"),
        (t("a working day"), f"{week / days:,.0f}" if days else "–"),
        (t("an item takes you"), "–" if seconds is None else render.duration(seconds)),
        (t("in all"), f"{total:,}"),
    ]
    if view.agreement is not None:
        share = view.agreement
        agreed = "–" if share.value is None else t("{score} of {n}", score=f"{share.value:.0%}", n=f"{share.total:,}")
        told.append((t("you say what the others say"), agreed))
    inner = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in told)
    return f'<dl class="mi-work" aria-label="{escape(t("Your work"))}">{inner}</dl>'


def _list_value(view: ListView, *, more: bool) -> JsonObject:
    following = view.following
    return {
        "opening": next(_openings),
        "lines": [handlers.line_of(line) for line in view.lines],
        "following": [following.at.isoformat(), following.id] if following else None,
        "filtered": view.filtered,
        "more": more,
    }


def _one_values(view: OneView | None) -> list[Any]:
    if view is None:
        return [None, None, *[""] * MAX_SIDES, parts.form_value([], (), "free", None), None]
    item = view.item
    texts: list[Any] = [side.text for side in item.sides]
    texts += [gr.skip()] * (MAX_SIDES - len(texts))
    versions = [handlers.said_of(view.opened, one) for one in view.opened.versions]
    # Gradio tells a component nothing when its value is the same: an annotation opened again, or as it was before.
    once = next(_openings)
    head = {
        "opening": once,
        "id": item.assignment_id,
        "kind": parts.kind_of(item),
        "state": view.state.value,
        "project": view.opened.project.name,
        "revising": view.revising,
        "notice": sentence(message(view.notice)),
    }
    prompt = [shown_message(message) for message in item.prompt]
    form = parts.form_value(view.criteria, view.tags, "free", item) | {"serial": once}
    return [head, prompt, *texts, form, {"versions": versions}]
