"""How feedback is put to a model, to refine, to judge, to condition on: conversations in the wordings of a project.

No torch here: the worker, the recipes and the tests share it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from storage.wordings import CONDITION, JUDGE, REFINE
from storage.wordings import Templates as Templates
from storage.wordings import templates_of as templates_of
from trainer.starter.facets import ChatMessage


class Said(NamedTuple):
    """One critique as models read it: its words with the fix, the part of the completion it marks, its tags."""

    text: str
    span: str = ""
    tags: str = ""


def told(text: str, fix: str | None = None, tags: Sequence[str] = (), span: str = "") -> Said:
    """Everything that was said in one critique. Where nobody wrote anything, the tags speak; `text` may be empty."""
    tagged = ", ".join(filter(None, (tag.strip() for tag in tags)))
    written = " ".join(part.strip() for part in (text, fix or "") if part.strip())
    return Said(written or tagged, span.strip(), tagged if written else "")


def refine_messages(
    prompt: Sequence[Mapping[str, str]], completion: str, critique: str | Said, template: str = REFINE
) -> list[ChatMessage]:
    """The conversation whose next turn is the completion, rewritten as the critique asks.

    Prompt messages, then the draft as the assistant's, then the instruction with the critique (a fix, when there is
    one, is part of the critique's text). A line of the template that asks for a {span} or {tags} goes when there are
    none.
    """
    said = critique if isinstance(critique, Said) else Said(critique)
    empty = [slot for slot, value in (("{span}", said.span), ("{tags}", said.tags)) if not value]
    lines = [line for line in template.split("\n") if not any(slot in line for slot in empty)]
    instruction = filled("\n".join(lines), critique=said.text.strip(), span=said.span, tags=said.tags)
    return _ask(prompt, completion, instruction)


def judge_messages(
    prompt: Sequence[Mapping[str, str]],
    completion: str,
    critique: str,
    wording: int = 0,
    templates: Sequence[str] = JUDGE,
) -> list[ChatMessage]:
    """The conversation whose next turn is "yes" or "no": does the completion do what the critique asks?

    `wording` is an index into `templates`; IndexError past its end.
    """
    return _ask(prompt, completion, filled(templates[wording], critique=critique.strip()))


def condition_messages(
    prompt: Sequence[Mapping[str, str]], feedback: str, template: str = CONDITION
) -> list[ChatMessage]:
    """The prompt with feedback on its reply in the last message: as a conditional policy is trained and asked."""
    last = prompt[-1]
    worded = filled(template, prompt=last["content"], feedback=feedback.strip())
    return [*(_copy(message) for message in prompt[:-1]), {"role": last["role"], "content": worded}]


def _ask(prompt: Sequence[Mapping[str, str]], completion: str, instruction: str) -> list[ChatMessage]:
    return [
        *(_copy(message) for message in prompt),
        {"role": "assistant", "content": completion},
        {"role": "user", "content": instruction},
    ]


def _copy(message: Mapping[str, str]) -> ChatMessage:
    return ChatMessage(role=message["role"], content=message["content"])


def filled(template: str, **slots: str) -> str:
    """The template with its slots filled; braces of people's own, in template or text, stay as they are."""
    pattern = "|".join(re.escape("{" + name + "}") for name in slots)
    return re.sub(pattern, lambda found: slots[found.group()[1:-1]], template)
