"""What feedback taken back leaves behind: marks on snapshots and on models, wherever the withdrawal comes in."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from storage import annotations, registry, taint
from storage.configs import SnapshotSettings
from storage.enums import ModelKind, RunKind, RunStatus, Split
from storage.models import Annotation, ModelVersion, Project, Snapshot, User, utc_now
from storage.snapshots import build_snapshot
from tests import factories

LITTLE = SnapshotSettings(min_train_pairs=1, min_test_pairs=0)


@pytest.fixture
def project(session: Session) -> Project:
    return factories.make_project(session)


@pytest.fixture
def ann(session: Session) -> User:
    return factories.make_user(session, "ann")


def _judged(session: Session, project: Project, user: User, count: int) -> list[Annotation]:
    factories.make_items(session, project, count)
    return [factories.make_annotation(session, project, user) for _ in range(count)]


def _child(session: Session, project: Project, parent: ModelVersion, snapshot: Snapshot | None = None) -> ModelVersion:
    run = factories.make_run(session, project, RunKind.DPO, worker="w", snapshot=snapshot, parent_version=parent)
    factories.runs.finish_run(session, run.id, "w", RunStatus.SUCCEEDED, result={})
    return registry.register_version(session, run, ModelKind.POLICY, "artifacts/x", "0" * 64, {}, "starter")


def test_a_withdrawal_marks_what_used_it_and_what_descends_from_that(
    session: Session, project: Project, ann: User
) -> None:
    used, other = _judged(session, project, ann, 2)
    first = factories.make_snapshot(session, project, [used])
    second = factories.make_snapshot(session, project, [other])
    trained = factories.make_version(session, project, snapshot=first)
    child = _child(session, project, trained, second)
    grandchild = _child(session, project, child, second)
    reward = factories.make_version(session, project, ModelKind.REWARD, snapshot=second)
    moment = utc_now()
    annotations.withdraw(session, used.id, ann, now=moment)
    session.expire_all()
    assert (first.tainted_at, second.tainted_at) == (moment, None)
    assert [one.tainted_at for one in (trained, child, grandchild)] == [moment] * 3
    assert reward.tainted_at is None
    assert registry.get_version(session, project, "policy-v0").tainted_at is None
    found = taint.standing(session, project)
    assert found[trained.id] == (moment, 1, 0, [])
    assert found[grandchild.id] == (moment, 1, 0, [trained.name])
    assert found[reward.id] == (None, 0, 0, [])
    # The second one taken back counts, the first moment stays.
    annotations.withdraw(session, other.id, ann, now=moment + timedelta(hours=1))
    session.expire_all()
    found = taint.standing(session, project)
    assert found[child.id] == (moment, 2, 0, [])
    assert found[reward.id] == (moment + timedelta(hours=1), 1, 0, [])


def test_a_revision_outdates_and_does_not_taint_but_its_withdrawal_takes_all_of_it_back(
    session: Session, project: Project, ann: User
) -> None:
    factories.make_item(session, project)
    lease = factories.make_lease(session, project, ann)
    old = annotations.submit(session, lease.assignment_id, ann, factories.prefer_first(lease))
    version = factories.make_version(session, project, snapshot=factories.make_snapshot(session, project, [old]))
    new = annotations.revise(session, old.id, ann, factories.prefer_first(lease, strength=3))
    session.expire_all()
    assert taint.standing(session, project)[version.id] == (None, 0, 1, [])
    annotations.withdraw(session, new.id, ann)
    session.expire_all()
    assert old.withdrawn_at is not None
    since, withdrawn, revised, through = taint.standing(session, project)[version.id]
    assert (since is not None, withdrawn, revised, through) == (True, 1, 0, [])
    assert annotations.annotation_counts(session, project)["withdrawn"] == 1


def test_a_model_that_is_still_training_is_marked_when_it_is_registered(
    session: Session, project: Project, ann: User
) -> None:
    (used,) = _judged(session, project, ann, 1)
    snapshot = factories.make_snapshot(session, project, [used])
    base = registry.base_version(session, project, "starter")
    run = factories.make_run(session, project, worker="w", snapshot=snapshot, parent_version=base)
    annotations.withdraw(session, used.id, ann)
    made = registry.register_version(session, run, ModelKind.POLICY, "artifacts/x", "0" * 64, {}, "starter")
    assert made.tainted_at == snapshot.tainted_at is not None
    factories.runs.finish_run(session, run.id, "w", RunStatus.SUCCEEDED, result={})
    assert _child(session, project, made).tainted_at == made.tainted_at


def test_the_next_snapshot_is_clean_and_the_old_one_stays_marked(
    session: Session, project: Project, ann: User, home: Path
) -> None:
    factories.make_items(session, project, 3, split=Split.TRAIN)
    said = [factories.make_annotation(session, project, ann) for _ in range(3)]
    before = build_snapshot(session, project, LITTLE, home)
    assert before.tainted_at is None
    annotations.withdraw(session, said[0].id, ann)
    after = build_snapshot(session, project, LITTLE, home)
    session.refresh(before)
    assert after.id != before.id
    assert (after.tainted_at, before.tainted_at is not None) == (None, True)


def test_a_snapshot_recorded_around_a_withdrawal_is_marked(session: Session, project: Project, ann: User) -> None:
    (used,) = _judged(session, project, ann, 1)
    annotations.withdraw(session, used.id, ann)
    late = factories.make_snapshot(session, project, [used])
    taint.check_snapshot(session, late, utc_now())
    session.refresh(late)
    assert late.tainted_at is not None
