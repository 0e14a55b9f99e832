"""The playground: what a person is talking about with a project's models."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from storage.enums import TurnState
from storage.models.base import Base, Message


class Conversation(Base):
    """A person's conversation in a project: one at a time, and of it the turn that is under way.

    Whatever was written and judged stands in prompts, completions, items and annotations like everything else; this
    row only says where the person is. See `storage.playground` for the transitions.
    """

    __tablename__ = "conversations"
    __table_args__ = (UniqueConstraint("project_id", "user_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    messages: Mapped[list[Message]] = mapped_column(default=list)  # so far; ends with the person's while it is answered
    draft: Mapped[str] = mapped_column(default="")  # what they are typing
    turn: Mapped[int] = mapped_column(default=0)  # of the message sent last; what is said about an older one is late
    state: Mapped[TurnState] = mapped_column(default=TurnState.TYPING)
    texts: Mapped[list[str]] = mapped_column(default=list)  # of the completions, as far as they are written
    error: Mapped[str | None]  # why the message sent last was not answered
    sent_at: Mapped[datetime | None]
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))  # who writes
    assignment_id: Mapped[int | None] = mapped_column(ForeignKey("assignments.id"))  # of the completions, once written
