"""The database's schema: bring it up to date, and say how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from storage.engine import make_engine, sqlite_path
from storage.errors import StoreUnavailable

# Any number will do, as long as nobody else uses it: two programs that upgrade one PostgreSQL take turns.
_UPGRADE_LOCK = 7_305_811_922


@dataclass(frozen=True)
class SchemaState:
    """Where a database stands: its revision, the revision this program wants, and what that means."""

    current: str | None
    head: str
    state: Literal["current", "empty", "behind", "newer"]


def check(url: str) -> SchemaState:
    """How the schema of the database at `url` stands; creates nothing."""
    path = sqlite_path(url)
    if path is not None and not path.exists():
        return _state(None, _scripts())
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            return _state(MigrationContext.configure(connection).get_current_revision(), _scripts())
    finally:
        engine.dispose()


def require_current(url: str) -> None:
    """Raise `StoreUnavailable` with the mend unless the schema is exactly this program's."""
    found = check(url)
    if found.state == "newer":
        raise StoreUnavailable(_newer(found))
    if found.state != "current":
        raise StoreUnavailable("the database is not up to date; run: feedback-app db upgrade")


def state_of(revision: str) -> SchemaState:
    """How a database at `revision` would stand."""
    return _state(revision, _scripts())


def upgrade(url: str, revision: str = "head") -> SchemaState:
    """Create or migrate the schema to this program's, or to an earlier `revision`; safe to call again, and by two
    programs at once.

    All or nothing: a migration that fails leaves the database as it was. Raises `StoreUnavailable` when the database
    was made by a newer program.
    """
    path = sqlite_path(url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            _suspend_foreign_keys(connection)
            with connection.begin():
                _upgrade(connection, revision)
    finally:
        engine.dispose()
    return check(url)


def _upgrade(connection: Connection, revision: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})")
    found = _state(MigrationContext.configure(connection).get_current_revision(), _scripts())
    if found.state == "newer":
        raise StoreUnavailable(_newer(found))
    if found.state == "current":
        return
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if broken is not None:
            raise StoreUnavailable(f"the migration would break a reference in table '{broken[0]}'; nothing was changed")


def _suspend_foreign_keys(connection: Connection) -> None:
    # SQLite changes a table by copying and dropping it; with foreign keys on, the drop would delete the rows that
    # point to it. The switch works outside a transaction only.
    if connection.dialect.name == "sqlite":
        raw: Any = connection.connection.driver_connection
        raw.execute("PRAGMA foreign_keys=OFF")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _state(current: str | None, scripts: ScriptDirectory) -> SchemaState:
    head = scripts.get_current_head()
    if head is None:
        raise StoreUnavailable("this installation has no migrations; install it again")
    if current is None:
        return SchemaState(None, head, "empty")
    if current == head:
        return SchemaState(current, head, "current")
    known = {script.revision for script in scripts.walk_revisions()}
    return SchemaState(current, head, "behind" if current in known else "newer")


def _newer(found: SchemaState) -> str:
    return (
        f"the database was made by a newer version of this program (revision {found.current}, this one knows "
        f"{found.head}); install the newer version, or restore a backup"
    )


def check_engine(engine: Engine) -> SchemaState:
    """`check` for an engine that is open already."""
    with engine.connect() as connection:
        return _state(MigrationContext.configure(connection).get_current_revision(), _scripts())
