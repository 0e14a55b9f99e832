"""Backups: the same rows and files after a restore, into either database, and nothing half done."""

from __future__ import annotations

import json
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, select
from sqlalchemy.orm import Session, sessionmaker

from storage import audit, backup, schema
from storage.artifacts import publish_folder
from storage.backup import restore_backup, write_backup
from storage.engine import make_engine, make_sessions
from storage.errors import Conflict, FeedbackError, Invalid, NotFound, StoreUnavailable
from storage.models import Base, ModelVersion, Snapshot, User
from tests import factories


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def kept(sessions: sessionmaker[Session], database_url: str, home: Path, tmp_path: Path) -> Path:
    """A backup of a used store with a file for each snapshot and version."""
    with sessions.begin() as session:
        factories.fill_store(session)
        folders = [*session.scalars(select(Snapshot.folder)), *session.scalars(select(ModelVersion.folder))]
    for number, folder in enumerate(filter(None, folders)):
        (tmp_path / f"made{number}").mkdir()
        (tmp_path / f"made{number}" / "part").write_bytes(bytes(range(256)) * number)
        publish_folder(tmp_path / f"made{number}", home / folder)
    made = write_backup(database_url, sessions, home, tmp_path / "kept.zip")
    assert made.files
    assert not made.missing
    return tmp_path / "kept.zip"


def contents(url: str) -> dict[str, list[Any]]:
    engine = make_engine(url)
    with engine.connect() as connection:
        found = {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns))]
            for table in Base.metadata.sorted_tables
            if table.name not in backup.LEFT_OUT
        }
    engine.dispose()
    return found


def files(home: Path) -> dict[str, bytes]:
    paths = [path for name in ("snapshots", "artifacts", "runs") for path in (home / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(home)): path.read_bytes() for path in paths}


def test_what_is_restored_is_what_was_there_in_either_database(
    kept: Path, home: Path, database_url: str, empty_url: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    found, aside = restore_backup(empty_url, other, kept)
    assert aside is None
    before, after = contents(database_url), contents(empty_url)
    assert after == before
    assert all(found.rows.values()), f"tables without a row: {found.rows}"
    assert files(other) == files(home)
    engine = make_engine(empty_url)
    with make_sessions(engine).begin() as session:
        project = factories.make_project(session)  # new rows get ids of their own
        factories.make_items(session, project, 2)
        factories.make_user(session, "a newcomer")
    engine.dispose()
    assert kept.stat().st_mode & 0o077 == 0


def test_a_store_in_use_is_replaced_only_when_told_to(
    kept: Path, home: Path, database_url: str, sessions: sessionmaker[Session]
) -> None:
    before, stored = contents(database_url), files(home)
    with sessions.begin() as session:
        factories.make_user(session, "a newcomer")
    (home / "runs" / "1").mkdir(parents=True)
    (home / "runs" / "1" / "later").write_text("of a run that the backup does not know")
    with pytest.raises(Conflict, match="--replace"):
        restore_backup(database_url, home, kept)
    with pytest.raises(Conflict, match="another name"):
        write_backup(database_url, sessions, home, kept)
    _, aside = restore_backup(database_url, home, kept, replace=True)
    assert contents(database_url) == before
    assert files(home) == stored
    assert aside is not None
    assert (aside / "runs" / "1" / "later").exists()
    assert files(aside) == {**stored, "runs/1/later": b"of a run that the backup does not know"}


def damaged(kept: Path, how: str, folder: Path) -> Path:
    made = folder / "damaged.zip"
    content = kept.read_bytes()
    if how == "cut short":
        content = content[: len(content) // 2]
    elif how == "a byte of a row":
        with zipfile.ZipFile(kept) as archive:
            info = archive.getinfo("tables/completions.jsonl")
        place = info.header_offset + len("tables/completions.jsonl") + 60
        content = content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]
    elif how == "another file":
        content = b"id,name\n1,ann\n"
    made.write_bytes(content)
    return made


@pytest.mark.parametrize("how", ["cut short", "a byte of a row", "another file"])
def test_a_damaged_backup_changes_nothing(
    kept: Path, home: Path, database_url: str, sessions: sessionmaker[Session], tmp_path: Path, how: str
) -> None:
    before, stored = contents(database_url), files(home)
    with pytest.raises(Invalid):
        restore_backup(database_url, home, damaged(kept, how, tmp_path), replace=True)
    assert contents(database_url) == before
    assert files(home) == stored
    with pytest.raises(NotFound, match="check the path"):
        restore_backup(database_url, home, tmp_path / "nowhere.zip")


def of_revision(kept: Path, revision: str, folder: Path, columns: dict[str, set[str]]) -> Path:
    """The backup as a program at `revision` would have made it: of the tables and columns that it knew."""
    made = folder / f"{revision}.zip"
    with zipfile.ZipFile(kept) as old, zipfile.ZipFile(made, "w") as new:
        for table, known in columns.items():
            rows = [json.loads(line) for line in old.read(f"tables/{table}.jsonl").splitlines()]
            lines = [json.dumps({name: row[name] for name in known}) + "\n" for row in rows]
            new.writestr(f"tables/{table}.jsonl", "".join(lines))
        about = json.loads(old.read(backup.ABOUT)) | {"revision": revision}
        new.writestr(backup.ABOUT, json.dumps(about))
    return made


def test_older_backups_are_migrated_and_newer_ones_refused(
    kept: Path, empty_url: str, tmp_path: Path, database_url: str
) -> None:
    newer = of_revision(kept, "9999", tmp_path, {})
    with pytest.raises(StoreUnavailable, match="newer version"):
        restore_backup(empty_url, tmp_path / "new", newer)
    schema.upgrade(f"sqlite:///{tmp_path / 'old.db'}", "0001")
    engine = make_engine(f"sqlite:///{tmp_path / 'old.db'}")
    known = {name: {one["name"] for one in inspect(engine).get_columns(name)} for name in ("users", "projects")}
    engine.dispose()
    older = of_revision(kept, "0001", tmp_path, known)
    with pytest.raises(StoreUnavailable, match="older version"):
        restore_backup(database_url, tmp_path / "new", older, replace=True)
    restore_backup(empty_url, tmp_path / "new", older)
    assert schema.check(empty_url).state == "current"
    assert len(contents(empty_url)["users"]) == len(contents(database_url)["users"]) > 1


def test_a_backup_is_of_one_moment(
    sessions: sessionmaker[Session], database_url: str, home: Path, tmp_path: Path
) -> None:
    """Somebody works on: each user comes with an event, and no backup has the one without the other."""
    done = threading.Event()
    failed: list[BaseException] = []

    def work_on() -> None:
        number = 0
        try:
            while not done.is_set():
                number += 1
                with sessions.begin() as session:
                    factories.make_user(session, f"user {number}")
                    audit.record(session, None, "user.create", f"user {number}")
        except FeedbackError as error:
            failed.append(error)

    worker = threading.Thread(target=work_on)
    worker.start()
    try:
        made = [write_backup(database_url, sessions, home, tmp_path / f"{number}.zip") for number in range(5)]
    finally:
        done.set()
        worker.join()
    assert not failed
    assert all(one.rows["users"] == one.rows["audit_events"] for one in made)
    assert made[0].rows["users"] < made[-1].rows["users"]
    with sessions() as session:
        assert session.scalars(select(User.id)).first()
