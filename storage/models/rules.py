"""Rules: what recurring critiques ask for, put to the model in the system prompt and trained in."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, ForeignKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from storage.enums import RuleState
from storage.models.base import Base, JsonObject, utc_now


class Rule(Base):
    """A named rule of a project; what it says and where it holds stands in its newest revision."""

    __tablename__ = "rules"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str] = mapped_column(String(120))
    state: Mapped[RuleState]
    position: Mapped[int] = mapped_column(default=0)  # rules enter the system prompt in this order
    gathered: Mapped[int] = mapped_column(default=0)  # critiques it came from, also those that were erased since
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))  # None: suggested by the application
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    changed_at: Mapped[datetime] = mapped_column(default=utc_now)
    revisions: Mapped[list[RuleRevision]] = relationship(order_by="RuleRevision.number", lazy="selectin")

    @property
    def current(self) -> RuleRevision:
        """What the rule says now."""
        return self.revisions[-1]


class RuleRevision(Base):
    """What a rule said: never overwritten, so that a completion can say under which words it was written."""

    __tablename__ = "rule_revisions"
    rule_id: Mapped[int] = mapped_column(ForeignKey("rules.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    instruction: Mapped[str]  # what enters the system prompt
    scope: Mapped[JsonObject]  # storage.rule_scope.RuleScope
    critique_id: Mapped[int | None] = mapped_column(
        ForeignKey("critiques.id", ondelete="SET NULL"), index=True
    )  # whose words the instruction quotes
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))  # None: worded by the application
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class RuleCritique(Base):
    """Ties a rule to a critique it came from."""

    __tablename__ = "rule_critiques"
    rule_id: Mapped[int] = mapped_column(ForeignKey("rules.id"), primary_key=True)
    critique_id: Mapped[int] = mapped_column(
        ForeignKey("critiques.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class CompletionRule(Base):
    """A rule that stood in the system prompt under which a completion was written, and in which words."""

    __tablename__ = "completion_rules"
    __table_args__ = (
        ForeignKeyConstraint(["rule_id", "revision"], ["rule_revisions.rule_id", "rule_revisions.number"]),
    )
    completion_id: Mapped[int] = mapped_column(ForeignKey("completions.id", ondelete="CASCADE"), primary_key=True)
    rule_id: Mapped[int] = mapped_column(primary_key=True, index=True)
    revision: Mapped[int]


class SnapshotRowRule(Base):
    """Ties a snapshot row to each rule that it teaches."""

    __tablename__ = "snapshot_row_rules"
    snapshot_row_id: Mapped[int] = mapped_column(ForeignKey("snapshot_rows.id"), primary_key=True)
    rule_id: Mapped[int] = mapped_column(ForeignKey("rules.id"), primary_key=True, index=True)
