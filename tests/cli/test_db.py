"""`feedback-app db`, and what every command says about a database that cannot be used."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from tests.cli.conftest import Cli


def test_upgrade_makes_the_tables_once(cli: Cli) -> None:
    before = cli("db", "check", "--json")
    assert (before.code, before.json["state"]) == (1, "empty")
    first, second = cli("db", "upgrade", "--json"), cli("db", "upgrade", "--json")
    assert (first.json["changed"], second.json["changed"]) == (True, False)
    assert cli("db", "check", "--json").json["state"] == "current"


def test_the_data_folder_is_for_its_owner_only(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDBACK_HOME", str(tmp_path / "deep" / "home"))
    assert cli("db", "upgrade").code == 0
    assert (tmp_path / "deep" / "home").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("command", [["db", "upgrade"], ["db", "check"], ["user", "list"], ["runs", "list"]])
def test_a_newer_schema_is_left_alone(cli: Cli, home: Path, store: sessionmaker[Session], command: list[str]) -> None:
    with sqlite3.connect(home / "feedback.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    ended = cli(*command, "--json")
    assert ended.code == 1
    assert "newer version" in ended.json["error"]


def test_a_file_that_is_no_database_is_said_so(cli: Cli, home: Path) -> None:
    (home / "feedback.db").write_bytes(b"this is a shopping list, not a database at all" * 100)
    ended = cli("user", "list")
    assert ended.code == 1
    assert "restore a backup" in ended.error


def test_a_locked_database_is_said_so_and_nothing_is_written(
    cli: Cli, home: Path, store: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.engine.BUSY_SECONDS", 0.1)
    other = sqlite3.connect(home / "feedback.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ended = cli("user", "add", "anna")
    other.execute("ROLLBACK")
    other.close()
    assert ended.code == 1
    assert "locked" in ended.error
    assert cli("user", "list", "--json").json == {"users": []}


def test_a_data_folder_that_cannot_be_made_names_the_setting(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEEDBACK_HOME", str(tmp_path / "file" / "home"))
    ended = cli("user", "list")
    assert ended.code == 1
    assert "FEEDBACK_HOME" in ended.error


def test_a_database_server_that_is_not_there_is_said_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDBACK_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    ended = cli("user", "list")
    assert ended.code == 1
    assert "FEEDBACK_DATABASE_URL" in ended.error


def test_the_commands_work_on_postgresql(cli: Cli, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDBACK_DATABASE_URL", postgres_url.replace("postgresql+psycopg://", "postgresql://"))
    assert cli("db", "check", "--json").json["state"] == "current"
    assert cli("user", "add", "anna").code == 0
    assert [user["name"] for user in cli("user", "list", "--json").json["users"]] == ["anna"]
