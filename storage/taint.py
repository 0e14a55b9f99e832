"""What feedback that was taken back had gone into: marks on snapshots, and on the model versions trained on them.

A withdrawal and an erasure taint: somebody said "do not use this", and it was used. A revision does not: the person
still stands by having judged, the older words were theirs when they trained, and the next snapshot reads the newer
ones. What a revision leaves behind is *outdated*, which `standing` counts apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session, aliased

from storage.models import Annotation, ModelVersion, Project, Snapshot, SnapshotRow, SnapshotRowAnnotation


class Tainted(NamedTuple):
    """The snapshots and model versions that rest on annotations taken back, oldest first."""

    snapshots: list[Snapshot]
    versions: list[ModelVersion]


class Standing(NamedTuple):
    """How what a version rests on has changed since: its own snapshot and those of its ancestors."""

    since: datetime | None  # when the first annotation was taken back; None: not tainted
    withdrawn: int  # annotations taken back or erased
    revised: int  # annotations with a newer word of the same person
    through: list[str]  # ancestors by which alone it is tainted, nearest first


def taint(session: Session, annotation_ids: Select[int], now: datetime) -> Tainted:
    """Mark everything that came from these annotations; what was marked before keeps its first moment.

    Call it after the annotations were locked (`FOR UPDATE`): a snapshot that is being written at this moment is then
    either seen here, or sees the withdrawal itself (`check_snapshot`).
    """
    session.flush()
    used = (
        select(SnapshotRow.snapshot_id)
        .join(SnapshotRowAnnotation, SnapshotRowAnnotation.snapshot_row_id == SnapshotRow.id)
        .where(SnapshotRowAnnotation.annotation_id.in_(annotation_ids))
        .distinct()
    )
    return _mark(session, session.scalars(used).all(), now)


def check_snapshot(session: Session, snapshot: Snapshot, now: datetime) -> None:
    """Mark a snapshot that was just recorded if an annotation in it was taken back while it was written."""
    session.flush()
    gone = (
        select(Annotation.id)
        .join(SnapshotRowAnnotation, SnapshotRowAnnotation.annotation_id == Annotation.id)
        .join(SnapshotRow, SnapshotRow.id == SnapshotRowAnnotation.snapshot_row_id)
        .where(SnapshotRow.snapshot_id == snapshot.id, Annotation.withdrawn_at.is_not(None))
        .limit(1)
    )
    if session.scalar(gone) is not None:
        _mark(session, [snapshot.id], now)


def inherited(session: Session, snapshot_id: int | None, parent: ModelVersion | None) -> datetime | None:
    """Since when a version made of this snapshot and parent is tainted from its birth; None when neither is.

    The snapshot is locked against being marked until the transaction ends, so that no mark is missed in between.
    """
    marks = [parent.tainted_at if parent else None]
    if snapshot_id is not None:
        marks.append(session.get_one(Snapshot, snapshot_id, with_for_update={"read": True}).tainted_at)
    return min((mark for mark in marks if mark is not None), default=None)


def standing(session: Session, project: Project) -> dict[int, Standing]:
    """How every version of the project stands, by id."""
    versions = {one.id: one for one in session.scalars(select(ModelVersion).filter_by(project_id=project.id))}
    withdrawn, revised = _changed_since(session, project)
    result = {}
    for version in versions.values():
        chain = _ancestry(versions, version)
        gone: set[int] = set()
        newer: set[int] = set()
        for one in chain:
            gone |= withdrawn.get(one.snapshot_id or 0, set())
            newer |= revised.get(one.snapshot_id or 0, set())
        own = bool(withdrawn.get(version.snapshot_id or 0))
        through = [] if own else [one.name for one in chain[1:] if withdrawn.get(one.snapshot_id or 0)]
        result[version.id] = Standing(version.tainted_at, len(gone), len(newer), through if version.tainted_at else [])
    return result


def _mark(session: Session, snapshot_ids: Sequence[int], now: datetime) -> Tainted:
    if not snapshot_ids:
        return Tainted([], [])
    fresh = update(Snapshot).where(Snapshot.id.in_(snapshot_ids), Snapshot.tainted_at.is_(None))
    session.execute(fresh.values(tainted_at=now).execution_options(synchronize_session=False))
    # Only now: whoever registers a version holds its snapshot, so that it is seen here.
    tree = select(ModelVersion.id).where(ModelVersion.snapshot_id.in_(snapshot_ids)).cte("tainted", recursive=True)
    child = aliased(ModelVersion)
    tree = tree.union(select(child.id).join(tree, child.parent_id == tree.c.id))
    ids = session.scalars(select(tree.c.id)).all()
    young = update(ModelVersion).where(ModelVersion.id.in_(ids), ModelVersion.tainted_at.is_(None))
    session.execute(young.values(tainted_at=now).execution_options(synchronize_session=False))
    again = {"populate_existing": True}
    snapshots = select(Snapshot).where(Snapshot.id.in_(snapshot_ids)).order_by(Snapshot.id)
    versions = select(ModelVersion).where(ModelVersion.id.in_(ids)).order_by(ModelVersion.id)
    return Tainted(
        list(session.scalars(snapshots.execution_options(**again))),
        list(session.scalars(versions.execution_options(**again))),
    )


def _changed_since(session: Session, project: Project) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
    """Annotations taken back, and annotations revised, by the snapshot that rests on them."""
    rows = session.execute(
        select(SnapshotRow.snapshot_id, Annotation.id, Annotation.withdrawn_at)
        .join(SnapshotRowAnnotation, SnapshotRowAnnotation.snapshot_row_id == SnapshotRow.id)
        .join(Annotation, Annotation.id == SnapshotRowAnnotation.annotation_id)
        .join(Snapshot, Snapshot.id == SnapshotRow.snapshot_id)
        .where(
            Snapshot.project_id == project.id,
            Annotation.withdrawn_at.is_not(None) | Annotation.superseded_at.is_not(None),
        )
        .distinct()
    )
    withdrawn: dict[int, set[int]] = defaultdict(set)
    revised: dict[int, set[int]] = defaultdict(set)
    for snapshot_id, annotation_id, withdrawn_at in rows:
        (revised if withdrawn_at is None else withdrawn)[snapshot_id].add(annotation_id)
    return withdrawn, revised


def _ancestry(versions: dict[int, ModelVersion], version: ModelVersion) -> list[ModelVersion]:
    chain = [version]
    while (parent_id := chain[-1].parent_id) is not None:
        chain.append(versions[parent_id])
    return chain
