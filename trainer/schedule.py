"""Periodic training: asks each project's policy what is due, and queues it by the same path as people do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from storage.configs import PolicyMode
from storage.cycle import Installation, queue_cycle
from storage.engine import read_only
from storage.enums import RunKind
from storage.errors import Conflict, FeedbackError
from storage.models import Project, utc_now
from storage.monitoring import needs_watching, watch
from storage.projects import list_projects
from storage.schedule import Due, due, note_refusal
from storage.training import queue_training
from trainer.cycle import advance_cycles

log = logging.getLogger(__name__)

CHECK_SECONDS = 15
WATCH_SECONDS = 60
CYCLE_SECONDS = 1  # people follow a cycle: from one step to the next


def start_schedule(sessions: sessionmaker[Session], home: Path, default_base_model: str) -> BackgroundScheduler:
    """Look every few seconds, from a thread, until `shutdown()`; a look that takes long is not followed by a second."""
    logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)  # a look that takes long is nothing to say
    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.add_job(
        _patiently,
        "interval",
        args=(lambda: queue_due(sessions, home, default_base_model),),
        seconds=CHECK_SECONDS,
        coalesce=True,
        max_instances=1,
        misfire_grace_time=None,
        next_run_time=datetime.now(UTC),
    )
    scheduler.add_job(
        _patiently,
        "interval",
        args=(lambda: advance_cycles(sessions, Installation(home, default_base_model)),),
        seconds=CYCLE_SECONDS,
        coalesce=True,
        max_instances=1,
        misfire_grace_time=None,
    )
    scheduler.add_job(
        _patiently,
        "interval",
        args=(lambda: watch_champions(sessions),),
        seconds=WATCH_SECONDS,
        coalesce=True,
        max_instances=1,
        misfire_grace_time=None,
    )
    scheduler.start()
    return scheduler


def watch_champions(sessions: sessionmaker[Session], now: datetime | None = None) -> list[int]:
    """Raise and end the alerts of every project, however many workers look; returns the new alerts' ids."""
    with read_only(sessions) as session:
        wanted = [project.id for project in list_projects(session) if needs_watching(session, project)]
    raised = []
    for project_id in wanted:
        with sessions.begin() as session:
            alerts = watch(session, session.get_one(Project, project_id), now)
            raised += [alert.id for alert in alerts]
    return raised


def _patiently(work: Callable[[], object]) -> None:
    try:
        work()
    except SQLAlchemyError as error:
        log.warning("schedule: the store cannot be used now, trying again: %s", error)


def queue_due(
    sessions: sessionmaker[Session], home: Path, default_base_model: str, now: datetime | None = None
) -> list[int]:
    """Queue what is due in every project, each cause once however many workers look; returns the runs' ids."""
    moment = now or utc_now()
    with read_only(sessions) as session:
        wanted: list[tuple[int, RunKind, Due]] = []
        for project in list_projects(session):
            if project.training_policy.get("mode", PolicyMode.OFF) == PolicyMode.OFF:
                continue
            try:
                decision = due(session, project, moment)
            except FeedbackError as error:  # a policy stored by an older version: the Project tab says so too
                log.warning("project %s: %s", project.name, error)
                continue
            wanted += [(project.id, kind, decision) for kind in decision.kinds]
    queued = []
    for project_id, kind, decision in wanted:
        cause = f"{decision.cause}:{kind.value}"
        try:
            with sessions.begin() as session:
                project = session.get_one(Project, project_id)
                if kind is RunKind.CYCLE:
                    run = queue_cycle(session, project, {}, cause=cause)
                else:
                    run = queue_training(
                        session, project, kind, {}, home=home, default_base_model=default_base_model, cause=cause
                    )
                queued.append(run.id)
        except Conflict:
            continue
        except FeedbackError as error:
            log.info("project %s: %s not queued: %s", project_id, kind.value, error)
            with sessions.begin() as session:  # the pages say it too
                note_refusal(session, session.get_one(Project, project_id), decision, kind, str(error), moment)
    return queued
