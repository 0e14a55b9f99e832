"""Fields of the Project tab about who rewrites what was criticised, and how critiques are worded for models."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback_app.handlers.refining import REFINER, WORDINGS, RefiningView, as_fields
from feedback_app.i18n import later, t

FIELDS = (*REFINER, *WORDINGS)
_WORDINGS = {
    "refine": (
        later("Asking for a rewrite"),
        later("{critique}; lines with {span} or {tags} go where there are none."),
        3,
    ),
    "judge": (
        later("Asking the judge whether it does what was asked"),
        later("{critique} in each; a line of three hyphens between two wordings. Their answers are averaged."),
        8,
    ),
    "yes": (later("Yes"), None, 1),
    "no": (later("No"), None, 1),
    "condition": (later("Telling a conditional policy what was said"), later("{prompt} and {feedback}."), 3),
    "positive": (later("Feedback under which it then writes"), None, 1),
    "teacher": (
        later("What the teacher of self-distillation sees"),
        later("{prompt}, {completion} and {critique}."),
        5,
    ),
}


class RefiningPart:
    """A card with the fields, and the button that puts our wordings back into them."""

    def __init__(self, fields: dict[str, Any]) -> None:
        gr.HTML(f"<h3>{later('How critiques become rewrites')}</h3>", js_on_load=None)
        with gr.Row():
            fields["refiner"] = gr.Dropdown(
                ["champion"],
                value="champion",
                label=later("Who rewrites"),
                elem_id="op-refiner",
                min_width=180,
                allow_custom_value=True,  # the server checks it; Gradio would check it against this list
            )
            fields["endpoint_model"] = gr.Textbox(
                label=later("Model at the endpoint"),
                placeholder=later("Only with an endpoint"),
                max_lines=1,
                min_width=180,
                elem_id="op-endpoint-model",
            )
        with gr.Row():
            fields["samples"] = gr.Number(
                5, label=later("Rewrites per critique"), precision=0, minimum=1, min_width=120
            )
            fields["warmth"] = gr.Number(1.0, label=later("Their temperature"), minimum=0, step=0.1, min_width=120)
        with gr.Accordion(later("How critiques are worded for models"), open=False, elem_id="op-wordings"):
            for name in WORDINGS:
                label, info, lines = _WORDINGS[name]
                if name != "no":
                    row = gr.Row()
                with row:
                    fields[name] = gr.Textbox(
                        label=label, info=info, lines=lines, max_lines=20, min_width=120, elem_id=f"op-wording-{name}"
                    )
            self.reset = gr.Button(later("Put our own wordings back"), elem_id="op-wordings-reset")


def values(view: RefiningView) -> list[Any]:
    """The values of `FIELDS` for `view`."""
    chosen, own = view.settings, as_fields(view.wordings)
    choices = [(t("The champion"), "champion"), (t("An OpenAI-compatible endpoint"), "endpoint"), *view.versions]
    return [
        gr.Dropdown(choices=choices, value=chosen.refiner),
        chosen.endpoint_model or "",
        chosen.samples,
        chosen.temperature,
        *(own[name] for name in WORDINGS),
    ]
