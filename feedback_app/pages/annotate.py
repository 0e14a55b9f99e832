"""/annotate: an item's completions side by side, and everything that can be said about them."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any
from urllib.parse import quote

import gradio as gr

from feedback_app import policies
from feedback_app.handlers import annotate as handlers
from feedback_app.handlers.annotate import LEFT, PageView
from feedback_app.handlers.annotate_form import MAX_SIDES
from feedback_app.handlers.context import Context
from feedback_app.i18n import later, message, sentence, t
from feedback_app.pages import parts, practice
from feedback_app.pages.theme import LATEX
from feedback_app.pages.wiring import AS_IS, BRAND, HEADING, QUEUED, QUICK, account_links, event, notice, plain, told
from storage.models import Message

LETTERS = "ABCDEFGH"[:MAX_SIDES]
# Seconds between two looks at an empty queue, and while an item is in hand (a browser counts 24 days at most).
LOOK_AGAIN, REST = 3.0, 7 * 86_400.0


def build(ctx: Context) -> gr.Blocks:
    """The page's layout and its events."""
    with gr.Blocks(title=later("Annotate · Feedback"), fill_width=True, delete_cache=(3600, 3600)) as demo:
        ui = _layout()
        _connect(ctx, demo, ui)
    demo.queue(api_open=False, default_concurrency_limit=8, max_size=500)
    return demo


class _Ui:
    """The components that events touch."""

    top: gr.HTML
    notice: gr.HTML
    project: gr.Dropdown
    stage: gr.HTML
    guidelines: gr.Markdown
    prompt: gr.Chatbot
    texts: list[gr.Markdown]
    form: gr.HTML
    submit: gr.Button
    skip: gr.Button
    flag: gr.Button
    reason: gr.Textbox
    save: gr.Button
    assignment: gr.Textbox
    clock: gr.Number
    kept: gr.BrowserState
    timer: gr.Timer
    lesson: practice.LessonPart

    @property
    def item(self) -> list[Any]:
        """What changes with the item, in the order of `_item_values`."""
        return [self.stage, self.timer, self.assignment, self.prompt, *self.texts, self.form, *self.lesson.outputs]

    @property
    def page(self) -> list[Any]:
        """What changes with the project, in the order of `_page_values`."""
        return [self.top, self.project, self.guidelines, *self.item]


def _layout() -> _Ui:
    ui = _Ui()
    with gr.Row(elem_id="fb-top"):
        gr.HTML(BRAND + HEADING.format(later("Annotate")), elem_id="fb-brand", js_on_load=None)
        ui.project = gr.Dropdown(
            choices=[],
            label=later("Project"),
            show_label=False,
            container=False,
            elem_id="fb-project",
            # The server checks the name; Gradio would check it against the empty list above after a restart.
            allow_custom_value=True,
        )
        ui.stage = gr.HTML(_stage(None), elem_id="fb-stage-box", js_on_load=None)
        ui.top = gr.HTML(_top(None), elem_id="fb-bar", js_on_load=None)
    ui.lesson = practice.LessonPart()
    with gr.Column(elem_id="fb-work"):
        ui.prompt = parts.prompt()
        with gr.Row(elem_id="fb-sides", equal_height=False):
            ui.texts = [parts.side(letter, off=letter not in LETTERS[:2]) for letter in LETTERS]
    with gr.Row(elem_id="fb-actions"):
        ui.form = parts.form()
        ui.skip = gr.Button(later("Skip"), elem_id="fb-skip", min_width=80)
        gr.HTML(
            f'<button type="button" class="fb-plain" data-panel="fb-flag-panel">{later("Flag…")}</button>',
            elem_id="fb-flag-open",
            js_on_load=None,
        )
        ui.submit = gr.Button(later("Submit"), variant="primary", elem_id="fb-submit", min_width=150)
    _panels(ui)
    ui.notice = gr.HTML("", elem_id="fb-notice-box", js_on_load=None)
    ui.save = gr.Button("Save draft", visible="hidden", elem_id="fb-save")
    ui.assignment = gr.Textbox("", visible="hidden", elem_id="fb-assignment")
    ui.clock = gr.Number(0, visible="hidden", elem_id="fb-clock")
    # The secret only keeps casual eyes off a shared browser's storage; sign out clears it.
    ui.kept = gr.BrowserState(None, storage_key="feedback-draft", secret="feedback-draft-v1")  # noqa: S106  no secret
    ui.timer = gr.Timer(REST)
    return ui


