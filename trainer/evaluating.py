"""What evaluations of policies and of reward models share: the task, and a reward model's margins on pairs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from storage.configs import parse
from storage.enums import Split
from storage.evaluation_configs import EvaluateConfig
from trainer.calibration import Floats, fit_temperature
from trainer.datasets import messages_of, read_rows
from trainer.ensemble import MIN_PAIRS, read_ensemble
from trainer.figures import About, slices_of
from trainer.folder import Job, RunFolder
from trainer.policy import resolve_base_model
from trainer.scoring import head_rewards

HELD_OUT = (Split.VALIDATION, Split.TEST)


@dataclass(frozen=True)
class Task:
    """An evaluation with everything that it reads."""

    folder: RunFolder
    job: Job
    config: EvaluateConfig
    asked: dict[str, list[dict[str, Any]]]  # requests by kind
    pairs: dict[Split, list[dict[str, Any]]]  # held-out rows of the snapshot
    slices: dict[int, list[str]]  # of each test prompt

    @property
    def base(self) -> str:
        """The base model, resolved."""
        return resolve_base_model(self.job.base_model)


def read_task(folder: RunFolder, job: Job) -> Task:
    """The task that a run folder holds."""
    config = parse(EvaluateConfig, job.config)
    asked: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in map(json.loads, folder.requests.read_text("utf-8").splitlines()):
        asked[row["kind"]].append(row)
    about = {row["prompt_id"]: About(row["source"], tuple(row["tags"]), row["text"]) for row in asked["about"]}
    pairs = {split: _pairs(folder.split(split), config.pairs) for split in HELD_OUT}
    return Task(folder, job, config, asked, pairs, slices_of(about))


def _pairs(path: Path, most: int) -> list[dict[str, Any]]:
    """Rows of a snapshot, which stand in the order of a hash: the first ones are a fair sample."""
    if not path.exists():
        return []
    every = (row for batch in read_rows(path) for row in batch if len(row["rejected"]))
    return list(islice(every, most))


class Margins(NamedTuple):
    """By how much a reward model prefers the chosen completion: [pairs, heads], and the rows of the pairs."""

    heads: Floats
    rows: list[dict[str, Any]]

    @property
    def mean(self) -> Floats:
        """Of the ensemble."""
        found: Floats = self.heads.mean(axis=1)
        return found


class Judge(NamedTuple):
    """What a reward model says of held-out pairs and of some more texts."""

    margins: dict[Split, Margins]
    temperature: float
    note: str  # where the temperature does not come from validation pairs
    more: list[Floats | None]  # rewards by head of the other texts, in order


def ask_rewards(task: Task, texts: Sequence[tuple[Any, str]] = ()) -> dict[str, Judge]:
    """Every reward model of the job on the held-out pairs, and on `texts` (messages and a completion), in one pass."""
    pairs = [(split, row) for split in HELD_OUT for row in task.pairs[split]]
    sides = [
        (messages_of(row["prompt"]), row[side][0]["content"]) for _, row in pairs for side in ("chosen", "rejected")
    ]
    folders = {name: Path(path) for name, path in task.job.rewards.items()}
    rewards = head_rewards(
        task.base,
        folders,
        [*sides, *texts],
        batch_size=task.config.batch_size,
        dtype=task.config.dtype,
        device=task.config.device,
        before_batch=task.folder.check_cancel,
    )
    found = {}
    for name, values in rewards.items():
        margins = {split: _margins(split, pairs, values) for split in HELD_OUT}
        found[name] = Judge(margins, *_temperature(margins[Split.VALIDATION], folders[name]), values[len(sides) :])
    return found


def _margins(split: Split, pairs: list[tuple[Split, dict[str, Any]]], values: list[Floats | None]) -> Margins:
    kept = []
    for n, (where, row) in enumerate(pairs):
        chosen, rejected = values[2 * n], values[2 * n + 1]
        if where is split and chosen is not None and rejected is not None:
            kept.append((chosen - rejected, row))
    heads = np.array([margin for margin, _ in kept]) if kept else np.zeros((0, 1))
    return Margins(heads, [row for _, row in kept])


def _temperature(validation: Margins, folder: Path) -> tuple[float, str]:
    if len(validation.rows) >= MIN_PAIRS:
        return fit_temperature(validation.mean), ""
    n, own = len(validation.rows), read_ensemble(folder).temperature
    if own is not None:
        return (
            own,
            f"{n} validation pairs are too few to fit a temperature: that of its training is taken",
        )
    return 1.0, f"{n} validation pairs are too few to fit a temperature: rewards are taken as they are"
