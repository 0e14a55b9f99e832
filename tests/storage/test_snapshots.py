"""Snapshots: one hash for one content, files that are whole or not there, lineage to annotations, clear refusals."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from storage.configs import SnapshotSettings
from storage.enums import Outcome, Split
from storage.errors import FeedbackError, NotEnoughData, NotFound
from storage.models import Base, Snapshot, SnapshotRow, SnapshotRowAnnotation, utc_now
from storage.snapshots import build_snapshot, snapshot_paths, verify_snapshot
from tests.storage.feedback import Desk

SMALL = SnapshotSettings(min_train_pairs=1)


def fill(desk: Desk, order: int = 1, count: int = 6) -> list:
    """Feedback on `count` train prompts and one prompt of each other split; `order` -1 writes it backwards."""
    prompts = [(f"prompt {n}", Split.TRAIN) for n in range(count)]
    prompts += [("prompt v", Split.VALIDATION), ("prompt t", Split.TEST)]
    marks = []
    for text, split in prompts[::order]:
        prompt = desk.prompt(text, split)
        texts = [desk.completion(prompt, f"{text} {kind}") for kind in ("good", "bad", "poor")[::order]]
        good, bad = sorted(texts, key=lambda c: ("bad" in c.text) + 2 * ("poor" in c.text))[:2]
        marks.append(desk.judge("ann", (good, bad), Outcome.FIRST, 3))
    return marks


@pytest.fixture
def desk(sessions: Any) -> Iterator[Desk]:
    with sessions.begin() as session:
        yield Desk(session)


def build(desk, home, settings=SMALL) -> Snapshot:
    return build_snapshot(desk.session, desk.project, settings, home)


def test_files_hold_the_pairs_of_their_split_in_trl_columns(desk, tmp_path):
    marks = fill(desk)
    snapshot = build(desk, tmp_path)
    tables = {split: pq.read_table(path).to_pylist() for split, path in snapshot_paths(snapshot, tmp_path).items()}
    assert {split: len(rows) for split, rows in tables.items()} == {
        Split.TRAIN: 6,
        Split.VALIDATION: 1,
        Split.TEST: 1,
    }
    (row,) = tables[Split.TEST]
    assert row["prompt"] == [{"role": "user", "content": "prompt t"}]
    assert row["chosen"] == [{"role": "assistant", "content": "prompt t good"}]
    assert row["rejected"] == [{"role": "assistant", "content": "prompt t bad"}]
    assert (row["source"], row["weight"]) == ("comparison", 1.5)
    assert row["annotation_ids"] == [marks[-1].id]
    assert len(list(tmp_path.rglob("*.parquet"))) == 3
    assert list((tmp_path / "tmp").iterdir()) == []


def test_every_row_in_sql_names_its_file_row_and_its_annotations(desk, tmp_path):
    marks = fill(desk)
    snapshot = build(desk, tmp_path)
    files = {split: pq.read_table(path).to_pylist() for split, path in snapshot_paths(snapshot, tmp_path).items()}
    rows = desk.session.scalars(select(SnapshotRow).where(SnapshotRow.snapshot_id == snapshot.id)).all()
    assert len(rows) == 8
    for row in rows:
        in_file = files[row.split][row.position]
        ties = select(SnapshotRowAnnotation.annotation_id).where(SnapshotRowAnnotation.snapshot_row_id == row.id)
        assert in_file["annotation_ids"] == list(desk.session.scalars(ties))
        assert (in_file["chosen_id"], in_file["rejected_id"], in_file["weight"]) == (
            row.chosen_id,
            row.rejected_id,
            row.weight,
        )
    tied = set(desk.session.scalars(select(SnapshotRowAnnotation.annotation_id)))
    assert tied == {mark.id for mark in marks}


def test_the_same_annotations_give_the_same_row_and_untouched_files(desk, tmp_path):
    fill(desk)
    first = build(desk, tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert build(desk, tmp_path).id == first.id
    # Settings that change nothing in the pairs change nothing in the hash either.
    assert build(desk, tmp_path, SnapshotSettings(min_train_pairs=2, rating_margin=3)).id == first.id
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == stamps
    assert desk.session.scalar(select(func.count()).select_from(Snapshot)) == 1


def test_the_hash_does_not_depend_on_ids_or_on_the_order_of_work(tmp_path):
    hashes = []
    for number, order in enumerate((1, -1)):
        engine = create_engine("sqlite://")
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            for n in range(number * 3):  # shift every id
                Desk(session, f"filler {n}")
            desk = Desk(session)
            fill(desk, order)
            snapshot = build(desk, tmp_path / str(number))
            hashes.append(snapshot.content_hash)
            rows = [
                pq.read_table(path, columns=["prompt"])
                for path in snapshot_paths(snapshot, tmp_path / str(number)).values()
            ]
            hashes.append(str(rows))
        engine.dispose()
    assert hashes[:2] == hashes[2:]


@pytest.mark.parametrize("change", ["another annotation", "a refinement", "a strength", "a withdrawal", "a split"])
def test_any_change_of_what_trains_changes_the_hash(desk, tmp_path, change):
    marks = fill(desk)
    before = build(desk, tmp_path)
    item = marks[0].item
    if change == "another annotation":
        prompt = desk.prompt("new")
        desk.judge("ann", (desk.completion(prompt, "x"), desk.completion(prompt, "y")), Outcome.FIRST)
    elif change == "a refinement":
        completions = [member.completion for member in item.members]
        desk.judge("bob", completions, refinement=(completions[0], "mended"))
    elif change == "a strength":
        marks[0].preferences[0].strength = 1
    elif change == "a withdrawal":
        marks[0].withdrawn_at = utc_now()
    else:
        item.prompt.split = Split.TEST
    desk.session.flush()
    after = build(desk, tmp_path)
    assert after.content_hash != before.content_hash
    assert after.folder != before.folder
    verify_snapshot(before, tmp_path)  # the older one is untouched
    verify_snapshot(after, tmp_path)


def test_the_report_says_what_was_used_and_left_out_by_split(desk, tmp_path):
    fill(desk)
    for split in (Split.TRAIN, Split.TEST):
        prompt = desk.prompt(f"tied {split}", split)
        desk.judge("ann", (desk.completion(prompt, "x"), desk.completion(prompt, "y")), Outcome.TIE)
    report = build(desk, tmp_path).report
    assert report["pairs"] == 8
    assert report["used"] == {"comparison": 8}
    assert report["left_out"] == {"tie": 2}
    assert report["splits"]["train"] == {"pairs": 6, "prompts": 6, "used": {"comparison": 6}, "left_out": {"tie": 1}}
    assert report["splits"]["validation"]["left_out"] == {}
    assert report["files"]["train"]["rows"] == 6


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (SnapshotSettings(min_train_pairs=10), "4 more train pairs are needed: 6 of at least 10"),
        (SnapshotSettings(min_train_pairs=1, min_test_pairs=3), "2 more test pairs are needed: 1 of at least 3"),
    ],
)
def test_too_little_data_names_the_missing_number_and_writes_nothing(desk, tmp_path, settings, says):
    fill(desk)
    with pytest.raises(NotEnoughData, match=says):
        build(desk, tmp_path, settings)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_deleted_or_changed_file_is_reported_and_written_again_by_the_next_build(desk, tmp_path):
    fill(desk)
    snapshot = build(desk, tmp_path)
    verify_snapshot(snapshot, tmp_path)
    train = snapshot_paths(snapshot, tmp_path)[Split.TRAIN]
    whole = train.read_bytes()
    train.write_bytes(whole[:-10])
    with pytest.raises(FeedbackError, match="has been changed"):
        verify_snapshot(snapshot, tmp_path)
    shutil.rmtree(train.parent)
    with pytest.raises(NotFound, match="is missing; queue the training again"):
        verify_snapshot(snapshot, tmp_path)
    assert build(desk, tmp_path).id == snapshot.id
    verify_snapshot(snapshot, tmp_path)
    assert train.read_bytes() == whole


def test_a_folder_left_by_a_transaction_that_never_ended_does_not_stand_in_the_way(desk, tmp_path):
    fill(desk)
    unfinished = desk.session.begin_nested()
    folder = build(desk, tmp_path).folder
    unfinished.rollback()
    (tmp_path / folder / "train.parquet").write_bytes(b"old")
    snapshot = build(desk, tmp_path)
    assert snapshot.folder == folder
    verify_snapshot(snapshot, tmp_path)


def test_two_projects_with_the_same_content_share_the_hash_but_no_file(sessions, tmp_path):
    with sessions.begin() as session:
        made = []
        for name in ("one", "two"):
            desk = Desk(session, name)
            fill(desk)
            made.append(build(desk, tmp_path))
        assert made[0].content_hash == made[1].content_hash
        assert made[0].folder != made[1].folder
        for snapshot in made:
            verify_snapshot(snapshot, tmp_path)
            ids = pq.read_table(snapshot_paths(snapshot, tmp_path)[Split.TEST])["prompt_id"].to_pylist()
            assert ids == list(
                session.scalars(
                    select(SnapshotRow.prompt_id).where(
                        SnapshotRow.snapshot_id == snapshot.id, SnapshotRow.split == Split.TEST
                    )
                )
            )
