"""The one path by which runs are queued: settings, inheritance, snapshot, parent."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage import annotations, items, projects, registry, runs
from storage.configs import DpoConfig, GenerateConfig, RewardConfig
from storage.enums import ModelKind, Outcome, RunKind, RunStatus, Split
from storage.errors import Conflict, FeedbackError, Invalid, NotEnoughData
from storage.models import ModelVersion, Project, Run, Snapshot
from storage.training import preview, queue_generate, queue_refine, queue_training
from tests import factories


def judge(session: Session, project: Project, train: int = 18, test: int = 2, validation: int = 1) -> None:
    """Judged pairs on new prompts of each split."""
    user = factories.make_user(session)
    for split, count in ((Split.TRAIN, train), (Split.TEST, test), (Split.VALIDATION, validation)):
        factories.make_items(session, project, count, split=split)
    while (lease := items.lease_next(session, project, user, rng=random.Random(0))) is not None:
        annotations.submit(session, lease.assignment_id, user, factories.prefer_first(lease))


@pytest.fixture
def project(session: Session) -> Project:
    return factories.make_project(session)


def finish(session: Session, run: Run, kind: ModelKind) -> ModelVersion:
    claimed = runs.claim_run(session, "w", [run.kind])
    assert claimed is run
    runs.finish_run(session, run.id, "w", RunStatus.SUCCEEDED, result={})
    version = registry.register_version(session, run, kind, f"folder {run.id}", "0" * 64, {}, "starter")
    registry.promote(session, version, None, "better")
    return version


def test_a_training_run_stands_complete_in_the_queue(session: Session, project: Project, home: Path) -> None:
    judge(session, project)
    user = factories.make_user(session, "olga")
    run = queue_training(
        session, project, RunKind.DPO, {"beta": 0.25, "rating_margin": 2.0, "seed": 4},
        home=home, default_base_model="starter", user=user, cause="by test",
    )  # fmt: skip
    config = DpoConfig(**run.config)
    assert (config.beta, config.seed, run.seed) == (0.25, 4, 4)
    assert None not in (config.epochs, config.learning_rate, config.batch_size, config.lora_r, config.sft_weight)
    assert run.asked == {"beta": 0.25, "rating_margin": 2.0, "seed": 4}
    assert (run.status, run.requested_by_id, run.cause) == (RunStatus.QUEUED, user.id, "by test")
    snapshot = session.get_one(Snapshot, run.snapshot_id)
    assert snapshot.settings["rating_margin"] == 2.0
    assert (home / snapshot.folder / "train.parquet").is_file()
    assert registry.champion(session, project) is session.get_one(ModelVersion, run.parent_version_id)


def test_what_was_set_for_the_parent_is_inherited(session: Session, project: Project, home: Path) -> None:
    judge(session, project)

    def queue(kind: RunKind, **values: object) -> Run:
        return queue_training(session, project, kind, values, home=home, default_base_model="starter")

    first = queue(RunKind.DPO, beta=0.25, max_steps=3, lora_r=8)
    parent = finish(session, first, ModelKind.POLICY)
    second = queue(RunKind.DPO, lora_r=4)
    assert second.parent_version_id == parent.id
    assert second.asked == {"beta": 0.25, "lora_r": 4}, "a step budget is never inherited"
    assert (second.config["beta"], second.config["lora_r"], second.config["max_steps"]) == (0.25, 4, None)
    reward = queue(RunKind.REWARD)
    assert (reward.asked, reward.parent_version_id) == ({}, None), "a policy is no reward model's parent"
    assert RewardConfig(**reward.config).center_rewards_coefficient == 0.01


def test_a_refine_run_is_as_the_project_says_unless_it_is_told(session: Session, project: Project) -> None:
    factories.make_item(session, project)
    user = factories.make_user(session)
    lease = factories.make_lease(session, project, user)
    said = annotations.CritiqueInput(lease.completions[0][0], "Too long.")
    annotations.submit(session, lease.assignment_id, user, annotations.Submission(critiques=[said]))
    own = {"refiner": "endpoint", "endpoint_model": "big", "samples": 8, "temperature": 0.7}
    projects.update_project(session, project, annotation_settings={"refining": own})

    def queue(**values: object) -> dict[str, object]:
        config = queue_refine(session, project, values, default_base_model="starter").config
        return {name: config[name] for name in own}

    assert queue() == own
    assert queue(samples=2, endpoint_model="small") == own | {"samples": 2, "endpoint_model": "small"}
    assert queue(refiner="champion") == own | {"refiner": "champion", "endpoint_model": None}


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (RunKind.DPO, {"bata": 1}, "unknown setting 'bata'; choose from: .*beta"),
        (RunKind.REWARD, {"beta": 0.1}, "unknown setting 'beta'"),
        (RunKind.DPO, {"beta": -1}, "setting 'beta'"),
        (RunKind.DPO, {"learning_rate": "fast"}, "setting 'learning_rate'"),
        (RunKind.DPO, {"rating_margin": 0}, "setting 'rating_margin'"),
        (RunKind.GENERATE, {}, "trains nothing"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    session: Session, project: Project, home: Path, kind: RunKind, values: dict[str, object], message: str
) -> None:
    judge(session, project)
    with pytest.raises(Invalid, match=message):
        queue_training(session, project, kind, values, home=home, default_base_model="starter")
    assert list(home.iterdir()) == []
    assert session.scalar(select(func.count()).select_from(Run)) == 0


def test_too_little_feedback_names_the_missing_number(session: Session, project: Project, home: Path) -> None:
    judge(session, project, train=10)
    with pytest.raises(NotEnoughData, match="6 more"):
        queue_training(session, project, RunKind.DPO, {}, home=home, default_base_model="starter")
    found = preview(session, project)
    assert (found.annotations, found.pairs[Split.TRAIN]) == (13, 10)
    assert "6 more" in (found.missing or "")
    queue_training(session, project, RunKind.DPO, {"min_train_pairs": 10}, home=home, default_base_model="starter")


def test_the_preview_says_what_the_snapshot_will_hold(session: Session, project: Project, home: Path) -> None:
    judge(session, project)
    user = factories.make_user(session)
    factories.make_item(session, project)
    lease = factories.make_lease(session, project, user)
    tie = annotations.PreferenceInput(lease.completions[0][0], lease.completions[1][0], Outcome.TIE)
    annotations.submit(session, lease.assignment_id, user, annotations.Submission(preference=tie))
    found = preview(session, project)
    assert found.missing is None
    run = queue_training(session, project, RunKind.REWARD, {}, home=home, default_base_model="starter")
    report = session.get_one(Snapshot, run.snapshot_id).report
    assert {split.value: n for split, n in found.pairs.items()} == {
        name: split["pairs"] for name, split in report["splits"].items()
    }
    assert (found.used, found.left_out) == (report["used"], report["left_out"])
    assert sum(found.left_out.values()) == 1


def test_the_same_feedback_is_frozen_once(session: Session, project: Project, home: Path) -> None:
    judge(session, project)
    made = [
        queue_training(session, project, kind, {}, home=home, default_base_model="starter")
        for kind in (RunKind.REWARD, RunKind.DPO)
    ]
    assert made[0].snapshot_id == made[1].snapshot_id


def test_a_cause_is_served_once(session: Session, project: Project, home: Path) -> None:
    judge(session, project)
    for outcome in ("queued", "refused"):
        try:
            queue_training(session, project, RunKind.DPO, {}, home=home, default_base_model="starter", cause="c")
            assert outcome == "queued"
        except Conflict:
            assert outcome == "refused"


def test_generation_runs_on_the_champion(session: Session, project: Project) -> None:
    with pytest.raises(NotEnoughData, match="no prompts"):
        queue_generate(session, project, {}, default_base_model="starter")
    factories.make_prompt(session, project)
    run = queue_generate(session, project, {"prompts": 3}, default_base_model="starter", cause="fill 1")
    assert session.get_one(ModelVersion, run.parent_version_id).name == "policy-v0"
    assert GenerateConfig(**run.config).prompts == 3
    trained = factories.make_version(session, project)
    registry.promote(session, trained, None, "better")
    assert queue_generate(session, project, {}, default_base_model="starter").parent_version_id == trained.id
    for values, cause in (({"prompt": 3}, None), ({}, "fill 1")):
        with pytest.raises(FeedbackError):
            queue_generate(session, project, values, default_base_model="starter", cause=cause)
