"""From a model version to the annotations that trained it, and from an annotation to the versions that learned from it.

Everything is read from the ties that a snapshot records when it is frozen. The two ways differ in what bounds them: a
version may rest on a hundred thousand annotations, so its rows come a page at a time; an annotation leads to a few
snapshots, so what learned from it comes whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import case, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from storage.criticised import chunks
from storage.enums import AnnotationStatus, RefinementStatus
from storage.errors import NotFound
from storage.gate_results import latest_result
from storage.models import (
    Annotation,
    Completion,
    Critique,
    Evaluation,
    GateResult,
    Item,
    ModelVersion,
    Project,
    Promotion,
    Prompt,
    Refinement,
    Rule,
    RuleCritique,
    Run,
    Snapshot,
    SnapshotRow,
    SnapshotRowAnnotation,
    SnapshotRowCritique,
    SnapshotRowRefinement,
    SnapshotRowRule,
    User,
)
from storage.snapshot_diff import RowView, row_views

PAGE = 50  # rows at a time


class Basis(NamedTuple):
    """How much feedback a snapshot rests on; of the annotations some were taken back or revised since."""

    rows: int = 0
    annotations: int = 0
    critiques: int = 0
    refinements: int = 0
    rules: int = 0
    withdrawn: int = 0
    revised: int = 0


@dataclass(frozen=True)
class Lineage:
    """Where a version comes from: `chain` is itself, its parent, and so on to the base model.

    `basis` counts what its own snapshot rests on; its parents rest on theirs.
    """

    chain: list[ModelVersion]
    run: Run | None
    snapshot: Snapshot | None
    basis: Basis


class Decided(NamedTuple):
    """What was found out and decided about a version, and what it wrote since."""

    evaluations: int
    gate: GateResult | None  # the newest
    promotions: list[Promotion]  # oldest first
    completions: int


class Said(NamedTuple):
    """An annotation behind a row: by whom, when, and what became of it since."""

    id: int
    user: str
    submitted_at: datetime | None
    withdrawn_at: datetime | None
    superseded_by: int | None


class Rewritten(NamedTuple):
    """A refinement behind a row; `run_id` is the run that wrote it, None for a person's own."""

    id: int
    run_id: int | None
    status: RefinementStatus | None


class Taught(NamedTuple):
    """One row that a version was trained on, validated or tested with, and the feedback it was derived from."""

    row: RowView
    chosen: str
    rejected: str | None
    annotations: list[Said]
    critiques: list[Critique]
    refinements: list[Rewritten]
    rules: list[str]


class TaughtPage(NamedTuple):
    """Some rows in the order of the snapshot; `after` asks for those that follow, None when these are the last."""

    rows: list[Taught]
    after: int | None


class Learned(NamedTuple):
    """A version that learned from an annotation: by rows of its own snapshot, by rules, or through an ancestor."""

    version: ModelVersion
    snapshot: Snapshot | None
    rows: int
    rules: list[str]
    through: str | None  # the nearest ancestor that did, where the version itself did not


@dataclass(frozen=True)
class Traced:
    """An annotation, what it says, and everything that learned from it."""

    annotation: Annotation
    project: Project
    prompt: Prompt
    user: str
    critiques: list[Critique]
    refinements: list[Rewritten]
    rules: list[str]
    snapshots: list[Snapshot]  # that hold it, also those that no version was trained on
    learned: list[Learned]


def lineage(session: Session, version: ModelVersion) -> Lineage:
    """What a version rests on, in numbers."""
    chain = [session.get_one(ModelVersion, version.id)]
    while chain[-1].parent_id is not None:
        chain.append(session.get_one(ModelVersion, chain[-1].parent_id))
    snapshot = session.get(Snapshot, version.snapshot_id) if version.snapshot_id else None
    return Lineage(
        chain=chain,
        run=session.get(Run, version.run_id) if version.run_id else None,
        snapshot=snapshot,
        basis=basis_of(session, snapshot) if snapshot else Basis(),
    )


def basis_of(session: Session, snapshot: Snapshot) -> Basis:
    """How much feedback a snapshot rests on."""
    of_snapshot = SnapshotRow.snapshot_id == snapshot.id
    rows = session.scalar(select(func.count()).select_from(SnapshotRow).where(of_snapshot)) or 0
    used = _used(snapshot, SnapshotRowAnnotation, SnapshotRowAnnotation.annotation_id).subquery()
    revised = case((Annotation.withdrawn_at.is_(None), Annotation.superseded_at))
    annotations, withdrawn, newer = session.execute(
        select(func.count(), func.count(Annotation.withdrawn_at), func.count(revised))
        .select_from(Annotation)
        .join(used, used.c.annotation_id == Annotation.id)
    ).one()

    def distinct(table: Any, column: InstrumentedAttribute[int]) -> int:
        return session.scalar(select(func.count()).select_from(_used(snapshot, table, column).subquery())) or 0

    return Basis(
        rows=rows,
        annotations=annotations,
        critiques=distinct(SnapshotRowCritique, SnapshotRowCritique.critique_id),
        refinements=distinct(SnapshotRowRefinement, SnapshotRowRefinement.refinement_id),
        rules=distinct(SnapshotRowRule, SnapshotRowRule.rule_id),
        withdrawn=withdrawn,
        revised=newer,
    )


