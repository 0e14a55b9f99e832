"""From a version to the feedback that trained it and back, and training again without what was taken back."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import annotations, registry, rules, runs
from storage.enums import AnnotationStatus, ModelKind, PairSource, RunKind, RunStatus, Split
from storage.errors import Conflict, Invalid, NotFound
from storage.lineage import Basis, annotation_ids, decided, lineage, project_of_annotation, taught, trace
from storage.models import Annotation, ModelVersion, Project, Run, Snapshot, SnapshotRow, SnapshotRowRule, User
from storage.rebuilding import rebuild, rebuild_of, rebuilds, rebuilt_as
from storage.training import queue_training
from tests import factories
from tests.storage.test_training import judge


@pytest.fixture
def project(session: Session) -> Project:
    return factories.make_project(session)


@pytest.fixture
def ann(session: Session) -> User:
    return factories.make_user(session, "ann")


def judged(session: Session, project: Project, user: User, count: int) -> list[Annotation]:
    factories.make_items(session, project, count)
    return [factories.make_annotation(session, project, user) for _ in range(count)]


def registered(session: Session, run: Run, kind: ModelKind = ModelKind.POLICY) -> ModelVersion:
    """The version that a queued training made."""
    claimed = runs.claim_run(session, "w", [run.kind])
    assert claimed is run
    runs.finish_run(session, run.id, "w", RunStatus.SUCCEEDED, result={})
    return registry.register_version(session, run, kind, f"folder {run.id}", "0" * 64, {}, "starter")


def test_a_version_leads_to_the_rows_and_annotations_that_trained_it(
    session: Session, project: Project, ann: User
) -> None:
    used = judged(session, project, ann, 5)
    snapshot = factories.make_snapshot(session, project, used)
    version = factories.make_version(session, project, snapshot=snapshot)
    judged(session, project, ann, 1)  # trained nothing
    annotations.withdraw(session, used[3].id, ann)
    found = lineage(session, version)
    assert [one.name for one in found.chain] == ["policy-v1", "policy-v0"]
    assert found.run is not None
    assert (found.run.id, found.snapshot) == (version.run_id, snapshot)
    assert found.basis == Basis(rows=5, annotations=5, withdrawn=1)
    assert annotation_ids(session, version) == [one.id for one in used]
    pages = [taught(session, snapshot, limit=2)]
    while pages[-1].after is not None:
        pages.append(taught(session, snapshot, limit=2, after=pages[-1].after))
    assert [len(page.rows) for page in pages] == [2, 2, 1]
    rows = [row for page in pages for row in page.rows]
    assert [row.annotations[0].id for row in rows] == [one.id for one in used]
    assert {row.annotations[0].user for row in rows} == {"ann"}
    assert all(row.chosen and row.rejected for row in rows)
    gone = taught(session, snapshot, tainted=True)
    assert [row.annotations[0].id for row in gone.rows] == [used[3].id]
    assert gone.rows[0].annotations[0].withdrawn_at is not None
    base = found.chain[-1]
    assert (lineage(session, base).basis, annotation_ids(session, base)) == (Basis(), [])
    registry.promote(session, version, None, "better")
    stands = decided(session, version)
    assert (stands.evaluations, stands.gate, stands.completions) == (0, None, 0)
    assert [one.reason for one in stands.promotions] == ["better"]


def test_an_annotation_leads_to_what_learned_from_it_also_by_rules_and_through_a_parent(
    session: Session, project: Project, ann: User
) -> None:
    factories.make_items(session, project, 2)
    lease = factories.make_lease(session, project, ann)
    said = annotations.submit(session, lease.assignment_id, ann, factories.full_submission(lease, project))
    snapshot = factories.make_snapshot(session, project, [said])
    first = factories.make_version(session, project, snapshot=snapshot)
    registry.promote(session, first, None, "better")
    run = factories.make_run(session, project, parent_version=first)
    child = registered(session, run)
    rule = rules.add_rule(session, project, {"name": "dates", "instruction": "Give a date."}, None)
    rules.tie_critiques(session, rule, [said.critiques[0].id])
    other = factories.make_snapshot(session, project, [])
    of_rule = SnapshotRow(
        snapshot_id=other.id, split=Split.TRAIN, position=0, source=PairSource.RULE, weight=1.0,
        prompt_id=session.scalars(select(SnapshotRow.prompt_id)).first(), chosen_id=lease.completions[0][0],
    )  # fmt: skip
    session.add(of_rule)
    session.flush()
    session.add(SnapshotRowRule(snapshot_row_id=of_rule.id, rule_id=rule.id))
    taught_rules = factories.make_version(session, project, snapshot=other)
    found = trace(session, project, said.id)
    assert (found.user, len(found.critiques), len(found.refinements)) == ("ann", 1, 1)
    assert (found.rules, found.snapshots) == (["dates"], [snapshot, other])
    assert [(one.version, one.rows, one.rules, one.through) for one in found.learned] == [
        (first, 1, [], None), (child, 0, [], "policy-v1"), (taught_rules, 0, ["dates"], None),
    ]  # fmt: skip
    assert [row.rules for row in taught(session, other).rows] == [["dates"]]
    assert lineage(session, taught_rules).basis == Basis(rows=1, rules=1)
    assert project_of_annotation(session, said.id) is project
    other_project = factories.make_project(session)
    with pytest.raises(NotFound, match="no submitted annotation"):
        trace(session, other_project, said.id)
    lease = factories.make_lease(session, project, ann)
    annotations.save_draft(session, lease.assignment_id, ann, {"critique": "so far"})
    draft = session.scalars(select(Annotation.id).where(Annotation.status == AnnotationStatus.DRAFT)).one()
    with pytest.raises(NotFound):
        trace(session, project, draft)


def test_a_tainted_version_is_rebuilt_without_what_was_taken_back(
    session: Session, project: Project, home: Path
) -> None:
    judge(session, project)
    here = {"home": home, "default_base_model": "starter"}
    settings = {"beta": 0.25, "max_steps": 3, "lora_r": 4, "seed": 7}
    version = registered(session, queue_training(session, project, RunKind.DPO, settings, **here))
    with pytest.raises(Invalid, match="nothing to rebuild"):
        rebuild(session, version, **here)
    registry.promote(session, version, None, "better")
    child = registered(session, queue_training(session, project, RunKind.DPO, {"max_steps": 5}, **here))
    gone = annotation_ids(session, version)[0]
    annotations.withdraw(session, gone, session.get_one(Annotation, gone).user)
    session.expire_all()

    run = rebuild(session, version, **here)
    assert (run.kind, run.asked, run.seed, run.cause) == (RunKind.DPO, settings, 7, "rebuild 1 of policy-v1")
    assert session.get_one(ModelVersion, run.parent_version_id).name == "policy-v0"
    assert run.snapshot_id != version.snapshot_id
    with pytest.raises(Conflict, match=f"being rebuilt by run {run.id}"):
        rebuild(session, version, **here)
    again = registered(session, run)
    assert again.tainted_at is None
    assert gone not in annotation_ids(session, again)
    assert set(annotation_ids(session, again)) < set(annotation_ids(session, version))
    assert (rebuilt_as(session, version), rebuild_of(session, again)) == (again, "policy-v1")
    assert rebuild_of(session, version) is None
    with pytest.raises(Conflict, match="rebuilt as policy-v3"):
        rebuild(session, version, **here)

    of_child = rebuild(session, child, **here)
    assert of_child.parent_version_id == again.id, "what its parent was rebuilt as"
    assert of_child.asked == settings | {"max_steps": 5}
    runs.request_cancel(session, of_child, None)
    assert rebuild(session, child, **here).cause == "rebuild 2 of policy-v2"
    assert [one.status for one in rebuilds(session, child)] == [RunStatus.CANCELLED, RunStatus.QUEUED]
    project.base_model = "other"
    with pytest.raises(Conflict, match="base model is other now"):
        rebuild(session, again if again.tainted_at else version, **here)
    assert session.get_one(Snapshot, version.snapshot_id).tainted_at is not None
