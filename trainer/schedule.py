"""Periodic training: asks each project's policy what is due, and queues it by the same path as people do."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from storage.configs import PolicyMode
from storage.engine import read_only
from storage.enums import RunKind
from storage.errors import Conflict, FeedbackError
from storage.models import Project, utc_now
from storage.projects import list_projects
from storage.schedule import due
from storage.training import queue_training

log = logging.getLogger(__name__)

CHECK_SECONDS = 15


def start_schedule(sessions: sessionmaker[Session], home: Path, default_base_model: str) -> BackgroundScheduler:
    """Look every few seconds, from a thread, until `shutdown()`; a look that takes long is not followed by a second."""
    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.add_job(
        _look,
        "interval",
        args=(sessions, home, default_base_model),
        seconds=CHECK_SECONDS,
        coalesce=True,
        max_instances=1,
        next_run_time=datetime.now(UTC),
    )
    scheduler.start()
    return scheduler


def _look(sessions: sessionmaker[Session], home: Path, default_base_model: str) -> None:
    try:
        queue_due(sessions, home, default_base_model)
    except SQLAlchemyError as error:
        log.warning("schedule: the store cannot be used now, trying again: %s", error)


def queue_due(
    sessions: sessionmaker[Session], home: Path, default_base_model: str, now: datetime | None = None
) -> list[int]:
    """Queue what is due in every project, each cause once however many workers look; returns the runs' ids."""
    moment = now or utc_now()
    with read_only(sessions) as session:
        wanted: list[tuple[int, RunKind, str]] = []
        for project in list_projects(session):
            if project.training_policy.get("mode", PolicyMode.OFF) == PolicyMode.OFF:
                continue
            decision = due(session, project, moment)
            wanted += [(project.id, kind, f"{decision.cause}:{kind.value}") for kind in decision.kinds]
    queued = []
    for project_id, kind, cause in wanted:
        try:
            with sessions.begin() as session:
                project = session.get_one(Project, project_id)
                run = queue_training(
                    session, project, kind, {}, home=home, default_base_model=default_base_model, cause=cause
                )
                queued.append(run.id)
        except Conflict:
            continue
        except FeedbackError as error:
            log.info("project %s: %s not queued: %s", project_id, kind.value, error)
    return queued
