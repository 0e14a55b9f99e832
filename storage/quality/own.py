"""What one person may know of themselves: how often they say what the others say."""

from __future__ import annotations

from sqlalchemy.orm import Session

from storage.models import Project, User
from storage.quality import reading
from storage.quality.reliability import beside_others
from storage.quality.shares import Share

NEWEST = 2_000


def own_agreement(session: Session, project: Project, user: User) -> Share:
    """How often `user` compares as the majority of the others does, over the project's newest 2,000 annotations."""
    units = reading.compared(session, reading.newest(session, project, NEWEST))
    beside = beside_others(units, units.value).get(user.id)
    return beside.majority if beside else Share(0, 0)
