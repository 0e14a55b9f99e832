"""/play: a message of one's own, two completions that come letter by letter, the annotate page's form, and so on.

The form, the columns and the conversation are those of the annotate page (`parts`, static/form.js, annotate.js); what
is new stands in static/play.js. Completions reach the page by an event that looks at the store while they are written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from html import escape
from typing import Any, NamedTuple

import anyio.to_thread
import gradio as gr

from feedback_app.handlers import play as handlers
from feedback_app.handlers.annotate import save_draft
from feedback_app.handlers.annotate_form import whole
from feedback_app.handlers.context import Context
from feedback_app.handlers.play import PlayView
from feedback_app.i18n import later, message, sentence, t
from feedback_app.pages import parts
from feedback_app.pages.annotate import LETTERS, shown_message
from feedback_app.pages.theme import LATEX
from feedback_app.pages.wiring import BRAND, HEADING, QUICK, account_links, event, streaming, told
from storage.playground import Writer

SHOWN = LETTERS[:2]  # the form wants a column for each letter
LOOK_SECONDS = 0.06  # between two looks while something is being written
REST_SECONDS = 0.4  # ... while a model is being loaded
PATIENCE_SECONDS = 900.0  # a page that was left open does not look for ever
FOLLOWERS = 200  # people whose completions are being written at a time

JS_ASKED = """async (follower, at, project, kept) => {
  while (!window.feedback?.keep) await new Promise((done) => setTimeout(done, 10));
  const asked = new URLSearchParams(location.search).get('project') ?? project;
  return [follower, Math.round(performance.now()), asked, kept];
}"""
JS_OTHER_PROJECT = (
    "(follower, at, project) => [follower, Math.round(performance.now()), window.feedback.otherProject(project)]"
)
JS_FOLLOW = "(follower, at, project) => [follower, Math.round(performance.now()), project]"
# After `sent`, which has shown where the conversation is unless it was refused.
JS_SENT = """(follower, at, project) =>
  [follower, Math.round(performance.now()), project, document.getElementById('fb-stage').dataset.state]"""
JS_TYPED = "(project, box) => [project, window.feedback.play.typed()]"


def build(ctx: Context) -> gr.Blocks:
    """The page's layout and its events."""
    with gr.Blocks(title=later("Playground · Feedback"), fill_width=True, delete_cache=(3600, 3600)) as demo:
        ui = _Ui()
        _connect(ctx, demo, ui)
    demo.queue(api_open=False, default_concurrency_limit=FOLLOWERS, max_size=500)
    return demo


