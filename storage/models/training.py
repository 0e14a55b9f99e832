"""What trains and what came of it: snapshots, runs, model versions, promotions, evaluations."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from storage.enums import ModelKind, PairSource, RunKind, RunStatus, SnapshotForm, Split, VersionStatus
from storage.models.base import Base, JsonObject, utc_now
from storage.models.work import Project


class Snapshot(Base):
    """Frozen training data. `content_hash` depends on its content only; the rows stand in Parquet under `folder`."""

    __tablename__ = "snapshots"
    __table_args__ = (UniqueConstraint("project_id", "content_hash"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    form: Mapped[SnapshotForm] = mapped_column(default=SnapshotForm.PREFERENCE)
    content_hash: Mapped[str] = mapped_column(String(64))
    folder: Mapped[str]  # relative to FEEDBACK_HOME
    settings: Mapped[JsonObject]  # storage.configs.SnapshotSettings
    report: Mapped[JsonObject]  # what was used, what was left out, and why; counts
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    tainted_at: Mapped[datetime | None]  # since when an annotation in it is withdrawn or erased


class SnapshotRow(Base):
    """One row of a snapshot: row `position` of the Parquet file of its split. Only pairs have a rejected one."""

    __tablename__ = "snapshot_rows"
    __table_args__ = (UniqueConstraint("snapshot_id", "split", "position"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"))
    split: Mapped[Split]
    position: Mapped[int]
    source: Mapped[PairSource]
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id"))
    chosen_id: Mapped[int] = mapped_column(ForeignKey("completions.id"))
    rejected_id: Mapped[int | None] = mapped_column(ForeignKey("completions.id"))
    weight: Mapped[float]
    digest: Mapped[str | None] = mapped_column(String(64))  # of the row's content; None: older than `snapshots diff`


class SnapshotRowAnnotation(Base):
    """Ties a snapshot row to each annotation it was derived from."""

    __tablename__ = "snapshot_row_annotations"
    snapshot_row_id: Mapped[int] = mapped_column(ForeignKey("snapshot_rows.id"), primary_key=True)
    annotation_id: Mapped[int] = mapped_column(ForeignKey("annotations.id"), primary_key=True, index=True)


class SnapshotRowCritique(Base):
    """Ties a snapshot row to each critique that led to it."""

    __tablename__ = "snapshot_row_critiques"
    snapshot_row_id: Mapped[int] = mapped_column(ForeignKey("snapshot_rows.id"), primary_key=True)
    critique_id: Mapped[int] = mapped_column(
        ForeignKey("critiques.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class SnapshotRowRefinement(Base):
    """Ties a snapshot row to each refinement, of a person or a model, that it holds."""

    __tablename__ = "snapshot_row_refinements"
    snapshot_row_id: Mapped[int] = mapped_column(ForeignKey("snapshot_rows.id"), primary_key=True)
    refinement_id: Mapped[int] = mapped_column(
        ForeignKey("refinements.id", ondelete="CASCADE"), primary_key=True, index=True
    )


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
            sqlite_where=text(
                "status = 'running' AND kind NOT IN ('generate', 'playground', 'refine', 'evaluate', 'cycle')"
            ),
            postgresql_where=text(
                "status = 'running' AND kind NOT IN ('generate', 'playground', 'refine', 'evaluate', 'cycle')"
            ),
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
    parent_run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"), index=True)  # the cycle it is a step of
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
    tainted_at: Mapped[datetime | None]  # since when an annotation that trained it is withdrawn or erased

    @property
    def name(self) -> str:
        """How people and commands call it: `policy-v3`, `reward-v1`."""
        return f"{self.kind.value}-v{self.number}"


class CompletionScore(Base):
    """What a reward model thinks of a completion; versions that score the same one are an ensemble."""

    __tablename__ = "completion_scores"
    completion_id: Mapped[int] = mapped_column(ForeignKey("completions.id"), primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), primary_key=True, index=True)
    value: Mapped[float]  # the reward, in the model's own units
    spread: Mapped[float | None]  # standard deviation over the heads of an ensemble; None: a single model
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Promotion(Base):
    """A champion taking over; the history that a roll back walks."""

    __tablename__ = "promotions"
    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    previous_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    rolled_back_at: Mapped[datetime | None]
    gate_result_id: Mapped[int | None] = mapped_column(ForeignKey("gate_results.id"))  # what it rested on
    reason: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Evaluation(Base):
    """Figures of one model version on one split, made by a run."""

    __tablename__ = "evaluations"
    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    snapshot_id: Mapped[int | None] = mapped_column(ForeignKey("snapshots.id"))
    champion_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))  # what it was compared with
    reward_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))  # the reward model that judged
    split: Mapped[Split]
    metrics: Mapped[JsonObject]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
