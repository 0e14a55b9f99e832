"""Runs: queued -> running -> succeeded, failed or cancelled; a run whose worker is lost goes back to the queue.

A worker holds a run while `runs.worker` is its name and the status is running; every change that a worker makes says
so in its WHERE, so that a worker that was given up for dead cannot overwrite what its successor writes.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, exists, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from storage import audit
from storage.configs import Settings
from storage.enums import RunKind, RunStatus
from storage.errors import Conflict, NotFound
from storage.models import JsonObject, ModelVersion, Project, Run, Snapshot, User, utc_now
from storage.run_events import MetricPoint, add_log, add_metrics, log_lines, metric_series
from storage.webhooks import WebhookEvent, announce

__all__ = [
    "Beat",
    "MetricPoint",
    "add_log",
    "add_metrics",
    "can_go_on",
    "claim_run",
    "end_run",
    "finish_run",
    "get_run",
    "heartbeat",
    "list_runs",
    "log_lines",
    "metric_series",
    "queue_run",
    "release_run",
    "request_cancel",
    "requeue_lost",
    "resume_run",
]

_BESIDE = [kind for kind in RunKind if not kind.trains]  # may run beside a training of their project


@dataclass(frozen=True)
class Beat:
    """What a worker learns from its heartbeat: stop the run (`cancel`), or drop it, it is another's now (`lost`)."""

    cancel: bool
    lost: bool


def queue_run(
    session: Session,
    project: Project,
    kind: RunKind,
    *,
    asked: dict[str, Any],
    config: Settings,
    snapshot: Snapshot | None = None,
    parent_version: ModelVersion | None = None,
    cause: str | None = None,
    user: User | None = None,
    seed: int = 0,
) -> Run:
    """Put a run into the queue. `cause` is for automation: raises `Conflict` when the project has a run for it."""
    run = Run(
        project_id=project.id,
        kind=kind,
        status=RunStatus.QUEUED,
        asked=asked,
        config=config.model_dump(mode="json"),
        snapshot_id=snapshot.id if snapshot else None,
        parent_version_id=parent_version.id if parent_version else None,
        cause=cause,
        requested_by_id=user.id if user else None,
        seed=seed,
    )
    try:
        with session.begin_nested():
            session.add(run)
    except IntegrityError as error:
        if cause is None:
            raise
        raise Conflict(f"a run for this cause is there already: {cause}") from error
    audit.record(session, user, "run.queue", f"run {run.id}", project, kind=kind.value, cause=cause)
    return run


def claim_run(session: Session, worker: str, kinds: Collection[RunKind], now: datetime | None = None) -> Run | None:
    """Give the oldest queued run of `kinds` to `worker`, to nobody else; None when there is none to give.

    A project with a training run under way gets no second one. A run that was claimed before keeps its first
    `started_at`; `attempts` counts the claims.
    """
    moment = now or utc_now()
    passed_over: set[int] = set()
    while True:
        run = session.scalar(_next_in_queue(kinds, passed_over))
        if run is None:
            return None
        try:
            with session.begin_nested():
                run.status, run.worker = RunStatus.RUNNING, worker
                run.heartbeat_at, run.started_at = moment, run.started_at or moment
                run.attempts += 1
                session.flush()
        except IntegrityError:
            # Another worker began to train this project between our reading and writing (PostgreSQL only).
            passed_over.add(run.project_id)
        else:
            return run


def _next_in_queue(kinds: Collection[RunKind], passed_over: set[int]) -> Select[Run]:
    other = aliased(Run)
    training_now = exists().where(
        other.project_id == Run.project_id, other.status == RunStatus.RUNNING, other.kind.not_in(_BESIDE)
    )
    return (
        select(Run)
        .where(
            Run.status == RunStatus.QUEUED,
            Run.kind.in_(list(kinds)),
            Run.kind.in_(_BESIDE) | (~training_now & Run.project_id.not_in(passed_over)),
        )
        .order_by(Run.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=Run)
        .execution_options(populate_existing=True)
    )