class _Ui:
    """The components that events touch."""

    def __init__(self) -> None:
        with gr.Row(elem_id="fb-top"):
            gr.HTML(BRAND + HEADING.format(later("Playground")), elem_id="fb-brand", js_on_load=None)
            self.project = gr.Dropdown(
                choices=[],
                label=later("Project"),
                show_label=False,
                container=False,
                elem_id="fb-project",
                allow_custom_value=True,  # the server checks the name
            )
            self.stage = gr.HTML(
                '<div id="fb-stage" data-state="loading"></div>', elem_id="fb-stage-box", js_on_load=None
            )
            self.top = gr.HTML("", elem_id="fb-bar", js_on_load=None)
        with gr.Column(elem_id="fb-work"):
            self.prompt = parts.prompt()
            with gr.Row(elem_id="fb-sides", equal_height=False):
                self.texts = [parts.side(letter) for letter in LETTERS]
        with gr.Row(elem_id="fb-actions"):
            self.form = parts.form()
            self.leave = gr.Button(later("New conversation"), elem_id="pl-leave", min_width=80)
            self.submit = gr.Button(later("Submit"), variant="primary", elem_id="fb-submit", min_width=150)
        with gr.Row(elem_id="pl-next"):
            gr.HTML(f"<p>{later('How does the conversation go on?')}</p>", elem_id="pl-question", js_on_load=None)
            self.go = [_go(letter, rewritten=False) for letter in SHOWN]
            self.go += [_go(letter, rewritten=True) for letter in SHOWN]
            self.anew = gr.Button(later("New conversation"), elem_id="pl-anew", min_width=80)
        with gr.Column(elem_id="pl-say"):
            with gr.Row(elem_id="pl-head"):
                self.status = gr.HTML("", elem_id="pl-status-box", js_on_load=None)
                self.begin = gr.Button(later("New conversation"), elem_id="pl-begin", min_width=80)
            with gr.Row(elem_id="pl-row"):
                self.box = gr.Textbox(
                    "",
                    label=later("Your message"),
                    show_label=False,
                    placeholder=later("Write to the model"),
                    lines=1,
                    max_lines=12,
                    elem_id="pl-box",
                    container=False,
                    scale=1,
                )
                self.send = gr.Button(later("Send"), variant="primary", elem_id="pl-send", min_width=110, scale=0)
                self.stop = gr.Button(later("Stop"), elem_id="pl-stop", min_width=110, scale=0)
            keys = later("Enter sends, Shift and Enter begin a new line.")
            gr.HTML(f'<p class="pl-keys">{keys}</p>', js_on_load=None)
        with gr.Column(elem_id="fb-guidelines", elem_classes="fb-panel"):
            gr.HTML(parts.panel_head(later("Guidelines")), js_on_load=None)
            self.guidelines = gr.Markdown("", latex_delimiters=LATEX)
        with gr.Column(elem_id="fb-keys", elem_classes="fb-panel"):
            gr.HTML(parts.panel_head(later("Keys")) + parts.keys(), js_on_load=None)
        self.notice = gr.HTML("", elem_id="fb-notice-box", js_on_load=None)
        self.save = gr.Button("Save draft", visible="hidden", elem_id="fb-save")
        self.keep = gr.Button("Keep message", visible="hidden", elem_id="pl-keep")
        self.assignment = gr.Textbox("", visible="hidden", elem_id="fb-assignment")
        self.clock = gr.Number(0, visible="hidden", elem_id="fb-clock")
        self.follower = gr.State(_Follower())
        # As on the annotate page: what is typed while the session is lost comes back after the sign-in.
        self.kept = gr.BrowserState(None, storage_key="feedback-talk", secret="feedback-draft-v1")  # noqa: S106  no secret

    @property
    def turn(self) -> list[Any]:
        """What changes with the conversation, in the order of `_turn_values`."""
        own = [self.stage, self.status, self.prompt, *self.texts, self.assignment, self.form, self.box]
        return [*own, self.submit, self.stop, *self.go]

    @property
    def page(self) -> list[Any]:
        """What changes with the project, in the order of `_page_values`."""
        return [self.top, self.project, self.guidelines, *self.turn]


def _go(letter: str, *, rewritten: bool) -> gr.Button:
    words = "Go on with your rewrite of {letter}" if rewritten else "Go on with {letter}"
    name = f"pl-go-{letter.lower()}{'-rewrite' if rewritten else ''}"
    return gr.Button(later(words, letter=letter), elem_id=name, min_width=120, visible=False)


class _Follower:
    """Which of a page's events looks at the conversation: the one that was asked for last, whichever began last."""

    def __init__(self) -> None:
        self.newest = 0
        self.page = 0  # the newest of those that show a whole page

    def begin(self, at: int) -> bool:
        """Whether the event of this moment of the page (ms since it was opened) is the newest; those before it end."""
        self.newest = max(self.newest, at)
        return self.newest == at


class Look(NamedTuple):
    """One look at the conversation: what there is, and what the page showed before."""

    now: PlayView
    before: PlayView | None


