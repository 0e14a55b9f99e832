"""Fields of the Project tab about what critiques and ratings weigh in training, and what people are asked back."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback_app.handlers.project import SHARES, WEIGHTS, ProjectView
from feedback_app.i18n import later

FIELDS = (*WEIGHTS, *SHARES)
_LABELS = {
    "comparison_weight": later("Comparisons"),
    "rating_weight": later("Ratings"),
    "refinement_weight": later("Rewrites by people"),
    "accepted_refinement_weight": later("By a model, accepted"),
    "unreviewed_refinement_weight": later("By a model, unreviewed"),
    "review_share": later("People review rewrites by models"),
    "resolution_share": later("People say whether it was fixed"),
}


def layout(fields: dict[str, Any]) -> None:
    """Add the fields to a card."""
    gr.HTML(f"<h3>{later('What feedback weighs in training')}</h3>", js_on_load=None)
    with gr.Row():
        for name in WEIGHTS:
            fields[name] = gr.Number(1.0, label=_LABELS[name], minimum=0, maximum=10, step=0.1, min_width=110)
    gr.HTML(f"<h3>{later('Asked back')}</h3>", js_on_load=None)
    with gr.Row():
        for name in SHARES:
            fields[name] = gr.Number(
                0.0,
                label=_LABELS[name],
                info=later("After this share of submits, 0 to 1."),
                minimum=0,
                maximum=1,
                step=0.05,
                min_width=150,
            )


def values(view: ProjectView) -> list[Any]:
    """The values of `FIELDS` for `view`."""
    return [
        *(getattr(view.policy, name) for name in WEIGHTS),
        *(getattr(view.annotating, name) for name in SHARES),
    ]
