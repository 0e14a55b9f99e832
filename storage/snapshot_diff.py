"""What differs between two snapshots, row by row, and which annotation, critique or refinement caused it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import String, cast, exists, select, type_coerce
from sqlalchemy.orm import Session

from storage.criticised import chunks
from storage.enums import PairSource, RefinementStatus, Split
from storage.errors import Invalid, NotFound
from storage.models import (
    Annotation,
    Project,
    Prompt,
    Refinement,
    Snapshot,
    SnapshotRow,
    SnapshotRowAnnotation,
    SnapshotRowCritique,
    SnapshotRowRefinement,
    SnapshotRowRule,
)

LEAST_PREFIX = 4  # characters of a hash that name a snapshot


class RowView(NamedTuple):
    """One row of a snapshot and what it was derived from."""

    split: Split
    position: int
    source: PairSource
    weight: float
    prompt_id: int
    prompt: str  # its last message
    chosen_id: int
    rejected_id: int | None
    annotation_ids: list[int]
    critique_ids: list[int]
    refinement_ids: list[int]
    rule_ids: list[int]


class Cause(NamedTuple):
    """Why a row differs: which row of feedback, and what happened to it."""

    what: str  # annotation, critique, refinement, rule or settings
    id: int | None
    happened: str  # new, withdrawn, revised, edited, removed, accepted, edited, rejected, …


class RowChange(NamedTuple):
    """A row that only one of two snapshots has, or that they have with different content."""

    before: RowView | None
    after: RowView | None
    causes: list[Cause]


class Total(NamedTuple):
    """How many rows differ."""

    added: int
    removed: int
    changed: int


class Difference(NamedTuple):
    """How `b` differs from `a`; settings as name -> (in a, in b). `total` counts also what was not asked for."""

    added: list[RowChange]
    removed: list[RowChange]
    changed: list[RowChange]
    settings: dict[str, tuple[Any, Any]]
    total: Total = Total(0, 0, 0)


def list_snapshots(session: Session, project: Project) -> list[Snapshot]:
    """The project's snapshots, newest first."""
    return list(session.scalars(select(Snapshot).filter_by(project_id=project.id).order_by(Snapshot.id.desc())))


def get_snapshot(session: Session, project: Project, name: str) -> Snapshot:
    """The snapshot of that number, or whose hash begins so; raises `NotFound`, `Invalid` where several do."""
    wanted = name.strip().lower()
    own = select(Snapshot).where(Snapshot.project_id == project.id)
    found: list[Snapshot] = []
    if len(wanted) >= LEAST_PREFIX:
        found = list(session.scalars(own.where(Snapshot.content_hash.startswith(wanted, autoescape=True)).limit(2)))
    if not found and wanted.isdecimal():
        found = list(session.scalars(own.where(cast(Snapshot.id, String) == wanted)))
    if len(found) > 1:
        raise Invalid(f"several snapshots begin with '{wanted}'; give more of the hash")
    if not found:
        raise NotFound(
            f"project '{project.name}' has no snapshot '{name}'; give its number or the first {LEAST_PREFIX} characters"
            " of its hash (see: feedback-app snapshots list)"
        )
    return found[0]


def rows_of_snapshot(session: Session, snapshot: Snapshot, limit: int | None = None) -> list[RowView]:
    """The snapshot's rows in the order of its files: train, validation, test."""
    ids = session.scalars(
        select(SnapshotRow.id)
        .where(SnapshotRow.snapshot_id == snapshot.id)
        .order_by(SnapshotRow.id)  # as they were written
        .limit(limit)
    ).all()
    views = row_views(session, ids)
    return [views[one] for one in ids]


def difference(session: Session, a: Snapshot, b: Snapshot, limit: int | None = None) -> Difference:
    """What was added, removed and changed from `a` to `b`, the first `limit` of each.

    Raises `Invalid` where they cannot be compared.
    """
    if a.project_id != b.project_id or a.form is not b.form:
        raise Invalid(f"snapshots of one project and one form can be compared; these are {a.form} and {b.form}")
    only_a, only_b, changed = _unequal(session, a, b)
    total = Total(len(only_b), len(only_a), len(changed))
    only_a, only_b, changed = only_a[:limit], only_b[:limit], changed[:limit]
    views = row_views(session, [*only_a, *only_b, *(one for pair in changed for one in pair)])
    reasons = _Reasons(session, a, b, views.values())
    return Difference(
        added=[RowChange(None, views[one], reasons.of_added(views[one])) for one in only_b],
        removed=[RowChange(views[one], None, reasons.of_removed(views[one])) for one in only_a],
        changed=[RowChange(views[x], views[y], reasons.of_changed(views[x], views[y])) for x, y in changed],
        settings={
            name: (a.settings.get(name), b.settings.get(name))
            for name in sorted(a.settings.keys() | b.settings.keys())
            if a.settings.get(name) != b.settings.get(name)
        },
        total=total,
    )