def _panels(ui: _Ui) -> None:
    with gr.Column(elem_id="fb-guidelines", elem_classes="fb-panel"):
        gr.HTML(parts.panel_head(later("Guidelines")), js_on_load=None)
        ui.guidelines = gr.Markdown("", latex_delimiters=LATEX)
    with gr.Column(elem_id="fb-keys", elem_classes="fb-panel"):
        gr.HTML(parts.panel_head(later("Keys")) + parts.keys(), js_on_load=None)
    with gr.Column(elem_id="fb-flag-panel", elem_classes="fb-panel"):
        gr.HTML(parts.panel_head(later("Flag this item")), js_on_load=None)
        ui.reason = gr.Textbox(
            label=later("What is wrong with it?"),
            info=later(
                "It leaves the queue and an operator sees your reason. To say that both are poor, use “Both bad”."
            ),
            lines=3,
        )
        ui.flag = gr.Button(later("Flag and go on"), variant="stop", elem_id="fb-flag")


def _connect(ctx: Context, demo: gr.Blocks, ui: _Ui) -> None:
    here = [ui.project, ui.assignment]

    def opened(name: str | None, project: str | None, kept: Any) -> list[Any]:
        return _page_values(handlers.open_page(ctx, name, project, kept))

    def changed(name: str | None, project: str | None) -> list[Any]:
        if project is None:
            return [gr.skip() for _ in ui.page]
        return _page_values(handlers.open_page(ctx, name, project))

    def looked(name: str | None, project: str | None) -> list[Any]:
        return _item_values(handlers.next_item(ctx, name, project))

    def submitted(name: str | None, project: str | None, assignment: Any, seconds: Any, form: Any) -> list[Any]:
        view = handlers.submit(ctx, name, project, assignment, seconds, form)
        return [*_item_values(replace(view, notice="")), notice(message(view.notice))]

    def practised(name: str | None, project: str | None) -> list[Any]:
        return _item_values(handlers.practise(ctx, name, project))

    def skipped(name: str | None, project: str | None, assignment: Any) -> list[Any]:
        return _item_values(handlers.skip(ctx, name, project, assignment))

    def flagged(name: str | None, project: str | None, assignment: Any, reason: Any) -> list[Any]:
        return [*_item_values(handlers.flag(ctx, name, project, assignment, reason)), ""]

    def saved(name: str | None, assignment: Any, at: Any, form: Any) -> None:
        handlers.save_draft(ctx, name, assignment, at, form)

    demo.load(event(opened), [ui.project, ui.kept], ui.page, js=parts.JS_PROJECT_OF_URL, postprocess=False, **QUICK)
    ui.project.input(event(changed), [ui.project], ui.page, js=parts.JS_OTHER_PROJECT, **QUICK, **AS_IS)
    ui.timer.tick(plain(event(looked)), [ui.project], ui.item, **QUICK, **AS_IS)
    ui.submit.click(
        plain(told(submitted, len(ui.item))),
        [*here, ui.clock, ui.form],
        [*ui.item, ui.notice],
        js=parts.JS_SECONDS,
        trigger_mode="once",
        **QUICK,
        **AS_IS,
    )
    ui.lesson.go.click(plain(event(practised)), [ui.project], ui.item, trigger_mode="once", **QUICK, **AS_IS)
    ui.skip.click(event(skipped), here, ui.item, concurrency_limit=8, **QUEUED, **AS_IS)
    ui.flag.click(event(flagged), [*here, ui.reason], [*ui.item, ui.reason], concurrency_limit=8, **QUEUED, **AS_IS)
    ui.save.click(plain(event(saved)), [ui.assignment, ui.clock, ui.form], None, js=parts.JS_NOW, **QUICK, **AS_IS)
    ui.save.click(None, [ui.assignment], [ui.kept], js=parts.JS_KEEP_DRAFT, api_visibility="private")


