"""The worker when a run is cancelled, killed, or cannot work: it ends with a reason, or another worker resumes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from storage.engine import read_only
from storage.enums import RunKind, RunStatus
from storage.errors import Conflict
from storage.models import Project, utc_now
from storage.registry import get_version, promote
from storage.runs import get_run, metric_series, request_cancel, resume_run
from tests.trainer.working import (
    GENERATION,
    SRC,
    alive,
    child_pid,
    judge,
    queue,
    queue_writing,
    run_of,
    said,
    work,
)
from trainer.checkpoints import SEAL
from trainer.tidy import tidy
from trainer.worker import Worker, kinds_of

pytestmark = [pytest.mark.timeout(280), pytest.mark.usefixtures("warm")]


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


def test_a_time_limit_ends_a_run_that_can_go_on_and_old_checkpoints_are_tidied_away(
    sessions: sessionmaker[Session], project_id: int, home: Path, make_worker: Callable[..., Worker]
) -> None:
    judge(sessions, project_id)
    worker = make_worker()
    asked = {"max_steps": 80, "save_steps": 8, "eval_steps": 8, "early_stopping": False, "time_limit": 60}
    run_id = queue(sessions, project_id, home, RunKind.DPO, **asked)
    folder = home / "runs" / str(run_id)
    checkpoints = folder / "checkpoints"
    work(worker, lambda: any(checkpoints.glob(f"checkpoint-*/{SEAL}")))
    next(lane._live for lane in worker._lanes if lane._live is not None).limit = 1e-6
    work(worker, lambda: run_of(sessions, run_id).status.ended)
    run = run_of(sessions, run_id)
    assert (run.status, run.error) == (
        RunStatus.FAILED,
        "the time limit of 1e-06 min was reached; its last state is kept: go on with feedback-app runs resume "
        f"{run_id}",
    )
    (folder / "out.partial").mkdir()
    download = home / "tmp" / "downloads" / "1234.jsonl"
    download.parent.mkdir(parents=True)
    download.write_text("{}", "utf-8")
    now, days = utc_now(), timedelta(days=2)
    assert tidy(sessions, home, days, now) == []
    assert tidy(sessions, home, timedelta(days=30), now + days) == [download, folder / "out.partial"]
    with sessions.begin() as session:
        resume_run(session, get_run(session, run_id), None)
        with pytest.raises(Conflict, match="is queued"):
            resume_run(session, get_run(session, run_id), None)
    assert tidy(sessions, home, timedelta(0), now + days) == [], "it may go on"
    work(worker, lambda: run_of(sessions, run_id).status.ended)
    assert run_of(sessions, run_id).status is RunStatus.SUCCEEDED, run_of(sessions, run_id).error
    assert said(sessions, run_id, "resuming from checkpoint-")
    assert not checkpoints.exists(), "nothing is left to go on from"
    with sessions.begin() as session:
        get_run(session, run_id).status = RunStatus.CANCELLED
    checkpoints.mkdir()
    assert tidy(sessions, home, days, now) == []
    assert tidy(sessions, home, days, now + 2 * days) == [checkpoints]


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
        promote(session, version, None, "better")
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
        while not list(checkpoints.glob(f"checkpoint-*/{SEAL}")):
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
    with sessions.begin() as session:
        left = get_run(session, run_id)
        assert left.status is RunStatus.RUNNING  # as the dead left it
        assert left.heartbeat_at is not None
        left.heartbeat_at -= timedelta(seconds=61)  # as a minute later
    worker = make_worker()
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
        patch.setattr("trainer.lane.carry", away)
        for _ in range(3):
            worker.tick()  # pauses by itself after each failure
    work(worker, lambda: run_of(sessions, run_id).status.ended)
    assert run_of(sessions, run_id).status is RunStatus.SUCCEEDED
    with read_only(sessions) as session:
        assert [step for step, _ in metric_series(session, run_id)["loss"]] == list(range(1, 21))
