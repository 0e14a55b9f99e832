"""A lane of the worker: idle, or watching the process of one run, from the claim to its end."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import time
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from storage.engine import explain, read_only
from storage.enums import RunKind, RunStatus
from storage.errors import FeedbackError
from storage.models import Run
from storage.runs import add_log, claim_run, finish_run, get_run, release_run
from trainer.bridge import enter_completions, lay_out, publish_adapter
from trainer.carry import Batch, EventTail, carry
from trainer.checkpoints import newest_checkpoint
from trainer.desk import Desk
from trainer.evaluate_bridge import enter_evaluation
from trainer.folder import RunFolder
from trainer.launch import NICE, Child, is_warm
from trainer.place import Place
from trainer.refine_bridge import enter_refinements
from trainer.run import AT_ONCE, CANCELLED

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
EAGER_SECONDS = 0.2  # until the first step: people wait for it
TALK_POLL_SECONDS = 0.25  # somebody waits for the model of a playground to be loaded
LOST_AFTER = timedelta(seconds=60)  # a machine that is short of everything is not dead
KEEP_CHECKPOINTS = timedelta(days=7)
GRACE_SECONDS = 20.0  # from CANCEL to a kill: a long evaluation batch may be under way


def _worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs to know."""

    database_url: str
    home: Path
    default_base_model: str = "starter"
    kinds: frozenset[RunKind] = frozenset(RunKind)
    poll_seconds: float = 0.3
    device: str = "auto"
    webhook_private: bool = False
    lost_after: timedelta = LOST_AFTER  # a run whose worker was silent for so long is given to another
    keep_checkpoints: timedelta = KEEP_CHECKPOINTS  # of runs that failed or were cancelled
    name: str = field(default_factory=_worker_name)


