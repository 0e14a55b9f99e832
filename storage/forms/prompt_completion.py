"""Refinements as what a policy should have written: one row a refined completion, by people and by models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.arrow import MESSAGES
from storage.configs import SnapshotSettings
from storage.criticised import LiveCritique, live_critiques, model_refinements
from storage.enums import PairSource
from storage.forms.rows import COMMON, Page, Row, pages
from storage.judged import rows_of
from storage.models import Project, Refinement
from storage.preferences import PRECEDENCE, PairCounts, count_withdrawn

SCHEMA = pa.schema([("prompt", MESSAGES), ("completion", MESSAGES), ("completion_id", pa.int64()), *COMMON])


@dataclass
class Refined:
    """A completion that is a refinement, perhaps of several people's."""

    source: PairSource
    weight: float
    annotation_ids: set[int] = field(default_factory=set)
    critiques: dict[int, LiveCritique] = field(default_factory=dict)
    refinement_ids: set[int] = field(default_factory=set)


def stream(session: Session, project: Project, settings: SnapshotSettings, counts: PairCounts) -> Iterator[Row]:
    """One row a refined completion; where people and models wrote the same text, the people's weight holds."""
    count_withdrawn(session, project, counts)
    for page in pages(session, project):
        for completion_id, found in sorted(refined(session, project, settings, counts, page).items()):
            counts.used[page.split_of(completion_id), found.source] += 1
            yield page.row(
                completion_id,
                found.source,
                found.weight,
                {},
                (),
                annotation_ids=found.annotation_ids,
                critiques=found.critiques,
                refinement_ids=found.refinement_ids,
            )


def refined(
    session: Session, project: Project, settings: SnapshotSettings, counts: PairCounts, page: Page
) -> dict[int, Refined]:
    """The refined completions of a page that may train, by id."""
    found: dict[int, Refined] = {}
    if not settings.use_refinements:
        return found
    if settings.refinement_weight:
        _by_people(session, settings, page, found)
    for one in model_refinements(session, project, page.window, page.marks):
        weight = settings.weight_of(one.source)
        if one.left_out or not weight:
            counts.left_out[one.split, one.left_out or one.source.value] += 1
            continue
        entry = _entry(found, one.better_id, one.source, weight)
        entry.refinement_ids.add(one.id)
        entry.critiques.update((critique.id, critique) for critique in one.critiques)
        entry.annotation_ids.update(critique.annotation_id for critique in one.critiques)
    for completion_id in [one for one in found if not page.completions[one][1]]:
        counts.left_out[page.split_of(completion_id), "erased"] += 1
        del found[completion_id]
    return found


def _by_people(session: Session, settings: SnapshotSettings, page: Page, found: dict[int, Refined]) -> None:
    query = select(Refinement.annotation_id, Refinement.completion_id, Refinement.refined_id, Refinement.id)
    rows = list(rows_of(session, page.marks, query, Refinement))
    said = live_critiques(session, {row[0]: page.marks[row[0]] for row in rows})
    for annotation_id, original, better, refinement_id in rows:
        entry = _entry(found, better, PairSource.REFINEMENT, settings.refinement_weight)
        entry.annotation_ids.add(annotation_id)
        entry.refinement_ids.add(refinement_id)
        own = (one for one in said.get(original, ()) if one.annotation_id == annotation_id)
        entry.critiques.update((critique.id, critique) for critique in own)


def _entry(found: dict[int, Refined], completion_id: int, source: PairSource, weight: float) -> Refined:
    entry = found.setdefault(completion_id, Refined(source, weight))
    if PRECEDENCE[source] > PRECEDENCE[entry.source]:
        entry.source, entry.weight = source, weight
    return entry
