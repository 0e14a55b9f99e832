"""Where each annotator stands in a project: what they may be handed, and what operators decide about it.

A project that asks for practice (`AnnotationSettings.practice_items`) hands ordinary items only to people who passed,
for whom an operator waived it, or who worked here before it was asked for. A project that pauses people
(`check_pause`) hands nothing to somebody whose attention checks went wrong, until an operator lifts it. Operators and
admins, who say what is right, are never asked and never paused.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage import audit
from storage.checks import CheckScore, check_scores
from storage.configs import AnnotationSettings, parse
from storage.enums import Admission, AssignmentStatus, Role
from storage.errors import Conflict
from storage.models import Assignment, Project, Standing, User, utc_now
from storage.prompts import insert_once

PAUSED = "you are paused in this project: some control items did not go as expected; an operator will look into it"


class Stage(StrEnum):
    """What a person may be handed in a project."""

    WORK = "work"
    PRACTICE = "practice"
    PAUSED = "paused"


def stage(session: Session, project: Project, user: User) -> Stage:
    """What `user` may be handed in `project` now. Costs nothing where the project neither asks nor pauses."""
    settings = project.annotation_settings or {}
    asks, pauses = settings.get("practice_items"), settings.get("check_pause")
    if user.role is not Role.ANNOTATOR or not (asks or pauses):
        return Stage.WORK
    own = session.get(Standing, (project.id, user.id), populate_existing=True)
    if pauses and own is not None and own.paused_at is not None:
        return Stage.PAUSED
    if not asks or (own is not None and _admits(own, bool(settings.get("practice_existing")))):
        return Stage.WORK
    return Stage.PRACTICE


def _admits(own: Standing, existing_too: bool) -> bool:
    return own.admitted is not None and not (existing_too and own.admitted is Admission.EXISTING)


def get_standing(session: Session, project: Project, user: User) -> Standing:
    """The person's row, made where there is none."""
    return insert_once(session, Standing, {"project_id": project.id, "user_id": user.id}, {"attempts": 0}).row


def admit_existing(session: Session, project: Project, *, now: datetime | None = None) -> None:
    """Let everybody who submitted something through the project's queue go on without practice."""
    moment = now or utc_now()
    worked = select(Assignment.user_id).where(
        Assignment.project_id == project.id, Assignment.status == AssignmentStatus.SUBMITTED
    )
    people = session.scalars(worked.distinct()).all()
    if not people:
        return
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    rows = [{"project_id": project.id, "user_id": one, "attempts": 0} for one in people]
    session.execute(insert(Standing).on_conflict_do_nothing(), rows)
    session.execute(
        update(Standing)
        .where(Standing.project_id == project.id, Standing.user_id.in_(worked), Standing.admitted.is_(None))
        .values(admitted=Admission.EXISTING, admitted_at=moment),
        execution_options={"synchronize_session": False},
    )
    session.expire_all()


def after_check(session: Session, project: Project, user: User, now: datetime) -> None:
    """Pause a person whose running score fell under the project's mark, where the project asks for that."""
    settings = parse(AnnotationSettings, project.annotation_settings or {})
    if not settings.check_pause or user.role is not Role.ANNOTATOR:
        return
    running = check_scores(session, project, user).get(user.id)
    if running is None or not running.below(settings.check_mark):
        return
    own = get_standing(session, project, user)
    if own.paused_at is None:
        own.paused_at = now
        session.flush()
        told = {"score": running.score, "checks": running.checks}
        audit.record(session, None, "annotator.pause", f"user {user.name}", project, **told)


def waive(session: Session, project: Project, user: User, who: User | None, **detail: Any) -> Standing:
    """Let a person go on without (further) practice."""
    own = get_standing(session, project, user)
    own.admitted, own.admitted_at = Admission.WAIVED, utc_now()
    session.flush()
    audit.record(session, who, "practice.waive", f"user {user.name}", project, **detail)
    return own


def reset(session: Session, project: Project, user: User, who: User | None, **detail: Any) -> Standing:
    """Have a person practise (again) from the beginning; what they submitted stays."""
    own = get_standing(session, project, user)
    own.admitted = own.admitted_at = own.score = own.round_started_at = own.round_ended_at = None
    own.attempts = 0
    session.flush()
    audit.record(session, who, "practice.reset", f"user {user.name}", project, **detail)
    return own


def lift(session: Session, project: Project, user: User, who: User | None, **detail: Any) -> Standing:
    """End a person's pause; their running score begins anew. Raises `Conflict` when they are not paused."""
    own = get_standing(session, project, user)
    if own.paused_at is None:
        raise Conflict(f"{user.name} is not paused in {project.name}")
    own.paused_at, own.checks_from = None, utc_now()
    session.flush()
    audit.record(session, who, "annotator.lift", f"user {user.name}", project, **detail)
    return own


@dataclass(frozen=True)
class PersonLine:
    """Where one person stands: their practice, their running score, whether they are paused."""

    name: str
    stage: Stage
    admitted: Admission | None
    attempts: int
    score: float | None  # of the last practice round
    practising: bool  # a round has begun and is not finished
    checks: CheckScore
    below: bool  # the running score is under the project's mark, on enough checks


def list_standings(session: Session, project: Project) -> list[PersonLine]:
    """Everybody whom the project knows by practice or checks, by name."""
    settings = parse(AnnotationSettings, project.annotation_settings or {})
    scores = check_scores(session, project)
    rows = session.execute(
        select(User, Standing)
        .outerjoin(Standing, (Standing.user_id == User.id) & (Standing.project_id == project.id))
        .where(Standing.user_id.is_not(None) | User.id.in_(list(scores)), User.erased_at.is_(None))
        .order_by(User.name)
    )
    lines = []
    for user, own in rows:
        checks = scores.get(user.id, CheckScore(None, 0))
        lines.append(
            PersonLine(
                name=user.name,
                stage=stage(session, project, user),
                admitted=own.admitted if own else None,
                attempts=own.attempts if own else 0,
                score=own.score if own else None,
                practising=own is not None and own.round_started_at is not None and own.round_ended_at is None,
                checks=checks,
                below=checks.below(settings.check_mark),
            )
        )
    return lines
