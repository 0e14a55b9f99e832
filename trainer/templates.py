"""How a critique is put to a model, for refinement and for judgement. The starter is trained on exactly these.

No torch here: the worker, the recipes and the tests share it.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainer.starter.facets import ChatMessage

REFINE = "Feedback: {critique}\nWrite the reply again so that it follows the feedback. Keep the rest."
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


def refine_messages(prompt: Sequence[ChatMessage], completion: str, critique: str) -> list[ChatMessage]:
    """The conversation whose next turn is the completion, rewritten as the critique asks.

    Prompt messages, then the draft as the assistant's, then the instruction with the critique (a fix, when there is
    one, is part of the critique's text).
    """
    return _ask(prompt, completion, REFINE.format(critique=critique.strip()))


def judge_messages(
    prompt: Sequence[ChatMessage], completion: str, critique: str, wording: int = 0
) -> list[ChatMessage]:
    """The conversation whose next turn is "yes" or "no": does the completion do what the critique asks?

    `wording` is an index into `JUDGE`; IndexError past its end.
    """
    return _ask(prompt, completion, JUDGE[wording].format(critique=critique.strip()))


def _ask(prompt: Sequence[ChatMessage], completion: str, instruction: str) -> list[ChatMessage]:
    return [
        *(ChatMessage(role=message["role"], content=message["content"]) for message in prompt),
        {"role": "assistant", "content": completion},
        {"role": "user", "content": instruction},
    ]
