"""`feedback-app snapshots`: what training was given, and what changed."""

from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from storage.configs import SnapshotSettings
from storage.enums import Split
from storage.snapshots import build_snapshot
from tests import factories
from tests.cli.conftest import Cli


def test_snapshots_are_listed_shown_and_compared(cli: Cli, store: sessionmaker[Session], home: Path) -> None:
    small = SnapshotSettings(min_train_pairs=1, min_test_pairs=0)
    with store.begin() as session:
        project = factories.make_project(session, "shop")
        user = factories.make_user(session)
        factories.make_items(session, project, 3, split=Split.TRAIN)
        factories.make_annotation(session, project, user)
        first = build_snapshot(session, project, small, home).content_hash
        lease = factories.make_lease(session, project, user)
        annotation = factories.annotations.submit(
            session, lease.assignment_id, user, factories.full_submission(lease, project)
        )
        second = build_snapshot(session, project, small, home).content_hash
        annotation_id, critique_id = annotation.id, annotation.critiques[0].id
    newest, oldest = cli("snapshots", "list", "--json").json["snapshots"]
    assert (oldest["hash"], newest["hash"], newest["form"], newest["rows"]) == (first, second, "preference", 3)
    shown = cli("snapshots", "show", second[:8], "--json").json
    assert [row["critique_ids"] for row in shown["entries"] if row["source"] == "refinement"] == [[critique_id]]
    differs = cli("snapshots", "diff", oldest["snapshot"], second, "--json").json
    assert (differs["a"], differs["b"], differs["removed"], differs["changed"]) == (first, second, [], [])
    assert [change["causes"] for change in differs["added"]] == [
        [{"what": "annotation", "id": annotation_id, "happened": "new"}]
    ] * 2
    told = cli("snapshots", "diff", first, second).out
    assert "2 added, 0 removed, 0 changed" in told
    assert f"annotation {annotation_id} new" in told
    assert "no snapshot 'beef'" in cli("snapshots", "diff", first, "beef").error
    assert cli("snapshots", "show").code == 2
