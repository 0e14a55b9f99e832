"""How likely a model holds a reply for, and how far a policy went from the base model on what it writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from storage.models import Message
from trainer.policy import load_model, load_tokenizer, resolve_base_model


def divergence(written: Sequence[tuple[str, str, float]]) -> float:
    """Nats a reply: the mean of log p(reply | policy) - log p(reply | base), an estimate of KL(policy, base).

    `written`: prompt, reply and the reply's log-probability under the policy that sampled it, without its temperature.
    """
    folder = resolve_base_model("starter")
    tokenizer, model = load_tokenizer(folder), load_model(folder, torch.float32, "cpu")
    base = reply_logprobs(
        model, tokenizer, (([{"role": "user", "content": asked}], text) for asked, text, _ in written)
    )
    return sum(own - other for (_, _, own), other in zip(written, base, strict=True)) / len(written)


def reply_logprobs(model: Any, tokenizer: Any, asked: Iterable[tuple[list[Message], str]]) -> list[float]:
    """Log-probability of each reply to its prompt, summed over its tokens and its end."""
    sums = []
    with torch.inference_mode():
        for messages, reply in asked:
            before = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
            said = [*messages, {"role": "assistant", "content": reply}]
            whole = tokenizer.apply_chat_template(said, return_dict=True)["input_ids"]
            logits = model(input_ids=torch.tensor([whole[:-1]])).logits[0, len(before) - 1 :].log_softmax(-1)
            picked = logits[torch.arange(len(logits)), torch.tensor(whole[len(before) :])]
            sums.append(float(picked.sum()))
    return sums