def _connect(ctx: Context, demo: gr.Blocks, ui: _Ui) -> None:
    async def follow(name: str | None, follower: _Follower, at: int, view: PlayView) -> AsyncIterator[Look]:
        """Look until nothing changes by itself any more, or until another event of the page looks."""
        waited = 0.0
        while view.unsettled and waited < PATIENCE_SECONDS:
            pause = LOOK_SECONDS if view.texts else REST_SECONDS / 4 if view.state == "writing" else REST_SECONDS
            await asyncio.sleep(pause)
            waited += pause
            if follower.newest != at:
                return
            now = await anyio.to_thread.run_sync(handlers.look, ctx, name, view.project)
            if follower.newest != at or now.turn != view.turn:
                return
            if now.state != view.state and view.state != "writing":
                return  # the person has gone on meanwhile: another event shows it
            if now.moves != view.moves:
                yield Look(now, view)
            view = now

    async def opened(name: str | None, follower: _Follower, at: Any, project: Any, kept: Any) -> AsyncIterator[Look]:
        moment = whole(at)
        if not follower.begin(moment):
            return
        follower.page = moment
        view = await anyio.to_thread.run_sync(handlers.open_page, ctx, name, project, kept)
        if follower.page != moment:
            return  # another project was chosen meanwhile
        yield Look(view, None)
        async for look in follow(name, follower, moment, view):
            yield look

    async def changed(name: str | None, follower: _Follower, at: Any, project: Any) -> AsyncIterator[Look]:
        if project is not None:  # else the list was opened and left
            async for look in opened(name, follower, at, project, None):
                yield look

    async def followed(name: str | None, follower: _Follower, at: Any, project: Any, shown: Any) -> AsyncIterator[Look]:
        moment = whole(at)
        if not follower.begin(moment):
            return
        view = await anyio.to_thread.run_sync(handlers.look, ctx, name, project)
        if view.state == "typing":  # it was not taken: what the person typed stays in the box
            return
        if follower.newest != moment:
            return  # another event shows what came of it
        # The stage that is shown already is not sent again: it might come after that of a Stop pressed meanwhile.
        yield Look(view, view if view.state == shown else None)
        async for look in follow(name, follower, moment, view):
            yield look

    def sent(name: str | None, project: str | None, said: Any) -> list[Any]:
        return [*_turn_values(Look(handlers.send(ctx, name, project, said), None)), ""]

    def kept(name: str | None, project: str | None, draft: Any) -> str:
        return _status(handlers.keep(ctx, name, project, draft), "")

    def stopped(name: str | None, follower: _Follower, at: Any, project: str | None) -> list[Any]:
        follower.begin(whole(at))  # whoever looked would put the message back into the box a second time
        return [*_turn_values(Look(handlers.stop(ctx, name, project), None)), ""]

    def left(name: str | None, project: str | None) -> list[Any]:
        return [*_turn_values(Look(handlers.begin_anew(ctx, name, project), None)), ""]

    def saved(name: str | None, assignment: Any, at: Any, form: Any) -> None:
        save_draft(ctx, name, assignment, at, form)

    def submitted(name: str | None, project: str | None, assignment: Any, seconds: Any, form: Any) -> list[Any]:
        return [*_turn_values(Look(handlers.submit(ctx, name, project, assignment, seconds, form), None)), ""]

    def continued(side: int, rewritten: bool, name: str | None, project: str | None) -> list[Any]:
        return [*_turn_values(Look(handlers.go_on(ctx, name, project, side, rewritten=rewritten), None)), ""]

    # "multiple": the event before looks for a while, and "once" would drop another one meanwhile.
    streamed: dict[str, Any] = {
        "show_progress": "hidden",
        "api_visibility": "private",
        "concurrency_limit": FOLLOWERS,
        "trigger_mode": "multiple",
    }
    once = {"trigger_mode": "once", **QUICK}
    outputs, here, said = [*ui.turn, ui.notice], [ui.project], [ui.project, ui.box]
    chosen = [ui.follower, ui.clock, ui.project]
    demo.load(streaming(opened, _page_values, len(ui.page)), [*chosen, ui.kept], ui.page, js=JS_ASKED, **streamed)
    ui.project.input(streaming(changed, _page_values, len(ui.page)), chosen, ui.page, js=JS_OTHER_PROJECT, **streamed)
    taken = ui.send.click(told(sent, len(ui.turn)), said, outputs, js=JS_TYPED, **once)
    taken.then(streaming(followed, _turn_values, len(ui.turn)), [*chosen, ui.stage], ui.turn, js=JS_SENT, **streamed)
    ui.keep.click(event(kept), said, [ui.status], js=JS_TYPED, **QUICK)
    ui.stop.click(told(stopped, len(ui.turn)), chosen, outputs, js=JS_FOLLOW, **once)
    gr.on([ui.leave.click, ui.anew.click, ui.begin.click], told(left, len(ui.turn)), here, outputs, **once)
    ui.submit.click(
        told(submitted, len(ui.turn)),
        [ui.project, ui.assignment, ui.clock, ui.form],
        outputs,
        js=parts.JS_SECONDS,
        **once,
    )
    for place, button in enumerate(ui.go):
        function = partial(continued, place % len(SHOWN), place >= len(SHOWN))
        function.__name__ = "continued"  # type: ignore[attr-defined]  # a partial takes attributes
        button.click(told(function, len(ui.turn)), here, outputs, **once)
    ui.save.click(event(saved), [ui.assignment, ui.clock, ui.form], None, js=parts.JS_NOW, **QUICK)
    ui.save.click(None, [ui.assignment], [ui.kept], js=parts.JS_KEEP_DRAFT, api_visibility="private")


# --- what the components show ---


