"""The run folder: the whole contract between the worker and the process that executes a run.

    run.json                 what to do: recipe, config, base model, snapshot hash, seed (`Job`)
    train/validation/test.parquet   the snapshot's pairs | requests.jsonl: what to generate
    events.jsonl             what happens, one JSON object a line, appended and flushed
    log.txt                  everything the process prints
    CANCEL                   a file whose presence asks the run to stop
    environment.json         package versions, git commit, device
    checkpoints/             resumable trainer state
    out/                     the adapter, or completions.jsonl; appears complete or not at all

No SQL here: the same folder runs as a local process, under torchrun, or on another machine.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.artifacts import atomic_write
from storage.enums import RunKind, Split
from storage.errors import Invalid, NotFound, TrainingFailed


class Cancelled(Exception):
    """The run was asked to stop and has stopped."""


class Job(BaseModel):
    """The content of run.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: RunKind
    run_id: int
    project: str
    config: dict[str, Any]
    base_model: str
    parent_version: str | None = None
    snapshot_hash: str | None = None
    seed: int = 0
    adapters: dict[str, str | None] = Field(
        default_factory=dict
    )  # generate: version name -> adapter folder, None: base
    rewards: dict[str, str] = Field(default_factory=dict)  # generate: reward version name -> adapter folder
    sampling: dict[str, Any] = Field(default_factory=dict)  # generate: storage.configs.SamplingSettings
    chooser: str | None = None  # generate: the one of `rewards` that chooses the best of n
    templates: dict[str, Any] = Field(default_factory=dict)  # refine and others: storage.configs.TemplateSettings
    evaluated: str | None = None  # evaluate: the version, one of `adapters`, or of `rewards`
    against: str | None = None  # evaluate: what it is compared with
    formats: list[str] = Field(default_factory=list)  # evaluate: storage.formats
    cache: str | None = None  # what runs on the same snapshot share, trainer.kept


@dataclass(frozen=True)
class RunFolder:
    """Paths and small files of one run."""

    path: Path

    @property
    def events(self) -> Path:
        """Where the run appends what happens."""
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        """Where the run's standard output and error go."""
        return self.path / "log.txt"

    @property
    def requests(self) -> Path:
        """What a generate run shall write completions for."""
        return self.path / "requests.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Resumable trainer states."""
        return self.path / "checkpoints"

    @property
    def out(self) -> Path:
        """The finished artifact; absent until it is complete."""
        return self.path / "out"

    @property
    def environment(self) -> Path:
        """The record of packages, commit and device."""
        return self.path / "environment.json"

    @property
    def cancel_file(self) -> Path:
        """Its presence asks the run to stop."""
        return self.path / "CANCEL"

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked the run to stop."""
        return self.cancel_file.exists()

    def split(self, split: Split) -> Path:
        """The Parquet file of one split."""
        return self.path / f"{split.value}.parquet"

    def job(self) -> Job:
        """Read run.json; raises `NotFound` or `Invalid` with one line."""
        path = self.path / "run.json"
        try:
            return Job.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise NotFound(f"no run.json in {self.path}: give the folder of a run") from None
        except ValidationError as error:
            first = error.errors()[0]
            raise Invalid(f"{path}: {'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}") from error

    def write_job(self, job: Job) -> None:
        """Write run.json, replacing it whole."""
        atomic_write(self.path / "run.json", job.model_dump_json(indent=1).encode())

    def check_cancel(self) -> None:
        """Raise `Cancelled` when somebody asked the run to stop."""
        if self.cancelled:
            raise Cancelled

    # --- events ---

    def emit(self, event: str, **values: Any) -> None:
        """Append one event. One write call a line: a reader sees whole lines, or the beginning of the last one."""
        line = json.dumps({"event": event, **values}, ensure_ascii=False, allow_nan=False) + "\n"
        with self.events.open("ab", buffering=0) as file:
            file.write(line.encode("utf-8", errors="replace"))

    def metrics(self, step: int, values: dict[str, Any]) -> None:
        """Report figures at a step; what is not finite is reported as null, what is not a number is left out."""
        numbers = {
            name: (float(value) if math.isfinite(value) else None)
            for name, value in values.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        self.emit("metrics", step=step, values=numbers)

    def progress(self, step: int, total: int) -> None:
        """Report how far the run is."""
        self.emit("progress", step=step, total=total)

    def say(self, text: str) -> None:
        """Report one line for people."""
        self.emit("log", text=text)

    # --- the finished artifact ---

    def publish(self, fresh: Path) -> None:
        """Turn the finished folder `fresh`, inside the run folder, into out/: files synced, then renamed at once."""
        try:
            for file in sorted(fresh.rglob("*")):
                if file.is_file():
                    with file.open("rb") as handle:
                        os.fsync(handle.fileno())
            # A complete out/ of an attempt that died right after publishing is replaced.
            shutil.rmtree(self.out, ignore_errors=True)
            fresh.rename(self.out)
            _sync_folder(self.path)
        except OSError as error:
            raise TrainingFailed(f"could not write {self.out}: {error.strerror}; free some space and retry") from error


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with figures that are not finite as None, so that the result is plain JSON."""
    return {
        key: (None if isinstance(value, float) and not math.isfinite(value) else value) for key, value in values.items()
    }
