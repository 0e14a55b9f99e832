"""What promotions rest on: blind comparisons by people, gates, and alerts about what is in service."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from storage.enums import BlindTestState, GateVerdict
from storage.models.base import Base, JsonObject, utc_now


class BlindTest(Base):
    """Candidate against champion, judged by people who do not know which is which."""

    __tablename__ = "blind_tests"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    candidate_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    champion_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    settings: Mapped[JsonObject]  # the error rate, and when to give up
    state: Mapped[BlindTestState] = mapped_column(default=BlindTestState.RUNNING)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    ended_at: Mapped[datetime | None]


class BlindTestItem(Base):
    """An item of the queue that a blind test put there."""

    __tablename__ = "blind_test_items"
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id", ondelete="CASCADE"), primary_key=True)
    blind_test_id: Mapped[int] = mapped_column(ForeignKey("blind_tests.id", ondelete="CASCADE"), index=True)


class GateResult(Base):
    """A verdict on a version, with every figure and its bar as they were then."""

    __tablename__ = "gate_results"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    champion_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    evaluation_id: Mapped[int | None] = mapped_column(ForeignKey("evaluations.id"))
    blind_test_id: Mapped[int | None] = mapped_column(ForeignKey("blind_tests.id"))
    verdict: Mapped[GateVerdict]
    settings: Mapped[JsonObject]  # the project's gate settings, as they were
    figures: Mapped[JsonObject]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Alert(Base):
    """A figure of the version in service fell below what it was promised to be."""

    __tablename__ = "alerts"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    name: Mapped[str] = mapped_column(String(120))  # of the figure
    text: Mapped[str]
    figures: Mapped[JsonObject]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    ended_at: Mapped[datetime | None]
