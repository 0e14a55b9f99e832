"""Room for richer items, selection, members, other programs, and marks on what withdrawn feedback trained."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _widen_people()
    _widen_work()
    _widen_feedback()
    _create_doors()


def _widen_people() -> None:
    op.add_column("users", sa.Column("language", sa.String(16)))
    op.add_column("users", sa.Column("erased_at", TIME))
    op.add_column("user_sessions", sa.Column("user_agent", sa.Text(), nullable=False, server_default=""))
    op.add_column("user_sessions", sa.Column("address", sa.String(64), nullable=False, server_default=""))
    op.add_column("user_sessions", sa.Column("last_seen_at", TIME))
    op.create_table(
        "identities",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("issuer", sa.String(255), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_identities_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_identities"),
        sa.UniqueConstraint("issuer", "subject", name="uq_identities_issuer_subject"),
    )
    op.create_index("ix_identities_user_id", "identities", ["user_id"])
    op.create_table(
        "project_members",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_project_members_project_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_project_members_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project_id", "user_id", name="pk_project_members"),
    )
    op.create_index("ix_project_members_user_id", "project_members", ["user_id"])


def _widen_work() -> None:
    op.add_column("projects", sa.Column("members_only", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("projects", sa.Column("tags", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("projects", sa.Column("annotation_settings", sa.JSON(), nullable=False, server_default="{}"))
    with op.batch_alter_table("items") as items:
        items.add_column(sa.Column("wanted", sa.Integer()))
        items.add_column(sa.Column("owner_id", sa.Integer()))
        items.add_column(sa.Column("gold", sa.JSON()))
        items.create_foreign_key("fk_items_owner_id", "users", ["owner_id"], ["id"])
    op.add_column("assignments", sa.Column("reason", sa.String(32)))
    op.add_column("assignments", sa.Column("propensity", sa.Double()))


def _widen_feedback() -> None:
    op.add_column("critiques", sa.Column("fix", sa.Text()))
    op.create_table(
        "rankings",
        sa.Column("annotation_id", sa.Integer(), nullable=False),
        sa.Column("completion_id", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["annotation_id"], ["annotations.id"], name="fk_rankings_annotation_id"),
        sa.ForeignKeyConstraint(["completion_id"], ["completions.id"], name="fk_rankings_completion_id"),
        sa.PrimaryKeyConstraint("annotation_id", "completion_id", name="pk_rankings"),
    )
    op.create_table(
        "completion_scores",
        sa.Column("completion_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["completion_id"], ["completions.id"], name="fk_completion_scores_completion_id"),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name="fk_completion_scores_version_id"),
        sa.PrimaryKeyConstraint("completion_id", "version_id", name="pk_completion_scores"),
    )
    op.create_index("ix_completion_scores_version_id", "completion_scores", ["version_id"])
    op.add_column("snapshots", sa.Column("tainted_at", TIME))
    op.add_column("model_versions", sa.Column("tainted_at", TIME))


def _create_doors() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer()),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("last_used_at", TIME),
        sa.Column("revoked_at", TIME),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_api_tokens_user_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_api_tokens_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_api_tokens"),
        sa.UniqueConstraint("token_hash", name="uq_api_tokens_token_hash"),
    )
    op.create_index("ix_api_tokens_user_id", "api_tokens", ["user_id"])
    op.create_table(
        "api_requests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(120), nullable=False),
        sa.Column("request_hash", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("response", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["token_id"], ["api_tokens.id"], name="fk_api_requests_token_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_api_requests"),
        sa.UniqueConstraint("token_id", "key", name="uq_api_requests_token_id_key"),
    )
    op.create_index("ix_api_requests_created_at", "api_requests", ["created_at"])
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.String(120), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("disabled_at", TIME),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_webhooks_project_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
    )
    op.create_index("ix_webhooks_project_id", "webhooks", ["project_id"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("webhook_id", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(60), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", TIME),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("delivered_at", TIME),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name="fk_webhook_deliveries_webhook_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
    )
    op.create_index("ix_webhook_deliveries_webhook_id", "webhook_deliveries", ["webhook_id"])
    op.create_index("ix_webhook_deliveries_due", "webhook_deliveries", ["next_attempt_at"])
