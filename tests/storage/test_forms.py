"""Snapshots of every form: what their rows hold, what they weigh, and which critique each of them came of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from storage import refinements, training
from storage.configs import SnapshotSettings
from storage.enums import Outcome, RefinementStatus, RunKind, SnapshotForm, Split
from storage.errors import NotEnoughData
from storage.models import Annotation, Refinement, Run, SnapshotRow, SnapshotRowCritique, utc_now
from storage.preferences import derive_pairs
from storage.projects import update_project
from storage.refinements import Selected
from storage.snapshots import build_snapshot, snapshot_paths
from tests.storage.feedback import Desk

SMALL = SnapshotSettings(min_train_pairs=1, min_test_pairs=0)


@pytest.fixture
def desk(sessions: sessionmaker[Session]) -> Iterator[Desk]:
    with sessions.begin() as session:
        yield Desk(session, criteria=[("quality", 1, 5), ("thumb", 0, 1)])


def criticised(desk: Desk, name: str = "one", says: str = "Rude.", better: str | None = None) -> Annotation:
    prompt = desk.prompt(name)
    pair = [desk.completion(prompt, f"{name} bad"), desk.completion(prompt, f"{name} good")]
    refinement = (pair[0], better) if better else None
    return desk.judge("ann", pair, Outcome.SECOND, critique=(pair[0], says, 0, 3), refinement=refinement)


def refine(desk: Desk, annotation: Annotation, text: str = "It comes on Tuesday.") -> Refinement:
    run = Run(project_id=desk.project.id, kind=RunKind.REFINE, config={})
    desk.session.add(run)
    desk.session.flush()
    critique = annotation.critiques[0]
    row = Selected(critique.completion_id, (critique.id,), text)
    return refinements.add_model_refinements(desk.session, run, [row]).refinements[0]


def rows(desk: Desk, home: Path, form: SnapshotForm, **settings: Any) -> list[dict[str, Any]]:
    snapshot = build_snapshot(desk.session, desk.project, SMALL.model_copy(update=settings), home, form)
    assert snapshot.form is form
    found = [row for path in snapshot_paths(snapshot, home).values() for row in pq.read_table(path).to_pylist()]
    assert len(found) == snapshot.report["pairs"] == sum(snapshot.report["used"].values())
    return found


def content_hash(desk: Desk, home: Path, form: SnapshotForm) -> str:
    return build_snapshot(desk.session, desk.project, SMALL, home, form).content_hash


def test_refinements_of_models_are_pairs_that_weigh_what_their_review_says(desk: Desk, tmp_path: Path) -> None:
    annotation = criticised(desk)
    made = refine(desk, annotation)
    reviewer = desk.user("rita")

    (pair,) = [row for row in rows(desk, tmp_path, SnapshotForm.PREFERENCE) if row["refinement_ids"]]
    assert (pair["source"], pair["weight"]) == ("unreviewed_refinement", 0.5)
    assert pair["chosen"][0]["content"] == "It comes on Tuesday."
    assert pair["rejected"][0]["content"] == "one bad"
    assert pair["annotation_ids"] == [annotation.id]
    assert pair["critique_ids"] == [annotation.critiques[0].id]
    assert pair["refinement_ids"] == [made.id]
    none = rows(desk, tmp_path, SnapshotForm.PREFERENCE, unreviewed_refinement_weight=0.0)
    assert [row["source"] for row in none] == ["comparison"]

    refinements.review(desk.session, made.id, reviewer, RefinementStatus.EDITED, "It comes on Monday.")
    (pair,) = [row for row in rows(desk, tmp_path, SnapshotForm.PREFERENCE) if row["refinement_ids"]]
    assert (pair["source"], pair["weight"]) == ("accepted_refinement", 1.0)
    assert pair["chosen"][0]["content"] == "It comes on Monday."

    refinements.review(desk.session, made.id, reviewer, RefinementStatus.REJECTED)
    found = derive_pairs(desk.session, desk.project, SMALL)
    assert (found.used, found.left_out) == ({"comparison": 1}, {"rejected_refinement": 1})


def test_every_source_has_its_weight(desk: Desk, tmp_path: Path) -> None:
    prompt = desk.prompt("two")
    pair = [desk.completion(prompt, "bad"), desk.completion(prompt, "good")]
    desk.judge("ann", pair, Outcome.SECOND, 3, refinement=(pair[0], "better"))
    desk.judge("bob", pair, ratings=[(pair[0], "quality", 1), (pair[1], "quality", 5)])
    found = rows(desk, tmp_path, SnapshotForm.PREFERENCE, comparison_weight=2.0, refinement_weight=3.0)
    # ann's comparison (1.5 * 2) and bob's rating gap (1.5) agree on one pair: the mean of their votes.
    assert {(row["source"], row["weight"]) for row in found} == {("comparison", 2.25), ("refinement", 3.0)}
    found = rows(desk, tmp_path, SnapshotForm.PREFERENCE, comparison_weight=0.0, rating_weight=0.1)
    assert {(row["source"], row["weight"]) for row in found} == {("rating_gap", 0.15), ("refinement", 1.0)}


def test_the_policys_weights_reach_the_snapshot_unless_a_run_asks_otherwise(desk: Desk, tmp_path: Path) -> None:
    for number in range(16):
        criticised(desk, f"prompt {number}")
    update_project(desk.session, desk.project, training_policy={"comparison_weight": 0.5})
    queue = {"home": tmp_path, "default_base_model": "starter"}
    few = {"min_test_pairs": 0}
    run = training.queue_training(desk.session, desk.project, RunKind.DPO, few, **queue)
    assert {row.weight for row in _rows_of(desk, run)} == {0.5}
    run = training.queue_training(desk.session, desk.project, RunKind.DPO, few | {"comparison_weight": 2}, **queue)
    assert {row.weight for row in _rows_of(desk, run)} == {2.0}
    assert run.asked["comparison_weight"] == 2


def _rows_of(desk: Desk, run: Run) -> list[SnapshotRow]:
    return list(desk.session.scalars(select(SnapshotRow).where(SnapshotRow.snapshot_id == run.snapshot_id)))


def test_prompt_completion_rows_are_refinements_of_people_and_models(desk: Desk, tmp_path: Path) -> None:
    prompt = desk.prompt("two")
    bad = desk.completion(prompt, "bad")
    by_hand = desk.judge("ann", [bad], critique=(bad, "Curt."), refinement=(bad, "Sadly not."))
    again = desk.judge("bob", [bad], refinement=(bad, "Sadly not."))
    machine = refine(desk, criticised(desk))
    found = {row["completion"][0]["content"]: row for row in rows(desk, tmp_path, SnapshotForm.PROMPT_COMPLETION)}
    assert set(found) == {"Sadly not.", "It comes on Tuesday."}
    one = found["Sadly not."]
    assert (one["source"], one["weight"], one["annotation_ids"]) == ("refinement", 1.0, [by_hand.id, again.id])
    assert one["critique_ids"] == [by_hand.critiques[0].id]
    assert one["prompt"] == [{"role": "user", "content": "two"}]
    assert found["It comes on Tuesday."]["weight"] == 0.5
    assert found["It comes on Tuesday."]["refinement_ids"] == [machine.id]


def test_unpaired_rows_are_ratings_off_the_middle(desk: Desk, tmp_path: Path) -> None:
    prompt = desk.prompt("two")
    good, bad, so_so, torn = (desk.completion(prompt, text) for text in ("good", "bad", "so-so", "torn"))
    desk.judge("ann", [good], ratings=[(good, "thumb", 1)])
    desk.judge("ann", [bad], ratings=[(bad, "quality", 2)])
    desk.judge("ann", [so_so], ratings=[(so_so, "quality", 3)])
    desk.judge("ann", [torn], ratings=[(torn, "quality", 5)])
    desk.judge("bob", [torn], ratings=[(torn, "quality", 2)])
    found = {row["completion"][0]["content"]: row for row in rows(desk, tmp_path, SnapshotForm.UNPAIRED)}
    labels = {text: (row["label"], row["weight"]) for text, row in found.items()}
    assert labels == {"good": (True, 1.0), "bad": (False, 0.5), "torn": (True, 0.25)}
    snapshot = build_snapshot(desk.session, desk.project, SMALL, tmp_path, SnapshotForm.UNPAIRED)
    assert snapshot.report["left_out"] == {"middle": 1}


def test_feedback_rows_hold_what_everybody_said_of_a_completion(desk: Desk, tmp_path: Path) -> None:
    prompt = desk.prompt("two")
    bad, fine = desk.completion(prompt, "No way."), desk.completion(prompt, "Of course.")
    desk.judge("ann", [bad], critique=(bad, "Too long.", 0, 2), ratings=[(bad, "quality", 2)])
    desk.judge("bob", [bad], critique=(bad, "太短了。"), ratings=[(bad, "quality", 1)], refinement=(bad, "Sadly not."))
    desk.judge("ann", [fine], ratings=[(fine, "quality", 5)])
    found = {row["completion"][0]["content"]: row for row in rows(desk, tmp_path, SnapshotForm.FEEDBACK)}
    assert {text: (row["source"], row["rating"]) for text, row in found.items()} == {
        "No way.": ("critique", 0.125),
        "Of course.": ("rating", 1.0),
        "Sadly not.": ("refinement", 1.0),
    }
    assert found["No way."]["feedback"] == [
        {"text": "Too long.", "tags": ["tone"], "span_start": 0, "span_end": 2, "fix": "Kindly."},
        {"text": "太短了。", "tags": ["tone"], "span_start": None, "span_end": None, "fix": "Kindly."},
    ]
    assert found["Sadly not."]["feedback"] == []


@pytest.mark.parametrize("form", [SnapshotForm.PREFERENCE, SnapshotForm.PROMPT_COMPLETION, SnapshotForm.FEEDBACK])
@pytest.mark.parametrize("change", ["edited", "removed"])
def test_a_critique_that_led_to_a_row_is_part_of_its_hash(
    desk: Desk, tmp_path: Path, form: SnapshotForm, change: str
) -> None:
    criticised(desk, "other", says="Too short.", better="Longer.")
    annotation = criticised(desk, better="Kinder.")
    before = content_hash(desk, tmp_path, form)
    assert content_hash(desk, tmp_path, form) == before
    if change == "edited":
        annotation.critiques[0].text = "Rude!"
    else:
        ties = select(SnapshotRowCritique).where(SnapshotRowCritique.critique_id == annotation.critiques[0].id)
        assert desk.session.scalars(ties).all()
        desk.session.delete(annotation.critiques[0])
    desk.session.flush()
    desk.session.expire_all()
    assert content_hash(desk, tmp_path, form) != before


def test_a_models_refinement_goes_with_the_critique_it_answers(desk: Desk, tmp_path: Path) -> None:
    annotation = criticised(desk)
    refine(desk, annotation)
    annotation.superseded_at = utc_now()
    desk.session.flush()
    items = [member.completion for member in annotation.item.members]
    revised = desk.judge("ann", items, Outcome.SECOND, critique=(items[0], "Rude.", 0, 3))
    # The revision said the same of it: the refinement answers it still.
    (row,) = rows(desk, tmp_path, SnapshotForm.PROMPT_COMPLETION)
    assert (row["annotation_ids"], row["critique_ids"]) == ([revised.id], [revised.critiques[0].id])
    revised.critiques[0].text = "Far too rude."
    desk.session.flush()
    with pytest.raises(NotEnoughData, match=r"1 more train refinements are needed.*critique_gone 1"):
        build_snapshot(desk.session, desk.project, SMALL, tmp_path, SnapshotForm.PROMPT_COMPLETION)


def test_splits_keep_their_rows_in_every_form(desk: Desk, tmp_path: Path) -> None:
    for split in Split:
        bad = desk.completion(desk.prompt(split.value, split), "bad")
        desk.judge("ann", [bad], ratings=[(bad, "quality", 1)], refinement=(bad, "good"), critique=(bad, "Bad."))
    for form in SnapshotForm:
        snapshot = build_snapshot(desk.session, desk.project, SMALL, tmp_path, form)
        for split, path in snapshot_paths(snapshot, tmp_path).items():
            prompts = {row["prompt"][0]["content"] for row in pq.read_table(path).to_pylist()}
            assert prompts == {split.value}
