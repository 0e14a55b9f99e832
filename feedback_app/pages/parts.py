"""Small parts of the annotate page that Gradio has no component for: the form, key help, client snippets.

Their markup is built with DOM calls from plain data, never by pasting text into HTML or into a template: Gradio
evaluates templates as JavaScript after filling them in.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from feedback_app.handlers.annotate import ItemView
from feedback_app.i18n import later
from feedback_app.pages.theme import LATEX
from storage.models import Criterion

# Gradio adds the page's scripts while it starts: they arrive in any order, and perhaps after the component.
_JS_FORM = """const parts = ['keep', 'difference', 'drawMarks', 'ranking', 'form', 'touched'];
const start = () => {
  if (parts.every((part) => window.feedback?.[part])) window.feedback.form(element, props, watch);
  else setTimeout(start, 10);
};
start();"""


def form() -> gr.HTML:
    """Verdict or ranking, and in the columns' slots ratings, critiques and rewrites; the value is `form_value`'s.

    One component for all of it: an event carries one value, and what is typed is there from the first keystroke.
    """
    return gr.HTML(
        form_value([], (), "free", None),
        html_template='<div class="fb-verdict"></div>',
        js_on_load=_JS_FORM,
        elem_id="fb-verdict-box",
        apply_default_css=False,
    )


def form_value(criteria: Sequence[Criterion], tags: Sequence[str], order: str, item: ItemView | None) -> dict[str, Any]:
    """What the form shows: the project's criteria and tags, and the item's completions with what is said so far."""
    return {
        "serial": item.assignment_id if item else None,
        "kind": kind_of(item) if item else None,
        "order": order,
        "criteria": [
            {"id": one.id, "name": one.name, "description": one.description, "low": one.low, "high": one.high}
            for one in criteria
        ],
        "tags": list(tags),
        "outcome": item.outcome.value if item and item.outcome else None,
        "strength": item.strength if item else None,
        "ranks": list(item.ranks) if item else [],
        "sides": [
            {
                "text": side.text,
                "ratings": {str(key): value for key, value in side.ratings.items()},
                "critiques": [critique.as_json() for critique in side.critiques],
                "refinement": side.refinement,
            }
            for side in (item.sides if item else [])
        ],
    }


def kind_of(item: ItemView) -> str:
    """How the item is judged: by ratings alone, by a comparison, or by a ranking; the number of completions decides."""
    return {1: "single", 2: "pair"}.get(len(item.sides), "ranking")


def _side_head(letter: str) -> str:
    """The head of a completion's column."""
    better = later("{letter} is better", letter=letter)
    return (
        f'<div class="fb-side-head"><span class="fb-letter">{letter}</span><span class="fb-rank"></span>'
        '<button type="button" class="fb-small" data-plain aria-pressed="false" '
        f'aria-label="{later("Plain text of {letter}", letter=letter)}" '
        f'title="{later("Show the text as it was written; mark passages in it with the keyboard")}">'
        f"{later('Plain text')}</button>"
        + (
            f'<button type="button" class="fb-pick" data-pick="{letter.lower()}">{better}</button>'
            if letter in "AB"
            else ""
        )
        + "</div>"
    )


def side(letter: str, *, off: bool = True) -> gr.Markdown:
    """The column of a completion, while `off` out of sight; gives the component of its text."""
    hidden = ["fb-off"] if off else []
    with gr.Column(elem_classes=["fb-side", *hidden], elem_id=f"fb-side-{letter.lower()}", min_width=320):
        gr.HTML(_side_head(letter), js_on_load=None)
        text = gr.Markdown("", latex_delimiters=LATEX, line_breaks=True, buttons=["copy"], elem_classes="fb-text")
        gr.HTML('<div class="fb-plain-text"></div><div class="fb-slot"></div>', js_on_load=None)
    return text


def panel_head(title: str) -> str:
    """Title, a text for `later`, and close button of an overlay."""
    return (
        f'<div class="fb-panel-head"><h2>{escape(title)}</h2>'
        f'<button type="button" class="fb-close" data-close aria-label="{later("Close")}">✕</button></div>'
    )


def keys() -> str:
    """What the keys do."""
    return (
        _keys(
            ("<kbd>1</kbd>", later("A is better; again: slightly, clearly, much")),
            ("<kbd>2</kbd>", later("B is better; again: slightly, clearly, much")),
            ("<kbd>3</kbd>", later("Tie")),
            ("<kbd>4</kbd>", later("Both bad")),
        )
        + f"<h3>{later('Three completions or more')}</h3>"
        + _keys(
            (f"<kbd>1</kbd> {later('to')} <kbd>8</kbd>", later("This one comes next, the best first")),
            ("<kbd>←</kbd> <kbd>→</kbd> <kbd>↑</kbd> <kbd>↓</kbd>", later("Move the one in focus")),
            ("<kbd>=</kbd>", later("Tie with the one before")),
            ("<kbd>Del</kbd>", later("Take it out of the order")),
        )
        + f"<h3>{later('Critiques')}</h3>"
        + _keys(
            ("<kbd>C</kbd>", later("Criticise the selected passage; in “Plain text”, Shift and arrows select")),
            (
                f"<kbd>Alt</kbd> <kbd>1</kbd> {later('to')} <kbd>9</kbd>",
                later("A tag of the critique you are in, or of the completion"),
            ),
        )
        + f"<h3>{later('Always')}</h3>"
        + _keys(
            ("<kbd>Ctrl</kbd> <kbd>Enter</kbd>", later("Submit and go on; works in text fields too")),
            ("<kbd>Esc</kbd>", later("Leave a text field, close a panel")),
            ("<kbd>?</kbd>", later("This list")),
        )
    )


def _keys(*lines: tuple[str, str]) -> str:
    inner = "".join(f"<dt>{key}</dt><dd>{what}</dd>" for key, what in lines)
    return f'<dl class="fb-keys">{inner}</dl>'


# Client-side steps of events: each gets the inputs and returns what is sent. The form's state is the script's.
JS_PROJECT_OF_URL = "(project, kept) => [new URLSearchParams(location.search).get('project') ?? project, kept]"
# Null when the list of projects was only passed by with the Tab key: Gradio calls that an input too.
JS_OTHER_PROJECT = "(project) => [window.feedback.otherProject(project)]"
JS_SECONDS = "(p, a, s, form) => [p, a, window.feedback.seconds(), window.feedback.said()]"
JS_NOW = "(a, t, form) => [a, Date.now(), window.feedback.said()]"
JS_KEEP_DRAFT = "(assignment) => ({assignment, form: window.feedback.said(), at: Date.now()})"


def prompt() -> gr.Chatbot:
    """The conversation that asks for the completions."""
    return gr.Chatbot(
        label=later("Prompt"),
        show_label=False,
        elem_id="fb-prompt",
        height="auto",
        autoscroll=False,
        buttons=[],
        layout="panel",
        latex_delimiters=LATEX,
        group_consecutive_messages=False,
        feedback_options=None,
        allow_tags=False,
    )
