"""Reading instead of writing: how probable a policy finds what stands there, and how far it is from the base model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from trainer.datasets import context_length, messages_of, tokenise_pairs
from trainer.policy import Policies, speaking

LONGEST = 2048  # tokens of a prompt and its completion that are read together
_AT_ONCE = 2**26  # logits held in memory, each with its logarithm


class Passage(NamedTuple):
    """Token ids of a prompt and of a completion."""

    prompt: list[int]
    completion: list[int]


class Read(NamedTuple):
    """Of a completion: the log-probability of all its tokens, their number, and the KL divergence to the base model.

    In nats, at temperature 1. The divergence is that of the whole distribution at each token, summed over the tokens:
    exact where an estimate from the tokens alone has a large variance (Amini et al. 2025, 2504.10637). 0 if not asked.
    """

    logprob: float
    tokens: int
    kl: float


def passages_of(policies: Policies, version: str | None, rows: Sequence[dict[str, Any]]) -> list[dict[str, Passage]]:
    """Rows of a snapshot ("prompt", "chosen", "rejected"; rejected may be empty) as `version` is asked for them.

    By side; a row that does not fit the context has no sides.
    """
    longest = min(LONGEST, context_length(policies.model.config))
    condition = policies.conditions.get(version) if version is not None else None
    asked = [condition.put_into(messages_of(row["prompt"])) if condition else row["prompt"] for row in rows]
    found: list[dict[str, Passage]] = []
    for start in range(0, len(rows), 64):
        part = [
            {**row, "prompt": prompt}
            for row, prompt in zip(rows[start : start + 64], asked[start : start + 64], strict=True)
        ]
        for pair in tokenise_pairs(policies.tokenizer, part, longest):
            if isinstance(pair, str):
                found.append({})
            else:
                found.append(
                    {"chosen": Passage(pair.prompt, pair.chosen), "rejected": Passage(pair.prompt, pair.rejected)}
                )
    return found


def read(
    policies: Policies,
    version: str | None,
    passages: Sequence[Passage],
    *,
    with_kl: bool = False,
    batch_size: int = 32,
    before_batch: Callable[[], None] = lambda: None,
) -> list[Read]:
    """How `version` (None: the base model) reads each passage, in order."""
    order = sorted(range(len(passages)), key=lambda n: sum(map(len, passages[n])))
    found: list[Read] = [Read(0.0, 0, 0.0)] * len(passages)
    start = 0
    while start < len(order):
        before_batch()
        part = order[start : start + _fitting(policies, [passages[n] for n in order[start : start + batch_size]])]
        start += len(part)
        for place, one in zip(part, _read(policies, version, [passages[n] for n in part], with_kl), strict=True):
            found[place] = one
    return found


def _fitting(policies: Policies, passages: Sequence[Passage]) -> int:
    """How many of them can be read together; they are ordered by length."""
    vocabulary: int = policies.model.config.get_text_config().vocab_size
    longest = max(len(one.completion) for one in passages) + 1
    return max(1, min(len(passages), _AT_ONCE // (vocabulary * longest)))


def _read(policies: Policies, version: str | None, passages: Sequence[Passage], with_kl: bool) -> list[Read]:
    import torch

    device, pad = policies.model.device, policies.tokenizer.pad_token_id
    rows = [[*one.prompt, *one.completion] for one in passages]
    width, keep = max(map(len, rows)), max(len(one.completion) for one in passages)
    # Padded left: the completions end where the tensor does.
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}
    written = torch.tensor(
        [[0] * (keep - len(one.completion)) + [1] * len(one.completion) for one in passages], device=device
    )

    def logprobs(of: str | None) -> Any:
        with speaking(policies, of):
            logits = policies.model(**inputs, logits_to_keep=keep + 1, use_cache=False).logits
        return logits[:, :-1].float().log_softmax(-1)

    with torch.inference_mode():
        ours = logprobs(version)
        said = (ours.gather(-1, ids[:, -keep:, None])[..., 0] * written).sum(-1)
        far = torch.zeros_like(said)
        if with_kl and version is not None and policies.versions[version] is not None:
            base = logprobs(None)
            far = ((ours.exp() * (ours - base)).sum(-1) * written).sum(-1).clamp(min=0)
    lengths = [len(one.completion) for one in passages]
    return [Read(*one) for one in zip(said.tolist(), lengths, far.tolist(), strict=True)]