# --- what the components show ---


def _page_values(view: PageView) -> list[Any]:
    return [
        _top(view),
        gr.Dropdown(choices=view.projects, value=view.project),
        view.guidelines or f"*{t('This project has no guidelines yet.')}*",
        *_item_values(view),
    ]


def _item_values(view: PageView) -> list[Any]:
    if view.notice:
        gr.Info(sentence(message(view.notice)))
    # A later look finds items; while one is in hand the timer rests.
    resting = view.item is not None or _asked_instead(view) or (view.lesson is not None and view.lesson.state != "none")
    timer = REST if resting else LOOK_AGAIN
    lesson = practice.values(view.lesson, view.guidelines, view.criteria)
    if view.lesson is not None and view.lesson.state == "answer":  # the item stays in view, beside what is right
        return [_stage(view), timer, "", *[gr.skip()] * (MAX_SIDES + 2), *lesson]
    form = parts.form_value(view.criteria, view.tags, view.settings.order, view.item)
    if view.item is None:
        return [_stage(view), timer, "", [], *[""] * MAX_SIDES, form, *lesson]
    item = view.item
    texts = [side.text for side in item.sides]
    texts += [""] * (MAX_SIDES - len(texts))
    prompt = [_as_sent(shown_message(one)) for one in item.prompt]
    return [_stage(view), timer, str(item.assignment_id), prompt, *texts, form, *lesson]


def _as_sent(message: Message) -> dict[str, Any]:
    # What the Chatbot makes of a message before it goes to the browser.
    content = [{"type": "text", "text": message["content"]}]
    return {"role": message["role"], "metadata": None, "content": content, "options": None}


def _asked_instead(view: PageView) -> bool:
    """A question stands where an item could: it stays until the person has read it."""
    return view.waiting == "asked" and view.submitted


def shown_message(message: Message) -> Message:
    """A prompt's message as the Chatbot takes it."""
    # Gradio draws user and assistant; a system message stands on the assistant's side and says what it is.
    role, content = message["role"], message["content"]
    if role == "system":
        return {"role": "assistant", "content": f"*{t('Instructions to the model')}*\n\n{content}"}
    return {"role": "user" if role == "user" else "assistant", "content": content}


def _top(view: PageView | None) -> str:
    account = account_links(view.user, view.role, "annotate") if view else ""
    say = t if view else later
    return f"""<nav class="fb-nav">
<button type="button" class="fb-link" data-panel="fb-guidelines">{say("Guidelines")}</button>
<button type="button" class="fb-link fb-wide" data-panel="fb-keys">{say("Keys")} <kbd>?</kbd></button>
{account}</nav>"""


def _stage(view: PageView | None) -> str:
    if view is None:
        return '<div id="fb-stage" data-state="loading"></div>'
    many = "many" if len(view.projects) > 1 else "one"
    guided = "yes" if view.guidelines.strip() else "no"
    progress = _progress(view)
    if view.item:
        practising = ' data-lesson="item"' if view.lesson else ""
        return (
            f'<div id="fb-stage" data-state="item" data-kind="{parts.kind_of(view.item)}" data-projects="{many}" '
            f'data-guidelines="{guided}" data-assignment="{view.item.assignment_id}"{practising}>{progress}</div>'
        )
    if view.lesson is not None and view.lesson.state != "none":
        kept = "item" if view.lesson.state == "answer" else "empty"
        return (
            f'<div id="fb-stage" data-state="{kept}" data-projects="{many}" data-guidelines="no" data-assignment="" '
            f'data-lesson="shown"></div>'
        )
    title, text = _told(view.waiting)
    return (
        f'<div id="fb-stage" data-state="empty" data-projects="{many}" data-guidelines="no" data-assignment="">'
        f"{progress}"
        f'<div class="fb-empty" role="status"><span class="fb-pulse"></span><h2>{escape(title)}</h2>'
        f"<p>{escape(text)}</p>{_onward(view)}</div></div>"
    )


