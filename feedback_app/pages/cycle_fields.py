"""Fields of the Project tab that say what a cycle does, and when a low resolution rate starts training."""

from __future__ import annotations

from typing import Any

import gradio as gr

from feedback_app.handlers.project import CYCLE_FIELDS, RESOLUTION_FIELDS, ProjectView
from feedback_app.i18n import later
from storage.cycle_configs import AUTO, POLICIES, STEPS

FIELDS = (*RESOLUTION_FIELDS, *CYCLE_FIELDS)


def layout_resolution(fields: dict[str, Any]) -> None:
    """When too little of what people criticised is called fixed: beside the other moments of training."""
    with gr.Row():
        fields["resolution_below"] = gr.Number(
            0.5,
            label=later("Resolution rate below"),
            info=later("0 to 1, of the champion."),
            minimum=0,
            maximum=1,
            step=0.05,
            min_width=120,
        )
        fields["resolution_least"] = gr.Number(
            20, label=later("Of so many answers"), info=later("At least."), precision=0, minimum=1, min_width=120
        )


def layout(fields: dict[str, Any]) -> None:
    """What a cycle does."""
    gr.HTML(f"<h3>{later('What a cycle does')}</h3>", js_on_load=None)
    steps = [(later(step.value), step.value) for step in STEPS]
    fields["steps"] = gr.CheckboxGroup(
        steps,
        label=later("Steps"),
        info=later("What has nothing to do is skipped. Promotion follows from the gate."),
        elem_id="op-cycle-steps",
    )
    recipes = [(later("Whatever is best then"), AUTO), *((later(kind.value), kind.value) for kind in POLICIES)]
    fields["recipe"] = gr.Dropdown(recipes, value=AUTO, label=later("How the policy is trained"), elem_id="op-recipe")


def values(view: ProjectView) -> list[Any]:
    """The values of `FIELDS` for `view`."""
    return [
        *(getattr(view.policy, name) for name in RESOLUTION_FIELDS),
        [step.value for step in view.cycle.steps],
        view.cycle.recipe,
    ]
