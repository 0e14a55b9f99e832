"""Reward models score what is written, and the store keeps it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from transformers import AutoModelForSequenceClassification

from storage.engine import read_only
from storage.enums import ModelKind, RunKind, RunStatus
from storage.errors import ModelUnusable
from storage.models import Completion, CompletionScore, ModelVersion, Project
from storage.registry import get_version
from tests.trainer.working import judge, queue, queue_writing, run_of, said, work
from trainer.scoring import Opinion, score_completions
from trainer.worker import Worker, kinds_of


@pytest.fixture(scope="module")
def rewards(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two reward adapters that think differently."""
    made = {}
    for seed, name in enumerate(("reward-v1", "reward-v2")):
        torch.manual_seed(seed)
        base = AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=1)
        model = get_peft_model(
            base, LoraConfig(task_type="SEQ_CLS", r=4, target_modules="all-linear", init_lora_weights=False)
        )
        made[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(str(made[name]))
    return made


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def values(opinions: list[Opinion | None]) -> list[float]:
    return [one.value for one in opinions if one]


def test_each_version_scores_as_it_would_alone(tiny_base: Path, rewards: dict[str, Path]) -> None:
    written = [(ask("late parcel"), "sorry"), (ask("refund"), "thanks, the order comes today"), (ask("lamp"), "blue")]
    found = score_completions(str(tiny_base), rewards, written, batch_size=2, device="cpu")
    for name, folder in rewards.items():
        alone = score_completions(str(tiny_base), {name: folder}, written, batch_size=1, device="cpu")
        assert values(alone[name]) == pytest.approx(values(found[name]), abs=1e-4), "padding and company change nothing"
    assert values(found["reward-v1"]) != pytest.approx(values(found["reward-v2"]), abs=1e-2)
    assert len({round(value, 4) for value in values(found["reward-v1"])}) == 3


def test_long_prompts_are_shortened_and_what_never_fits_has_no_score(tiny_base: Path, rewards: dict[str, Path]) -> None:
    written = [(ask("parcel " * 2000), "sorry"), (ask("parcel"), "late " * 2000)]
    long, never = score_completions(str(tiny_base), rewards, written, device="cpu")["reward-v1"]
    assert long is not None
    assert never is None


def test_an_adapter_that_is_missing_is_one_line(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="adapter_model"):
        score_completions(str(tiny_base), {"reward-v1": tmp_path}, [(ask("a"), "b")], device="cpu")


@pytest.mark.timeout(280)
@pytest.mark.usefixtures("warm")
def test_a_reward_model_scores_what_is_written_next(
    sessions: sessionmaker[Session], project_id: int, home: Path, make_worker: Callable[..., Worker]
) -> None:
    judge(sessions, project_id)
    worker = make_worker(kinds_of(["train", "generate"]))
    training = queue(sessions, project_id, home, RunKind.REWARD, max_steps=2)
    work(worker, lambda: run_of(sessions, training).status.ended)
    writing = queue_writing(sessions, project_id, prompts=3)
    work(worker, lambda: run_of(sessions, writing).status.ended)
    assert run_of(sessions, writing).status is RunStatus.SUCCEEDED, run_of(sessions, writing).error
    with read_only(sessions) as session:
        reward = session.scalars(select(ModelVersion).where(ModelVersion.kind == ModelKind.REWARD)).one()
        scored = session.execute(
            select(CompletionScore.completion_id, CompletionScore.version_id, CompletionScore.spread)
        ).all()
        written = set(session.scalars(select(Completion.id).where(Completion.run_id == writing)))
        folder = home / (get_version(session, session.get_one(Project, project_id), "reward-v1").folder or "")
    assert {row[0] for row in scored} == written
    assert {row[1] for row in scored} == {reward.id}
    assert all(row[2] > 0 for row in scored), "its heads are an ensemble"
    (folder / "adapter_model.safetensors").unlink()
    again = queue_writing(sessions, project_id, prompts=2)
    work(worker, lambda: run_of(sessions, again).status.ended)
    assert run_of(sessions, again).status is RunStatus.SUCCEEDED, "a broken reward model costs no completion"
    assert said(sessions, again, "reward-v1 scores nothing")
