"""A backup taken while a run is going on, restored elsewhere: the run starts again there, and the models write on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from storage.backup import restore_backup, write_backup
from storage.engine import make_engine, make_sessions, read_only
from storage.enums import RunKind, RunStatus
from storage.models import Completion, ModelVersion, Project
from storage.registry import get_version, list_versions, promote
from tests.trainer.working import GENERATION, TRAINING, judge, queue, queue_writing, run_of, work
from trainer.worker import Worker, WorkerSettings

pytestmark = [pytest.mark.timeout(280), pytest.mark.usefixtures("warm")]


def test_a_restored_store_trains_and_writes_on(
    sessions: sessionmaker[Session],
    project_id: int,
    home: Path,
    sqlite_url: str,
    make_worker: Callable[..., Worker],
    tmp_path: Path,
) -> None:
    judge(sessions, project_id)
    first = queue(sessions, project_id, home, RunKind.DPO, max_steps=2)
    worker = make_worker()
    work(worker, lambda: run_of(sessions, first).status.ended)
    with sessions.begin() as session:
        promote(session, get_version(session, session.get_one(Project, project_id), "policy-v1"), None, "better")
    second = queue(sessions, project_id, home, RunKind.DPO, max_steps=2)
    work(worker, lambda: run_of(sessions, second).status is RunStatus.RUNNING)
    made = write_backup(sqlite_url, sessions, home, tmp_path / "kept.zip")
    assert not made.missing

    elsewhere, url = tmp_path / "elsewhere", f"sqlite:///{tmp_path / 'elsewhere.db'}"
    restore_backup(url, elsewhere, tmp_path / "kept.zip")
    engine = make_engine(url)
    restored = make_sessions(engine)
    assert run_of(restored, second).status is RunStatus.RUNNING
    settings = WorkerSettings(
        url, elsewhere, kinds=TRAINING | GENERATION, poll_seconds=0.05, device="cpu", lost_after=timedelta(seconds=0.5)
    )
    other = Worker(settings, restored)
    try:
        work(other, lambda: run_of(restored, second).status.ended)
        assert run_of(restored, second).status is RunStatus.SUCCEEDED, run_of(restored, second).error
        written = queue_writing(restored, project_id, prompts=2)
        work(other, lambda: run_of(restored, written).status.ended)
        assert run_of(restored, written).status is RunStatus.SUCCEEDED, run_of(restored, written).error
    finally:
        other.close()
    with read_only(restored) as session:
        project = session.get_one(Project, project_id)
        assert {"policy-v1", "policy-v2"} <= {version.name for version in list_versions(session, project)}
        writers = session.scalars(select(Completion.model_version_id).where(Completion.run_id == written))
        names = {session.get_one(ModelVersion, one).name for one in writers if one}
        assert "policy-v1" in names, "the champion's weights came with the backup"
    engine.dispose()
