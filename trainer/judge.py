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
from storage.wordings import Templates
from trainer.datasets import context_length, fit_turns, render
from trainer.policy import Policies, speaking
from trainer.templates import judge_messages


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
    """How sure the base model is of a yes, 0..1, mean over the wordings; None where a question does not fit at all.

    P(yes) / (P(yes) + P(no)) as the next token. What the wordings of a question share (prompt, completion and
    critique, nearly all of it) is read once: the model's cache is repeated for their different ends.
    """
    if not questions:
        return []
    answers = answer_tokens(policies.tokenizer, templates.yes, templates.no)
    worded = [_worded(policies, question, templates) for question in questions]
    order = sorted((n for n, ends in enumerate(worded) if ends), key=lambda n: max(map(len, worded[n])))
    found: list[float | None] = [None] * len(questions)
    with speaking(policies, None):
        for start in range(0, len(order), batch_size):
            before_batch()
            part = order[start : start + batch_size]
            for place, value in zip(part, _answer(policies, [worded[n] for n in part], *answers), strict=True):
                found[place] = value
    return found


def _worded(policies: Policies, question: Question, templates: Templates) -> list[list[int]]:
    """Token ids of a question in each wording; none when it does not fit the context in every one."""
    longest = context_length(policies.model.config) - 1
    prompt = question.prompt
    asked = []
    for wording in range(len(templates.judge)):
        turns = judge_messages((), question.completion, question.critique, wording, templates.judge)
        plain = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
        fitted = fit_turns(policies.tokenizer, prompt, plain, longest)
        if fitted is None:
            return []
        prompt = fitted[: -len(plain)]  # one prompt for all of them
        asked.append(plain)
    found = render(policies.tokenizer, [[*prompt, *turns] for turns in asked], add_generation_prompt=True)
    return found if max(map(len, found)) <= longest else []


def _answer(policies: Policies, worded: list[list[list[int]]], yes: list[int], no: list[int]) -> list[float]:
    """The mean over the wordings of each question; beginnings and ends are padded left, so that the last token is last.

    Padding in the middle is masked, and positions count tokens only.
    """
    import torch
    from transformers import DynamicCache

    model, count = policies.model, len(worded[0])
    shared = [min(_common(ways), min(map(len, ways)) - 1) for ways in worded]
    head, head_mask = _padded(policies, [ways[0][:length] for ways, length in zip(worded, shared, strict=True)])
    ends = [way[length:] for ways, length in zip(worded, shared, strict=True) for way in ways]
    end, end_mask = _padded(policies, ends)
    mask = torch.cat([head_mask.repeat_interleave(count, 0), end_mask], dim=1)
    with torch.inference_mode():
        cache = DynamicCache(config=model.config)
        read = {"past_key_values": cache, "logits_to_keep": 1}
        model(input_ids=head, attention_mask=head_mask, position_ids=_positions(head_mask), **read)
        cache.batch_repeat_interleave(count)
        positions = _positions(mask)[:, head.shape[1] :]
        last = model(input_ids=end, attention_mask=mask, position_ids=positions, **read).logits[:, -1].float()
    sure = torch.sigmoid(last[:, yes].logsumexp(-1) - last[:, no].logsumexp(-1))
    return [float(value) for value in sure.view(-1, count).mean(-1)]


def _padded(policies: Policies, rows: list[list[int]]) -> tuple[Any, Any]:
    """Token ids and mask, padded left."""
    import torch

    device, pad, width = policies.model.device, policies.tokenizer.pad_token_id, max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
    return ids, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)


def _positions(mask: Any) -> Any:
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _common(ways: list[list[int]]) -> int:
    """How many tokens all wordings begin with."""
    columns = zip(*ways, strict=False)
    return next((place for place, column in enumerate(columns) if len(set(column)) > 1), min(map(len, ways)))


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
