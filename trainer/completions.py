"""Snapshot rows of one completion each, as token columns: prompt_ids, completion_ids and label (good or bad).

What does not fit is shortened or left out by the rule of `trainer.datasets`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from storage.models import Message
from trainer.datasets import MIN_PROMPT_TOKENS, Form, TokenRow, fit_prompt, messages_of, render

Prompted = Callable[[dict[str, Any]], list[Message]]
"""The prompt of a row, as the policy shall see it."""


def completion_form(noun: str, prompt: Prompted | None = None) -> Form:
    """The form of rows with a prompt and one completion; `prompt` says what the policy sees, by default the prompt."""
    seen = prompt or (lambda row: messages_of(row["prompt"]))

    def tokenise(tokenizer: Any, rows: list[dict[str, Any]], max_length: int) -> list[TokenRow | str]:
        prompts = [seen(row) for row in rows]
        completions = [messages_of(row["completion"]) for row in rows]
        alone = render(tokenizer, prompts, add_generation_prompt=True)
        whole = render(tokenizer, [[*before, *after] for before, after in zip(prompts, completions, strict=True)])
        return [
            _row(tokenizer, row, before, after, ids, both, max_length)
            for row, before, after, ids, both in zip(rows, prompts, completions, alone, whole, strict=True)
        ]

    columns = {"prompt_ids": "ids", "completion_ids": "ids", "label": "bool"}
    return Form(noun, columns, tokenise, kept=prompt is None)


def _row(
    tokenizer: Any,
    row: dict[str, Any],
    prompt: list[Message],
    completion: list[Message],
    alone: list[int],
    whole: list[int],
    max_length: int,
) -> TokenRow | str:
    shortened = len(whole) > max_length
    shared = _common(alone, whole)
    if shortened:
        budget = max_length - (len(whole) - shared)
        if budget < min(MIN_PROMPT_TOKENS, shared):
            return "completion too long"
        fitted = fit_prompt(tokenizer, prompt, budget)
        if fitted is None:
            return "prompt too long"
        whole = render(tokenizer, [[*fitted.messages, *completion]])[0]
        shared = _common(fitted.ids, whole)
    values = {
        "prompt_ids": whole[:shared],
        "completion_ids": whole[shared:],
        "length": len(whole),
        "label": bool(row.get("label", True)),
    }
    return TokenRow(values, shortened)


def _common(prompt: list[int], whole: list[int]) -> int:
    """Tokens that the prompt alone and the prompt with its completion share; as in TRL, there the completion begins."""
    pairs = zip(prompt, whole, strict=False)
    return next((place for place, (x, y) in enumerate(pairs) if x != y), min(len(prompt), len(whole)))