def _unequal(session: Session, a: Snapshot, b: Snapshot) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Ids of rows only in `a`, only in `b`, and in both with another content.

    Rows are the same when their content is; rows about the same completions with another content are changed.
    """
    none_hashed = exists().where(SnapshotRow.snapshot_id.in_((a.id, b.id)), SnapshotRow.digest.is_(None))
    # A snapshot of an older program has no digests: its rows are told apart by what SQL knows of them.
    columns = _BARE if session.scalar(select(none_hashed)) else _HASHED
    sides = [_contents(session, snapshot, columns) for snapshot in (a, b)]
    rests: list[list[int]] = []
    for side, others in zip(sides, reversed(sides), strict=True):
        spare = Counter(others.values())
        rest = []
        for row_id, content in side.items():
            if spare[content]:
                spare[content] -= 1
            else:
                rest.append(row_id)
        rests.append(rest)
    if not all(rests):  # nothing stands where something else was
        return rests[0], rests[1], []
    left = [_by_key(session, rest) for rest in rests]
    changed: list[tuple[int, int]] = []
    for key in left[0].keys() & left[1].keys():
        pairs = list(zip(left[0][key], left[1][key], strict=False))
        changed += pairs
        left[0][key], left[1][key] = left[0][key][len(pairs) :], left[1][key][len(pairs) :]
    only_a, only_b = (sorted(one for ids in side.values() for one in ids) for side in left)
    return only_a, only_b, sorted(changed)


# As text: to make an enumeration of each of 100,000 rows takes longer than to read them.
_SPLIT, _SOURCE = type_coerce(SnapshotRow.split, String), type_coerce(SnapshotRow.source, String)
_KEY = (_SPLIT, SnapshotRow.prompt_id, SnapshotRow.chosen_id, SnapshotRow.rejected_id)
_HASHED = (_SPLIT, SnapshotRow.digest)
_BARE = (*_KEY, _SOURCE, SnapshotRow.weight)


def _contents(session: Session, snapshot: Snapshot, columns: tuple[Any, ...]) -> dict[int, tuple[Any, ...]]:
    """What tells each row of a snapshot from others, by its id, in the order of its rows."""
    query = select(SnapshotRow.id, *columns).where(SnapshotRow.snapshot_id == snapshot.id).order_by(SnapshotRow.id)
    return {row[0]: tuple(row[1:]) for row in session.connection().execute(query)}


def _by_key(session: Session, ids: list[int]) -> dict[tuple[Any, ...], list[int]]:
    """The rows by what they are about: split, prompt and completions."""
    found: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for chunk in chunks(ids):
        query = select(SnapshotRow.id, *_KEY).where(SnapshotRow.id.in_(chunk)).order_by(SnapshotRow.id)
        for row in session.connection().execute(query):
            found[tuple(row[1:])].append(row[0])
    return found


def row_views(session: Session, ids: Iterable[int]) -> dict[int, RowView]:
    """Rows of snapshots with what they were derived from, by the number of the row."""
    wanted = sorted(ids)
    ties = [
        _ties(session, SnapshotRowAnnotation, SnapshotRowAnnotation.annotation_id, wanted),
        _ties(session, SnapshotRowCritique, SnapshotRowCritique.critique_id, wanted),
        _ties(session, SnapshotRowRefinement, SnapshotRowRefinement.refinement_id, wanted),
        _ties(session, SnapshotRowRule, SnapshotRowRule.rule_id, wanted),
    ]
    views = {}
    for chunk in chunks(wanted):
        rows = session.execute(
            select(SnapshotRow, Prompt.messages)
            .join(Prompt, Prompt.id == SnapshotRow.prompt_id)
            .where(SnapshotRow.id.in_(chunk))
        )
        for row, messages in rows:
            views[row.id] = RowView(
                row.split, row.position, row.source, row.weight, row.prompt_id, messages[-1]["content"],
                row.chosen_id, row.rejected_id, *(of_row[row.id] for of_row in ties),
            )  # fmt: skip
    return views


def _ties(session: Session, table: Any, column: Any, row_ids: list[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for chunk in chunks(row_ids):
        query = select(table.snapshot_row_id, column).where(table.snapshot_row_id.in_(chunk)).order_by(column)
        for row_id, one in session.execute(query):
            found[row_id].append(one)
    return found


class _Reasons:
    """What happened, since, to the feedback behind the rows of a difference."""

    def __init__(self, session: Session, a: Snapshot, b: Snapshot, views: Iterable[RowView]) -> None:
        self._settings_differ = a.settings != b.settings
        rows = list(views)
        self._annotations: dict[int, Annotation] = {}
        for chunk in chunks(sorted({one for row in rows for one in row.annotation_ids})):
            for annotation in session.scalars(select(Annotation).where(Annotation.id.in_(chunk))):
                self._annotations[annotation.id] = annotation
        self._refinements: dict[int, Refinement] = {}
        for chunk in chunks(sorted({one for row in rows for one in row.refinement_ids})):
            for refinement in session.scalars(select(Refinement).where(Refinement.id.in_(chunk))):
                self._refinements[refinement.id] = refinement
        self._in_a = {
            SnapshotRowAnnotation: _used(
                session, a, SnapshotRowAnnotation, SnapshotRowAnnotation.annotation_id, self._annotations
            ),
            SnapshotRowRefinement: _used(
                session, a, SnapshotRowRefinement, SnapshotRowRefinement.refinement_id, self._refinements
            ),
        }
        self._a, self._b = a, b

    def of_removed(self, row: RowView) -> list[Cause]:
        """Why a row of `a` is not in `b`."""
        causes = [*self._gone(row.annotation_ids)]
        for one in row.refinement_ids:
            if (found := self._refinements.get(one)) is not None and found.status is RefinementStatus.REJECTED:
                causes.append(Cause("refinement", one, "rejected"))
        causes += [Cause("rule", one, "reworded, or no longer in training") for one in row.rule_ids]
        return causes or self._otherwise()

    def of_added(self, row: RowView) -> list[Cause]:
        """Why a row of `b` is not in `a`."""
        replaced = {one.superseded_by_id: one.id for one in self._annotations.values() if one.superseded_by_id}
        causes = [
            Cause("annotation", one, f"new, a revision of {replaced[one]}" if one in replaced else "new")
            for one in row.annotation_ids
            if one not in self._in_a[SnapshotRowAnnotation]
        ]
        causes += self._newly_refined(row)
        causes += [Cause("rule", one, "new") for one in row.rule_ids]
        return causes or self._otherwise()

    def of_changed(self, before: RowView, after: RowView) -> list[Cause]:
        """Why a row has other content in `b`."""
        causes = [*self._gone(set(before.annotation_ids) - set(after.annotation_ids))]
        fresh = set(after.annotation_ids) - set(before.annotation_ids)
        causes += [Cause("annotation", one, "new") for one in sorted(fresh)]
        causes += [
            Cause("critique", one, "edited or removed")
            for one in sorted(set(before.critique_ids) - set(after.critique_ids))
        ]
        causes += [Cause("critique", one, "new") for one in sorted(set(after.critique_ids) - set(before.critique_ids))]
        causes += [Cause("rule", one, "new") for one in sorted(set(after.rule_ids) - set(before.rule_ids))]
        if before.source is not after.source:
            causes += self._newly_refined(after)
        return causes or self._otherwise()

    def _gone(self, annotation_ids: Iterable[int]) -> Iterable[Cause]:
        for one in sorted(annotation_ids):
            annotation = self._annotations[one]
            if annotation.withdrawn_at is not None:
                yield Cause("annotation", one, "withdrawn")
            elif annotation.superseded_at is not None:
                by = annotation.superseded_by_id
                yield Cause("annotation", one, f"revised, now {by}" if by else "revised")

    def _newly_refined(self, row: RowView) -> list[Cause]:
        causes = []
        for one in row.refinement_ids:
            found = self._refinements.get(one)
            if found is None or found.annotation_id is not None:
                continue
            if one not in self._in_a[SnapshotRowRefinement]:
                causes.append(Cause("refinement", one, f"new, by run {found.run_id}"))
            elif found.status in (RefinementStatus.ACCEPTED, RefinementStatus.EDITED):
                causes.append(Cause("refinement", one, found.status.value))
        return causes

    def _otherwise(self) -> list[Cause]:
        if self._settings_differ:
            return [Cause("settings", None, "other settings of the snapshot")]
        return [Cause("annotation", None, "other votes on the same completions")]


def _used(session: Session, snapshot: Snapshot, table: Any, column: Any, ids: Iterable[int]) -> set[int]:
    """Which of `ids` the snapshot holds."""
    found: set[int] = set()
    for chunk in chunks(sorted(ids)):
        query = (
            select(column)
            .join(SnapshotRow, SnapshotRow.id == table.snapshot_row_id)
            .where(SnapshotRow.snapshot_id == snapshot.id, column.in_(chunk))
            .distinct()
        )
        found |= set(session.scalars(query))
    return found
