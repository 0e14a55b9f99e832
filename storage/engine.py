"""Engines and sessions for both databases, and which database errors a person can mend."""

from __future__ import annotations

import errno
import select
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError, NoSuchModuleError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from storage.errors import Invalid, StoreUnavailable

BUSY_SECONDS = 10.0
# Connections that stay open, as many as the web process has threads that want one; those beyond are closed after use.
CONNECTIONS = 16
_POOL: dict[str, Any] = {"pool_size": CONNECTIONS, "max_overflow": 8}
_READER = "feedback_reader"
_TRUSTED_SECONDS = 30.0  # for so long a connection that was not used is held to be there


def make_engine(url: str) -> Engine:
    """An engine for `sqlite:///PATH` or `postgresql://…`; opens nothing yet.

    SQLite: WAL, foreign keys on, `synchronous=FULL` (an acknowledged commit survives a power cut), ten seconds of
    patience with other writers, and every transaction takes the write lock at its start unless it came from
    `read_only`, so that no transaction fails half-way with "database is locked"; writers of one program take turns in
    the order in which they came. PostgreSQL: psycopg, connections are tested before use. Raises `Invalid` for any
    other URL.
    """
    parsed = database_url(url)
    if parsed.get_backend_name() == "sqlite":
        pool = {} if sqlite_path(url) is None else _POOL
        # Named: a parameter that stands in a statement ten times is prepared and sent once.
        engine = create_engine(
            parsed, json_deserializer=orjson.loads, paramstyle="named", connect_args={"timeout": BUSY_SECONDS}, **pool
        )
        event.listen(engine, "connect", _prepare_sqlite)
        _take_turns(engine)
        return engine
    engine = create_engine(parsed, json_deserializer=orjson.loads, connect_args={"connect_timeout": 10}, **_POOL)
    _test_connections(engine)
    return engine


def database_url(url: str) -> URL:
    """`url` parsed, with the driver this application uses; raises `Invalid` with the mend."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise Invalid(f"not a database URL: {url!r}; write sqlite:////path/feedback.db or postgresql://…") from error
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        return parsed.set(drivername="sqlite+pysqlite")
    raise Invalid(f"database '{backend}' is not supported; use sqlite:////path/feedback.db or postgresql://…")


def sqlite_path(url: str) -> Path | None:
    """The file behind an SQLite URL; None for PostgreSQL and for a database in memory."""
    parsed = database_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return None
    return Path(str(parsed.database))


def _test_connections(engine: Engine) -> None:
    """Have connections tested before they are used again.

    A server that ended one has sent a word of it: there is something to be read where nothing was asked. That is seen
    without a question to the server, which costs as much as a statement; one is asked where something is there, or
    where the connection was not used for a while and the way to the server may be broken.
    """

    def test(driver: Any, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
        now = time.monotonic()
        idle = now - record.info.get("used", now)
        record.info["used"] = now
        if idle < _TRUSTED_SECONDS and not _has_word(driver.fileno()):
            return
        try:
            engine.dialect.do_ping(driver)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error

    event.listen(engine, "checkout", test)


def _has_word(descriptor: int) -> bool:
    looked = select.poll()
    looked.register(descriptor, select.POLLIN)
    return bool(looked.poll(0))


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself: `_begin_sqlite` says which kind is wanted.
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
        _enter_wal(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
    finally:
        cursor.close()


def _enter_wal(cursor: Any) -> None:
    # SQLite does not wait, whatever the timeout, when two programs switch a new database at the same moment.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


class _Turns:
    """A lock that is handed over in the order of asking.

    SQLite lets waiting writers try again after pauses of growing length, and whoever comes by when it is free gets it:
    among a dozen threads one may find it taken for ten seconds.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def take(self, timeout: float) -> bool:
        """Wait for one's turn; False when it did not come in time."""
        with self._guard:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        if mine.acquire(timeout=timeout):
            return True
        with self._guard:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return False
        return True  # it came in the last instant

    def give_on(self) -> None:
        """The next one's turn."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


def _take_turns(engine: Engine) -> None:
    """Writing transactions of one SQLite engine begin one after the other; other programs are SQLite's own matter."""
    turns = _Turns()
    holders: set[int] = set()  # the driver's connection whose turn it is, by identity
    do_commit, do_rollback = engine.dialect.do_commit, engine.dialect.do_rollback

    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get(_READER, False):
            connection.exec_driver_sql("BEGIN")
            return
        driver = connection.connection.driver_connection
        if turns.take(BUSY_SECONDS):  # else let SQLite say that it is locked
            holders.add(id(driver))
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except BaseException:
            end(driver)
            raise

    def end(driver: Any, *_: Any) -> None:
        if id(driver) in holders:
            holders.remove(id(driver))
            turns.give_on()

    # The "commit" event comes before the commit; the turn ends after it. A failed commit is followed by a rollback.
    def commit(dbapi_connection: PoolProxiedConnection) -> None:
        do_commit(dbapi_connection)
        end(dbapi_connection.driver_connection)

    def rollback(dbapi_connection: PoolProxiedConnection) -> None:
        try:
            do_rollback(dbapi_connection)
        finally:
            end(dbapi_connection.driver_connection)

    event.listen(engine, "begin", begin)
    event.listen(engine, "invalidate", end)
    engine.dialect.do_commit = commit  # type: ignore[method-assign]  # no event comes after a commit
    engine.dialect.do_rollback = rollback  # type: ignore[method-assign]  # as above


