"""Every table. Rows are typed; JSON columns carry plain lists and dicts; times are UTC and aware."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from storage.enums import (
    AnnotationStatus,
    AssignmentStatus,
    CompletionOrigin,
    ItemKind,
    ItemStatus,
    LinkPurpose,
    ModelKind,
    Outcome,
    PairSource,
    Role,
    RunKind,
    RunStatus,
    Split,
    VersionStatus,
)

Message = dict[str, str]
JsonObject = dict[str, Any]


def utc_now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes on both databases (SQLite forgets the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times, store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _enum(kind: type[StrEnum]) -> Enum:
    # Stored as text, without a CHECK: a new member must not need a migration of the column type.
    return Enum(
        kind,
        native_enum=False,
        create_constraint=False,
        length=32,
        values_callable=lambda e: [m.value for m in e],
    )


class Base(DeclarativeBase):
    """Declarative base: names every constraint, so that Alembic can find it again on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        str: Text(),
        JsonObject: JSON(),
        list[Message]: JSON(),
        list[str]: JSON(),
        list[int]: JSON(),
        **{
            kind: _enum(kind)
            for kind in (
                AnnotationStatus, AssignmentStatus, CompletionOrigin, ItemKind, ItemStatus, LinkPurpose, ModelKind,
                Outcome, PairSource, Role, RunKind, RunStatus, Split, VersionStatus,
            )
        },
    }  # fmt: skip


# --- people ---


