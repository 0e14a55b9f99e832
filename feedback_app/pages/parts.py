"""Small parts of the annotate page that Gradio has no component for: rating grid, verdict, key help, client snippets.

Their markup is built with DOM calls from plain data, never by pasting text into HTML or into a template: Gradio
evaluates templates as JavaScript after filling them in.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from storage.models import Criterion


def rating_grid(letter: str) -> gr.HTML:
    """One row a criterion, one radio a value; the component's value is what `rating_value` makes."""
    return gr.HTML(
        rating_value([], {}),
        html_template='<div class="fb-ratings"></div>',
        js_on_load=f"window.feedback.ratings(element, props, trigger, watch, {letter!r})",
        elem_classes="fb-ratings-box",
        apply_default_css=False,
    )


def rating_value(criteria: Sequence[Criterion], ratings: dict[int, int]) -> dict[str, Any]:
    """What a rating grid shows: the criteria, and the values chosen so far by criterion id."""
    return {
        "criteria": [
            {"id": one.id, "name": one.name, "description": one.description, "low": one.low, "high": one.high}
            for one in criteria
        ],
        "values": {str(key): value for key, value in ratings.items()},
    }


def verdict() -> gr.HTML:
    """A, B, tie or both bad, and how much better; the value is {"outcome", "strength"}."""
    return gr.HTML(
        {"outcome": None, "strength": None},
        html_template='<div class="fb-verdict"></div>',
        js_on_load="window.feedback.verdict(element, props, trigger, watch)",
        elem_id="fb-verdict-box",
        apply_default_css=False,
    )


def panel_head(title: str) -> str:
    """Title and close button of an overlay."""
    return (
        f'<div class="fb-panel-head"><h2>{escape(title)}</h2>'
        '<button type="button" class="fb-close" data-close aria-label="Close">✕</button></div>'
    )


KEYS = """<dl class="fb-keys">
<dt><kbd>1</kbd></dt><dd>A is better; again: slightly, clearly, much</dd>
<dt><kbd>2</kbd></dt><dd>B is better; again: slightly, clearly, much</dd>
<dt><kbd>3</kbd></dt><dd>Tie</dd>
<dt><kbd>4</kbd></dt><dd>Both bad</dd>
<dt><kbd>Ctrl</kbd> <kbd>Enter</kbd></dt><dd>Submit and go on; works in text fields too</dd>
<dt><kbd>Esc</kbd></dt><dd>Leave a text field, close a panel</dd>
<dt><kbd>?</kbd></dt><dd>This list</dd>
</dl>"""

# Client-side steps of events: each gets the inputs and returns what is sent.
JS_PROJECT_OF_URL = "(project, kept) => [new URLSearchParams(location.search).get('project') ?? project, kept]"
JS_KEEP_PROJECT = "(project) => { window.feedback.keep('project', project); return [project]; }"
JS_SECONDS = "(p, a, s, ...form) => [p, a, window.feedback.seconds(), ...form]"
JS_NOW = "(a, t, ...form) => [a, Date.now(), ...form]"
JS_KEEP_DRAFT = "(assignment, ...fields) => ({assignment, fields, at: Date.now()})"
