"""Waiting for a run from the command line: its progress on stderr, and a worker of one's own when nobody takes it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select

from feedback_app.supervisor import end, spawn
from storage.engine import read_only
from storage.enums import RunKind, RunStatus
from storage.models import Run, utc_now
from storage.runs import get_run, metric_series

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

POLL_SECONDS = 0.3
PATIENCE_SECONDS = 2.0  # a live worker looks for queued runs every 0.3 seconds, and claims one in much less
FRESH = timedelta(seconds=60)  # a heartbeat younger than this belongs to a live worker
SHOWN = ("loss", "eval_loss", "accuracy", "eval_accuracy")
Say = Callable[[str], None]


def wait_for_run(sessions: sessionmaker[Session], run_id: int, say: Say, look_after: Callable[[Run], None]) -> Run:
    """Wait until the run has ended and return it; tells its progress through `say`.

    `look_after` is called with the run as it stands, a few times a second, to see to whoever does the work.
    """
    told = ""
    while True:
        with read_only(sessions) as session:
            run = get_run(session, run_id)
            line = _progress_line(session, run)
        if run.status.ended:
            return run
        if line != told:
            say(line)
            told = line
        look_after(run)
        time.sleep(POLL_SECONDS)


@contextmanager
def own_worker(sessions: sessionmaker[Session], say: Say, kinds: str, logs: Path) -> Iterator[Callable[[Run], None]]:
    """A `look_after` that starts a worker when no other takes the run within seconds; it ends with the block.

    A live worker that is busy with other work of the same sort takes ours next: a second one would only crowd it.
    """
    process: subprocess.Popen[bytes] | None = None
    first_seen = time.monotonic()
    logs.mkdir(parents=True, exist_ok=True)

    def look_after(run: Run) -> None:
        nonlocal process
        alone = process is None or process.poll() is not None
        waited = time.monotonic() - first_seen > PATIENCE_SECONDS
        if run.status is RunStatus.QUEUED and alone and waited and not _someone_is_busy(sessions, run):
            say("no worker takes it (start one with: feedback-app worker); doing it here")
            process = spawn(["worker", "--kinds", kinds], logs / "worker-inline.log", {})

    try:
        yield look_after
    finally:
        if process is not None:
            end(process)


def _someone_is_busy(sessions: sessionmaker[Session], run: Run) -> bool:
    with read_only(sessions) as session:
        recent = utc_now() - FRESH
        running = session.scalars(select(Run).where(Run.status == RunStatus.RUNNING, Run.heartbeat_at > recent))
        return any(_lane(other.kind) == _lane(run.kind) for other in running)


def _lane(kind: RunKind) -> str:
    """Runs of one lane wait for each other; see `trainer.worker.GROUPS`."""
    if kind in (RunKind.REFINE, RunKind.CYCLE):
        return kind.value
    return "train" if kind.trains or kind is RunKind.EVALUATE else "generate"


def _progress_line(session: Session, run: Run) -> str:
    if run.step is None:
        return f"run {run.id}: {run.status}"
    series = metric_series(session, run.id, max_points=2)
    newest = {name: points[-1][1] for name, points in series.items() if name in SHOWN and points}
    figures = "  ".join(f"{name} {value:.4f}" for name, value in newest.items() if value is not None)
    return f"run {run.id}: step {run.step}/{run.total_steps or '?'}  {figures}".rstrip()
