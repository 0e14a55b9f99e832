"""What an evaluation can be told."""

from __future__ import annotations

from pydantic import Field

from storage.configs import Settings


class EvaluateConfig(Settings):
    """Measure a version on prompts that never train; see trainer/recipes/evaluate.py."""

    prompts: int = Field(200, ge=1, le=10_000)  # test prompts that both policies write for, at most
    samples: int | None = Field(None, ge=1, le=16)  # completions of each a prompt; None: 1, more where prompts are few
    pairs: int = Field(2000, ge=1, le=100_000)  # pairs of each held-out split, at most
    batch_size: int = Field(32, ge=1, le=1024)
    seed: int = 0
    dtype: str = Field("auto", pattern="^(auto|float32|bfloat16|float16)$")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    threads: int | None = Field(None, ge=1)
    time_limit: float | None = Field(None, gt=0, le=100_000)  # minutes
