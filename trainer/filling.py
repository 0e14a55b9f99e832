"""Keep every project's queue full: an annotator never waits for a model that could have written before."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import exists, select
from sqlalchemy.orm import Session, sessionmaker

from storage import resolution
from storage.blind_tests import advance, running_test
from storage.engine import read_only
from storage.enums import RunKind, RunStatus
from storage.errors import Conflict, FeedbackError
from storage.gate import canary_share
from storage.items import prompts_to_generate, queue_counts
from storage.models import Project, Run, utc_now
from storage.projects import list_projects
from storage.training import queue_generate

log = logging.getLogger(__name__)

FIRST = 4  # items of the first run into an empty queue: somebody is waiting
MOST = 64  # items a run: a promotion or a cancel is never far away
_PATIENCE = timedelta(seconds=20)  # after a failed run, doubled for each further failure in a row
_LONGEST = timedelta(minutes=30)


def fill_queues(sessions: sessionmaker[Session], default_base_model: str, now: datetime | None = None) -> list[int]:
    """Queue a generate run for each project that runs short of unjudged items; returns the runs' ids.

    Where nothing is short, a promotion is followed by what the new champion says to old critiques (storage.resolution).
    """
    moment = now or utc_now()
    short, asking, testing = [], [], []
    with read_only(sessions) as session:
        for project in list_projects(session):
            testing += [project.id] if running_test(session, project) else []
            wanted = _wanted(session, project, moment)
            if wanted is not None:
                short.append((project.id, *wanted))
            elif not _writing(session, project) and resolution.due(session, project):
                asking.append(project.id)
    _advance_tests(sessions, testing)
    queued = _ask_again(sessions, asking)
    for project_id, items, cause in short:
        try:
            with sessions.begin() as session:
                project = session.get_one(Project, project_id)
                values = {"prompts": items} | _mixed(session, project)
                run = queue_generate(session, project, values, default_base_model=default_base_model, cause=cause)
                queued.append(run.id)
        except Conflict:
            continue  # another worker has just done it
        except FeedbackError as error:
            log.warning("queue of project %s not filled: %s", project_id, error)
    return queued


def _advance_tests(sessions: sessionmaker[Session], project_ids: Sequence[int]) -> None:
    """Take the newest pairs into blind tests before people judge them."""
    for project_id in project_ids:
        with sessions.begin() as session:
            advance(session, session.get_one(Project, project_id))


def _ask_again(sessions: sessionmaker[Session], project_ids: Sequence[int]) -> list[int]:
    queued = []
    for project_id in project_ids:
        try:
            with sessions.begin() as session:
                run = resolution.queue_answers(session, session.get_one(Project, project_id))
                queued += [run.id] if run is not None else []
        except Conflict:
            continue  # another worker has just done it
    return queued


def _writing(session: Session, project: Project) -> bool:
    unfinished = Run.status.in_((RunStatus.QUEUED, RunStatus.RUNNING))
    return bool(
        session.scalar(select(exists().where(Run.project_id == project.id, Run.kind == RunKind.GENERATE, unfinished)))
    )


def _wanted(session: Session, project: Project, now: datetime) -> tuple[int, str] | None:
    """How many items to ask for and the cause of the run; None when nothing is to be done now."""
    counts = queue_counts(session, project)
    missing = project.queue_target - counts.unjudged
    if missing <= 0:
        return None
    # Waiting until a few are missing saves starting a process for every single item judged.
    if counts.unjudged > 0 and missing < max(1, project.queue_target // 4):
        return None
    written = session.scalars(
        select(Run).where(Run.project_id == project.id, Run.kind == RunKind.GENERATE).order_by(Run.id.desc()).limit(10)
    ).all()
    recent = [run for run in written if not run.config.get("critique_ids") and not run.config.get("for_rules")]
    if any(not run.status.ended for run in recent[:1]) or _resting(recent, now):
        return None
    if not prompts_to_generate(session, project, 1):
        return None
    items = FIRST if counts.unjudged == 0 else missing
    return min(items, missing, MOST), f"fill after run {recent[0].id if recent else 0}"


def _resting(recent: Sequence[Run], now: datetime) -> bool:
    """After runs in a row that brought nothing, wait: a broken model is not tried again every second."""
    barren = 0
    for run in recent:
        if run.status is RunStatus.SUCCEEDED and (run.result or {}).get("items"):
            break
        barren += 1
    if not barren or not recent or recent[0].finished_at is None:
        return False
    resting_until: datetime = recent[0].finished_at + min(_PATIENCE * 2 ** (barren - 1), _LONGEST)
    return now < resting_until


def _mixed(session: Session, project: Project) -> dict[str, float]:
    """The share of items in which the newest candidate writes too: all in a blind test, some until it is judged."""
    share = 1.0 if running_test(session, project) is not None else canary_share(session, project)
    return {"candidate_share": share} if share else {}
