"""Room for refinements made by models, snapshots of other forms than pairs, and what became of critiques."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _let_more_run_beside_training()
    _widen_refinements()
    _widen_snapshots()
    _create_resolutions()
    _create_conversations()
    _score_gold_items()


def _let_more_run_beside_training() -> None:
    op.drop_index("uq_runs_one_training", "runs")
    training = sa.text("status = 'running' AND kind NOT IN ('generate', 'playground', 'refine')")
    op.create_index(
        "uq_runs_one_training", "runs", ["project_id"], unique=True, sqlite_where=training, postgresql_where=training
    )


def _widen_refinements() -> None:
    with op.batch_alter_table("refinements") as refinements:
        refinements.alter_column("annotation_id", existing_type=sa.Integer(), nullable=True)
        refinements.add_column(sa.Column("run_id", sa.Integer()))
        refinements.add_column(sa.Column("judge_score", sa.Double()))
        refinements.add_column(sa.Column("reward", sa.Double()))
        refinements.add_column(sa.Column("rank", sa.Integer()))
        refinements.add_column(sa.Column("status", sa.String(32)))
        refinements.add_column(sa.Column("reviewer_id", sa.Integer()))
        refinements.add_column(sa.Column("reviewed_at", TIME))
        refinements.add_column(sa.Column("edited_id", sa.Integer()))
        refinements.add_column(sa.Column("review_item_id", sa.Integer()))
        refinements.create_foreign_key("fk_refinements_run_id", "runs", ["run_id"], ["id"])
        refinements.create_foreign_key("fk_refinements_reviewer_id", "users", ["reviewer_id"], ["id"])
        refinements.create_foreign_key("fk_refinements_edited_id", "completions", ["edited_id"], ["id"])
        refinements.create_foreign_key("fk_refinements_review_item_id", "items", ["review_item_id"], ["id"])
        refinements.create_unique_constraint(
            "uq_refinements_run_id_completion_id_refined_id", ["run_id", "completion_id", "refined_id"]
        )
    op.create_index("ix_refinements_completion_id", "refinements", ["completion_id"])
    op.create_index("ix_refinements_review_item_id", "refinements", ["review_item_id"])
    _tie("refinement_critiques", "refinement", "critique", cascade=True)


def _widen_snapshots() -> None:
    op.add_column("snapshots", sa.Column("form", sa.String(32), nullable=False, server_default="preference"))
    with op.batch_alter_table("snapshot_rows") as rows:
        rows.alter_column("rejected_id", existing_type=sa.Integer(), nullable=True)
        rows.add_column(sa.Column("digest", sa.String(64)))
    _tie("snapshot_row_critiques", "snapshot_row", "critique")
    _tie("snapshot_row_refinements", "snapshot_row", "refinement")


def _tie(table: str, one: str, other: str, *, cascade: bool = False) -> None:
    """A table that ties rows of `one` to rows of `other`, which takes its ties along when it is deleted."""
    op.create_table(
        table,
        sa.Column(f"{one}_id", sa.Integer(), nullable=False),
        sa.Column(f"{other}_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            [f"{one}_id"], [f"{one}s.id"], name=f"fk_{table}_{one}_id", ondelete="CASCADE" if cascade else None
        ),
        sa.ForeignKeyConstraint([f"{other}_id"], [f"{other}s.id"], name=f"fk_{table}_{other}_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint(f"{one}_id", f"{other}_id", name=f"pk_{table}"),
    )
    op.create_index(f"ix_{table}_{other}_id", table, [f"{other}_id"])


def _create_resolutions() -> None:
    op.create_table(
        "resolutions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("critique_id", sa.Integer(), nullable=False),
        sa.Column("completion_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Integer()),
        sa.Column("user_id", sa.Integer()),
        sa.Column("held_out", sa.Boolean(), nullable=False),
        sa.Column("verdict", sa.String(32)),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("judged_at", TIME),
        sa.ForeignKeyConstraint(
            ["critique_id"], ["critiques.id"], name="fk_resolutions_critique_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["completion_id"], ["completions.id"], name="fk_resolutions_completion_id"),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name="fk_resolutions_version_id"),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_resolutions_item_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_resolutions_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_resolutions"),
        sa.UniqueConstraint(
            "critique_id", "completion_id", "version_id", name="uq_resolutions_critique_id_completion_id_version_id"
        ),
    )
    op.create_index("ix_resolutions_item_id", "resolutions", ["item_id"])
    op.create_index("ix_resolutions_version_id", "resolutions", ["version_id"])


def _create_conversations() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("messages", sa.JSON(), nullable=False),
        sa.Column("draft", sa.Text(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("texts", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("sent_at", TIME),
        sa.Column("run_id", sa.Integer()),
        sa.Column("assignment_id", sa.Integer()),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_conversations_project_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_conversations_user_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_conversations_run_id"),
        sa.ForeignKeyConstraint(["assignment_id"], ["assignments.id"], name="fk_conversations_assignment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_conversations"),
        sa.UniqueConstraint("project_id", "user_id", name="uq_conversations_project_id_user_id"),
    )
    op.create_index("ix_conversations_user_id", "conversations", ["user_id"])


def _score_gold_items() -> None:
    op.add_column("annotations", sa.Column("gold_score", sa.Double()))
    gold = sa.text("gold IS NOT NULL")
    op.create_index("ix_items_gold", "items", ["project_id"], sqlite_where=gold, postgresql_where=gold)
    op.create_table(
        "standings",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double()),
        sa.Column("round_started_at", TIME),
        sa.Column("round_ended_at", TIME),
        sa.Column("admitted", sa.String(32)),
        sa.Column("admitted_at", TIME),
        sa.Column("paused_at", TIME),
        sa.Column("checks_from", TIME),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_standings_project_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_standings_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project_id", "user_id", name="pk_standings"),
    )
    op.create_index("ix_standings_user_id", "standings", ["user_id"])
