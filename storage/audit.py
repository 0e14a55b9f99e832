"""Who did what to which row, when: written beside the change, in its transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.models import AuditEvent, Project, User


def record(
    session: Session, user: User | None, action: str, subject: str, project: Project | None = None, **detail: Any
) -> AuditEvent:
    """Note that `user` (None: the application itself) did `action` (`model.promote`) to `subject` (`policy-v3`).

    `detail` must be plain JSON; never put a secret into it.
    """
    event = AuditEvent(
        user_id=user.id if user else None,
        project_id=project.id if project else None,
        action=action,
        subject=subject[:120],
        detail=detail,
    )
    session.add(event)
    session.flush()
    return event


def list_events(session: Session, project: Project | None = None, limit: int = 100) -> list[AuditEvent]:
    """The newest events first; with `project`, only those of the project."""
    query = select(AuditEvent).order_by(AuditEvent.id.desc()).limit(limit)
    if project is not None:
        query = query.where(AuditEvent.project_id == project.id)
    return list(session.scalars(query))
