"""How far a policy went from the base model, on what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trainer.policy import load_model, load_tokenizer, resolve_base_model

BATCH = 25


def divergence(written: Sequence[tuple[str, str, float]]) -> float:
    """Nats a reply: the mean of log p(reply | policy) - log p(reply | base), an estimate of KL(policy, base).

    `written`: prompt, reply and the reply's log-probability under the policy that sampled it, without its temperature.
    """
    folder = resolve_base_model("starter")
    tokenizer, model = load_tokenizer(folder), load_model(folder, torch.float32, "cpu")
    gaps: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(written), BATCH):
            batch = written[start : start + BATCH]
            gaps += [own - base for (_, _, own), base in zip(batch, _of_base(model, tokenizer, batch), strict=True)]
    return sum(gaps) / len(gaps)


def _of_base(model: torch.nn.Module, tokenizer: Any, batch: Sequence[tuple[str, str, float]]) -> list[float]:
    sums = []
    for prompt, reply, _ in batch:
        asked = [{"role": "user", "content": prompt}]
        before = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
        whole = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": reply}], return_dict=True)[
            "input_ids"
        ]
        logits = model(input_ids=torch.tensor([whole[:-1]])).logits[0].log_softmax(-1)
        picked = logits[torch.arange(len(whole) - 1), torch.tensor(whole[1:])]
        sums.append(float(picked[len(before) - 1 :].sum()))
    return sums
