"""What reward models think of completions: one base model in memory, each version's adapter in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.models import Message
from trainer.datasets import fit_prompt, training_length
from trainer.policy import add_adapters, load_model, load_tokenizer, pick_device, pick_dtype


def score_completions(
    base: str,
    adapters: Mapping[str, Path],
    written: Sequence[tuple[list[Message], str]],
    *,
    batch_size: int = 32,
    dtype: str = "auto",
    device: str = "auto",
    before_batch: Callable[[], None] = lambda: None,
) -> dict[str, list[float | None]]:
    """The reward of each (prompt, completion) by version, in order; None where a completion does not fit the context.

    `base` is resolved, `adapters` maps reward versions to their folders. A prompt that is too long is shortened as in
    training. Raises `ModelUnusable` when an adapter cannot be loaded or does not fit the base model.
    """
    device = pick_device(device)
    tokenizer = load_tokenizer(base)
    model = load_model(base, pick_dtype(dtype, device), device, reward=True)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model = add_adapters(model, adapters)
    model.eval()
    length = training_length(model.config, None, device)
    fitted = [_sequence(tokenizer, messages, text, length) for messages, text in written]
    # Sequences of like length together: little padding.
    order = sorted((n for n, ids in enumerate(fitted) if ids is not None), key=lambda n: len(fitted[n] or ()))
    rewards: dict[str, list[float | None]] = {name: [None] * len(written) for name in adapters}
    for name, values in rewards.items():
        model.set_adapter(name)
        for start in range(0, len(order), batch_size):
            before_batch()
            part = order[start : start + batch_size]
            for place, value in zip(part, _rewards(model, tokenizer, [fitted[n] or [] for n in part]), strict=True):
                values[place] = value
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


def _rewards(model: Any, tokenizer: Any, sequences: list[list[int]]) -> list[float]:
    import torch

    batch = tokenizer.pad({"input_ids": sequences}, padding=True, padding_side="right", return_tensors="pt")
    with torch.inference_mode():
        logits = model(**batch.to(model.device)).logits
    return [float(value) for value in logits.squeeze(-1).float()]
