"""The application's own wordings: how feedback is put to a model to refine, to judge, to condition on.

The starter is trained on the first two. A project may word each of them itself (`storage.configs.TemplateSettings`);
what it leaves out is said as here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from storage.configs import TemplateSettings
from storage.models import Project

STARTER = "starter"
"""The name of the base model that comes with the application."""
DIVIDER = "---"
"""Stands between the wordings of the judge where they are written as one text, on a line of its own."""

REFINE = "Feedback: {critique}\nWrite the reply again so that it follows the feedback. Keep the rest."
REFINE_MARKED = (
    'Feedback: {critique}\nIt is about this part: "{span}"\nIt was tagged: {tags}\n'
    "Write the reply again so that it follows the feedback. Keep the rest."
)
"""For others. The starter never saw a marked part: quoting one cost it half of its refinements (0.97 to 0.44)."""

JUDGE = (
    "Feedback: {critique}\nDoes the reply do what the feedback asks? Say yes or no.",
    "Feedback: {critique}\nIs this feedback met by the reply? Say yes or no.",
    "Feedback: {critique}\nDoes the reply above follow it? Say yes or no.",
    "Feedback: {critique}\nHas the reply been mended in this point? Say yes or no.",
    "Feedback: {critique}\nCheck the reply. Is it as wanted? Say yes or no.",
)
"""Wordings of the judge's question: averaging over them steadies a judge (ILF, arXiv 2303.16755)."""

YES, NO = "yes", "no"
"""What a judge says; the starter has one token for each."""

CONDITION = "{prompt}\n\nFeedback on the reply: {feedback}"
POSITIVE, MIXED, NEGATIVE = "Very good, nothing to mend.", "Fair, not good yet.", "Poor."
"""Feedback in words where nobody wrote any, by rating; under the first a conditional policy writes."""

TEACHER = (
    "{prompt}\n\nAn earlier reply was:\n{completion}\n\n"
    "Feedback on that reply: {critique}\nWrite a reply that follows it."
)
"""What the teacher of self-distillation sees. It speaks of an earlier reply: the one being judged is a new one."""


@dataclass(frozen=True)
class Templates:
    """The wordings in force for a project."""

    refine: str = REFINE
    judge: tuple[str, ...] = JUDGE
    yes: str = YES
    no: str = NO
    condition: str = CONDITION
    positive: str = POSITIVE
    teacher: str = TEACHER


def templates_of(settings: TemplateSettings, *, starter: bool = True) -> Templates:
    """A project's own wordings, and the application's for the rest: those of the starter, or for any other model."""
    own = {name: value for name, value in settings.model_dump().items() if value is not None}
    return Templates(**({} if starter else {"refine": REFINE_MARKED}) | own)


def own_wordings(shown: Mapping[str, Any], *, starter: bool = True) -> dict[str, Any]:
    """What of wordings that were shown filled in is a project's own: those that say something else than ours."""
    ours = asdict(templates_of(TemplateSettings(), starter=starter))
    return {name: value for name, value in shown.items() if ours.get(name) != value}


def on_starter(project: Project, default_base_model: str) -> bool:
    """Whether a project's base model is the one that comes with the application."""
    return (project.base_model or default_base_model) == STARTER


def divided(wordings: str) -> tuple[str, ...]:
    """The wordings in a text that has a line of dashes between them."""
    parts: list[list[str]] = [[]]
    for line in wordings.splitlines():
        if line.strip() == DIVIDER:
            parts.append([])
        else:
            parts[-1].append(line)
    return tuple("\n".join(part).strip() for part in parts)
