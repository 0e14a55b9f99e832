"""The worker: claims queued runs, executes each in a process of its own, and carries what happens into SQL.

One loop, no threads: each group of run kinds has a lane that is idle or watches one process. A worker that loses the
database keeps its processes running and tries again; one that is told to stop gives its runs back to the queue; one
that dies takes its processes with it, and whichever worker comes next resumes from the last checkpoint.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from storage.engine import explain, make_engine, make_sessions
from storage.enums import RunKind
from storage.errors import Invalid
from storage.runs import requeue_lost
from trainer.deliveries import Sender
from trainer.filling import fill_queues
from trainer.lane import Every, Lane, WorkerSettings
from trainer.launch import warm_up
from trainer.schedule import start_schedule
from trainer.tidy import tidy

__all__ = ["GROUPS", "Worker", "WorkerSettings", "kinds_of", "run_worker"]

log = logging.getLogger(__name__)

GROUPS: dict[str, frozenset[RunKind]] = {
    "generate": frozenset({RunKind.GENERATE, RunKind.PLAYGROUND}),
    # Refining has a lane of its own, and yields as training does: people wait for generation, which waits for neither.
    "refine": frozenset({RunKind.REFINE}),
    # What was trained is measured next, by the same lane: whoever trains has the memory for it.
    "train": frozenset({RunKind.EVALUATE, *(kind for kind in RunKind if kind.trains)}),
}
LOOK_AFTER_LOST_SECONDS = 10.0
FILL_SECONDS = 2.0
TICK_SECONDS = 0.1
TIDY_SECONDS = 600.0
TALKS = 2  # projects whose playground is in memory at a time
TALK_LOST_AFTER = timedelta(seconds=10)  # somebody waits: taken up again sooner than other runs
TALK_SECONDS = 20.0  # before the playground of one project makes room for that of another


def kinds_of(groups: Iterable[str]) -> frozenset[RunKind]:
    """The run kinds of group names (`generate`, `refine`, `train`) or single kinds; `Invalid` for an unknown one."""
    kinds: set[RunKind] = set()
    for name in groups:
        if name in GROUPS:
            kinds |= GROUPS[name]
        elif name in RunKind.__members__.values():
            kinds.add(RunKind(name))
        else:
            raise Invalid(f"unknown kind of run '{name}'; choose from: {', '.join([*GROUPS, *RunKind])}")
    return frozenset(kinds)


def run_worker(settings: WorkerSettings, stop: threading.Event | None = None) -> None:
    """Work until SIGTERM, SIGINT or `stop`; runs under way go back to the queue and resume elsewhere.

    Signals are handled when this runs in the main thread; elsewhere `stop` is the way to end it.
    """
    ending = stop or threading.Event()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ending.set())
    warm_up()
    engine = make_engine(settings.database_url)
    sessions = make_sessions(engine)
    schedule = None
    if settings.kinds & GROUPS["train"]:
        schedule = start_schedule(sessions, settings.home, settings.default_base_model)
    worker = Worker(settings, sessions)
    deliveries = Sender(sessions, private=settings.webhook_private)
    log.info("worker %s ready for %s", settings.name, ", ".join(sorted(settings.kinds)))
    try:
        while not ending.is_set():
            worker.tick()
            ending.wait(TICK_SECONDS)
    finally:
        worker.close()
        deliveries.stop()
        if schedule is not None:
            schedule.shutdown(wait=False)
        engine.dispose()


class Worker:
    """The loop's state: one lane a group, and clocks."""

    def __init__(self, settings: WorkerSettings, sessions: sessionmaker[Session]) -> None:
        self._settings = settings
        self._sessions = sessions
        alone = frozenset({RunKind.PLAYGROUND})
        groups = [settings.kinds & group - alone for group in GROUPS.values()]
        self._lanes = [Lane(settings, sessions, kinds) for kinds in groups if kinds]
        self._talks = [Lane(settings, sessions, alone) for _ in range(TALKS) if alone <= settings.kinds]
        self._lanes += self._talks
        self._make_room = Every(2.0)
        self._look_after_lost = Every(LOOK_AFTER_LOST_SECONDS)
        self._look_after_talks = Every(TALK_LOST_AFTER.total_seconds() / 5)
        self._fill = Every(FILL_SECONDS)
        self._tidy = Every(TIDY_SECONDS)

    def tick(self) -> None:
        """One look at everything; a database that cannot be reached is tried again later."""
        for lane in self._lanes:
            _patiently(lane.tick)
        if self._look_after_lost.now():
            _patiently(lambda: self._requeue_lost(self._settings.lost_after, RunKind))
        if self._look_after_talks.now():
            _patiently(lambda: self._requeue_lost(TALK_LOST_AFTER, [RunKind.PLAYGROUND]))
        if self._talks and self._make_room.now():
            _patiently(self._take_turns)
        if self._tidy.now():
            _patiently(lambda: tidy(self._sessions, self._settings.home, self._settings.keep_checkpoints))
        if RunKind.GENERATE in self._settings.kinds and self._fill.now():
            _patiently(lambda: fill_queues(self._sessions, self._settings.default_base_model))

    def close(self) -> None:
        """Stop the processes and give their runs back."""
        for lane in self._lanes:
            _patiently(lane.give_back)

    def _requeue_lost(self, after: timedelta, kinds: Iterable[RunKind]) -> None:
        with self._sessions.begin() as session:
            for run_id in requeue_lost(session, after, kinds=list(kinds)):
                log.warning("run %s lost its worker and is queued again", run_id)

    def _take_turns(self) -> None:
        """Every place for a playground is taken and another project waits: the oldest one makes room."""
        oldest = max(self._talks, key=lambda lane: lane.age)
        if all(lane.age for lane in self._talks) and oldest.age > TALK_SECONDS and oldest.somebody_waits():
            oldest.end_soon()


def _patiently(work: Callable[[], object]) -> None:
    """A lost connection, a lock held too long: said in one line and tried again at the next tick."""
    try:
        work()
    except (DBAPIError, OSError) as error:
        reason = explain(error)
        if reason is None:
            log.exception("unexpected; trying again")
        else:
            log.warning("%s; trying again", reason)
        time.sleep(1)
