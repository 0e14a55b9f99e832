"""`snapshots diff`: which rows differ between two snapshots, and what was done to which feedback that they do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from storage import annotations, refinements, snapshot_diff
from storage.annotations import CritiqueInput, Submission
from storage.configs import SnapshotSettings
from storage.enums import RefinementStatus, RunKind, SnapshotForm, Split
from storage.errors import Invalid, NotFound
from storage.models import Annotation, Project, Run, Snapshot, SnapshotRow, User
from storage.refinements import Selected
from storage.snapshot_diff import Cause, Difference, difference, get_snapshot
from storage.snapshots import build_snapshot
from tests import factories

SMALL = SnapshotSettings(min_train_pairs=1, min_test_pairs=0)


class Loop:
    """A project where one person says everything about each of six items."""

    def __init__(self, session: Session, home: Path) -> None:
        self.session, self.home = session, home
        self.project: Project = factories.make_project(session)
        self.user: User = factories.make_user(session)
        factories.make_items(session, self.project, 6, split=Split.TRAIN)
        self.said: dict[int, Submission] = {}
        self.marks: list[Annotation] = []
        for _ in range(6):
            lease = factories.make_lease(session, self.project, self.user)
            submission = factories.full_submission(lease, self.project)
            annotation = annotations.submit(session, lease.assignment_id, self.user, submission)
            self.said[annotation.id] = submission
            self.marks.append(annotation)

    def freeze(self, form: SnapshotForm = SnapshotForm.PREFERENCE, **settings: float) -> Snapshot:
        return build_snapshot(self.session, self.project, SMALL.model_copy(update=settings), self.home, form)

    def revise(self, annotation: Annotation, **fields: object) -> Annotation:
        return annotations.revise(
            self.session,
            annotation.id,
            self.user,
            replace(self.said[annotation.id], **fields),  # type: ignore[arg-type]  # free fields
        )

    def diff(self, a: Snapshot, b: Snapshot) -> Difference:
        return difference(self.session, a, b)


@pytest.fixture
def loop(session: Session, tmp_path: Path) -> Loop:
    return Loop(session, tmp_path)


def test_an_edited_critique_changes_the_hash_and_names_its_rows(loop: Loop) -> None:
    before = loop.freeze()
    mark = loop.marks[2]
    (critique,) = loop.said[mark.id].critiques
    revised = loop.revise(mark, critiques=[CritiqueInput(critique.completion_id, "No day is given.", 0, 3)])
    after = loop.freeze()
    assert after.content_hash != before.content_hash

    found = loop.diff(before, after)

    assert (found.added, found.removed, found.settings) == ([], [], {})
    (change,) = found.changed
    assert change.before is not None
    assert change.after is not None
    assert change.before.source == change.after.source == "refinement"
    assert change.causes == [
        Cause("annotation", mark.id, f"revised, now {revised.id}"),
        Cause("annotation", revised.id, "new"),
        Cause("critique", mark.critiques[0].id, "edited or removed"),
        Cause("critique", revised.critiques[0].id, "new"),
    ]
    assert loop.diff(after, after) == Difference([], [], [], {})


def test_a_withdrawal_removes_its_rows_and_a_new_annotation_adds_some(loop: Loop) -> None:
    before = loop.freeze()
    factories.make_items(loop.session, loop.project, 1, split=Split.TRAIN)
    fresh = factories.make_annotation(loop.session, loop.project, loop.user)
    annotations.withdraw(loop.session, loop.marks[0].id, loop.user)
    found = loop.diff(before, loop.freeze())
    assert {cause for one in found.removed for cause in one.causes} == {
        Cause("annotation", loop.marks[0].id, "withdrawn")
    }
    assert {cause for one in found.added for cause in one.causes} == {Cause("annotation", fresh.id, "new")}
    assert {one.before.source for one in found.removed if one.before} == {"comparison", "refinement"}


def test_model_refinements_come_are_accepted_and_rejected(loop: Loop) -> None:
    said = loop.said[loop.marks[1].id]
    criticised = loop.revise(loop.marks[1], refinements=[])
    before = loop.freeze()
    run = Run(project_id=loop.project.id, kind=RunKind.REFINE, config={})
    loop.session.add(run)
    loop.session.flush()
    row = Selected(said.critiques[0].completion_id, (criticised.critiques[0].id,), "It comes on Monday at nine.")
    (made,) = refinements.add_model_refinements(loop.session, run, [row]).refinements
    refined = loop.freeze()
    refinements.review(loop.session, made.id, loop.user, RefinementStatus.ACCEPTED)
    accepted = loop.freeze()
    refinements.review(loop.session, made.id, loop.user, RefinementStatus.REJECTED)
    rejected = loop.freeze()

    (added,) = loop.diff(before, refined).added
    assert added.causes == [Cause("refinement", made.id, f"new, by run {run.id}")]
    refinements.review(loop.session, made.id, loop.user, RefinementStatus.ACCEPTED)
    (changed,) = loop.diff(refined, accepted).changed
    assert changed.causes == [Cause("refinement", made.id, "accepted")]
    refinements.review(loop.session, made.id, loop.user, RefinementStatus.REJECTED)
    (removed,) = loop.diff(accepted, rejected).removed
    assert removed.causes == [Cause("refinement", made.id, "rejected")]
    assert rejected.id == before.id


def test_other_settings_and_older_snapshots_are_told_apart(loop: Loop) -> None:
    a, b = loop.freeze(), loop.freeze(refinement_weight=2.0)
    found = loop.diff(a, b)
    assert found.settings == {"refinement_weight": (1.0, 2.0)}
    assert len(found.changed) == 6
    assert {cause for one in found.changed for cause in one.causes} == {
        Cause("settings", None, "other settings of the snapshot")
    }
    loop.session.query(SnapshotRow).filter_by(snapshot_id=a.id).update({"digest": None})
    assert len(loop.diff(a, b).changed) == 6
    with pytest.raises(Invalid, match="one form"):
        loop.diff(a, loop.freeze(SnapshotForm.FEEDBACK))


def test_snapshots_are_found_by_number_and_by_the_beginning_of_their_hash(loop: Loop) -> None:
    snapshot = loop.freeze()
    for name in (str(snapshot.id), snapshot.content_hash[:8], snapshot.content_hash.upper()):
        assert get_snapshot(loop.session, loop.project, name).id == snapshot.id
    for name in ("999", "zzzz", "", snapshot.content_hash[:1] + "%"):
        with pytest.raises(NotFound, match="snapshots list"):
            get_snapshot(loop.session, loop.project, name)
    assert snapshot_diff.list_snapshots(loop.session, loop.project) == [snapshot]
    views = snapshot_diff.rows_of_snapshot(loop.session, snapshot)
    assert len(views) == snapshot.report["pairs"] == 12
    assert {view.prompt.split()[0] for view in views} == {"Question"}