def make_sessions(engine: Engine) -> sessionmaker[Session]:
    """A factory of sessions; `with make_sessions(engine).begin() as session:` is one (writing) transaction."""
    sessions = sessionmaker(engine, expire_on_commit=False)
    event.listen(sessions, "loaded_as_persistent", _keep_project)
    return sessions


def _keep_project(session: Session, row: Any) -> None:
    # A session forgets rows that nobody holds; every other function asks for the project, which is two statements.
    if row.__tablename__ == "projects":
        session.info.setdefault("projects", []).append(row)


def writes_alone(session: Session) -> bool:
    """Whether this (writing) transaction is the only one: on SQLite what it has read cannot change before its end."""
    return session.get_bind().dialect.name == "sqlite"


@contextmanager
def read_only(sessions: sessionmaker[Session]) -> Iterator[Session]:
    """A session that sees one moment of the store, takes no write lock and keeps nothing that is written in it."""
    engine: Engine = sessions.kw["bind"]
    if engine.dialect.name == "sqlite":
        reader = engine.execution_options(**{_READER: True})
    else:
        reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with sessions(bind=reader) as session:
        yield session


@contextmanager
def one_look(sessions: sessionmaker[Session]) -> Iterator[Connection]:
    """A connection for one reading statement, without the transaction around it that `read_only` has."""
    engine: Engine = sessions.kw["bind"]
    if engine.dialect.name == "sqlite":
        reader = engine.execution_options(**{_READER: True})
    else:
        reader = engine.execution_options(isolation_level="AUTOCOMMIT")
    with reader.connect() as connection:
        yield connection


def explain(error: BaseException) -> str | None:
    """One line for a database or disk error that a person can mend; None for every other error."""
    if isinstance(error, OSError):
        return _explain_disk(error)
    if not isinstance(error, DBAPIError):
        return None
    cause = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else str(error.orig)
    text = cause.lower()
    for signs, line in _MENDS:
        if any(sign in text for sign in signs):
            return f"{line} ({cause})"
    if error.connection_invalidated:
        return f"the connection to the database was lost; check that it runs, then try again ({cause})"
    return None


_MENDS: list[tuple[tuple[str, ...], str]] = [
    (
        ("database is locked", "database table is locked"),
        "the database is locked by another program; close it (a backup, an SQL shell), then try again",
    ),
    (
        ("database or disk is full", "no space left", "disk full"),
        "the disk that holds the database is full; free some space, then try again",
    ),
    (
        ("unable to open database file",),
        "the database file cannot be opened; check that its folder exists and may be written",
    ),
    (
        ("readonly database", "read-only database"),
        "the database cannot be written; check the permissions of its file and folder",
    ),
    (
        ("file is not a database", "database disk image is malformed"),
        "the database file is damaged or no SQLite database; restore a backup",
    ),
    (
        ("deadlock detected", "could not serialize"),
        "two changes met in the database and one had to give way; try again",
    ),
    (
        ("disk i/o error",),
        "the disk that holds the database reports an error; check the disk, then try again",
    ),
    (
        ("no such table", "no such column", "undefinedtable", "does not exist"),
        "the database has no tables of this version yet; run: feedback-app db upgrade",
    ),
    (
        ("connection refused", "could not connect", "connection failed", "could not translate host", "timeout expired"),
        "the database server cannot be reached; check that it runs and FEEDBACK_DATABASE_URL",
    ),
    (
        ("password authentication failed", "no password supplied"),
        "the database server refused the login; check user and password in FEEDBACK_DATABASE_URL",
    ),
    (
        ("terminating connection", "server closed the connection", "connection is closed", "connection is lost"),
        "the database server ended the connection; check that it runs, then try again",
    ),
]


def _explain_disk(error: OSError) -> str | None:
    place = f": {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{place}; free some space, then try again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to write{place}; check the owner of the folder"
    return None


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn what `explain` knows into `StoreUnavailable`; for the edges: a handler, a command, a worker's loop."""
    try:
        yield
    except (DBAPIError, OSError) as error:
        line = explain(error)
        if line is None:
            raise
        raise StoreUnavailable(line) from error
