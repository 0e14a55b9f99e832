"""Completions with what was said of them: critiques and the mean rating; refinements stand as beyond criticism.

One row a completion. Critiques of several people stand beside each other, also where they contradict: the policy
learns to write under each of them, and it is not for the store to say who is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from sqlalchemy.orm import Session

from storage.arrow import MESSAGES
from storage.configs import SnapshotSettings
from storage.criticised import LiveCritique, live_critiques
from storage.enums import PairSource
from storage.forms.prompt_completion import refined
from storage.forms.rows import COMMON, Page, Row, pages
from storage.forms.unpaired import ratings
from storage.models import Project
from storage.preferences import PairCounts, count_withdrawn

_SAID = pa.struct(
    [
        ("text", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("span_start", pa.int64()),
        ("span_end", pa.int64()),
        ("fix", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("completion", MESSAGES),
        ("feedback", pa.list_(_SAID)),
        ("rating", pa.float64()),  # 0..1; null: nobody rated it
        ("completion_id", pa.int64()),
        *COMMON,
    ]
)
_HASHED = ("feedback", "rating")


def stream(session: Session, project: Project, settings: SnapshotSettings, counts: PairCounts) -> Iterator[Row]:
    """One row a completion that was criticised, rated, or written because of a critique."""
    count_withdrawn(session, project, counts)
    for page in pages(session, project):
        for row in _page_rows(session, project, settings, counts, page):
            counts.used[row.split, row.source] += 1
            yield row


def _page_rows(
    session: Session, project: Project, settings: SnapshotSettings, counts: PairCounts, page: Page
) -> Iterator[Row]:
    criticised = live_critiques(session, page.marks)
    rated = ratings(session, page) if settings.use_ratings and settings.rating_weight else {}
    better = refined(session, project, settings, counts, page)
    for completion_id, (_, text) in page.completions.items():
        critiques, rating = criticised.get(completion_id, []), rated.get(completion_id)
        if critiques or rating:
            if text:
                yield _judged(page, completion_id, critiques, rating, settings)
            else:
                counts.left_out[page.split_of(completion_id), "erased"] += 1
        elif completion_id in better:
            found = better[completion_id]
            yield page.row(
                completion_id,
                found.source,
                found.weight,
                {"feedback": [], "rating": 1.0},
                _HASHED,
                annotation_ids=found.annotation_ids,
                critiques=found.critiques,
                refinement_ids=found.refinement_ids,
            )


def _judged(
    page: Page,
    completion_id: int,
    critiques: list[LiveCritique],
    rating: tuple[float, set[int]] | None,
    settings: SnapshotSettings,
) -> Row:
    said = sorted({one.said for one in critiques}, key=repr)
    values: dict[str, Any] = {
        "feedback": [
            {
                "text": one.text,
                "tags": list(one.tags),
                "span_start": one.span_start,
                "span_end": one.span_end,
                "fix": one.fix,
            }
            for one in said
        ],
        "rating": None if rating is None else round((rating[0] - 1) / 4, 6),
    }
    source = PairSource.CRITIQUE if critiques else PairSource.RATING
    return page.row(
        completion_id,
        source,
        settings.weight_of(source),
        values,
        _HASHED,
        annotation_ids={one.annotation_id for one in critiques} | (rating[1] if rating else set()),
        critiques={one.id: one for one in critiques},
    )