class User(Base):
    """A person. Imported annotators are users without a password, disabled."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(120), unique=True)
    role: Mapped[Role]
    password_hash: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    disabled_at: Mapped[datetime | None]


class UserSession(Base):
    """A signed-in browser; only the SHA-256 of its cookie is stored."""

    __tablename__ = "user_sessions"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime]
    user: Mapped[User] = relationship()


class OneTimeLink(Base):
    """A link that signs a person in once (invite, reset, first login); stored hashed."""

    __tablename__ = "one_time_links"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    purpose: Mapped[LinkPurpose]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    user: Mapped[User] = relationship()


# --- projects, prompts, completions ---


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
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    criteria: Mapped[list[Criterion]] = relationship(back_populates="project", order_by="Criterion.position")


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


# --- the queue ---


class Item(Base):
    """A prompt with 1..n completions to be judged; `fingerprint` makes adding it again a no-op."""

    __tablename__ = "items"
    __table_args__ = (
        UniqueConstraint("prompt_id", "fingerprint"),
        Index("ix_items_queue", "project_id", "status", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"))
    kind: Mapped[ItemKind]
    status: Mapped[ItemStatus] = mapped_column(default=ItemStatus.OPEN)
    fingerprint: Mapped[str] = mapped_column(String(64))  # of kind and sorted completion ids
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
        Index("ix_assignments_user_status", "user_id", "status"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    status: Mapped[AssignmentStatus] = mapped_column(default=AssignmentStatus.LEASED)
    shown_order: Mapped[list[int]]
    leased_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    item: Mapped[Item] = relationship()


# --- feedback ---


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
        UniqueConstraint("source_key"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), index=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    assignment_id: Mapped[int | None] = mapped_column(ForeignKey("assignments.id"))  # None: imported
    status: Mapped[AnnotationStatus]
    draft: Mapped[JsonObject | None]  # what has been typed so far; None once submitted
    source_key: Mapped[str | None] = mapped_column(String(64))  # hash of an imported record: importing again is a no-op
    seconds_spent: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    submitted_at: Mapped[datetime | None]
    superseded_at: Mapped[datetime | None]
    superseded_by_id: Mapped[int | None] = mapped_column(ForeignKey("annotations.id"))
    withdrawn_at: Mapped[datetime | None]
    item: Mapped[Item] = relationship()
    user: Mapped[User] = relationship()
    ratings: Mapped[list[Rating]] = relationship(back_populates="annotation")
    preferences: Mapped[list[Preference]] = relationship(back_populates="annotation")
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
    annotation: Mapped[Annotation] = relationship(back_populates="critiques")


class Refinement(Base):
    """A completion rewritten because of a critique: original -> refined, both completions of one prompt."""

    __tablename__ = "refinements"
    __table_args__ = (UniqueConstraint("annotation_id", "completion_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    annotation_id: Mapped[int] = mapped_column(ForeignKey("annotations.id"))
    completion_id: Mapped[int] = mapped_column(ForeignKey("completions.id"))
    refined_id: Mapped[int] = mapped_column(ForeignKey("completions.id"))
    annotation: Mapped[Annotation] = relationship(back_populates="refinements")


# --- training data and runs ---


class Snapshot(Base):
    """Frozen training data. `content_hash` depends on its content only; the rows stand in Parquet under `folder`."""

    __tablename__ = "snapshots"
    __table_args__ = (UniqueConstraint("project_id", "content_hash"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    content_hash: Mapped[str] = mapped_column(String(64))
    folder: Mapped[str]  # relative to FEEDBACK_HOME
    settings: Mapped[JsonObject]  # storage.configs.SnapshotSettings
    report: Mapped[JsonObject]  # what was used, what was left out, and why; counts
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class SnapshotRow(Base):
    """One preference pair of a snapshot; row `position` of the Parquet file of its split."""

    __tablename__ = "snapshot_rows"
    __table_args__ = (UniqueConstraint("snapshot_id", "split", "position"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"))
    split: Mapped[Split]
    position: Mapped[int]
    source: Mapped[PairSource]
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"))
    chosen_id: Mapped[int] = mapped_column(ForeignKey("completions.id"))
    rejected_id: Mapped[int] = mapped_column(ForeignKey("completions.id"))
    weight: Mapped[float]


class SnapshotRowAnnotation(Base):
    """Ties a snapshot row to each annotation it was derived from."""

    __tablename__ = "snapshot_row_annotations"
    snapshot_row_id: Mapped[int] = mapped_column(ForeignKey("snapshot_rows.id"), primary_key=True)
    annotation_id: Mapped[int] = mapped_column(ForeignKey("annotations.id"), primary_key=True, index=True)


class Run(Base):
    """A queued piece of work and its life; see `storage.runs` for the transitions."""

    __tablename__ = "runs"
    __table_args__ = (
        UniqueConstraint("project_id", "cause"),
        # The guard behind "at most one training run per project at a time", whatever two workers do.
        Index(
            "uq_runs_one_training",
            "project_id",
            unique=True,
            sqlite_where=text("status = 'running' AND kind <> 'generate'"),
            postgresql_where=text("status = 'running' AND kind <> 'generate'"),
        ),
        Index("ix_runs_status_id", "status", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    kind: Mapped[RunKind]
    status: Mapped[RunStatus] = mapped_column(default=RunStatus.QUEUED)
    asked: Mapped[JsonObject] = mapped_column(default=dict)  # what people set, own and inherited
    config: Mapped[JsonObject]  # the full config: `asked` and what was scaled to the data (storage.configs)
    seed: Mapped[int] = mapped_column(default=0)
    cause: Mapped[str | None] = mapped_column(String(200))  # set by automation: one run per cause
    snapshot_id: Mapped[int | None] = mapped_column(ForeignKey("snapshots.id"))
    parent_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id", use_alter=True))
    requested_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    worker: Mapped[str | None]
    heartbeat_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    cancel_requested_at: Mapped[datetime | None]
    step: Mapped[int | None]
    total_steps: Mapped[int | None]
    error: Mapped[str | None]  # why it failed or was cancelled, one line
    result: Mapped[JsonObject | None]  # final metrics and counts
    environment: Mapped[JsonObject | None]  # package versions, git commit, device
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    project: Mapped[Project] = relationship()
    snapshot: Mapped[Snapshot | None] = relationship()


class RunMetric(Base):
    """One figure of a run at a step; NULL stands for a value that was not finite."""

    __tablename__ = "run_metrics"
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(120), primary_key=True)
    value: Mapped[float | None]


class RunLog(Base):
    """A line of a run's log."""

    __tablename__ = "run_logs"
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class ModelVersion(Base):
    """A policy or reward model with its lineage. Number 0 of a project's policies is the base model itself."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("project_id", "kind", "number"),
        Index(
            "uq_model_versions_champion",
            "project_id",
            "kind",
            unique=True,
            sqlite_where=text("status = 'champion'"),
            postgresql_where=text("status = 'champion'"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    kind: Mapped[ModelKind]
    number: Mapped[int]
    status: Mapped[VersionStatus]
    base_model: Mapped[str]
    folder: Mapped[str | None]  # adapter folder relative to FEEDBACK_HOME; None: the base model itself
    sha256: Mapped[str | None] = mapped_column(String(64))  # of the adapter folder's files
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"), unique=True)
    snapshot_id: Mapped[int | None] = mapped_column(ForeignKey("snapshots.id"))
    metrics: Mapped[JsonObject] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    @property
    def name(self) -> str:
        """How people and commands call it: `policy-v3`, `reward-v1`."""
        return f"{self.kind.value}-v{self.number}"


class Promotion(Base):
    """A champion taking over; the history that a roll back walks."""

    __tablename__ = "promotions"
    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    previous_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    rolled_back_at: Mapped[datetime | None]
    reason: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Evaluation(Base):
    """Figures of one model version on one split, made by a run."""

    __tablename__ = "evaluations"
    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    snapshot_id: Mapped[int | None] = mapped_column(ForeignKey("snapshots.id"))
    split: Mapped[Split]
    metrics: Mapped[JsonObject]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class AuditEvent(Base):
    """Who did what to which row, when."""

    __tablename__ = "audit_events"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id"), index=True)
    action: Mapped[str] = mapped_column(String(80))
    subject: Mapped[str] = mapped_column(String(120))
    detail: Mapped[JsonObject] = mapped_column(default=dict)