class Every:
    """A clock: true at most once in so many seconds, at once the first time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def now(self) -> bool:
        """Whether it is time again."""
        moment = time.monotonic()
        if moment < self._next:
            return False
        self._next = moment + self._seconds
        return True


@dataclass
class _Live:
    """A run under way."""

    run_id: int
    kind: RunKind
    folder: RunFolder
    child: Child
    tail: EventTail
    desk: Desk | None = None  # of a playground run
    started: float = field(default_factory=time.monotonic)
    cancelled_at: float | None = None
    limit: float | None = None  # minutes
    late: bool = False  # it was stopped for that
    stepped: bool = False
    result: dict[str, Any] | None = None
    error: str | None = None


class Lane:
    """Idle, or watching the process of one run."""

    def __init__(self, settings: WorkerSettings, sessions: sessionmaker[Session], kinds: frozenset[RunKind]) -> None:
        self._settings = settings
        self._sessions = sessions
        self._kinds = kinds
        self._place = Place(settings.home, settings.default_base_model, settings.device)
        self._live: _Live | None = None
        talks = RunKind.PLAYGROUND in kinds
        self._poll = Every(min(settings.poll_seconds, TALK_POLL_SECONDS) if talks else settings.poll_seconds)
        self._beat = Every(BEAT_SECONDS)
        self._eager = Every(EAGER_SECONDS)

    def tick(self) -> None:
        """Claim when idle; carry events, beat, cancel and end when not."""
        if self._live is None:
            if self._poll.now():
                self._claim()
        elif self._live.child.exit_code is not None:
            self._end(self._live)
        else:
            if self._live.desk is not None:
                self._live.desk.tick()
            if self._beat.now() or self._eagerly(self._live):
                self._watch(self._live)

    def _eagerly(self, live: _Live) -> bool:
        if live.desk is not None:
            return live.tail.waiting()
        return not live.stepped and self._eager.now() and live.tail.waiting()

    @property
    def age(self) -> float:
        """Seconds since its run's process was started; 0 while it is idle."""
        return time.monotonic() - self._live.started if self._live is not None else 0.0

    def end_soon(self) -> None:
        """Let a playground run finish what it has begun, and end."""
        if self._live is not None and self._live.desk is not None:
            self._live.desk.end()

    def somebody_waits(self) -> bool:
        """Whether a run of the lane's kinds is queued."""
        with read_only(self._sessions) as session:  # the write lock is taken only when there is something to take
            waiting = exists().where(Run.status == RunStatus.QUEUED, Run.kind.in_(list(self._kinds)))
            return bool(session.scalar(select(waiting)))

    def give_back(self) -> None:
        """The worker stops: end the process, keep what it said, and let another worker resume the run."""
        live, self._live = self._live, None
        if live is None:
            return
        live.child.kill()
        self._carry(live)
        with self._sessions.begin() as session:
            if release_run(session, live.run_id, self._settings.name):
                add_log(session, live.run_id, ["its worker stopped; the run is queued again and will resume"])

    # --- claiming ---

    def _claim(self) -> None:
        # A run claimed while the imports last would be silent for so long that it looks lost.
        if not is_warm() or not self.somebody_waits():
            return
        with self._sessions.begin() as session:
            claimed = claim_run(session, self._settings.name, self._kinds)
            if claimed is None:
                return
            run_id, kind, project_id = claimed.id, claimed.kind, claimed.project_id
            limit = claimed.config.get("time_limit")
        try:
            with self._sessions.begin() as session:
                folder = lay_out(session, get_run(session, run_id), self._place)
        except DBAPIError:
            raise  # the store is away: the run is found to be lost and queued again
        except Exception as error:  # whatever it is, it must not end the worker
            self._fail(run_id, _reason(error))
            return
        tail = EventTail(folder)
        self._carry_over(run_id, tail)
        talks = kind is RunKind.PLAYGROUND
        desk = Desk(self._sessions, self._place, folder, run_id, project_id) if talks else None
        child = Child(folder, nice=NICE if kind not in AT_ONCE else 0)
        self._live = _Live(run_id, kind, folder, child, tail, desk, limit=limit)
        log.info("run %s (%s) started", run_id, kind)

    def _carry_over(self, run_id: int, tail: EventTail) -> None:
        """What an earlier attempt said and nobody carried; how it ended no longer counts."""
        batch = tail.read()
        with self._sessions.begin() as session:
            carry(session, run_id, self._settings.name, batch)
        tail.done(batch)

    def _fail(self, run_id: int, reason: str) -> None:
        log.warning("run %s failed: %s", run_id, reason)
        with self._sessions.begin() as session:
            add_log(session, run_id, [reason])
            finish_run(session, run_id, self._settings.name, RunStatus.FAILED, error=reason)

    # --- watching ---

    def _watch(self, live: _Live) -> None:
        beat = self._carry(live)
        if beat.lost:
            log.warning("run %s is another worker's by now; dropped here", live.run_id)
            live.child.kill()
            self._live = None
        elif beat.cancel or live.late:
            self._cancel(live)
        elif live.limit is not None and self.age > 60 * live.limit:
            live.late = True
            self._cancel(live)

    def _carry(self, live: _Live) -> Any:
        batch: Batch = live.tail.read()
        with self._sessions.begin() as session:
            beat = carry(session, live.run_id, self._settings.name, batch)
        live.tail.done(batch)
        live.stepped = live.stepped or bool(batch.step)
        live.result = batch.result or live.result
        live.error = batch.error or live.error
        return beat

    def _cancel(self, live: _Live) -> None:
        if live.cancelled_at is None:
            live.cancelled_at = time.monotonic()
            live.folder.cancel_file.touch()
        elif time.monotonic() - live.cancelled_at > GRACE_SECONDS:
            live.child.kill()

    # --- ending ---

    def _end(self, live: _Live) -> None:
        beat = self._carry(live)
        if beat.lost:
            self._live = None
            return
        code = live.child.exit_code
        if live.result is not None:
            status, error = self._enter(live, live.result)
        elif live.late and not beat.cancel:
            status, error = RunStatus.FAILED, _too_long(live)
        elif code == CANCELLED or beat.cancel:
            status, error = RunStatus.CANCELLED, "cancelled"
        else:
            status, error = RunStatus.FAILED, live.error or live.child.failure() or "it ended without a result"
        if status is not RunStatus.SUCCEEDED:
            with self._sessions.begin() as session:
                kept = self._keep_half(session, live)
                add_log(session, live.run_id, [error or status.value])
                finish_run(
                    session,
                    live.run_id,
                    self._settings.name,
                    status,
                    error=error,
                    result=kept,
                    environment=_environment(live.folder),
                )
        log.info("run %s %s%s", live.run_id, status, f": {error}" if error else "")
        self._live = None

    def _keep_half(self, session: Session, live: _Live) -> dict[str, Any] | None:
        """What a refine run that failed or was cancelled had refined is stored: it need not be done again."""
        if live.kind is not RunKind.REFINE:
            return None
        try:
            with session.begin_nested():
                return enter_refinements(session, get_run(session, live.run_id), live.folder, {}) or None
        except FeedbackError as error:
            add_log(session, live.run_id, [f"what was refined before cannot be stored: {error}"])
            return None

    def _enter(self, live: _Live, result: dict[str, Any]) -> tuple[RunStatus, str | None]:
        """Enter what the run made, and its end, in one transaction."""
        try:
            with self._sessions.begin() as session:
                run = get_run(session, live.run_id)
                if live.kind is RunKind.PLAYGROUND:
                    pass  # every answer was entered when it was finished
                elif live.kind is RunKind.GENERATE:
                    result = enter_completions(session, run, live.folder, result)
                elif live.kind is RunKind.REFINE:
                    result = enter_refinements(session, run, live.folder, result)
                elif live.kind is RunKind.EVALUATE:
                    result = enter_evaluation(session, run, live.folder, result)
                else:
                    version = publish_adapter(session, run, live.folder, self._place, result)
                    result = {**result, "model_version": version}
                finish_run(
                    session,
                    live.run_id,
                    self._settings.name,
                    RunStatus.SUCCEEDED,
                    result=result,
                    environment=_environment(live.folder),
                )
        except DBAPIError:
            raise  # tried again at the next tick
        except Exception as error:  # whatever it is, it must not end the worker
            return RunStatus.FAILED, _reason(error)
        shutil.rmtree(live.folder.checkpoints, ignore_errors=True)  # what is left of them, `trainer.tidy` removes
        return RunStatus.SUCCEEDED, None


def _too_long(live: _Live) -> str:
    if newest_checkpoint(live.folder) is None:
        return f"the time limit of {live.limit:g} min was reached; raise time_limit, or give it less to do"
    return (
        f"the time limit of {live.limit:g} min was reached; its last state is kept: go on with "
        f"feedback-app runs resume {live.run_id}"
    )


def _reason(error: Exception) -> str:
    """One line for people; what nobody foresaw leaves its traceback in the worker's log."""
    if isinstance(error, FeedbackError):
        return str(error)
    known = explain(error)
    if known is None:
        log.error("unexpected", exc_info=error)
    return known or f"{type(error).__name__}: {error}; the worker's log has the traceback"


def _environment(folder: RunFolder) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(folder.environment.read_text())
    except (OSError, ValueError):
        return None
    return record
