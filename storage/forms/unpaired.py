"""Completions that people found good or bad by themselves, in TRL's unpaired columns.

Each annotator's mean rating over criteria, on 1..5 (a thumb is 1 or 5); then the mean over the annotators. Above the
middle of the scale is good, below is bad, by the distance from it: the row's weight is 1 at the ends of the scale.
What lies on the middle says neither and is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import fsum

import pyarrow as pa
from sqlalchemy.orm import Session

from storage.arrow import MESSAGES
from storage.configs import SnapshotSettings
from storage.enums import PairSource
from storage.forms.rows import COMMON, Page, Row, pages
from storage.judged import mean_ratings
from storage.models import Project
from storage.preferences import PairCounts, count_withdrawn

MIDDLE, REACH = 3.0, 2.0  # of a rating on 1..5
SCHEMA = pa.schema(
    [("prompt", MESSAGES), ("completion", MESSAGES), ("label", pa.bool_()), ("completion_id", pa.int64()), *COMMON]
)


def stream(session: Session, project: Project, settings: SnapshotSettings, counts: PairCounts) -> Iterator[Row]:
    """One row a completion that people rated."""
    count_withdrawn(session, project, counts)
    if not (settings.use_ratings and settings.rating_weight):
        return
    for page in pages(session, project):
        for completion_id, (rating, annotation_ids) in sorted(ratings(session, page).items()):
            split = page.split_of(completion_id)
            reason = "erased" if not page.completions[completion_id][1] else "middle" if rating == MIDDLE else None
            if reason is not None:
                counts.left_out[split, reason] += 1
                continue
            counts.used[split, PairSource.RATING] += 1
            yield page.row(
                completion_id,
                PairSource.RATING,
                settings.rating_weight * abs(rating - MIDDLE) / REACH,
                {"label": rating > MIDDLE},
                ("label",),
                annotation_ids=annotation_ids,
            )


def ratings(session: Session, page: Page) -> dict[int, tuple[float, set[int]]]:
    """The mean rating of each completion on 1..5 over annotators, and the annotations it is made of."""
    values: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    annotations: dict[int, set[int]] = defaultdict(set)
    for annotation_id, completion_id, value in mean_ratings(session, page.marks):
        values[completion_id][page.marks[annotation_id].user_id].append(value)
        annotations[completion_id].add(annotation_id)
    means = {}
    for completion_id, by_user in values.items():
        own = [fsum(given) / len(given) for given in by_user.values()]
        means[completion_id] = (round(fsum(own) / len(own), 6), annotations[completion_id])
    return means