def heartbeat(
    session: Session,
    run_id: int,
    worker: str,
    step: int | None = None,
    total_steps: int | None = None,
    now: datetime | None = None,
) -> Beat:
    """Say that `worker` is alive and how far the run is; returns whether to go on."""
    values: dict[str, Any] = {"heartbeat_at": now or utc_now()}
    if step is not None:
        values["step"] = step
    if total_steps is not None:
        values["total_steps"] = total_steps
    held = session.execute(_held(run_id, worker).values(**values).returning(Run.cancel_requested_at)).one_or_none()
    return Beat(cancel=held is not None and held[0] is not None, lost=held is None)


def _held(run_id: int, worker: str) -> Any:
    return (
        update(Run)
        .where(Run.id == run_id, Run.worker == worker, Run.status == RunStatus.RUNNING)
        .execution_options(synchronize_session="fetch")
    )


def finish_run(
    session: Session,
    run_id: int,
    worker: str,
    status: RunStatus,
    *,
    error: str | None = None,
    result: JsonObject | None = None,
    environment: JsonObject | None = None,
    now: datetime | None = None,
) -> None:
    """End a run that `worker` holds; raises `Conflict` when it is another's by now or has ended."""
    if not status.ended:
        raise ValueError(f"{status} is no end")
    ended = session.execute(
        _held(run_id, worker)
        .values(
            status=status,
            error=error,
            result=result,
            environment=environment,
            finished_at=now or utc_now(),
        )
        .returning(Run.project_id, Run.kind)
    ).one_or_none()
    if ended is None:
        raise Conflict(f"run {run_id} is no longer held by {worker}; its outcome was not recorded")
    _tell(session, run_id, ended[0], ended[1], status, error)


def end_run(
    session: Session, run: Run, status: RunStatus, *, error: str | None = None, now: datetime | None = None
) -> None:
    """End a run that no worker holds: a cycle, whose row the caller has locked."""
    run.status, run.error, run.finished_at = status, error, now or utc_now()
    session.flush()
    _tell(session, run.id, run.project_id, run.kind, status, error)


def _tell(session: Session, run_id: int, project_id: int, kind: RunKind, status: RunStatus, error: str | None) -> None:
    """Every way in which a run can end passes here: webhooks hear of it."""
    told = {"run": run_id, "kind": kind.value, "status": status.value, "error": error}
    announce(session, project_id, WebhookEvent.RUN, told)


def release_run(session: Session, run_id: int, worker: str) -> bool:
    """Put a run back into the queue because its worker stops; not counted as an attempt. False when it was lost."""
    back = session.execute(
        _held(run_id, worker)
        .values(status=RunStatus.QUEUED, worker=None, heartbeat_at=None, attempts=Run.attempts - 1)
        .returning(Run.id)
    ).one_or_none()
    return back is not None


