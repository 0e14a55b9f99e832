"""Preference pairs, in TRL's columns: see `storage.preferences` for how they come about."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from sqlalchemy.orm import Session

from storage.arrow import MESSAGES
from storage.configs import SnapshotSettings
from storage.forms.rows import COMMON, Row, assistant
from storage.models import Project
from storage.preferences import PairCounts, stream_pairs

SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("chosen_id", pa.int64()),
        ("rejected_id", pa.int64()),
        *COMMON,
    ]
)


def stream(session: Session, project: Project, settings: SnapshotSettings, counts: PairCounts) -> Iterator[Row]:
    """One row a pair."""
    for pair in stream_pairs(session, project, settings, counts):
        yield Row(
            split=pair.split,
            prompt_id=pair.prompt_id,
            prompt_hash=pair.prompt_hash,
            messages=pair.messages,
            source=pair.source,
            weight=pair.weight,
            completion_id=pair.chosen_id,
            rejected_id=pair.rejected_id,
            annotation_ids=pair.annotation_ids,
            critiques=pair.critiques,
            refinement_ids=pair.refinement_ids,
            values={
                "chosen": assistant(pair.chosen),
                "rejected": assistant(pair.rejected),
                "chosen_id": pair.chosen_id,
                "rejected_id": pair.rejected_id,
            },
            hashed=("chosen", "rejected"),
        )
