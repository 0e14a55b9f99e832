"""Evaluate: measure a version on prompts that never train, beside the champion on the same ones.

A policy and the champion write for the frozen test prompts with the same seeds; the calibrated reward model says how
probably each completion of the one is better than that of the other. Both, and the base model, read the test pairs and
reference text. A reward model is held against test pairs, ratings and votes. Temperatures are fitted on validation
pairs and reported on test pairs; intervals and differences come from resampled prompts (`trainer.calibration`).

requests.jsonl, one object a line, by "kind": "write" (a prompt, as `generate` is asked), "reference" (text that people
wrote), "rated" (a completion that people found good or not), "agreement" (whether one person's choice is that of the
others), "about" (what slices are made of). validation.parquet and test.parquet hold pairs. written.jsonl keeps what was
sampled, so that a killed run goes on where it was. out/evaluation.json is what `Evaluation.metrics` holds.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

from trainer.evaluate_policy import measure_policy
from trainer.evaluate_reward import measure_reward
from trainer.evaluating import read_task
from trainer.folder import Job, RunFolder


def run(folder: RunFolder, job: Job) -> dict[str, Any]:
    """Execute an evaluate run; returns its figures."""
    task = read_task(folder, job)
    against = f" against {job.against}" if job.against else ""
    folder.say(f"measuring {job.evaluated}{against} on prompts that never train")
    report = measure_policy(task) if job.adapters else measure_reward(task)
    for note in report.notes:
        folder.say(note)
    fresh = folder.path / "out.partial"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    stored = report.stored()
    (fresh / "evaluation.json").write_text(json.dumps(stored, ensure_ascii=False, allow_nan=False), "utf-8")
    folder.publish(fresh)
    return {name: figure["value"] for name, figure in report.figures.items()}
