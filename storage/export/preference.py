"""Preference pairs in TRL's conversational columns, for `DPOTrainer` and `RewardTrainer` as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from sqlalchemy.orm import Session

from storage.arrow import MESSAGES
from storage.configs import SnapshotSettings
from storage.export.rows import IDS, Table, assistant
from storage.models import Project
from storage.preferences import stream_pairs

SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("split", pa.string()),
        ("source", pa.string()),
        ("weight", pa.float64()),
        ("prompt_id", pa.int64()),
        ("chosen_id", pa.int64()),
        ("rejected_id", pa.int64()),
        ("annotation_ids", IDS),
    ]
)


def table(session: Session, project: Project) -> Table:
    """The pairs that a snapshot with the default settings would hold."""
    return Table(SCHEMA, _rows(session, project))


def _rows(session: Session, project: Project) -> Iterator[tuple[Any, ...]]:
    for pair in stream_pairs(session, project, SnapshotSettings()):
        yield (
            pair.messages,
            assistant(pair.chosen),
            assistant(pair.rejected),
            pair.split.value,
            pair.source.value,
            pair.weight,
            pair.prompt_id,
            pair.chosen_id,
            pair.rejected_id,
            pair.annotation_ids,
        )
