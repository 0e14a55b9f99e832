"""The judge: how sure a model is that a completion does what a critique asks.

The probability of "yes" against "no" as the next token, averaged over several wordings of the question: a single one
is a matter of luck (ILF, arXiv 2303.16755). The judge is the base model without any adapter: a policy that is trained
on what it judged would come to judge itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from storage.errors import Invalid
from storage.models import Message
from trainer.datasets import context_length, fit_turns, render
from trainer.policy import Policies, speaking
from trainer.templates import Templates, judge_messages


class Question(NamedTuple):
    """Does `completion`, an answer to `prompt`, do what `critique` asks?"""

    prompt: list[Message]
    completion: str
    critique: str


def judge(
    policies: Policies,
    questions: Sequence[Question],
    templates: Templates,
    *,
    batch_size: int = 64,
    before_batch: Callable[[], None] = lambda: None,
) -> list[float | None]:
    """How sure the base model is of a yes, 0..1, mean over the wordings; None where a question does not fit at all."""
    asked, owners = [], []
    longest = context_length(policies.model.config) - 1
    for number, question in enumerate(questions):
        prompt = question.prompt
        for wording in range(len(templates.judge)):
            turns = judge_messages((), question.completion, question.critique, wording, templates.judge)
            plain = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
            fitted = fit_turns(policies.tokenizer, prompt, plain, longest)
            if fitted is None:
                continue
            prompt = fitted[: -len(plain)]  # shortened once is enough for wordings of about the same length
            asked.append(fitted)
            owners.append(number)
    answers = yes_probabilities(policies, asked, templates, batch_size=batch_size, before_batch=before_batch)
    by_question: list[list[float]] = [[] for _ in questions]
    for number, answer in zip(owners, answers, strict=True):
        by_question[number].append(answer)
    return [sum(found) / len(found) if found else None for found in by_question]


def yes_probabilities(
    policies: Policies,
    conversations: Sequence[list[Message]],
    templates: Templates,
    *,
    batch_size: int = 64,
    before_batch: Callable[[], None] = lambda: None,
) -> list[float]:
    """P(yes) / (P(yes) + P(no)) for each conversation, in order; one forward pass a batch of like length."""
    if not conversations:
        return []
    yes_ids, no_ids = answer_tokens(policies.tokenizer, templates.yes, templates.no)
    rendered = render(policies.tokenizer, [*conversations], add_generation_prompt=True)
    order = sorted(range(len(rendered)), key=lambda place: len(rendered[place]))
    found = [0.0] * len(rendered)
    with speaking(policies, None):
        for start in range(0, len(order), batch_size):
            before_batch()
            part = order[start : start + batch_size]
            answers = _answers(policies, [rendered[place] for place in part], yes_ids, no_ids)
            for place, value in zip(part, answers, strict=True):
                found[place] = value
    return found


def answer_tokens(tokenizer: Any, yes: str, no: str) -> tuple[list[int], list[int]]:
    """The tokens with which an answer may begin: as written, capitalised, in capitals, and after a space.

    Raises `Invalid` when they do not tell the two apart.
    """

    def first_tokens(word: str) -> set[int]:
        ways = {f"{space}{case}" for space in ("", " ") for case in (word, word.capitalize(), word.upper())}
        return {ids[0] for way in ways if (ids := tokenizer(way, add_special_tokens=False)["input_ids"])}

    for_yes, for_no = first_tokens(yes), first_tokens(no)
    # A bare space begins both: it tells nothing.
    if for_yes <= for_no or for_no <= for_yes:
        raise Invalid(f"the judge's answers '{yes}' and '{no}' begin alike for this model; choose others")
    return sorted(for_yes - for_no), sorted(for_no - for_yes)


def _answers(policies: Policies, prompts: list[list[int]], yes: list[int], no: list[int]) -> list[float]:
    import torch

    model = policies.model
    batch = policies.tokenizer.pad({"input_ids": prompts}, padding=True, padding_side="left", return_tensors="pt").to(
        model.device
    )
    positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        logits = model(**batch, position_ids=positions, logits_to_keep=1).logits[:, -1].float()
    gap = logits[:, yes].logsumexp(-1) - logits[:, no].logsumexp(-1)
    return [float(value) for value in torch.sigmoid(gap)]
