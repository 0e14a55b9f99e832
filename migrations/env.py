"""Alembic runs this: it migrates the connection of `storage.schema`, or the one of FEEDBACK_DATABASE_URL."""

import os

from alembic import context
from sqlalchemy import Connection

from storage.engine import make_engine
from storage.models import Base


def migrate(connection: Connection) -> None:
    """Run the migrations inside the connection's transaction."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        # SQLite cannot alter a column or a constraint: the table is copied instead.
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with make_engine(os.environ["FEEDBACK_DATABASE_URL"]).begin() as opened:
        migrate(opened)
