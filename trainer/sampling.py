"""Sample completions of many prompts together: what they share is computed once, and who has ended leaves.

Three things save time beside `model.generate`: a prompt that is asked several times is read once and its cache
repeated; rows that have ended leave the batch instead of waiting for the longest; and the cache grows in place instead
of being copied for each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import TopPLogitsWarper
from transformers.cache_utils import DynamicCache, DynamicLayer

from storage.configs import SamplingSettings

ROOM = 64  # tokens by which the cache grows
LEAVING = 0.25  # of the rows: so many have to end before the copy that lets them go is worth it


class Sampled(NamedTuple):
    """The tokens of a completion, with its end token where it has one, and the mean of their log-probabilities."""

    ids: list[int]
    mean_logprob: float  # the model's own, at temperature 1


def sample(
    model: Any,
    prompts: Sequence[list[int]],
    copies: Sequence[int],
    sampling: SamplingSettings,
    *,
    ends: set[int],
    pad: int,
    seed: int,
) -> list[Sampled]:
    """`copies[n]` completions of `prompts[n]` (token ids, padded LEFT), in the order of the prompts.

    The dice of a row depend on the seed and on its place alone.
    """
    device, width, most = model.device, max(map(len, prompts)), sampling.max_new_tokens
    ids = torch.tensor([[pad] * (width - len(one)) + one for one in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(one)) + [1] * (len(one) + most) for one in prompts], device=device)
    owners = torch.repeat_interleave(torch.tensor(copies)).to(device)
    final = torch.tensor(sorted(ends), device=device)
    chance = torch.Generator(device=device).manual_seed(seed)
    cache = roomy_cache(model)
    written: list[list[int]] = [[] for _ in owners]
    logprobs = [0.0] * len(written)

    with torch.inference_mode():
        positions = (mask[:, :width].cumsum(-1) - 1).clamp(min=0)
        logits = _next(model, ids, mask[:, :width], positions, cache)[owners]
        if len(owners) > len(prompts):
            cache.batch_select_indices(owners)
        mask, position = mask[owners], positions[owners, -1:]
        rows = torch.arange(len(written), device=device)  # those in the batch
        ended = torch.zeros(len(written), dtype=torch.bool, device=device)
        for length in range(1, most + 1):
            dice = torch.rand(len(written), 1, generator=chance, device=device)
            tokens = choose(logits, sampling, dice[rows])
            sure = logits.log_softmax(-1).gather(-1, tokens)
            news = zip(*(one.view(-1).tolist() for one in (rows, ended, tokens, sure)), strict=True)
            for row, over, token, logprob in news:
                if not over:
                    written[row].append(token)
                    logprobs[row] += logprob
            ended = ended | torch.isin(tokens[:, 0], final)
            going = (~ended).nonzero()[:, 0]
            if length == most or not len(going):
                break
            if len(going) <= (1 - LEAVING) * len(rows):
                rows, ended, tokens, mask, position = (one[going] for one in (rows, ended, tokens, mask, position))
                cache.batch_select_indices(going)
            position = position + 1
            logits = _next(model, tokens, mask[:, : width + length], position, cache)
    return [Sampled(ids, total / len(ids)) for ids, total in zip(written, logprobs, strict=True)]


def choose(logits: torch.Tensor, sampling: SamplingSettings, dice: torch.Tensor) -> torch.Tensor:
    """The next token of each row: `dice`, from 0 to 1, one a row, says where it falls in the sampled distribution."""
    if sampling.temperature <= 0:
        return logits.argmax(-1, keepdim=True)
    scaled = logits / sampling.temperature
    if sampling.top_p < 1:
        scaled = TopPLogitsWarper(sampling.top_p)(None, scaled)
    reached = scaled.softmax(-1).cumsum(-1)
    # Times the sum, which rounding leaves beside 1.
    return torch.searchsorted(reached, dice * reached[:, -1:], right=True).clamp(max=logits.shape[-1] - 1)


def _next(model: Any, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any) -> torch.Tensor:
    """Logits of what comes after the last token of each row; the cache grows."""
    made = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: torch.Tensor = made.logits[:, -1].float()
    return logits


# --- the cache ---


def roomy_cache(model: Any) -> DynamicCache:
    """A cache for `model` whose growing layers do so in place."""
    cache = DynamicCache(config=model.config)
    cache.layers = [_RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class _RoomyLayer(DynamicLayer):
    """Keys and values are the beginnings of larger tensors, [rows, heads, tokens, width of a head]."""

    def __init__(self) -> None:
        super().__init__()
        self._rooms: dict[str, torch.Tensor] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add what is new; gives all there is."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
        else:
            self.keys = self._longer("keys", self.keys, key_states)
            self.values = self._longer("values", self.values, value_states)
        return self.keys, self.values

    def _longer(self, name: str, seen: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        before, after = seen.shape[-2], seen.shape[-2] + new.shape[-2]
        room = self._rooms.get(name)
        # After rows have left, what is seen is no beginning of the room any more.
        if room is None or room.data_ptr() != seen.data_ptr() or room.shape[-2] < after:
            room = seen.new_empty((*seen.shape[:-2], after + ROOM, seen.shape[-1]))
            room[..., :before, :] = seen
            self._rooms[name] = room
        room[..., before:after, :] = new
        return room[..., :after, :]
