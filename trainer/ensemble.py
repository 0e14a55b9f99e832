"""Reward models with several heads: an ensemble that costs about what one model does.

The heads are linear outputs on one base model with one LoRA adapter, each begun at random and trained on its own
resample of the prompts (the bootstrap; Osband et al. 2016, 1602.04621, for heads on a shared body; Coste et al. 2023,
2310.02743, for reward models). A resample is a count a prompt, drawn from Poisson(1), which is what drawing n of n
prompts with replacement comes to for large n: it follows from the prompt's content, the head and the seed alone.

Bradley-Terry leaves each head's zero open, so heads are compared above their mean on held-out pairs (`offsets`). They
stand in a small file beside the adapter, with the temperature that makes probabilities of margins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from storage.errors import ModelUnusable
from trainer.calibration import Floats, fit_temperature

FILE = "reward.json"
MIN_PAIRS = 8  # held-out pairs that a temperature can be fitted on
_SCORE = "score.weight"  # the end of the name of the heads' weights, [heads, hidden size]
# Of Poisson(1): the probabilities of at most 0, 1, 2, … times.
_AT_MOST = np.cumsum(np.exp(-1.0) / np.cumprod([1.0, *range(1, 9)]))


class Ensemble(BaseModel):
    """How the outputs of a reward model are read."""

    model_config = ConfigDict(frozen=True)

    offsets: tuple[float, ...]  # a head's mean reward on held-out pairs
    temperature: float | None = None  # of the mean over heads, fitted on validation pairs; None: too few of them

    @property
    def heads(self) -> int:
        """How many there are."""
        return len(self.offsets)


def ensemble_of(held_out: Floats, temperature: bool = True) -> Ensemble:
    """From rewards of held-out pairs, [2 pairs, heads], those of the chosen completions first.

    `temperature`: the pairs were not trained on, so that one may be fitted.
    """
    chosen, rejected = np.split(held_out, 2)
    margins = (chosen - rejected).mean(axis=1)
    fitted = fit_temperature(margins) if temperature and len(margins) >= MIN_PAIRS else None
    return Ensemble(offsets=tuple(float(mean) for mean in held_out.mean(axis=0)), temperature=fitted)


def write_ensemble(folder: Path, ensemble: Ensemble) -> None:
    """Put it beside the adapter in `folder`."""
    (folder / FILE).write_text(ensemble.model_dump_json(indent=1), "utf-8")


def read_ensemble(folder: Path) -> Ensemble:
    """That of the adapter in `folder`; one from before there were ensembles has a head or more that begin at zero."""
    try:
        return Ensemble.model_validate_json((folder / FILE).read_bytes())
    except FileNotFoundError:
        return Ensemble(offsets=(0.0,) * heads_of(folder))
    except (OSError, ValidationError) as error:
        raise ModelUnusable(
            f"{folder / FILE} cannot be read; restore the folder from a backup, or promote another version"
        ) from error


def heads_of(folder: Path) -> int:
    """How many outputs the reward adapter in `folder` has; `num_labels` of the model that it is loaded onto."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            sizes = [file.get_slice(name).get_shape()[0] for name in file.keys() if name.endswith(_SCORE)]  # noqa: SIM118  no dict
    except (OSError, SafetensorError) as error:
        raise ModelUnusable(
            f"adapter {folder} has no adapter_model.safetensors that can be read; restore the folder from a backup, "
            "or promote another version"
        ) from error
    return int(sizes[0]) if sizes else 1


def times_drawn(prompts: Sequence[int], heads: int, seed: int) -> Any:
    """How often each prompt (a number that its content has) stands in each head's resample: float32 [prompts, heads].

    Once each for a single head: there is nothing to differ from.
    """
    if heads == 1:
        return np.ones((len(prompts), 1), dtype=np.float32)
    places = [[_place(prompt, head, seed) for head in range(heads)] for prompt in prompts]
    return np.searchsorted(_AT_MOST, np.array(places).reshape(-1, heads)).astype(np.float32)


def _place(prompt: int, head: int, seed: int) -> float:
    """From 0 to 1, evenly."""
    digest = hashlib.blake2b(f"{seed}:{head}:{prompt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
