"""How each annotator stands beside the others, one row a question (comparisons, or a criterion) and annotator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from sqlalchemy.orm import Session

from storage.export.rows import Table, by_name
from storage.models import Project
from storage.quality import Interval, quality_report

_FIGURES = ("alpha", "alpha_low", "alpha_high", "majority", "majority_low", "majority_high")
_OFFSETS = ("offset", "offset_low", "offset_high")
SCHEMA = pa.schema(
    [
        ("question", pa.string()),
        ("metric", pa.string()),
        ("things", pa.int64()),
        ("annotator", pa.string()),
        ("judged_with_a_majority", pa.int64()),
        *((name, pa.float64()) for name in (*_FIGURES, *_OFFSETS)),
        ("split", pa.string()),
    ]
)


def table(session: Session, project: Project) -> Table:
    """The rows of `storage.quality.quality_report` over all annotations; `datasets` calls a lone split "train"."""
    return by_name(SCHEMA, _rows(session, project))


def _rows(session: Session, project: Project) -> Iterator[dict[str, Any]]:
    for question in quality_report(session, project).questions:
        for annotator, beside in question.beside.items():
            share = beside.majority
            figures = (*_three(question.alpha), share.value, *(share.bounds if share.total else (None, None)))
            yield {
                "question": question.name,
                "metric": question.metric.value,
                "things": question.things,
                "annotator": annotator,
                "judged_with_a_majority": share.total,
                **dict(zip(_FIGURES, figures, strict=True)),
                **dict(zip(_OFFSETS, _three(beside.offset), strict=True)),
                "split": "train",
            }


def _three(figure: Interval | None) -> tuple[float | None, ...]:
    return (None, None, None) if figure is None else tuple(figure)