def _onward(view: PageView) -> str:
    """What this person can do meanwhile, as links."""
    ways = []
    if view.waiting == "asked":
        ways.append((f"/questions?project={quote(view.project or '')}", t("Answer it")))
        ways.append((f"/annotate/?project={quote(view.project or '')}", t("Go on annotating")))
    if view.role in policies.OPERATORS and view.waiting == "no project":
        ways.append(("/operate/", t("Create a project")))
    elif view.role in policies.OPERATORS and view.waiting == "being written":
        ways.append((f"/operate/?project={quote(view.project or '')}", t("Add prompts, write completions")))
    if view.progress and view.progress.submitted_total:
        ways.append(("/mine/", t("Look at what you said")))
    links = " ".join(f'<a href="{escape(address)}">{escape(label)}</a>' for address, label in ways)
    return f'<p class="fb-onward">{links}</p>' if ways else ""


def _told(waiting: str) -> tuple[str, str]:
    """Why nothing is there to be judged, and what happens next."""
    if waiting == "no project":
        return (
            t("No project yet"),
            t("An operator creates the first project on the Operate page; this page then fills by itself."),
        )
    if waiting == "asked":
        return (
            t("A question for you"),
            t("Something you criticised was written anew, or a model rewrote an answer: have a look at it."),
        )
    if waiting == "paused":
        return (
            t("You are paused in this project"),
            t(
                "Some control items did not go as expected. An operator will look into it and let you go on; what you "
                "have done so far is kept."
            ),
        )
    if waiting == "no practice":
        return (
            t("Practice is being prepared"),
            t("Before you begin there is a short practice round, and its items are not there yet. Ask an operator."),
        )
    if waiting == "all judged":
        return (
            t("Nothing left for you right now"),
            t(
                "You have judged or skipped everything that is open; the rest is with other annotators. "
                "This page looks again every few seconds."
            ),
        )
    return (
        t("Nothing to judge right now"),
        t(
            "New items appear here as soon as they are written. This page looks again every few seconds; you need not "
            "reload it."
        ),
    )


def _progress(view: PageView) -> str:
    if view.progress is None:
        return ""
    if view.lesson is not None and view.item is not None:
        return practice.banner(view.lesson)
    today, target = view.progress.submitted_today, view.settings.daily_target
    said = t("{n} today", n=f"<b>{today}</b>")
    if target:
        bar = f'<progress value="{min(today, target)}" max="{target}" aria-label="{t("Today’s target")}"></progress>'
        said = f"{t('{n} of {target} today', n=f'<b>{today}</b>', target=target)} {bar}"
    left = str(view.left) if view.left < LEFT else f"{LEFT}+"
    undo = ""
    # While the queue is empty the page looks again and again: the link stays.
    if view.submitted or (view.item is None and view.progress.submitted_today):
        title = t("Take back what you submitted last")
        undo = f'<a class="fb-undo" href="/mine/?last=1" title="{title}">{t("Undo last")}</a>'
    return (
        f'<p class="fb-progress"><span>{said}</span>'
        f"<span>{t('{n} in all', n=f'<b>{view.progress.submitted_total}</b>')}</span>"
        f"<span>{t('{n} waiting', n=f'<b>{left}</b>')}</span>{undo}</p>"
    )
