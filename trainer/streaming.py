"""Write completions token by token, so that people see them while they are written.

Unlike `trainer.policy.make_generator`, which fills the queue in large batches, this decodes the completions of one
conversation together, one forward pass a token, and gives control back after each: several conversations take turns
(`trainer.recipes.playground`), and each of them can be stopped between two tokens.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from storage.configs import SamplingSettings
from storage.errors import Invalid, ModelUnusable
from storage.models import Message
from trainer.conditions import Condition, read_condition
from trainer.datasets import context_length, fit_prompt
from trainer.policy import Written, adapter_key, add_adapters, end_tokens, load_model, load_tokenizer, pick_dtype

_BASE = "__base__"  # PEFT's name for "no adapter" where one batch mixes several


class Padding(NamedTuple):
    """Where rows of different length begin, for one forward pass."""

    attention_mask: Any
    position_ids: Any

    def longer(self) -> Padding:
        """For the pass with the next token."""
        mask = self.attention_mask.new_ones(len(self.attention_mask), self.attention_mask.shape[1] + 1)
        mask[:, :-1] = self.attention_mask
        return Padding(mask, self.position_ids[:, -1:] + 1)


class Speaker:
    """A base model in memory with the adapters that were asked for so far."""

    def __init__(self, base: str, adapters: Mapping[str, Path | None], *, dtype: str, device: str) -> None:
        """Load everything; raises `ModelUnusable` in one line."""
        self.tokenizer = load_tokenizer(base)
        self.model = load_model(base, pick_dtype(dtype, device), device)
        self._adapters: dict[str, Path | None] = {}
        self._conditions: dict[str, Condition] = {}
        self._active: str | None = None
        self.learn(adapters)
        self.ends = end_tokens(self.model, self.tokenizer)
        self._context = context_length(self.model.config)
        # The first passes of a process cost many times what the others do: not while somebody waits.
        warm = Stream(self, [{"role": "user", "content": "Hello"}], list(adapters)[:1] * 2, SamplingSettings(), 0)
        for _ in range(3):
            warm.step()

    def learn(self, adapters: Mapping[str, Path | None]) -> None:
        """Load the adapters that are not in memory yet; raises `ModelUnusable`."""
        new = {name: folder for name, folder in adapters.items() if name not in self._adapters}
        self.model = add_adapters(self.model, {name: folder for name, folder in new.items() if folder is not None})
        self.model.eval()
        if any(folder is not None for folder in new.values()):
            self._active = None  # loading the first one makes it the active one
        self._adapters |= new
        found = {name: read_condition(folder) for name, folder in new.items() if folder is not None}
        self._conditions |= {name: condition for name, condition in found.items() if condition is not None}

    def prompt(self, messages: list[Message], version: str, sampling: SamplingSettings) -> list[int]:
        """Tokens of the conversation as `version` is asked, shortened where it does not fit (`trainer.datasets`)."""
        condition = self._conditions.get(version)
        messages = condition.put_into(messages) if condition else messages
        budget = self._context - sampling.max_new_tokens
        if budget < 16:
            raise ModelUnusable(
                f"max_new_tokens {sampling.max_new_tokens} leaves no room for a prompt in the model's context; lower it"
            )
        fitted = fit_prompt(self.tokenizer, messages, budget)
        if fitted is None:
            raise Invalid("the message is too long for this model; shorten it")
        return fitted.ids

    def forward(self, ids: Any, cache: Any, versions: Sequence[str], padding: Padding | None) -> Any:
        """Logits of the last position of each row, written as the row's version; `cache` grows."""
        names = [adapter_key(one) if self._adapters[one] is not None else _BASE for one in versions]
        extra: dict[str, Any] = {}
        if any(folder is not None for folder in self._adapters.values()):
            if len(set(names)) == 1 and names[0] != _BASE:
                if self._active != names[0]:
                    self.model.set_adapter(names[0])
                    self._active = names[0]
            else:
                extra["adapter_names"] = names
        if padding is not None:
            extra |= padding._asdict()
        made = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **extra)
        return made.logits[:, -1].float()


class Stream:
    """Completions of one conversation that are written together, row by row as its version; `done` at their ends."""

    def __init__(
        self, speaker: Speaker, messages: list[Message], versions: Sequence[str], sampling: SamplingSettings, seed: int
    ) -> None:
        """Nothing is computed yet; raises `Invalid` when the conversation does not fit the model."""
        import torch

        from trainer.sampling import roomy_cache

        self._speaker, self._versions, self._sampling, self._seed = speaker, list(versions), sampling, seed
        self._started = time.perf_counter()
        device = speaker.model.device
        prompts = [speaker.prompt(messages, version, sampling) for version in versions]
        width = max(len(prompt) for prompt in prompts)
        pad = speaker.tokenizer.pad_token_id
        self._next = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
        self._padding: Padding | None = None
        if any(len(prompt) < width for prompt in prompts):  # a conditional version is asked otherwise
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
            self._padding = Padding(mask, (mask.cumsum(-1) - 1).clamp(min=0))
        self._cache = roomy_cache(speaker.model)
        # Of its own, so that whoever writes beside it changes nothing: the same seed writes the same again.
        self._chance = torch.Generator(device=device).manual_seed(seed)
        self._rows: list[list[int]] = [[] for _ in versions]
        self._logprobs = [0.0 for _ in versions]
        self._ended = [False for _ in versions]
        self._latency = [0.0 for _ in versions]

    @property
    def done(self) -> bool:
        """Whether every row has ended."""
        return all(self._ended)

    def step(self) -> None:
        """One token more in every row that has not ended."""
        import torch

        from trainer.sampling import choose

        with torch.inference_mode():
            logits = self._speaker.forward(self._next, self._cache, self._versions, self._padding)
            self._padding = self._padding and self._padding.longer()
            dice = torch.rand(len(logits), 1, generator=self._chance, device=logits.device)
            tokens = choose(logits, self._sampling, dice)
            chances = logits.log_softmax(-1).gather(-1, tokens).squeeze(-1).tolist()
        self._next = tokens  # rows that have ended go on unread: all of a batch are as long as the longest
        for row, (token, chance) in enumerate(zip(tokens.squeeze(-1).tolist(), chances, strict=True)):
            if self._ended[row]:
                continue
            self._rows[row].append(token)
            self._logprobs[row] += chance
            if token in self._speaker.ends or len(self._rows[row]) >= self._sampling.max_new_tokens:
                self._ended[row] = True
                self._latency[row] = (time.perf_counter() - self._started) * 1000

    def texts(self) -> list[str]:
        """What is written so far; the beginning of a letter that is not whole yet is left out."""
        texts = self._speaker.tokenizer.batch_decode(self._rows, skip_special_tokens=True)
        return [
            text.strip() if ended else text.lstrip().rstrip("\ufffd")
            for text, ended in zip(texts, self._ended, strict=True)
        ]

    def written(self) -> list[Written]:
        """The finished completions; log-probabilities are the model's own (temperature 1)."""
        return [
            Written(text, len(ids), logprob / max(1, len(ids)), latency, self._seed)
            for text, ids, logprob, latency in zip(self.texts(), self._rows, self._logprobs, self._latency, strict=True)
        ]
