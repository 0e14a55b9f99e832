"""What annotators said: annotations with their ratings, preferences, critiques and refinements."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from storage.enums import AnnotationStatus, Outcome, RefinementStatus, ResolutionVerdict
from storage.models.base import Base, JsonObject, utc_now
from storage.models.people import User
from storage.models.work import Item


class Annotation(Base):
    """One annotator's bundle on an item. A revision supersedes; a withdrawal marks; nothing is overwritten."""

    __tablename__ = "annotations"
    __table_args__ = (
        # The guard against a double submit: one live annotation per item and annotator.
        Index(
            "uq_annotations_live",
            "item_id",
            "user_id",
            unique=True,
            sqlite_where=text("superseded_at IS NULL AND withdrawn_at IS NULL"),
            postgresql_where=text("superseded_at IS NULL AND withdrawn_at IS NULL"),
        ),
        Index("ix_annotations_user_submitted", "user_id", "submitted_at"),
        Index("ix_annotations_submitted", "submitted_at"),
        UniqueConstraint("source_key"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), index=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    assignment_id: Mapped[int | None] = mapped_column(ForeignKey("assignments.id"))  # None: imported
    status: Mapped[AnnotationStatus]
    draft: Mapped[JsonObject | None]  # what has been typed so far; beside a submitted one: of its revision
    source_key: Mapped[str | None] = mapped_column(String(64))  # hash of an imported record: importing again is a no-op
    seconds_spent: Mapped[float | None]
    gold_score: Mapped[float | None]  # how much of what is right it said, 0..1 (storage.gold); None: an ordinary item
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    submitted_at: Mapped[datetime | None]
    superseded_at: Mapped[datetime | None]
    superseded_by_id: Mapped[int | None] = mapped_column(ForeignKey("annotations.id"))
    withdrawn_at: Mapped[datetime | None]
    item: Mapped[Item] = relationship()
    user: Mapped[User] = relationship()
    ratings: Mapped[list[Rating]] = relationship(back_populates="annotation")
    preferences: Mapped[list[Preference]] = relationship(back_populates="annotation")
    rankings: Mapped[list[Ranking]] = relationship(back_populates="annotation")
    critiques: Mapped[list[Critique]] = relationship(back_populates="annotation")
    refinements: Mapped[list[Refinement]] = relationship(back_populates="annotation")


class Rating(Base):
    """A value on a criterion's scale for one completion."""

    __tablename__ = "ratings"
    __table_args__ = (UniqueConstraint("annotation_id", "completion_id", "criterion_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    annotation_id: Mapped[int] = mapped_column(ForeignKey("annotations.id"))
    completion_id: Mapped[int] = mapped_column(ForeignKey("completions.id"))
    criterion_id: Mapped[int] = mapped_column(ForeignKey("criteria.id"))
    value: Mapped[int]
    annotation: Mapped[Annotation] = relationship(back_populates="ratings")


class Preference(Base):
    """The outcome of comparing two completions, in the order they were shown."""

    __tablename__ = "preferences"
    __table_args__ = (UniqueConstraint("annotation_id", "first_id", "second_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    annotation_id: Mapped[int] = mapped_column(ForeignKey("annotations.id"))
    first_id: Mapped[int] = mapped_column(ForeignKey("completions.id"))
    second_id: Mapped[int] = mapped_column(ForeignKey("completions.id"))
    outcome: Mapped[Outcome]
    strength: Mapped[int | None]  # 1 slightly, 2 clearly, 3 much better; None for ties and where nobody said
    annotation: Mapped[Annotation] = relationship(back_populates="preferences")


class Ranking(Base):
    """A completion's place in an annotator's order: 1 is the best, equal ranks are ties."""

    __tablename__ = "rankings"
    annotation_id: Mapped[int] = mapped_column(ForeignKey("annotations.id"), primary_key=True)
    completion_id: Mapped[int] = mapped_column(ForeignKey("completions.id"), primary_key=True)
    rank: Mapped[int]
    annotation: Mapped[Annotation] = relationship(back_populates="rankings")


class Critique(Base):
    """Written feedback on a completion, optionally on the span [span_start, span_end) of its text (characters)."""

    __tablename__ = "critiques"
    id: Mapped[int] = mapped_column(primary_key=True)
    annotation_id: Mapped[int] = mapped_column(ForeignKey("annotations.id"), index=True)
    completion_id: Mapped[int] = mapped_column(ForeignKey("completions.id"), index=True)
    text: Mapped[str]
    span_start: Mapped[int | None]
    span_end: Mapped[int | None]
    tags: Mapped[list[str]] = mapped_column(default=list)
    fix: Mapped[str | None]  # what it should say instead, in the annotator's words
    annotation: Mapped[Annotation] = relationship(back_populates="critiques")


class Refinement(Base):
    """A completion rewritten because of a critique: original -> refined, both completions of one prompt.

    A person's is part of their annotation. A model's has none: it was made by a run from critiques
    (`RefinementCritique`), and people may review it; what they edited stands beside what the model wrote.
    """

    __tablename__ = "refinements"
    __table_args__ = (
        UniqueConstraint("annotation_id", "completion_id"),
        UniqueConstraint("run_id", "completion_id", "refined_id"),
        Index("ix_refinements_completion_id", "completion_id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    annotation_id: Mapped[int | None] = mapped_column(ForeignKey("annotations.id"))  # None: by a model
    completion_id: Mapped[int] = mapped_column(ForeignKey("completions.id"))
    refined_id: Mapped[int] = mapped_column(ForeignKey("completions.id"))
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    judge_score: Mapped[float | None]  # probability that it does what the critique asks, 0..1
    reward: Mapped[float | None]  # of the reward model, in its own units
    rank: Mapped[int | None]  # among the candidates of its run, 1 is the best
    status: Mapped[RefinementStatus | None]
    reviewer_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    reviewed_at: Mapped[datetime | None]
    edited_id: Mapped[int | None] = mapped_column(ForeignKey("completions.id"))  # as the reviewer would have it
    review_item_id: Mapped[int | None] = mapped_column(ForeignKey("items.id"), index=True)  # asks people about it
    annotation: Mapped[Annotation | None] = relationship(back_populates="refinements")
    critiques: Mapped[list[Critique]] = relationship(secondary="refinement_critiques", order_by="Critique.id")


class RefinementCritique(Base):
    """Ties a model's refinement to the critiques it was made from."""

    __tablename__ = "refinement_critiques"
    refinement_id: Mapped[int] = mapped_column(ForeignKey("refinements.id", ondelete="CASCADE"), primary_key=True)
    critique_id: Mapped[int] = mapped_column(
        ForeignKey("critiques.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class Resolution(Base):
    """A critique held against what a newer model version writes for the same prompt; `verdict` None: not asked yet."""

    __tablename__ = "resolutions"
    __table_args__ = (
        UniqueConstraint("critique_id", "completion_id", "version_id"),
        Index("ix_resolutions_version_id", "version_id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    critique_id: Mapped[int] = mapped_column(ForeignKey("critiques.id", ondelete="CASCADE"))
    completion_id: Mapped[int] = mapped_column(ForeignKey("completions.id"))  # the new one
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    item_id: Mapped[int | None] = mapped_column(ForeignKey("items.id"), index=True)  # None: the same text as before
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))  # who said so
    held_out: Mapped[bool]  # the critique's prompt never trains: a similar complaint, not a memorised one
    verdict: Mapped[ResolutionVerdict | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    judged_at: Mapped[datetime | None]
