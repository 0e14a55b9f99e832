"""Where each annotator stands in each project: the practice round, and whether they are paused."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from storage.enums import Admission
from storage.models.base import Base


class Standing(Base):
    """One person's practice and checks in one project (storage.practice, storage.checks); none: nothing happened."""

    __tablename__ = "standings"
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True)
    attempts: Mapped[int] = mapped_column(default=0)  # practice rounds that were finished
    score: Mapped[float | None]  # of the last finished round, 0..1
    round_started_at: Mapped[datetime | None]  # of the last round
    round_ended_at: Mapped[datetime | None]  # None while it is going on
    admitted: Mapped[Admission | None]  # why ordinary items may be handed out; None: not yet
    admitted_at: Mapped[datetime | None]
    paused_at: Mapped[datetime | None]
    checks_from: Mapped[datetime | None]  # attention checks before this moment do not count any more
