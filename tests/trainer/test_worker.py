"""The worker with a real store and real processes: from a queued run to completions and versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from storage.engine import read_only
from storage.enums import ItemStatus, ModelKind, RunKind, RunStatus, VersionStatus
from storage.items import queue_counts
from storage.models import Completion, Item, ModelVersion, Project
from storage.registry import champion, get_version, list_versions, promote
from storage.runs import log_lines, metric_series
from tests.trainer.working import (
    GENERATION,
    judge,
    queue,
    queue_writing,
    run_of,
    work,
)
from trainer.worker import Worker, kinds_of

pytestmark = [pytest.mark.timeout(280), pytest.mark.usefixtures("warm")]


def test_generation_fills_the_queue_with_distinct_completions(
    sessions: sessionmaker[Session], project_id: int, make_worker: Callable[..., Worker]
) -> None:
    run_id = queue_writing(sessions, project_id, prompts=5)
    work(make_worker(GENERATION), lambda: run_of(sessions, run_id).status.ended)
    run = run_of(sessions, run_id)
    assert run.status is RunStatus.SUCCEEDED, run.error
    assert run.result is not None
    assert run.result["items"] == 5
    with read_only(sessions) as session:
        project = session.get_one(Project, project_id)
        assert queue_counts(session, project).unjudged == 5
        written = session.scalars(select(Completion)).all()
        assert len(written) == 10
        base = champion(session, project)
        assert base is not None
        for completion in written:
            assert (completion.model_version_id, completion.run_id) == (base.id, run_id)
            assert completion.token_count
            assert completion.mean_logprob is not None
            assert completion.mean_logprob < 0
            assert completion.latency_ms
            assert completion.sampling == {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.9}


@pytest.mark.parametrize("kind", [RunKind.REWARD, RunKind.DPO])
def test_training_leaves_a_candidate_with_its_lineage(
    sessions: sessionmaker[Session], project_id: int, home: Path, make_worker: Callable[..., Worker], kind: RunKind
) -> None:
    judge(sessions, project_id)
    run_id = queue(sessions, project_id, home, kind, max_steps=4, eval_steps=2)
    work(make_worker(), lambda: run_of(sessions, run_id).status.ended)
    run = run_of(sessions, run_id)
    assert run.status is RunStatus.SUCCEEDED, run.error
    assert run.step == run.total_steps == 4
    assert run.environment is not None
    assert run.environment["packages"]["torch"]
    with read_only(sessions) as session:
        series = metric_series(session, run_id)
        assert [step for step, _ in series["loss"]] == [1, 2, 3, 4]
        assert [step for step, _ in series["eval_loss"]] == [2, 4]
        version = session.scalars(select(ModelVersion).where(ModelVersion.run_id == run_id)).one()
        assert version.status is VersionStatus.CANDIDATE
        assert version.name == ("reward-v1" if kind is RunKind.REWARD else "policy-v1")
        assert version.snapshot_id == run.snapshot_id
        assert version.folder is not None
        assert (home / version.folder / "adapter_model.safetensors").exists()
        assert version.metrics["test_pairs"] == 4
        assert any("registered" in line for line in log_lines(session, run_id))


def test_a_promoted_policy_writes_the_next_completions(
    sessions: sessionmaker[Session], project_id: int, home: Path, make_worker: Callable[..., Worker]
) -> None:
    judge(sessions, project_id)
    worker = make_worker(kinds_of(["train", "generate"]))
    training = queue(sessions, project_id, home, RunKind.DPO, max_steps=2, learning_rate=0.05)
    work(worker, lambda: run_of(sessions, training).status.ended)
    before = queue_writing(sessions, project_id, prompts=3)
    work(worker, lambda: run_of(sessions, before).status.ended)
    queued_before = queue_writing(sessions, project_id, prompts=3)  # queued with the old champion, starts with the new
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        promote(session, get_version(session, project, "policy-v1"), None, "better")
    work(worker, lambda: run_of(sessions, queued_before).status.ended)
    assert run_of(sessions, queued_before).status is RunStatus.SUCCEEDED, run_of(sessions, queued_before).error
    with read_only(sessions) as session:
        project = session.get_one(Project, project_id)
        new = champion(session, project)
        assert new is not None
        assert new.name == "policy-v1"
        authors = set(session.scalars(select(Completion.model_version_id).where(Completion.run_id == queued_before)))
        assert authors == {new.id}
        stale = session.scalars(select(Item).where(Item.status == ItemStatus.STALE)).all()
        assert len(stale) == 3


def test_the_champion_and_a_newer_candidate_are_mixed(
    sessions: sessionmaker[Session], project_id: int, home: Path, make_worker: Callable[..., Worker]
) -> None:
    judge(sessions, project_id)
    worker = make_worker(kinds_of(["train", "generate"]))
    training = queue(sessions, project_id, home, RunKind.DPO, max_steps=1)
    work(worker, lambda: run_of(sessions, training).status.ended)
    run_id = queue_writing(sessions, project_id, prompts=4, candidate_share=1.0)
    work(worker, lambda: run_of(sessions, run_id).status.ended)
    with read_only(sessions) as session:
        names = {v.id: v.name for v in list_versions(session, session.get_one(Project, project_id))}
        authors = [
            names[c.model_version_id or 0]
            for c in session.scalars(select(Completion).where(Completion.run_id == run_id))
        ]
    assert sorted(set(authors)) == ["policy-v0", "policy-v1"]
    assert authors.count("policy-v0") == authors.count("policy-v1")


def test_one_training_run_a_project_at_a_time(
    sessions: sessionmaker[Session], project_id: int, home: Path, make_worker: Callable[..., Worker]
) -> None:
    judge(sessions, project_id)
    runs = [queue(sessions, project_id, home, RunKind.DPO, max_steps=3, seed=seed) for seed in (1, 2)]
    workers = [make_worker(), make_worker()]
    most = 0

    def both() -> bool:
        nonlocal most
        workers[1].tick()
        states = [run_of(sessions, run_id).status for run_id in runs]
        most = max(most, states.count(RunStatus.RUNNING))
        return all(state.ended for state in states)

    work(workers[0], both)
    assert most == 1
    assert [run_of(sessions, run_id).status for run_id in runs] == [RunStatus.SUCCEEDED] * 2
    with read_only(sessions) as session:
        project = session.get_one(Project, project_id)
        names = [v.name for v in list_versions(session, project) if v.kind is ModelKind.POLICY]
    assert names == ["policy-v2", "policy-v1", "policy-v0"]
