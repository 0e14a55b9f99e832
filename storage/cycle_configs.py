"""What one turn of the loop can be told: a project's cycle settings, and those of a cycle started by hand."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from storage.configs import Settings, SnapshotSettings
from storage.critique_configs import RECIPES
from storage.enums import CycleStep, RunKind

AUTO = "auto"
POLICIES = [kind for kind in RECIPES if kind is not RunKind.REWARD]
STEPS = tuple(step for step in CycleStep if step is not CycleStep.PROMOTE)  # promotion is the gate's to allow
# What the runs that train can be told; each of them takes what it knows.
TRAINING_KEYS = frozenset(SnapshotSettings.model_fields).union(*(one.config.model_fields for one in RECIPES.values()))


class CycleSettings(Settings):
    """Which steps a cycle takes, and how it trains the policy."""

    steps: tuple[CycleStep, ...] = STEPS
    recipe: str = Field(AUTO, pattern=f"^({'|'.join([AUTO, *POLICIES])})$")  # auto: as `storage.auto` chooses
    training: dict[str, Any] = Field(default_factory=dict)  # settings of the runs that train, by name

    @field_validator("steps", mode="before")
    @classmethod
    def _with_commas(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("steps")
    @classmethod
    def _in_order(cls, value: tuple[CycleStep, ...]) -> tuple[CycleStep, ...]:
        if CycleStep.PROMOTE in value:
            raise ValueError("promotion follows from the gate: leave promote out and set auto_promote there")
        if not value:
            raise ValueError(f"choose at least one of: {', '.join(STEPS)}")
        return tuple(step for step in STEPS if step in value)

    @field_validator("training")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        for unknown in sorted(value.keys() - TRAINING_KEYS):
            raise ValueError(f"'{unknown}' is no setting of a run that trains")
        return value