def _page_values(look: Look) -> list[Any]:
    if look.before is not None:
        return [gr.skip(), gr.skip(), gr.skip(), *_turn_values(look)]
    view = look.now
    return [
        '<nav class="fb-nav">'
        f'<button type="button" class="fb-link" data-panel="fb-guidelines">{t("Guidelines")}</button>'
        f'<button type="button" class="fb-link fb-wide" data-panel="fb-keys">{t("Keys")} <kbd>?</kbd></button>'
        f"{account_links(view.user, view.role, 'play')}</nav>",
        gr.Dropdown(choices=view.projects, value=view.project),
        view.guidelines or f"*{t('This project has no guidelines yet.')}*",
        *_turn_values(look),
    ]


def _turn_values(look: Look) -> list[Any]:
    view, before = look
    status = _status(view.writer if view.state in ("typing", "writing", "judged") else Writer("ready"), view.error)
    spare: list[Any] = [gr.skip()] * (len(LETTERS) - len(SHOWN))
    shown = [*view.texts, *[""] * (len(SHOWN) - len(view.texts))][: len(SHOWN)]
    if before is not None and before.state == view.state:
        # What the person is typing or judging is theirs: only what is written changes.
        rest = 3 + 2 + len(SHOWN) * 2
        return [gr.skip(), status, gr.skip(), *shown, *spare, *[gr.skip()] * rest]
    form = parts.form_value(view.criteria, view.tags, view.settings.order, view.item)
    assignment = str(view.item.assignment_id) if view.item else ""
    ways = [place < len(view.texts) and view.state == "judged" for place in range(len(SHOWN))]
    rewritten = [place < len(view.rewritten) and view.rewritten[place] for place in range(len(SHOWN))]
    best = view.better if view.better is None or not rewritten[view.better] else view.better + len(SHOWN)
    go = [
        gr.Button(visible=way, variant="primary" if place == best else "secondary")
        for place, way in enumerate([*ways, *rewritten])
    ]
    prompt = [shown_message(one) for one in view.messages] or None
    return [_stage(view), status, prompt, *shown, *spare, assignment, form, view.draft, *_buttons(view), *go]


def _buttons(view: PlayView) -> list[Any]:
    return [gr.Button(visible=view.state == "item"), gr.Button(visible=view.state == "writing")]


def _stage(view: PlayView) -> str:
    many = "many" if len(view.projects) > 1 else "one"
    kind = parts.kind_of(view.item) if view.item else ""
    guided = "yes" if view.guidelines.strip() else "no"
    begun = "yes" if view.messages else "no"
    assignment = view.item.assignment_id if view.item else ""
    return (
        f'<div id="fb-stage" data-state="{view.state}" data-kind="{kind}" data-projects="{many}" data-play="{begun}" '
        f'data-guidelines="{guided}" data-assignment="{assignment}" data-turn="{view.turn}" '
        f'data-who="{escape(view.user)}">{_told(view)}</div>'
    )


def _told(view: PlayView) -> str:
    """What the page says where there is nothing to see yet."""
    if view.state == "no project":
        title = t("No project yet")
        said = t("An operator creates the first project on the Operate page; then reload this page.")
    elif view.state == "off":
        title = t("No playground for you here")
        said = sentence(message(view.error))
    elif view.state == "typing" and not view.messages:
        title = t("Talk to the model")
        said = t(
            "Write a message of your own. Two completions come side by side; say which is better and why, and go on "
            "with one of them. What you say trains like any other annotation."
        )
    else:
        return ""
    return f'<div class="fb-empty" role="status"><h2>{escape(title)}</h2><p>{escape(said)}</p></div>'


def _status(writer: Writer, error: str) -> str:
    """One line on the model, or why the last message was not answered."""
    lines = {
        "asleep": "",
        "waiting": t("Waiting for a worker to load the model. If this lasts, tell an operator."),
        "loading": t("The model is being loaded; you can write already."),
        "silent": t("The worker does not answer at the moment; your message is kept."),
        "ready": "",
        "failed": t("The model could not be loaded: {reason}", reason=message(writer.error or "")),
    }
    said, kind = (sentence(message(error)), "bad") if error else (lines[writer.state], "info")
    kind = "bad" if writer.state == "failed" else kind
    if not said:
        return '<p id="pl-status" role="status" data-kind="none"></p>'
    return f'<p id="pl-status" role="status" data-kind="{kind}" data-writer="{writer.state}">{escape(said)}</p>'
