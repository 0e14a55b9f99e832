"""What a refine run has sampled and judged so far, chunk by chunk: drafts.jsonl in its folder.

One object a critique: {"critique_id", "reasons", "candidates"}. A run that was killed goes on from it; of one that will
not go on, because it was cancelled or its process died for good, the worker selects what is there. No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from storage.critique_configs import RefineConfig
from trainer.folder import RunFolder
from trainer.refining import Candidate, select

FILE = "drafts.jsonl"


def read_drafts(folder: RunFolder) -> dict[int, dict[str, Any]]:
    """The drafts by critique id."""
    found: dict[int, dict[str, Any]] = {}
    path = folder.path / FILE
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # cut short by a kill; its chunk is done again
            found[row["critique_id"]] = row
    return found


def select_drafts(folder: RunFolder, config: RefineConfig) -> Iterator[dict[str, Any]]:
    """What out/refinements.jsonl would hold of the drafts, by the judge alone: no reward model has seen them."""
    drafts = read_drafts(folder)
    for asked in map(json.loads, folder.requests.read_text("utf-8").splitlines() if drafts else ()):
        found = drafts.get(asked["critique_id"], {"candidates": ()})
        candidates = [Candidate(**values) for values in found["candidates"]]
        selected, _ = select(candidates, config.keep, config.min_judge, config.change_penalty)
        for rank, candidate in enumerate(selected, 1):
            yield refinement_row(asked["critique_id"], asked["completion_id"], rank, candidate, config)


def refinement_row(
    critique_id: int, completion_id: int, rank: int, candidate: Candidate, config: RefineConfig
) -> dict[str, Any]:
    """A line of out/refinements.jsonl."""
    model = config.endpoint_model if config.refiner == "endpoint" else None
    told = {"critique_id": critique_id, "completion_id": completion_id, "rank": rank, "endpoint_model": model}
    return told | asdict(candidate)
