"""What reward models think of completions: one base model in memory, each version's adapter in turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from storage.models import Message
from trainer.calibration import Floats
from trainer.datasets import fit_prompt, training_length
from trainer.ensemble import read_ensemble
from trainer.policy import adapter_key, add_adapters, check_adapter, load_model, load_tokenizer, pick_device, pick_dtype


class Opinion(NamedTuple):
    """The reward of a completion in the version's own units, and how far the heads of an ensemble are apart."""

    value: float
    spread: float | None  # standard deviation over the heads; None: a single one


def score_completions(
    base: str,
    adapters: Mapping[str, Path],
    written: Sequence[tuple[list[Message], str]],
    *,
    batch_size: int = 32,
    dtype: str = "auto",
    device: str = "auto",
    before_batch: Callable[[], None] = lambda: None,
) -> dict[str, list[Opinion | None]]:
    """What each version thinks of each (prompt, completion), in order; None where it does not fit the context.

    `base` is resolved, `adapters` maps reward versions to their folders. A prompt that is too long is shortened as in
    training. Raises `ModelUnusable` when an adapter cannot be loaded or does not fit the base model.
    """
    rewards = head_rewards(
        base, adapters, written, batch_size=batch_size, dtype=dtype, device=device, before_batch=before_batch
    )
    return {name: [None if one is None else opinion_of(one) for one in values] for name, values in rewards.items()}


def opinion_of(heads: Floats) -> Opinion:
    """Mean and spread of what the heads gave one completion."""
    return Opinion(float(heads.mean()), float(heads.std()) if len(heads) > 1 else None)


def head_rewards(
    base: str,
    adapters: Mapping[str, Path],
    written: Sequence[tuple[list[Message], str]],
    *,
    batch_size: int = 32,
    dtype: str = "auto",
    device: str = "auto",
    before_batch: Callable[[], None] = lambda: None,
) -> dict[str, list[Floats | None]]:
    """As `score_completions`: the reward by each head, [heads], above that head's mean on held-out pairs."""
    device = pick_device(device)
    tokenizer = load_tokenizer(base)
    alike: dict[int, dict[str, Path]] = defaultdict(dict)  # by number of heads: one model has one number
    offsets: dict[str, Floats] = {}
    for name, folder in adapters.items():
        check_adapter(folder)
        offsets[name] = np.array(read_ensemble(folder).offsets)
        alike[len(offsets[name])][name] = folder
    rewards: dict[str, list[Floats | None]] = {name: [None] * len(written) for name in adapters}
    for heads, folders in alike.items():
        model = load_model(base, pick_dtype(dtype, device), device, heads=heads)
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        model = add_adapters(model, folders)
        model.eval()
        length = training_length(model.config, None, device)
        fitted = [_sequence(tokenizer, messages, text, length) for messages, text in written]
        # Sequences of like length together: little padding.
        order = sorted((n for n, ids in enumerate(fitted) if ids is not None), key=lambda n: len(fitted[n] or ()))
        for name in folders:
            model.set_adapter(adapter_key(name))
            for start in range(0, len(order), batch_size):
                before_batch()
                part = order[start : start + batch_size]
                found = _rewards(model, tokenizer, [fitted[n] or [] for n in part]) - offsets[name]
                for place, values in zip(part, found, strict=True):
                    rewards[name][place] = values
    return rewards


def _sequence(tokenizer: Any, messages: list[Message], text: str, length: int) -> list[int] | None:
    """Prompt and completion as one rendering, as the reward model was trained on it."""

    def render(prompt: list[Message]) -> list[int]:
        whole = [*prompt, {"role": "assistant", "content": text}]
        return list(tokenizer.apply_chat_template(whole, return_dict=True)["input_ids"])

    ids = render(messages)
    if len(ids) <= length:
        return ids
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    shorter = fit_prompt(tokenizer, messages, length - (len(ids) - len(prompt)))
    ids = render(shorter.messages) if shorter is not None else ids
    return ids if len(ids) <= length else None


def _rewards(model: Any, tokenizer: Any, sequences: list[list[int]]) -> Floats:
    """Of each sequence by each head: [sequences, heads]."""
    import torch

    batch = tokenizer.pad({"input_ids": sequences}, padding=True, padding_side="right", return_tensors="pt")
    with torch.inference_mode():
        logits = model(**batch.to(model.device)).logits
    found: Floats = logits.double().cpu().numpy()
    return found
