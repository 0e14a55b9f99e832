"""The schema that migrations build is the models' own, on both databases, from nothing and with rows in it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, MetaData, Table, func, insert, inspect, select, text

from storage import schema
from storage.engine import make_engine, make_sessions
from storage.errors import StoreUnavailable
from storage.models import Base
from storage.schema import check, require_current, upgrade
from tests import factories


def differences(url: str) -> list[Any]:
    engine = make_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found: list[Any] = compare_metadata(context, Base.metadata)
    engine.dispose()
    return found


def partial_indexes(url: str) -> set[tuple[str, str]]:
    """(name, condition without spaces and brackets) of every unique index with a condition."""
    engine = make_engine(url)
    inspector = inspect(engine)
    found = set()
    for table in inspector.get_table_names():
        for index in inspector.get_indexes(table):
            options = index.get("dialect_options", {})
            where = options.get("sqlite_where", options.get("postgresql_where"))
            if where is not None:
                found.add((str(index["name"]), str(where)))
    engine.dispose()
    return found


def test_upgrade_of_an_empty_database_equals_the_models(empty_url: str) -> None:
    assert check(empty_url).state == "empty"
    assert upgrade(empty_url).state == "current"
    assert differences(empty_url) == []


def test_upgrade_keeps_rows_and_is_idempotent(empty_url: str) -> None:
    upgrade(empty_url)
    engine = make_engine(empty_url)
    sessions = make_sessions(engine)
    with sessions.begin() as session:
        factories.fill_store(session)
    upgrade(empty_url)
    with sessions() as session:
        counts = {table.name: len(session.execute(select(table)).all()) for table in Base.metadata.sorted_tables}
    engine.dispose()
    assert all(counts.values()), f"tables that the factories leave empty: {counts}"
    assert differences(empty_url) == []


def test_upgrade_of_the_oldest_schema_keeps_every_row(empty_url: str, tmp_path: Path) -> None:
    """Rows of a used store, as far as the first schema had room for them, outlive every migration since."""
    filled = make_engine(f"sqlite:///{tmp_path / 'filled.db'}")
    upgrade(str(filled.url))
    with make_sessions(filled).begin() as session:
        factories.fill_store(session)
    old = make_engine(empty_url)
    if old.dialect.name == "sqlite":
        Path(str(old.url.database)).parent.mkdir(parents=True, exist_ok=True)
    with old.begin() as connection:
        config = schema._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    first = MetaData()
    first.reflect(old)
    kept: dict[str, int] = {}
    with filled.connect() as source, old.begin() as target:
        if old.dialect.name == "postgresql":
            target.exec_driver_sql("SET session_replication_role = replica")  # tables point at each other in circles
        else:
            target.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        for table in first.tables.values():
            if table.name == "alembic_version":
                continue
            # Read and bound by today's types: JSON and times as the models write them.
            now = Base.metadata.tables[table.name]
            columns = [Column(column.name, now.c[column.name].type) for column in table.c]
            then = Table(table.name, MetaData(), *columns)
            rows = [dict(row) for row in source.execute(select(then)).mappings()]
            needed = [column.name for column in table.c if not column.nullable]
            rows = [row for row in rows if all(row[name] is not None for name in needed)]
            target.execute(insert(then), rows)
            kept[table.name] = len(rows)
    upgrade(empty_url)
    with old.connect() as connection:
        counts = {
            name: connection.execute(select(func.count()).select_from(first.tables[name])).scalar() for name in kept
        }
    old.dispose()
    filled.dispose()
    assert all(kept.values())
    assert counts == kept
    assert differences(empty_url) == []


def test_guards_are_partial_indexes_on_both_databases(database_url: str) -> None:
    found = dict(partial_indexes(database_url))
    guards = {"uq_annotations_live", "uq_runs_one_training", "uq_model_versions_champion"}
    assert set(found) == guards | {"ix_items_gold"}
    assert "withdrawn_at IS NULL" in found["uq_annotations_live"]
    assert "running" in found["uq_runs_one_training"]
    assert "generate" in found["uq_runs_one_training"]
    assert "refine" in found["uq_runs_one_training"]
    assert "champion" in found["uq_model_versions_champion"]


def test_two_programs_may_upgrade_at_once(empty_url: str) -> None:
    failures: list[BaseException] = []

    def migrate() -> None:
        try:
            upgrade(empty_url)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert differences(empty_url) == []


def test_a_newer_schema_is_refused_and_left_alone(empty_url: str) -> None:
    upgrade(empty_url)
    engine = make_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert check(empty_url).state == "newer"
    for use in (upgrade, require_current):
        with pytest.raises(StoreUnavailable, match="newer version"):
            use(empty_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"
    engine.dispose()


def test_checking_creates_no_file(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    assert check(f"sqlite:///{path}").state == "empty"
    with pytest.raises(StoreUnavailable, match="db upgrade"):
        require_current(f"sqlite:///{path}")
    assert not path.exists()
