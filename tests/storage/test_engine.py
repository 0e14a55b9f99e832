"""Transactions, durability settings, and database errors that become one line with a mend."""

from __future__ import annotations

import sqlite3
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.orm import Session, sessionmaker

from storage import engine as engine_module
from storage.engine import make_engine, make_sessions, read_only, translate_errors
from storage.errors import Invalid, StoreUnavailable
from storage.models import OneTimeLink, User
from storage.schema import upgrade
from tests import factories


@pytest.mark.parametrize("url", ["mysql://host/db", "nonsense", "", "oracle:///x"])
def test_other_databases_are_refused_with_the_mend(url: str) -> None:
    with pytest.raises(Invalid, match="sqlite:"):
        make_engine(url)


@pytest.mark.parametrize("url", ["postgresql://u:p@h/db", "postgres://u:p@h/db", "postgresql+psycopg2://u:p@h/db"])
def test_any_spelling_of_postgresql_uses_psycopg(url: str) -> None:
    assert make_engine(url).url.drivername == "postgresql+psycopg"


def test_sqlite_is_set_up_for_durable_concurrent_use(sqlite_url: str) -> None:
    engine = make_engine(sqlite_url)
    with engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    engine.dispose()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def test_foreign_keys_hold(session: Session) -> None:
    session.add(OneTimeLink(user_id=999, token_hash="x", purpose="login", expires_at=factories.later(days=1)))
    with pytest.raises(IntegrityError):
        session.flush()


def test_times_come_back_aware_and_in_utc(sessions: sessionmaker[Session]) -> None:
    moment = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5)))
    with sessions.begin() as session:
        user = factories.make_user(session)
        user.disabled_at = moment
    with sessions() as session:
        stored = session.get_one(User, user.id)
        assert stored.disabled_at == moment
        assert stored.disabled_at is not None
        assert stored.disabled_at.tzinfo is UTC
        # Comparisons in SQL are right as well, whatever zone the question is asked in.
        assert session.scalar(select(User.id).where(User.disabled_at < moment + timedelta(microseconds=1))) == user.id
        assert session.scalar(select(User.id).where(User.disabled_at < moment)) is None


def test_naive_times_are_refused(session: Session) -> None:
    user = factories.make_user(session)
    user.disabled_at = datetime(2026, 3, 1)  # noqa: DTZ001  # the mistake under test
    with pytest.raises(StatementError, match="naive"):
        session.flush()


def test_a_writer_holds_the_lock_from_its_start(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "BUSY_SECONDS", 0.05)
    engine = make_engine(sqlite_url)
    sessions = make_sessions(engine)
    with sessions.begin() as first:
        first.execute(text("SELECT 1"))
        second = sessions()
        with pytest.raises(StoreUnavailable, match="locked by another program"), translate_errors():
            second.execute(text("SELECT 1"))
        second.close()
    engine.dispose()


def test_readers_wait_for_nobody_and_see_one_moment(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        factories.make_user(session, "first")
    with read_only(sessions) as reader:
        assert len(reader.scalars(select(User)).all()) == 1
        with sessions.begin() as writer:
            factories.make_user(writer, "second")
            writer.flush()
            with read_only(sessions) as other:
                assert len(other.scalars(select(User)).all()) == 1
        assert len(reader.scalars(select(User)).all()) == 1, "a reader sees one moment of the store"
    with read_only(sessions) as reader:
        assert len(reader.scalars(select(User)).all()) == 2


def test_what_a_reader_writes_is_not_kept(sessions: sessionmaker[Session], engine: Engine) -> None:
    with read_only(sessions) as reader:
        if engine.dialect.name == "postgresql":
            with pytest.raises(DBAPIError, match="read-only"):
                factories.make_user(reader, "ghost")
        else:
            factories.make_user(reader, "ghost")
    with sessions() as session:
        assert session.scalars(select(User)).all() == []
        factories.make_user(session, "the connection is writable again")


def test_a_full_disk_is_one_line_and_keeps_what_was_committed(sqlite_url: str) -> None:
    engine = make_engine(sqlite_url)
    sessions = make_sessions(engine)
    with sessions.begin() as session:
        project = factories.make_project(session)
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.rollback()
        raw: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]  # sqlite's own
        raw.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreUnavailable, match=r"disk .* is full"), translate_errors(), sessions.begin() as session:
        factories.make_prompt(session, project, "x" * 2_000_000)
    with sessions() as session:
        assert session.get(type(project), project.id) is not None
        assert session.execute(text("SELECT count(*) FROM prompts")).scalar_one() == 0
    engine.dispose()


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("Dear diary, " * 500)
    with pytest.raises(StoreUnavailable, match="damaged or no SQLite database"), translate_errors():
        upgrade(f"sqlite:///{path}")


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path}/gone/feedback.db")
    with pytest.raises(StoreUnavailable, match="cannot be opened"), translate_errors():
        engine.connect()


def test_a_database_without_tables_says_how_to_make_them(empty_url: str, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir(exist_ok=True)
    engine = make_engine(empty_url)
    with pytest.raises(StoreUnavailable, match="db upgrade"), translate_errors(), make_sessions(engine)() as session:
        session.scalars(select(User)).all()
    engine.dispose()


def test_a_server_that_does_not_answer_is_one_line() -> None:
    engine = make_engine("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(StoreUnavailable, match="cannot be reached"), translate_errors():
        engine.connect()


def test_errors_of_the_program_keep_their_traceback(session: Session) -> None:
    user = factories.make_user(session)
    session.add(User(name=user.name, role=user.role))
    with pytest.raises(IntegrityError), translate_errors():
        session.flush()


def test_many_threads_write_without_an_error(sessions: sessionmaker[Session]) -> None:
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            for n in range(10):
                with sessions.begin() as session:
                    factories.make_user(session, f"user {number} {n}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with sessions() as session:
        assert len(session.scalars(select(User)).all()) == 60


def test_writers_of_one_program_take_turns_in_the_order_of_asking() -> None:
    turns = engine_module._Turns()
    assert turns.take(timeout=1)
    order: list[int] = []

    def write(number: int) -> None:
        assert turns.take(timeout=60)
        order.append(number)
        turns.give_on()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for waiting, thread in enumerate(threads, start=1):
        thread.start()
        while len(turns._waiting) < waiting:
            pass
    assert not turns.take(timeout=0.01), "whoever gives up is out of the line"
    turns.give_on()
    for thread in threads:
        thread.join()
    assert order == list(range(6))
    assert turns.take(timeout=1)


def test_a_turn_ends_with_its_transaction_however_it_ends(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "BUSY_SECONDS", 0.05)
    engine = make_engine(sqlite_url)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text("INSERT INTO one_time_links (id) VALUES (1)"))
    broken = engine.connect()
    broken.execute(text("SELECT 1"))
    with pytest.raises(DBAPIError, match="locked"), engine.begin():
        pass
    broken.invalidate()
    broken.close()
    for _ in range(3):
        with engine.begin() as connection:
            connection.execute(text("SELECT 1"))
    engine.dispose()


def test_a_connection_that_the_server_ended_is_replaced_unnoticed(postgres_url: str) -> None:
    engine, administrator = make_engine(postgres_url), make_engine(postgres_url)
    with engine.connect() as connection:
        lost = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    with administrator.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT pg_terminate_backend({lost}, 5000)").scalar_one()
    administrator.dispose()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one() != lost
    engine.dispose()