def request_cancel(session: Session, run: Run, user: User | None, *, now: datetime | None = None) -> Run:
    """Stop a run: a queued one ends at once, a running one within a step. Raises `Conflict` when it has ended.

    A cycle's children are stopped with it; it ends with the last of them.
    """
    moment = now or utc_now()
    by = f"cancelled by {user.name}" if user else "cancelled"
    queued = session.execute(
        update(Run)
        .where(Run.id == run.id, Run.status == RunStatus.QUEUED)
        .values(status=RunStatus.CANCELLED, cancel_requested_at=moment, finished_at=moment, error=by)
        .returning(Run.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if queued is None:
        running = session.execute(
            update(Run)
            .where(Run.id == run.id, Run.status == RunStatus.RUNNING)
            .values(cancel_requested_at=moment)
            .returning(Run.id)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        if running is None:
            raise Conflict(f"run {run.id} has ended already")
        _cancel_children(session, run.id, user, moment)
    stored = session.get_one(Run, run.id, populate_existing=True)
    if queued is not None:
        _tell(session, stored.id, stored.project_id, stored.kind, stored.status, stored.error)
    audit.record(session, user, "run.cancel", f"run {run.id}", session.get_one(Project, stored.project_id))
    return stored


def can_go_on(run: Run) -> bool:
    """Whether `resume_run` takes a run."""
    return run.status in (RunStatus.FAILED, RunStatus.CANCELLED) and run.kind is not RunKind.CYCLE


def resume_run(session: Session, run: Run, user: User | None) -> Run:
    """Put a run that failed or was cancelled back into the queue: it goes on from its last checkpoint, if it has one.

    Raises `Conflict` for one that has not ended or has succeeded, and for a cycle.
    """
    stored = session.get_one(Run, run.id, with_for_update=True, populate_existing=True)
    if stored.status not in (RunStatus.FAILED, RunStatus.CANCELLED):
        raise Conflict(f"run {run.id} is {stored.status.value}; only one that failed or was cancelled can go on")
    if stored.kind is RunKind.CYCLE:
        raise Conflict("a cycle that has ended cannot go on; resume the run of its last step, or start a new cycle")
    stored.status, stored.attempts, stored.worker, stored.error = RunStatus.QUEUED, 0, None, None
    stored.cancel_requested_at = stored.finished_at = stored.heartbeat_at = None
    session.flush()
    audit.record(session, user, "run.resume", f"run {run.id}", session.get_one(Project, stored.project_id))
    return stored


def _cancel_children(session: Session, run_id: int, user: User | None, moment: datetime) -> None:
    unfinished = Run.status.in_((RunStatus.QUEUED, RunStatus.RUNNING))
    for child in session.scalars(select(Run).where(Run.parent_run_id == run_id, unfinished)).all():
        with suppress(Conflict):  # it has just ended
            request_cancel(session, child, user, now=moment)


def requeue_lost(
    session: Session,
    older_than: timedelta,
    now: datetime | None = None,
    max_attempts: int = 3,
    kinds: Collection[RunKind] = tuple(RunKind),
) -> list[int]:
    """Take runs from workers that have not been heard for `older_than`; returns the ids that went back to the queue.

    Looks at runs of `kinds` only; a cycle has no worker to lose. One that was to be cancelled is; one that has been
    claimed `max_attempts` times fails, so that a run that kills its worker cannot go round for ever.
    """
    moment = now or utc_now()
    lost = session.scalars(
        select(Run)
        .where(Run.status == RunStatus.RUNNING, Run.kind.in_(list(kinds)), Run.heartbeat_at < moment - older_than)
        .order_by(Run.id)
        .with_for_update(skip_locked=True, of=Run)
        .execution_options(populate_existing=True)
    ).all()
    requeued = []
    for run in lost:
        if run.cancel_requested_at is not None:
            run.status, run.error, run.finished_at = RunStatus.CANCELLED, "cancelled", moment
        elif run.attempts >= max_attempts:
            run.status, run.finished_at = RunStatus.FAILED, moment
            run.error = f"its worker was lost {run.attempts} times; see the log, then start a new run"
        else:
            run.status = RunStatus.QUEUED
            requeued.append(run.id)
        run.worker, run.heartbeat_at = None, None
        if run.status.ended:
            _tell(session, run.id, run.project_id, run.kind, run.status, run.error)
    session.flush()
    return requeued


def get_run(session: Session, run_id: int) -> Run:
    """The run as it stands; raises `NotFound`."""
    run = session.get(Run, run_id, populate_existing=True)
    if run is None:
        raise NotFound(f"there is no run {run_id}; see: feedback-app runs list")
    return run


def list_runs(session: Session, project: Project | None = None, limit: int = 50) -> list[Run]:
    """The newest runs first."""
    query = select(Run).order_by(Run.id.desc()).limit(limit)
    if project is not None:
        query = query.where(Run.project_id == project.id)
    return list(session.scalars(query))
