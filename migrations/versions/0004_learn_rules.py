"""Room for rules, the critiques they came from, and what was written under them and trained by them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _create_rules()
    _create_ties()


def _create_rules() -> None:
    op.create_table(
        "rules",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("gathered", sa.Integer(), nullable=False),
        sa.Column("created_by_id", sa.Integer()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_rules_project_id"),
        sa.ForeignKeyConstraint(["created_by_id"], ["users.id"], name="fk_rules_created_by_id"),
        sa.PrimaryKeyConstraint("id", name="pk_rules"),
    )
    op.create_index("ix_rules_project_id", "rules", ["project_id"])
    op.create_table(
        "rule_revisions",
        sa.Column("rule_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("instruction", sa.Text(), nullable=False),
        sa.Column("scope", sa.JSON(), nullable=False),
        sa.Column("critique_id", sa.Integer()),
        sa.Column("user_id", sa.Integer()),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["rule_id"], ["rules.id"], name="fk_rule_revisions_rule_id"),
        sa.ForeignKeyConstraint(
            ["critique_id"], ["critiques.id"], name="fk_rule_revisions_critique_id", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_rule_revisions_user_id"),
        sa.PrimaryKeyConstraint("rule_id", "number", name="pk_rule_revisions"),
    )
    op.create_index("ix_rule_revisions_critique_id", "rule_revisions", ["critique_id"])


def _create_ties() -> None:
    op.create_table(
        "rule_critiques",
        sa.Column("rule_id", sa.Integer(), nullable=False),
        sa.Column("critique_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["rule_id"], ["rules.id"], name="fk_rule_critiques_rule_id"),
        sa.ForeignKeyConstraint(
            ["critique_id"], ["critiques.id"], name="fk_rule_critiques_critique_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rule_id", "critique_id", name="pk_rule_critiques"),
    )
    op.create_index("ix_rule_critiques_critique_id", "rule_critiques", ["critique_id"])
    op.create_table(
        "completion_rules",
        sa.Column("completion_id", sa.Integer(), nullable=False),
        sa.Column("rule_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["completion_id"], ["completions.id"], name="fk_completion_rules_completion_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["rule_id", "revision"],
            ["rule_revisions.rule_id", "rule_revisions.number"],
            name="fk_completion_rules_rule_id_revision",
        ),
        sa.PrimaryKeyConstraint("completion_id", "rule_id", name="pk_completion_rules"),
    )
    op.create_index("ix_completion_rules_rule_id", "completion_rules", ["rule_id"])
    op.create_table(
        "snapshot_row_rules",
        sa.Column("snapshot_row_id", sa.Integer(), nullable=False),
        sa.Column("rule_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["snapshot_row_id"], ["snapshot_rows.id"], name="fk_snapshot_row_rules_snapshot_row_id"
        ),
        sa.ForeignKeyConstraint(["rule_id"], ["rules.id"], name="fk_snapshot_row_rules_rule_id"),
        sa.PrimaryKeyConstraint("snapshot_row_id", "rule_id", name="pk_snapshot_row_rules"),
    )
    op.create_index("ix_snapshot_row_rules_rule_id", "snapshot_row_rules", ["rule_id"])
