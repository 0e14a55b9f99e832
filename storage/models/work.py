"""What is judged: projects, prompts, completions, and the queue of items and assignments."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from storage.enums import AssignmentStatus, CompletionOrigin, ItemKind, ItemStatus, SelectionReason, Split
from storage.models.base import Base, JsonObject, Message, utc_now


class Project(Base):
    """One body of feedback: its guidelines, criteria, base model, sampling settings and training policy."""

    __tablename__ = "projects"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(120), unique=True)
    guidelines: Mapped[str] = mapped_column(default="")
    base_model: Mapped[str | None]  # None: the installation's FEEDBACK_BASE_MODEL
    sampling: Mapped[JsonObject] = mapped_column(default=dict)  # storage.configs.SamplingSettings
    training_policy: Mapped[JsonObject] = mapped_column(default=dict)  # storage.configs.TrainingPolicy
    overlap: Mapped[int] = mapped_column(default=1)  # distinct annotators wanted per item
    queue_target: Mapped[int] = mapped_column(default=20)  # unjudged items kept ready
    lease_seconds: Mapped[int] = mapped_column(default=1200)
    members_only: Mapped[bool] = mapped_column(default=False)  # False: every annotator may work here
    tags: Mapped[list[str]] = mapped_column(default=list)  # quick tags of critiques
    annotation_settings: Mapped[JsonObject] = mapped_column(default=dict)  # storage.configs.AnnotationSettings
    gate_settings: Mapped[JsonObject] = mapped_column(default=dict)  # what a version must show to be promoted
    cycle_settings: Mapped[JsonObject] = mapped_column(default=dict)  # what one turn of the loop does by itself
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    criteria: Mapped[list[Criterion]] = relationship(
        back_populates="project", order_by="Criterion.position", lazy="selectin"
    )  # few, and every page shows them: a project is whole also after its session


class Criterion(Base):
    """A named rating scale of a project, whole numbers from `low` to `high`."""

    __tablename__ = "criteria"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(String(120))
    description: Mapped[str] = mapped_column(default="")
    low: Mapped[int] = mapped_column(default=1)
    high: Mapped[int] = mapped_column(default=5)
    position: Mapped[int] = mapped_column(default=0)
    project: Mapped[Project] = relationship(back_populates="criteria")


class Prompt(Base):
    """Chat messages that ask for a completion; `split` follows from `content_hash` for ever."""

    __tablename__ = "prompts"
    __table_args__ = (UniqueConstraint("project_id", "content_hash"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    content_hash: Mapped[str] = mapped_column(String(64))
    messages: Mapped[list[Message]]
    source: Mapped[str] = mapped_column(default="")
    split: Mapped[Split]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    completions: Mapped[list[Completion]] = relationship(back_populates="prompt", order_by="Completion.id")


class Completion(Base):
    """One assistant message written for a prompt, with everything needed to say how it came about."""

    __tablename__ = "completions"
    __table_args__ = (UniqueConstraint("prompt_id", "content_hash"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"))
    content_hash: Mapped[str] = mapped_column(String(64))
    text: Mapped[str]
    origin: Mapped[CompletionOrigin]
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"), index=True)
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    sampling: Mapped[JsonObject | None]
    seed: Mapped[int | None]
    token_count: Mapped[int | None]
    mean_logprob: Mapped[float | None]
    latency_ms: Mapped[float | None]  # of its batch
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    prompt: Mapped[Prompt] = relationship(back_populates="completions")


class Item(Base):
    """A prompt with 1..n completions to be judged; `fingerprint` makes adding it again a no-op."""

    __tablename__ = "items"
    __table_args__ = (
        UniqueConstraint("prompt_id", "fingerprint"),
        Index("ix_items_queue", "project_id", "status", "id"),
        Index("ix_items_judged", "project_id", "status", "judged"),
        Index("ix_items_prompt", "prompt_id", "status", "judged"),
        # Few among many: whatever leaves gold items out looks here.
        Index(
            "ix_items_gold",
            "project_id",
            sqlite_where=text("gold IS NOT NULL"),
            postgresql_where=text("gold IS NOT NULL"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"))
    kind: Mapped[ItemKind]
    status: Mapped[ItemStatus] = mapped_column(default=ItemStatus.OPEN)
    fingerprint: Mapped[str] = mapped_column(String(64))  # of kind and sorted completion ids
    judged: Mapped[int] = mapped_column(default=0)  # live submitted annotations; kept by storage.annotations
    wanted: Mapped[int | None]  # annotators wanted, where that is not the project's overlap (repeats for agreement)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))  # the one person who may judge it (playground)
    gold: Mapped[JsonObject | None]  # what an operator says is right (storage.gold); None: an ordinary item
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    prompt: Mapped[Prompt] = relationship()
    members: Mapped[list[ItemCompletion]] = relationship(order_by="ItemCompletion.position")


class ItemCompletion(Base):
    """A completion's place in an item (not the order shown: that is the assignment's)."""

    __tablename__ = "item_completions"
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    completion_id: Mapped[int] = mapped_column(ForeignKey("completions.id"), index=True)
    completion: Mapped[Completion] = relationship()


class Assignment(Base):
    """An item leased to one annotator; `shown_order` is the completion ids from left to right."""

    __tablename__ = "assignments"
    __table_args__ = (
        UniqueConstraint("item_id", "user_id"),
        Index("ix_assignments_progress", "user_id", "project_id", "status", "closed_at"),
        Index("ix_assignments_cursor", "user_id", "project_id", "item_id"),
        Index("ix_assignments_leases", "project_id", "status", "expires_at"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))  # the item's; here for the queue's indexes
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    status: Mapped[AssignmentStatus] = mapped_column(default=AssignmentStatus.LEASED)
    shown_order: Mapped[list[int]]
    reason: Mapped[SelectionReason | None]  # why this item came next
    propensity: Mapped[float | None]  # the probability with which it did, given what was free then
    leased_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    item: Mapped[Item] = relationship()
