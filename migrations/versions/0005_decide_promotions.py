"""Room for gates, blind comparisons of two versions, alerts, and runs that have children."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _widen_runs()
    op.add_column("projects", sa.Column("gate_settings", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("projects", sa.Column("cycle_settings", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("completion_scores", sa.Column("spread", sa.Double()))
    with op.batch_alter_table("evaluations") as evaluations:
        evaluations.add_column(sa.Column("champion_id", sa.Integer()))
        evaluations.add_column(sa.Column("reward_id", sa.Integer()))
        evaluations.create_foreign_key("fk_evaluations_champion_id", "model_versions", ["champion_id"], ["id"])
        evaluations.create_foreign_key("fk_evaluations_reward_id", "model_versions", ["reward_id"], ["id"])
    _create_blind_tests()
    _create_gate_results()
    _create_alerts()


def _widen_runs() -> None:
    op.drop_index("uq_runs_one_training", "runs")
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("parent_run_id", sa.Integer()))
        runs.create_foreign_key("fk_runs_parent_run_id", "runs", ["parent_run_id"], ["id"])
    op.create_index("ix_runs_parent_run_id", "runs", ["parent_run_id"])
    training = sa.text("status = 'running' AND kind NOT IN ('generate', 'playground', 'refine', 'evaluate', 'cycle')")
    op.create_index(
        "uq_runs_one_training", "runs", ["project_id"], unique=True, sqlite_where=training, postgresql_where=training
    )


def _create_blind_tests() -> None:
    op.create_table(
        "blind_tests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("candidate_id", sa.Integer(), nullable=False),
        sa.Column("champion_id", sa.Integer(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("user_id", sa.Integer()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_blind_tests_project_id"),
        sa.ForeignKeyConstraint(["candidate_id"], ["model_versions.id"], name="fk_blind_tests_candidate_id"),
        sa.ForeignKeyConstraint(["champion_id"], ["model_versions.id"], name="fk_blind_tests_champion_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_blind_tests_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_blind_tests"),
    )
    op.create_index("ix_blind_tests_project_id", "blind_tests", ["project_id"])
    op.create_table(
        "blind_test_items",
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("blind_test_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_blind_test_items_item_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["blind_test_id"], ["blind_tests.id"], name="fk_blind_test_items_blind_test_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("item_id", name="pk_blind_test_items"),
    )
    op.create_index("ix_blind_test_items_blind_test_id", "blind_test_items", ["blind_test_id"])


def _create_gate_results() -> None:
    op.create_table(
        "gate_results",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("champion_id", sa.Integer()),
        sa.Column("evaluation_id", sa.Integer()),
        sa.Column("blind_test_id", sa.Integer()),
        sa.Column("verdict", sa.String(32), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_gate_results_project_id"),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name="fk_gate_results_version_id"),
        sa.ForeignKeyConstraint(["champion_id"], ["model_versions.id"], name="fk_gate_results_champion_id"),
        sa.ForeignKeyConstraint(["evaluation_id"], ["evaluations.id"], name="fk_gate_results_evaluation_id"),
        sa.ForeignKeyConstraint(["blind_test_id"], ["blind_tests.id"], name="fk_gate_results_blind_test_id"),
        sa.PrimaryKeyConstraint("id", name="pk_gate_results"),
    )
    op.create_index("ix_gate_results_version_id", "gate_results", ["version_id"])
    with op.batch_alter_table("promotions") as promotions:
        promotions.add_column(sa.Column("gate_result_id", sa.Integer()))
        promotions.create_foreign_key("fk_promotions_gate_result_id", "gate_results", ["gate_result_id"], ["id"])


def _create_alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_alerts_project_id"),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name="fk_alerts_version_id"),
        sa.PrimaryKeyConstraint("id", name="pk_alerts"),
    )
    op.create_index("ix_alerts_project_id", "alerts", ["project_id"])