def annotation_ids(session: Session, version: ModelVersion) -> list[int]:
    """The annotations that the version's own snapshot rests on."""
    snapshot = session.get(Snapshot, version.snapshot_id) if version.snapshot_id else None
    if snapshot is None:
        return []
    column = SnapshotRowAnnotation.annotation_id
    return list(session.scalars(_used(snapshot, SnapshotRowAnnotation, column).order_by(column)))


def decided(session: Session, version: ModelVersion) -> Decided:
    """What stands between a version and the people who judge what it writes."""
    own = ModelVersion.id == version.id
    promotions = select(Promotion).where(Promotion.version_id == version.id).order_by(Promotion.id)
    evaluations, completions = session.execute(
        select(
            select(func.count()).where(Evaluation.version_id == ModelVersion.id).scalar_subquery(),
            select(func.count()).where(Completion.model_version_id == ModelVersion.id).scalar_subquery(),
        ).where(own)
    ).one()
    return Decided(evaluations, latest_result(session, version), list(session.scalars(promotions)), completions)


def taught(
    session: Session, snapshot: Snapshot, *, after: int = 0, limit: int = PAGE, tainted: bool = False
) -> TaughtPage:
    """Rows of a snapshot with the feedback behind them, from the one that follows `after`.

    `tainted`: only rows that rest on an annotation which was withdrawn or erased since.
    """
    query = select(SnapshotRow.id).where(SnapshotRow.snapshot_id == snapshot.id, SnapshotRow.id > after)
    if tainted:
        query = (
            query.join(SnapshotRowAnnotation, SnapshotRowAnnotation.snapshot_row_id == SnapshotRow.id)
            .join(Annotation, Annotation.id == SnapshotRowAnnotation.annotation_id)
            .where(Annotation.withdrawn_at.is_not(None))
            .distinct()
        )
    ids = session.scalars(query.order_by(SnapshotRow.id).limit(limit + 1)).all()
    shown = ids[:limit]
    views = row_views(session, shown)
    return TaughtPage(_with_feedback(session, [views[one] for one in shown]), shown[-1] if len(ids) > limit else None)


def trace(session: Session, project: Project, annotation_id: int) -> Traced:
    """From an annotation to the versions that learned from it; raises `NotFound`. Drafts are nobody else's."""
    found = session.execute(
        select(Annotation, Prompt, User.name)
        .join(Item, Item.id == Annotation.item_id)
        .join(Prompt, Prompt.id == Item.prompt_id)
        .join(User, User.id == Annotation.user_id)
        .where(
            Annotation.id == annotation_id,
            Item.project_id == project.id,
            Annotation.status == AnnotationStatus.SUBMITTED,
        )
    ).one_or_none()
    if found is None:
        raise NotFound(f"project '{project.name}' has no submitted annotation {annotation_id}")
    annotation, prompt, user = found
    rows = _rows_by_snapshot(session, annotation_id)
    rules = _rules_by_snapshot(session, annotation_id)
    holding = select(Snapshot).where(Snapshot.id.in_([*rows, *rules])).order_by(Snapshot.id)
    snapshots = list(session.scalars(holding))
    critiques = list(session.scalars(select(Critique).filter_by(annotation_id=annotation_id).order_by(Critique.id)))
    return Traced(
        annotation=annotation,
        project=project,
        prompt=prompt,
        user=user,
        critiques=critiques,
        refinements=_refinements_of(session, annotation_id, [one.id for one in critiques]),
        rules=sorted({name for names in rules.values() for name in names}),
        snapshots=snapshots,
        learned=_learned(session, project, rows, rules, {one.id: one for one in snapshots}),
    )


def project_of_annotation(session: Session, annotation_id: int) -> Project:
    """The project that an annotation belongs to; raises `NotFound`."""
    found = session.scalar(
        select(Project)
        .join(Item, Item.project_id == Project.id)
        .join(Annotation, Annotation.item_id == Item.id)
        .where(Annotation.id == annotation_id)
    )
    if found is None:
        raise NotFound(f"there is no annotation {annotation_id}")
    return found


