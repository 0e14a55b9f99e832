"""What the recipes that learn from critiques can be told, beside those of `storage.configs`; all of them by kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import Field

from storage.configs import (
    DpoConfig,
    RefinerSettings,
    RewardConfig,
    Settings,
    TrainingSettings,
    resolve_dpo,
    resolve_reward,
    scale_common,
)
from storage.enums import RunKind

_DTYPE = "^(auto|float32|bfloat16|float16)$"
_DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"


class RefineConfig(RefinerSettings):
    """Rewrite completions as their critiques ask: sample, judge, select; see trainer/recipes/refine.py."""

    critiques: int = Field(2000, ge=1, le=100_000)  # at most so many a run, the oldest first
    keep: int = Field(1, ge=1, le=16)  # of the samples selected for each critique, the best first
    max_new_tokens: int | None = Field(None, ge=1, le=8192)  # None: as the project samples
    min_judge: float = Field(0.5, ge=0, le=1)  # less than so sure that it does what was asked: rejected
    change_penalty: float = Field(0.3, ge=0, le=10)  # times the share of words changed that nobody criticised
    batch_size: int = Field(64, ge=1, le=1024)
    parallel: int = Field(4, ge=1, le=64)  # requests to the endpoint at a time
    timeout_seconds: float = Field(120.0, gt=0, le=3600)  # for one answer of the endpoint
    retries: int = Field(5, ge=0, le=20)  # of one request, with growing pauses
    seed: int = 0
    dtype: str = Field("auto", pattern=_DTYPE)
    device: str = Field("auto", pattern=_DEVICE)
    threads: int | None = Field(None, ge=1)
    time_limit: float | None = Field(None, gt=0, le=100_000)  # minutes; what was refined until then is kept


class SftConfig(TrainingSettings):
    """Policy: supervised on refinements; completions of the base model itself, mixed in, hold it where it was."""

    anchor_share: float = Field(0.5, ge=0, le=4)  # completions of the base model for each training row
    anchor_weight: float = Field(0.5, ge=0, le=10)  # of each of them, where a row weighs 1 in the mean


class KtoConfig(TrainingSettings):
    """Policy: KTO on thumbs and single ratings."""

    beta: float | None = Field(None, gt=0)


class ConditionalConfig(TrainingSettings):
    """Policy that knows what was said of its completions, and writes as if the best were said."""


class SdftConfig(TrainingSettings):
    """Policy: self-distillation from itself with the completion and its critique in sight."""

    min_parameters: int = Field(500_000_000, ge=0)  # smaller models do not gain from what they see; 0: try anyway
    samples: int = Field(1, ge=1, le=16)  # completions sampled for each prompt and step
    max_new_tokens: int = Field(256, ge=1, le=4096)


def resolve_sft(config: SftConfig, train_rows: int) -> SftConfig:
    """A complete SFT config for `train_rows` rows."""
    values = config.model_dump()
    scale_common(values, train_rows, learning_rate=1e-3)
    return SftConfig(**values)


def resolve_kto(config: KtoConfig, train_rows: int) -> KtoConfig:
    """A complete KTO config for `train_rows` rows; beta is raised under 500, as for pairs."""
    values = config.model_dump()
    scale_common(values, train_rows, learning_rate=1e-3)
    values["beta"] = values["beta"] or (0.3 if train_rows < 500 else 0.1)
    # KTO measures the drift from its reference on mismatched rows of the batch: it needs two at least.
    values["batch_size"] = max(2, values["batch_size"])
    return KtoConfig(**values)


def resolve_conditional(config: ConditionalConfig, train_rows: int) -> ConditionalConfig:
    """A complete config for `train_rows` rows."""
    values = config.model_dump()
    scale_common(values, train_rows, learning_rate=1e-3)
    return ConditionalConfig(**values)


def resolve_sdft(config: SdftConfig, train_rows: int) -> SdftConfig:
    """A complete SDFT config for `train_rows` rows."""
    values = config.model_dump()
    scale_common(values, train_rows, learning_rate=2e-4)
    return SdftConfig(**values)


class Recipe(NamedTuple):
    """What a kind of training can be told, and how the rest follows from the number of training rows."""

    config: type[TrainingSettings]
    resolve: Callable[[Any, int], Settings]


RECIPES: dict[RunKind, Recipe] = {
    RunKind.REWARD: Recipe(RewardConfig, resolve_reward),
    RunKind.DPO: Recipe(DpoConfig, resolve_dpo),
    RunKind.SFT: Recipe(SftConfig, resolve_sft),
    RunKind.KTO: Recipe(KtoConfig, resolve_kto),
    RunKind.CONDITIONAL: Recipe(ConditionalConfig, resolve_conditional),
    RunKind.SDFT: Recipe(SdftConfig, resolve_sdft),
}
