"""What is chosen for what was collected, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from storage import annotations
from storage.auto import Collected, choose, collected, queue_auto
from storage.enums import ItemKind, PairSource, RunKind, RunStatus, Split
from storage.errors import NotEnoughData
from storage.runs import claim_run, finish_run
from tests import factories

COMPARED = {PairSource.COMPARISON: 40}
MOSTLY_REFINED = {PairSource.COMPARISON: 10, PairSource.REFINEMENT: 8, PairSource.UNREVIEWED_REFINEMENT: 8}


@pytest.mark.parametrize(
    ("found", "kind", "settings", "words"),
    [
        (Collected(), None, {}, ["too few", "At least 16"]),
        (Collected(COMPARED), RunKind.DPO, {}, ["40 training pairs", "40 comparisons", "beta"]),
        (Collected({PairSource.COMPARISON: 900}), RunKind.DPO, {}, ["900"]),
        (Collected(COMPARED, waiting=30), RunKind.REFINE, {}, ["wait for a refinement: 30"]),
        (Collected(COMPARED, waiting=3), RunKind.DPO, {}, ["40"]),
        (Collected({PairSource.COMPARISON: 2}, waiting=1), RunKind.REFINE, {}, ["wait for a refinement: 1."]),
        (Collected(COMPARED, tried=30), RunKind.DPO, {}, ["40"]),
        (Collected(MOSTLY_REFINED), RunKind.DPO, {}, ["26", "16 refinements"]),
        (
            Collected(COMPARED, rules=2, unwritten=1),
            RunKind.GENERATE,
            {"for_rules": True, "prompts": 200},
            ["since they changed: 1"],
        ),
        (Collected(COMPARED, rules=2), RunKind.DPO, {}, ["Rules in training: 2.", "anchors out of their scope"]),
        (Collected(refinements=20), RunKind.SFT, {}, ["pairs: 0", "20 refinements"]),
        (Collected(good=10, bad=9), RunKind.KTO, {}, ["10 completions", "9 bad"]),
        (Collected(good=19), None, {}, ["19 rated completions"]),
        (Collected({PairSource.COMPARISON: 1}, good=10, bad=9), RunKind.KTO, {}, ["pairs: 1,"]),
        (Collected(tried=40, criticised=40), RunKind.CONDITIONAL, {}, ["could not be refined: 40"]),
    ],
)
def test_the_first_rule_that_holds_chooses(
    found: Collected, kind: RunKind | None, settings: dict[str, Any], words: list[str]
) -> None:
    choice = choose(found)
    assert (choice.kind, choice.settings) == (kind, settings)
    for word in words:
        assert word in choice.because
    assert choice.because.endswith(".")
    assert "\n" not in choice.because


def test_what_was_collected_is_counted_and_queued(session: Session, home: Path) -> None:
    project = factories.make_project(session)
    user = factories.make_user(session)
    options: dict[str, Any] = {"home": home, "default_base_model": "starter", "user": user}
    assert collected(session, project) == Collected()
    with pytest.raises(NotEnoughData, match="too few"):
        queue_auto(session, project, {}, **options)
    criterion = project.criteria[0]
    for place in range(20):
        item = factories.make_item(session, project, kind=ItemKind.SINGLE, split=Split.TRAIN)
        (completion,) = [member.completion_id for member in item.members]
        said = annotations.Submission(
            ratings=[annotations.RatingInput(completion, criterion.id, 5 if place % 2 else 1)],
            critiques=[annotations.CritiqueInput(completion, f"Too vague {place}.", None, None, [])]
            if place < 3
            else [],
            seconds_spent=1.0,
        )
        factories.make_annotation(session, project, user, said)
    found = collected(session, project)
    assert (found.good, found.bad, found.waiting, found.tried) == (10, 10, 3, 0)
    run, choice = queue_auto(session, project, {"samples": "2"}, **options)
    assert run.kind is choice.kind is RunKind.REFINE
    assert run.config["samples"] == 2
    with pytest.raises(NotEnoughData, match="being refined"):
        queue_auto(session, project, {}, **options)
    claim_run(session, "w", [RunKind.REFINE])
    finish_run(session, run.id, "w", RunStatus.SUCCEEDED, result={})
    assert collected(session, project).tried == 3, "they were tried in vain: they do not hold up training"
    run, choice = queue_auto(session, project, {"min_test_pairs": 0, "epochs": "1"}, **options)
    assert run.kind is choice.kind is RunKind.KTO
    assert run.config["epochs"] == 1
