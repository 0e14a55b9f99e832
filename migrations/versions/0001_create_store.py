"""Create the store."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_people()
    _create_training()
    _create_queue()
    _create_feedback()


def _create_people() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("password_hash", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("name", name="uq_users_name"),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("guidelines", sa.Text(), nullable=False),
        sa.Column("base_model", sa.Text()),
        sa.Column("sampling", sa.JSON(), nullable=False),
        sa.Column("training_policy", sa.JSON(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("queue_target", sa.Integer(), nullable=False),
        sa.Column("lease_seconds", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("name", name="uq_projects_name"),
    )
    op.create_table(
        "criteria",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("low", sa.Integer(), nullable=False),
        sa.Column("high", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_criteria_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_criteria"),
        sa.UniqueConstraint("project_id", "name", name="uq_criteria_project_id_name"),
    )
    op.create_table(
        "user_sessions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_user_sessions_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_user_sessions"),
        sa.UniqueConstraint("token_hash", name="uq_user_sessions_token_hash"),
    )
    op.create_index("ix_user_sessions_user_id", "user_sessions", ["user_id"])
    op.create_table(
        "one_time_links",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_one_time_links_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_one_time_links"),
        sa.UniqueConstraint("token_hash", name="uq_one_time_links_token_hash"),
    )
    op.create_index("ix_one_time_links_user_id", "one_time_links", ["user_id"])
    op.create_table(
        "audit_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("user_id", sa.Integer()),
        sa.Column("project_id", sa.Integer()),
        sa.Column("action", sa.String(80), nullable=False),
        sa.Column("subject", sa.String(120), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_audit_events_project_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_audit_events_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_audit_events"),
    )
    op.create_index("ix_audit_events_project_id", "audit_events", ["project_id"])


def _create_training() -> None:
    op.create_table(
        "snapshots",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_snapshots_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_snapshots"),
        sa.UniqueConstraint("project_id", "content_hash", name="uq_snapshots_project_id_content_hash"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("asked", sa.JSON(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("cause", sa.String(200)),
        sa.Column("snapshot_id", sa.Integer()),
        sa.Column("parent_version_id", sa.Integer()),
        sa.Column("requested_by_id", sa.Integer()),
        sa.Column("worker", sa.Text()),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True)),
        sa.Column("step", sa.Integer()),
        sa.Column("total_steps", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.Column("result", sa.JSON()),
        sa.Column("environment", sa.JSON()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(
            ["parent_version_id"], ["model_versions.id"], name="fk_runs_parent_version_id", use_alter=True
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_runs_project_id"),
        sa.ForeignKeyConstraint(["requested_by_id"], ["users.id"], name="fk_runs_requested_by_id"),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name="fk_runs_snapshot_id"),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("project_id", "cause", name="uq_runs_project_id_cause"),
    )
    op.create_index("ix_runs_status_id", "runs", ["status", "id"])
    op.create_index(
        "uq_runs_one_training",
        "runs",
        ["project_id"],
        unique=True,
        sqlite_where=sa.text("status = 'running' AND kind <> 'generate'"),
        postgresql_where=sa.text("status = 'running' AND kind <> 'generate'"),
    )
    op.create_table(
        "model_versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("base_model", sa.Text(), nullable=False),
        sa.Column("folder", sa.Text()),
        sa.Column("sha256", sa.String(64)),
        sa.Column("parent_id", sa.Integer()),
        sa.Column("run_id", sa.Integer()),
        sa.Column("snapshot_id", sa.Integer()),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["parent_id"], ["model_versions.id"], name="fk_model_versions_parent_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_model_versions_project_id"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_model_versions_run_id"),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name="fk_model_versions_snapshot_id"),
        sa.PrimaryKeyConstraint("id", name="pk_model_versions"),
        sa.UniqueConstraint("project_id", "kind", "number", name="uq_model_versions_project_id_kind_number"),
        sa.UniqueConstraint("run_id", name="uq_model_versions_run_id"),
    )
    op.create_index(
        "uq_model_versions_champion",
        "model_versions",
        ["project_id", "kind"],
        unique=True,
        sqlite_where=sa.text("status = 'champion'"),
        postgresql_where=sa.text("status = 'champion'"),
    )
    if op.get_bind().dialect.name != "sqlite":  # there it stands in CREATE TABLE: SQLite cannot add it later
        op.create_foreign_key("fk_runs_parent_version_id", "runs", "model_versions", ["parent_version_id"], ["id"])
    op.create_table(
        "run_logs",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_logs_run_id"),
        sa.PrimaryKeyConstraint("run_id", "line", name="pk_run_logs"),
    )
    op.create_table(
        "run_metrics",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("value", sa.Double()),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_metrics_run_id"),
        sa.PrimaryKeyConstraint("run_id", "step", "name", name="pk_run_metrics"),
    )
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer()),
        sa.Column("snapshot_id", sa.Integer()),
        sa.Column("split", sa.String(32), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_evaluations_run_id"),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name="fk_evaluations_snapshot_id"),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name="fk_evaluations_version_id"),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
    )
    op.create_index("ix_evaluations_version_id", "evaluations", ["version_id"])
    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("previous_id", sa.Integer()),
        sa.Column("user_id", sa.Integer()),
        sa.Column("rolled_back_at", sa.DateTime(timezone=True)),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["previous_id"], ["model_versions.id"], name="fk_promotions_previous_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_promotions_user_id"),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name="fk_promotions_version_id"),
        sa.PrimaryKeyConstraint("id", name="pk_promotions"),
    )
    op.create_index("ix_promotions_version_id", "promotions", ["version_id"])


def _create_queue() -> None:
    op.create_table(
        "prompts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("messages", sa.JSON(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("split", sa.String(32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_prompts_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_prompts"),
        sa.UniqueConstraint("project_id", "content_hash", name="uq_prompts_project_id_content_hash"),
    )
    op.create_table(
        "completions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("prompt_id", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("origin", sa.String(32), nullable=False),
        sa.Column("model_version_id", sa.Integer()),
        sa.Column("run_id", sa.Integer()),
        sa.Column("sampling", sa.JSON()),
        sa.Column("seed", sa.Integer()),
        sa.Column("token_count", sa.Integer()),
        sa.Column("mean_logprob", sa.Double()),
        sa.Column("latency_ms", sa.Double()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model_version_id"], ["model_versions.id"], name="fk_completions_model_version_id"),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name="fk_completions_prompt_id"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_completions_run_id"),
        sa.PrimaryKeyConstraint("id", name="pk_completions"),
        sa.UniqueConstraint("prompt_id", "content_hash", name="uq_completions_prompt_id_content_hash"),
    )
    op.create_index("ix_completions_model_version_id", "completions", ["model_version_id"])
    op.create_table(
        "items",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("prompt_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("judged", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_items_project_id"),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name="fk_items_prompt_id"),
        sa.PrimaryKeyConstraint("id", name="pk_items"),
        sa.UniqueConstraint("prompt_id", "fingerprint", name="uq_items_prompt_id_fingerprint"),
    )
    op.create_index("ix_items_judged", "items", ["project_id", "status", "judged"])
    op.create_index("ix_items_prompt", "items", ["prompt_id", "status", "judged"])
    op.create_index("ix_items_queue", "items", ["project_id", "status", "id"])
    op.create_table(
        "item_completions",
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("completion_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["completion_id"], ["completions.id"], name="fk_item_completions_completion_id"),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_item_completions_item_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("item_id", "position", name="pk_item_completions"),
    )
    op.create_index("ix_item_completions_completion_id", "item_completions", ["completion_id"])
    op.create_table(
        "assignments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("shown_order", sa.JSON(), nullable=False),
        sa.Column("leased_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_assignments_item_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_assignments_project_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_assignments_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_assignments"),
        sa.UniqueConstraint("item_id", "user_id", name="uq_assignments_item_id_user_id"),
    )
    op.create_index("ix_assignments_cursor", "assignments", ["user_id", "project_id", "item_id"])
    op.create_index("ix_assignments_leases", "assignments", ["project_id", "status", "expires_at"])
    op.create_index("ix_assignments_progress", "assignments", ["user_id", "project_id", "status", "closed_at"])


def _create_feedback() -> None:
    op.create_table(
        "annotations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("assignment_id", sa.Integer()),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("draft", sa.JSON()),
        sa.Column("source_key", sa.String(64)),
        sa.Column("seconds_spent", sa.Double()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True)),
        sa.Column("superseded_at", sa.DateTime(timezone=True)),
        sa.Column("superseded_by_id", sa.Integer()),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["assignment_id"], ["assignments.id"], name="fk_annotations_assignment_id"),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_annotations_item_id"),
        sa.ForeignKeyConstraint(["superseded_by_id"], ["annotations.id"], name="fk_annotations_superseded_by_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_annotations_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_annotations"),
        sa.UniqueConstraint("source_key", name="uq_annotations_source_key"),
    )
    op.create_index("ix_annotations_item_id", "annotations", ["item_id"])
    op.create_index("ix_annotations_submitted", "annotations", ["submitted_at"])
    op.create_index("ix_annotations_user_submitted", "annotations", ["user_id", "submitted_at"])
    op.create_index(
        "uq_annotations_live",
        "annotations",
        ["item_id", "user_id"],
        unique=True,
        sqlite_where=sa.text("superseded_at IS NULL AND withdrawn_at IS NULL"),
        postgresql_where=sa.text("superseded_at IS NULL AND withdrawn_at IS NULL"),
    )
    op.create_table(
        "ratings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("annotation_id", sa.Integer(), nullable=False),
        sa.Column("completion_id", sa.Integer(), nullable=False),
        sa.Column("criterion_id", sa.Integer(), nullable=False),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["annotation_id"], ["annotations.id"], name="fk_ratings_annotation_id"),
        sa.ForeignKeyConstraint(["completion_id"], ["completions.id"], name="fk_ratings_completion_id"),
        sa.ForeignKeyConstraint(["criterion_id"], ["criteria.id"], name="fk_ratings_criterion_id"),
        sa.PrimaryKeyConstraint("id", name="pk_ratings"),
        sa.UniqueConstraint(
            "annotation_id", "completion_id", "criterion_id", name="uq_ratings_annotation_id_completion_id_criterion_id"
        ),
    )
    op.create_table(
        "preferences",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("annotation_id", sa.Integer(), nullable=False),
        sa.Column("first_id", sa.Integer(), nullable=False),
        sa.Column("second_id", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("strength", sa.Integer()),
        sa.ForeignKeyConstraint(["annotation_id"], ["annotations.id"], name="fk_preferences_annotation_id"),
        sa.ForeignKeyConstraint(["first_id"], ["completions.id"], name="fk_preferences_first_id"),
        sa.ForeignKeyConstraint(["second_id"], ["completions.id"], name="fk_preferences_second_id"),
        sa.PrimaryKeyConstraint("id", name="pk_preferences"),
        sa.UniqueConstraint(
            "annotation_id", "first_id", "second_id", name="uq_preferences_annotation_id_first_id_second_id"
        ),
    )
    op.create_table(
        "critiques",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("annotation_id", sa.Integer(), nullable=False),
        sa.Column("completion_id", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("span_start", sa.Integer()),
        sa.Column("span_end", sa.Integer()),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["annotation_id"], ["annotations.id"], name="fk_critiques_annotation_id"),
        sa.ForeignKeyConstraint(["completion_id"], ["completions.id"], name="fk_critiques_completion_id"),
        sa.PrimaryKeyConstraint("id", name="pk_critiques"),
    )
    op.create_index("ix_critiques_annotation_id", "critiques", ["annotation_id"])
    op.create_index("ix_critiques_completion_id", "critiques", ["completion_id"])
    op.create_table(
        "refinements",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("annotation_id", sa.Integer(), nullable=False),
        sa.Column("completion_id", sa.Integer(), nullable=False),
        sa.Column("refined_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["annotation_id"], ["annotations.id"], name="fk_refinements_annotation_id"),
        sa.ForeignKeyConstraint(["completion_id"], ["completions.id"], name="fk_refinements_completion_id"),
        sa.ForeignKeyConstraint(["refined_id"], ["completions.id"], name="fk_refinements_refined_id"),
        sa.PrimaryKeyConstraint("id", name="pk_refinements"),
        sa.UniqueConstraint("annotation_id", "completion_id", name="uq_refinements_annotation_id_completion_id"),
    )
    op.create_table(
        "snapshot_rows",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("snapshot_id", sa.Integer(), nullable=False),
        sa.Column("split", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("prompt_id", sa.Integer(), nullable=False),
        sa.Column("chosen_id", sa.Integer(), nullable=False),
        sa.Column("rejected_id", sa.Integer(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["chosen_id"], ["completions.id"], name="fk_snapshot_rows_chosen_id"),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name="fk_snapshot_rows_prompt_id"),
        sa.ForeignKeyConstraint(["rejected_id"], ["completions.id"], name="fk_snapshot_rows_rejected_id"),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name="fk_snapshot_rows_snapshot_id"),
        sa.PrimaryKeyConstraint("id", name="pk_snapshot_rows"),
        sa.UniqueConstraint("snapshot_id", "split", "position", name="uq_snapshot_rows_snapshot_id_split_position"),
    )
    op.create_table(
        "snapshot_row_annotations",
        sa.Column("snapshot_row_id", sa.Integer(), nullable=False),
        sa.Column("annotation_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["annotation_id"], ["annotations.id"], name="fk_snapshot_row_annotations_annotation_id"
        ),
        sa.ForeignKeyConstraint(
            ["snapshot_row_id"], ["snapshot_rows.id"], name="fk_snapshot_row_annotations_snapshot_row_id"
        ),
        sa.PrimaryKeyConstraint("snapshot_row_id", "annotation_id", name="pk_snapshot_row_annotations"),
    )
    op.create_index("ix_snapshot_row_annotations_annotation_id", "snapshot_row_annotations", ["annotation_id"])