def _used(snapshot: Snapshot, table: Any, column: InstrumentedAttribute[int]) -> Any:
    return (
        select(column)
        .join(SnapshotRow, SnapshotRow.id == table.snapshot_row_id)
        .where(SnapshotRow.snapshot_id == snapshot.id)
        .distinct()
    )


def _with_feedback(session: Session, views: list[RowView]) -> list[Taught]:
    said = _said(session, {one for view in views for one in view.annotation_ids})
    critiques = _by_id(session, Critique, {one for view in views for one in view.critique_ids})
    refinements = _by_id(session, Refinement, {one for view in views for one in view.refinement_ids})
    rules = _by_id(session, Rule, {one for view in views for one in view.rule_ids})
    sides = {one for view in views for one in (view.chosen_id, view.rejected_id) if one is not None}
    texts = {one: row.text for one, row in _by_id(session, Completion, sides).items()}
    return [
        Taught(
            row=view,
            chosen=texts[view.chosen_id],
            rejected=texts[view.rejected_id] if view.rejected_id is not None else None,
            annotations=[said[one] for one in view.annotation_ids],
            critiques=[critiques[one] for one in view.critique_ids],
            refinements=[_rewritten(refinements[one]) for one in view.refinement_ids],
            rules=[rules[one].name for one in view.rule_ids],
        )
        for view in views
    ]


def _said(session: Session, ids: Iterable[int]) -> dict[int, Said]:
    found = {}
    for chunk in chunks(sorted(ids)):
        query = select(Annotation, User.name).join(User, User.id == Annotation.user_id).where(Annotation.id.in_(chunk))
        for row, user in session.execute(query):
            found[row.id] = Said(row.id, user, row.submitted_at, row.withdrawn_at, row.superseded_by_id)
    return found


def _by_id(session: Session, table: Any, ids: Iterable[int]) -> dict[int, Any]:
    return {
        row.id: row
        for chunk in chunks(sorted(ids))
        for row in session.scalars(select(table).where(table.id.in_(chunk)))
    }


def _rewritten(row: Refinement) -> Rewritten:
    return Rewritten(row.id, row.run_id, row.status)


def _refinements_of(session: Session, annotation_id: int, critique_ids: list[int]) -> list[Rewritten]:
    """The annotator's own refinements, and what models made of their critiques."""
    by_models = Refinement.critiques.any(Critique.id.in_(critique_ids))
    query = select(Refinement).where((Refinement.annotation_id == annotation_id) | by_models).order_by(Refinement.id)
    return [_rewritten(row) for row in session.scalars(query)]


def _rows_by_snapshot(session: Session, annotation_id: int) -> dict[int, int]:
    query = (
        select(SnapshotRow.snapshot_id, func.count())
        .join(SnapshotRowAnnotation, SnapshotRowAnnotation.snapshot_row_id == SnapshotRow.id)
        .where(SnapshotRowAnnotation.annotation_id == annotation_id)
        .group_by(SnapshotRow.snapshot_id)
    )
    return dict(session.execute(query).all())


def _rules_by_snapshot(session: Session, annotation_id: int) -> dict[int, list[str]]:
    """Names of the rules that came of the annotation's critiques, by the snapshots that teach them."""
    query = (
        select(SnapshotRow.snapshot_id, Rule.name)
        .join(SnapshotRowRule, SnapshotRowRule.snapshot_row_id == SnapshotRow.id)
        .join(Rule, Rule.id == SnapshotRowRule.rule_id)
        .join(RuleCritique, RuleCritique.rule_id == Rule.id)
        .join(Critique, Critique.id == RuleCritique.critique_id)
        .where(Critique.annotation_id == annotation_id)
        .distinct()
        .order_by(Rule.name)
    )
    found: dict[int, list[str]] = defaultdict(list)
    for snapshot_id, name in session.execute(query):
        found[snapshot_id].append(name)
    return found


def _learned(
    session: Session,
    project: Project,
    rows: dict[int, int],
    rules: dict[int, list[str]],
    snapshots: dict[int, Snapshot],
) -> list[Learned]:
    """Versions trained on these snapshots and their descendants, oldest first."""
    versions = session.scalars(select(ModelVersion).filter_by(project_id=project.id).order_by(ModelVersion.id))
    by: dict[int, str] = {}  # version id -> the nearest version, itself included, whose own snapshot holds it
    found = []
    for version in versions:  # parents come before their children
        direct = version.snapshot_id in snapshots
        nearest = version.name if direct else by.get(version.parent_id or 0)
        if nearest is None:
            continue
        by[version.id] = nearest
        own = version.snapshot_id or 0
        through = None if direct else nearest
        found.append(Learned(version, snapshots.get(own), rows.get(own, 0), rules.get(own, []), through))
    return found
