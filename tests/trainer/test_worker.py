"""The worker with a real store and real processes: from a queued run to completions, versions, or a reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from storage.engine import make_engine, make_sessions, read_only
from storage.enums import ItemStatus, ModelKind, RunKind, RunStatus, Split, VersionStatus
from storage.items import queue_counts
from storage.models import Completion, Item, ModelVersion, Project, Run
from storage.registry import champion, get_version, list_versions, promote
from storage.runs import get_run, log_lines, metric_series, request_cancel
from storage.training import queue_generate, queue_training
from tests.factories import make_annotation, make_item, make_project, make_prompt, make_user
from trainer.launch import warm_up
from trainer.worker import Worker, WorkerSettings, kinds_of

pytestmark = pytest.mark.timeout(280)

ASKED: dict[str, Any] = {"batch_size": 4, "lora_r": 4, "threads": 1, "max_length": 128}
TRAINING = kinds_of(["train"])
GENERATION = kinds_of(["generate"])
SRC = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    warm_up()


@pytest.fixture
def sessions(sqlite_url: str) -> Iterator[sessionmaker[Session]]:
    engine = make_engine(sqlite_url)
    yield make_sessions(engine)
    engine.dispose()


@pytest.fixture
def project_id(sessions: sessionmaker[Session], tiny_base: Path) -> int:
    """A project on the tiny model with prompts, and no automatic filling."""
    with sessions.begin() as session:
        project = make_project(
            session,
            "care",
            base_model=str(tiny_base),
            queue_target=0,
            sampling={"max_new_tokens": 12, "temperature": 1.0},
        )
        for split in Split:
            for _ in range(3):
                make_prompt(session, project, split=split)
        return project.id


def judge(sessions: sessionmaker[Session], project_id: int, train: int = 18) -> None:
    """Comparisons of two completions on prompts of every split."""
    with sessions.begin() as session:
        project, user = session.get_one(Project, project_id), make_user(session)
        for split, count in ((Split.TRAIN, train), (Split.VALIDATION, 4), (Split.TEST, 4)):
            for _ in range(count):
                make_item(session, project, prompt=make_prompt(session, project, split=split))
                make_annotation(session, project, user)


@pytest.fixture
def make_worker(sessions: sessionmaker[Session], sqlite_url: str, home: Path) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(kinds: frozenset[RunKind] = TRAINING, **fields: Any) -> Worker:
        made.append(
            Worker(WorkerSettings(sqlite_url, home, kinds=kinds, poll_seconds=0.05, device="cpu", **fields), sessions)
        )
        return made[-1]

    yield make
    for worker in made:
        worker.close()


def work(worker: Worker, until: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "the worker did not get there"
        worker.tick()
        time.sleep(0.02)


def run_of(sessions: sessionmaker[Session], run_id: int) -> Run:
    with read_only(sessions) as session:
        return get_run(session, run_id)


def queue(sessions: sessionmaker[Session], project_id: int, home: Path, kind: RunKind, **values: Any) -> int:
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        run = queue_training(session, project, kind, ASKED | values, home=home, default_base_model="starter")
        return run.id


def queue_writing(sessions: sessionmaker[Session], project_id: int, **values: Any) -> int:
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        return queue_generate(session, project, {"threads": 1} | values, default_base_model="starter").id


def said(sessions: sessionmaker[Session], run_id: int, text: str) -> bool:
    with read_only(sessions) as session:
        return any(text in line for line in log_lines(session, run_id))


def child_pid(worker: Worker) -> int:
    pid = next(lane._live.child.pid for lane in worker._lanes if lane._live is not None)
    assert pid is not None
    return pid


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


# --- the way it should go ---


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
            assert completion.sampling == {"max_new_tokens": 12, "temperature": 1.0, "top_p": 1.0}


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


# --- the ways it can end otherwise ---


def test_cancel_ends_a_running_run(
    sessions: sessionmaker[Session], project_id: int, home: Path, make_worker: Callable[..., Worker]
) -> None:
    judge(sessions, project_id)
    worker = make_worker()
    run_id = queue(sessions, project_id, home, RunKind.DPO, epochs=100, early_stopping=False)
    work(worker, lambda: (run_of(sessions, run_id).step or 0) >= 1)
    with sessions.begin() as session:
        request_cancel(session, get_run(session, run_id), None)
    work(worker, lambda: run_of(sessions, run_id).status.ended, seconds=30)
    run = run_of(sessions, run_id)
    assert (run.status, run.error) == (RunStatus.CANCELLED, "cancelled")
    assert list((home / "runs" / str(run_id) / "checkpoints").glob("checkpoint-*"))
    assert not (home / "artifacts" / "versions").exists()


def test_a_killed_process_fails_its_run_with_the_reason_and_nothing_else(
    sessions: sessionmaker[Session], project_id: int, home: Path, make_worker: Callable[..., Worker]
) -> None:
    judge(sessions, project_id)
    worker = make_worker()
    run_id = queue(sessions, project_id, home, RunKind.DPO, epochs=100, early_stopping=False)
    work(worker, lambda: (run_of(sessions, run_id).step or 0) >= 1)
    os.kill(child_pid(worker), signal.SIGKILL)
    work(worker, lambda: run_of(sessions, run_id).status.ended, seconds=30)
    run = run_of(sessions, run_id)
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert "was killed, most likely because memory ran out; lower batch_size" in run.error
    again = queue(sessions, project_id, home, RunKind.DPO, max_steps=1)
    work(worker, lambda: run_of(sessions, again).status.ended)
    assert run_of(sessions, again).status is RunStatus.SUCCEEDED


def test_a_deleted_snapshot_file_is_one_line(
    sessions: sessionmaker[Session], project_id: int, home: Path, make_worker: Callable[..., Worker]
) -> None:
    judge(sessions, project_id)
    run_id = queue(sessions, project_id, home, RunKind.DPO)
    next(home.glob("artifacts/snapshots/*/train.parquet")).unlink()
    work(make_worker(), lambda: run_of(sessions, run_id).status.ended)
    run = run_of(sessions, run_id)
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert "train.parquet is missing; queue the training again" in run.error


def test_a_changed_adapter_never_writes(
    sessions: sessionmaker[Session], project_id: int, home: Path, make_worker: Callable[..., Worker]
) -> None:
    judge(sessions, project_id)
    worker = make_worker(kinds_of(["train", "generate"]))
    training = queue(sessions, project_id, home, RunKind.DPO, max_steps=1)
    work(worker, lambda: run_of(sessions, training).status.ended)
    with sessions.begin() as session:
        version = get_version(session, session.get_one(Project, project_id), "policy-v1")
        promote(session, version, None)
    weights = home / str(version.folder) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x42\x42\x42\x42")
    run_id = queue_writing(sessions, project_id, prompts=2)
    work(worker, lambda: run_of(sessions, run_id).status.ended)
    run = run_of(sessions, run_id)
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert "adapter of policy-v1 has been changed or damaged" in run.error


def test_a_model_that_cannot_be_loaded_fails_the_run_in_one_line(
    sessions: sessionmaker[Session], project_id: int, make_worker: Callable[..., Worker]
) -> None:
    with sessions.begin() as session:
        session.get_one(Project, project_id).base_model = "/no/such/model"
    run_id = queue_writing(sessions, project_id, prompts=2)
    work(make_worker(GENERATION), lambda: run_of(sessions, run_id).status.ended)
    run = run_of(sessions, run_id)
    assert (
        run.error
        == "base model /no/such/model: no such folder; give a local folder, a hub id like org/name, or 'starter'"
    )


def test_a_worker_that_stops_gives_its_run_back(
    sessions: sessionmaker[Session], project_id: int, home: Path, make_worker: Callable[..., Worker]
) -> None:
    judge(sessions, project_id)
    worker = make_worker()
    run_id = queue(
        sessions, project_id, home, RunKind.DPO, max_steps=60, early_stopping=False, save_steps=2, eval_steps=2
    )
    checkpoints = home / "runs" / str(run_id) / "checkpoints"
    work(worker, lambda: len(list(checkpoints.glob("checkpoint-*"))) >= 2)
    pid = child_pid(worker)
    worker.close()
    assert not alive(pid)
    run = run_of(sessions, run_id)
    assert (run.status, run.worker, run.attempts) == (RunStatus.QUEUED, None, 0)
    work(make_worker(), lambda: run_of(sessions, run_id).status.ended)
    assert run_of(sessions, run_id).status is RunStatus.SUCCEEDED, run_of(sessions, run_id).error
    assert said(sessions, run_id, "resuming from checkpoint-")
    with read_only(sessions) as session:
        assert [step for step, _ in metric_series(session, run_id)["loss"]] == list(range(1, 61))


def test_a_killed_worker_takes_its_process_with_it_and_another_resumes(
    sessions: sessionmaker[Session], project_id: int, home: Path, sqlite_url: str, make_worker: Callable[..., Worker]
) -> None:
    judge(sessions, project_id)
    run_id = queue(
        sessions, project_id, home, RunKind.DPO, max_steps=2000, early_stopping=False, save_steps=50, eval_steps=50
    )
    program = (
        "from pathlib import Path; from trainer.worker import *\n"
        f"run_worker(WorkerSettings({sqlite_url!r}, Path({str(home)!r}), kinds=kinds_of(['train']), device='cpu'))"
    )
    doomed = subprocess.Popen([sys.executable, "-c", program], cwd=SRC, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 120
        checkpoints = home / "runs" / str(run_id) / "checkpoints"
        while not list(checkpoints.glob("checkpoint-*/trainer_state.json")):
            assert doomed.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        family = [child.pid for child in psutil.Process(doomed.pid).children(recursive=True)]
    finally:
        doomed.kill()
        doomed.wait()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in family):
        assert time.monotonic() < deadline, "the training process outlived its worker"
        time.sleep(0.05)
    assert run_of(sessions, run_id).status is RunStatus.RUNNING  # as the dead left it
    worker = make_worker(lost_after=timedelta(seconds=6))
    work(worker, lambda: run_of(sessions, run_id).attempts == 2)
    work(worker, lambda: said(sessions, run_id, "resuming from checkpoint-"))


def test_a_store_that_is_away_for_a_while_ends_nothing(
    sessions: sessionmaker[Session], project_id: int, home: Path, make_worker: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    judge(sessions, project_id)
    worker = make_worker()
    run_id = queue(sessions, project_id, home, RunKind.DPO, max_steps=20, early_stopping=False)
    work(worker, lambda: (run_of(sessions, run_id).step or 0) >= 1)

    def away(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("UPDATE", {}, Exception("server closed the connection unexpectedly"))

    with monkeypatch.context() as patch:
        patch.setattr("trainer.worker.carry", away)
        for _ in range(3):
            worker.tick()  # pauses by itself after each failure
    work(worker, lambda: run_of(sessions, run_id).status.ended)
    assert run_of(sessions, run_id).status is RunStatus.SUCCEEDED
    with read_only(sessions) as session:
        assert [step for step, _ in metric_series(session, run_id)["loss"]] == list(range(1, 21))
