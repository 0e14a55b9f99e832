"""Backups: everything that cannot be made again, in one file, taken and put back while the application runs.

A backup is a zip archive: `tables/NAME.jsonl` (a row a line, all of one moment of the store), `files/…` (the folders of
snapshots and model versions, which never change once a row names them, so they are copied after the rows were read) and
`backup.json` (what it is, written last). It is the same for both databases: a backup of SQLite can be put into
PostgreSQL and the other way round. Left out: sessions and one-time links (ways in), and what a run under way has on
disk; it starts again after a restore.
"""

from __future__ import annotations

import json
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from sqlalchemy import JSON, Connection, DateTime, Engine, MetaData, Table, bindparam, func, select
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.schema import sort_tables_and_constraints

from storage import schema
from storage.artifacts import write_via
from storage.engine import make_engine, read_only
from storage.errors import Conflict, Invalid, NotFound, StoreUnavailable
from storage.models import Base, ModelVersion, OneTimeLink, Snapshot, User, UserSession, utc_now
from storage.models.base import UtcDateTime

FORMAT = 1
ABOUT = "backup.json"
LEFT_OUT = frozenset({UserSession.__tablename__, OneTimeLink.__tablename__})
# Folders of the data folder that belong to the rows: they go aside when other rows take their place.
_FOLDERS = ("snapshots", "artifacts", "runs")
_ROWS = 1000  # rows in memory at a time


@dataclass(frozen=True)
class Backup:
    """What a backup holds: rows by table, files, and the folders that rows name but nobody found."""

    made_at: datetime
    revision: str
    rows: dict[str, int]
    files: int
    missing: list[str]


def write_backup(url: str, sessions: sessionmaker[Session], home: Path, target: Path) -> Backup:
    """Write the store and its files to `target`, whole or not at all; raises `Conflict` when that is there already."""
    if target.exists():
        raise Conflict(f"{target} is there already; choose another name, or move it away")
    revision = schema.check(url).current or ""
    found: list[Backup] = []

    def fill(temporary: Path) -> None:
        temporary.touch(mode=0o600)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
            found.append(_fill(archive, sessions, home, revision))

    target.parent.mkdir(parents=True, exist_ok=True)
    write_via(target, fill)
    return found[0]


def _fill(archive: zipfile.ZipFile, sessions: sessionmaker[Session], home: Path, revision: str) -> Backup:
    made_at, rows = utc_now(), {}
    with read_only(sessions) as session:
        for table in Base.metadata.sorted_tables:
            if table.name not in LEFT_OUT:
                with archive.open(f"tables/{table.name}.jsonl", "w", force_zip64=True) as file:
                    rows[table.name] = _write_rows(session, table, file)
        folders = [*session.scalars(select(Snapshot.folder)), *session.scalars(select(ModelVersion.folder))]
    wanted = sorted({folder for folder in folders if folder})
    files, missing = 0, [folder for folder in wanted if not (home / folder).is_dir()]
    for folder in wanted:
        for path in sorted(path for path in (home / folder).rglob("*") if path.is_file()):
            # Weights and Parquet are as small as they get.
            archive.write(path, f"files/{path.relative_to(home).as_posix()}", zipfile.ZIP_STORED)
            files += 1
    backup = Backup(made_at, revision, rows, files, missing)
    about = {"format": FORMAT, "revision": revision, "made_at": made_at.isoformat(), "rows": rows, "files": files}
    archive.writestr(ABOUT, json.dumps(about | {"missing": missing}, indent=2))
    return backup


def _write_rows(session: Session, table: Table, file: IO[bytes]) -> int:
    count = 0
    query = select(table).order_by(*table.primary_key.columns).execution_options(yield_per=_ROWS)
    for row in session.execute(query):
        values = [value.isoformat() if isinstance(value, datetime) else value for value in row]
        file.write((json.dumps(dict(zip(table.columns.keys(), values, strict=True))) + "\n").encode())
        count += 1
    return count


def read_about(source: Path) -> Backup:
    """What a backup says of itself; raises `NotFound` or `Invalid` when it is no whole backup of this application."""
    if not source.is_file():
        raise NotFound(f"the file {source} is not there; check the path")
    try:
        with zipfile.ZipFile(source) as archive:
            about = json.loads(archive.read(ABOUT))
        if about["format"] != FORMAT:
            raise Invalid(f"{source} was made by a newer version of this program; install that version")
        return Backup(
            datetime.fromisoformat(about["made_at"]), about["revision"], about["rows"], about["files"], about["missing"]
        )
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise Invalid(f"{source} is no backup of this application, or was cut short; take another one") from error


def restore_backup(url: str, home: Path, source: Path, *, replace: bool = False) -> tuple[Backup, Path | None]:
    """Put a backup in place of what is in the store; returns what it held, and where the files before it went.

    The rows change in one transaction: whoever looks sees the store before or after. Into a store with people in it
    only with `replace`, else `Conflict`. A backup of an older version is migrated, in an empty database only. Raises
    `StoreUnavailable` for one of a newer version.
    """
    backup = read_about(source)
    if schema.state_of(backup.revision).state == "newer":
        raise StoreUnavailable(f"{source} was made by a newer version of this program; install that version")
    state = schema.check(url)
    engine = make_engine(url)
    scratch = home / "tmp" / f"restore-{uuid.uuid4().hex[:8]}"
    aside = home / "replaced" / utc_now().strftime("%Y%m%d-%H%M%S")
    try:
        if state.state == "empty":
            schema.upgrade(url, backup.revision)
        elif backup.revision != state.current:
            raise StoreUnavailable(
                f"the backup is of an older version ({backup.revision}, the database is at {state.current}); "
                "restore it into an empty database: set FEEDBACK_HOME to a new folder"
            )
        elif not replace and _has_people(engine):
            raise Conflict(f"there are people in this store; take a backup of it, then: restore {source} --replace")
        with zipfile.ZipFile(source) as archive:
            _unpack(archive, scratch)
            try:
                with engine.begin() as connection:
                    _clear(connection)
                    _fill_tables(connection, archive)
                    _exchange(home, scratch, aside)
            except BaseException:
                if aside.exists():
                    _exchange(home, aside, scratch / "refused")
                raise
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise Invalid(f"{source} is damaged ({error}); use another backup. Nothing was changed") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        engine.dispose()
    schema.upgrade(url)
    return backup, aside if aside.exists() and any(aside.iterdir()) else None


def _has_people(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.scalar(select(func.count()).select_from(User)))


# --- files ---


def _unpack(archive: zipfile.ZipFile, scratch: Path) -> None:
    for name in archive.namelist():
        path = PurePosixPath(name)
        if path.parts[0] != "files" or ".." in path.parts or path.is_absolute():
            continue
        target = scratch.joinpath(*path.parts[1:])
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file)  # checks the sum of what it read


def _exchange(home: Path, coming: Path, going: Path) -> None:
    """Move the folders that belong to the rows from the data folder to `going`, and those in `coming` in."""
    going.mkdir(parents=True, exist_ok=True)
    for name in _FOLDERS:
        if (home / name).exists():
            (home / name).rename(going / name)
        if (coming / name).exists():
            (coming / name).rename(home / name)


# --- rows ---


def _clear(connection: Connection) -> None:
    tables = _tables(connection)
    for name, late in _late(tables).items():
        if late:
            table = next(one for one in tables if one.name == name)
            connection.execute(table.update().values(dict.fromkeys(late, None)))
    for table in reversed(tables):
        connection.execute(table.delete())


def _fill_tables(connection: Connection, archive: zipfile.ZipFile) -> None:
    tables = _tables(connection)
    late = _late(tables)
    for table in tables:
        for rows in _batches(archive, table):
            connection.execute(table.insert(), [{**row, **dict.fromkeys(late[table.name], None)} for row in rows])
    for table in tables:
        for rows in _batches(archive, table) if late[table.name] else ():
            _point(connection, table, late[table.name], rows)
        if connection.dialect.name == "postgresql" and "id" in table.columns:
            connection.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), "  # noqa: S608  names of our own tables
                f"(SELECT coalesce(max(id), 0) + 1 FROM {table.name}), false)"
            )


def _point(connection: Connection, table: Table, late: list[str], rows: list[dict[str, Any]]) -> None:
    """Set the references that could not be set when the rows came in."""
    pointing = [row for row in rows if any(row[name] is not None for name in late)]
    if pointing:
        change = table.update().where(table.c.id == bindparam("row_id"))
        values = [{"row_id": row["id"], **{f"new_{name}": row[name] for name in late}} for row in pointing]
        connection.execute(change.values({name: bindparam(f"new_{name}") for name in late}), values)


def _tables(connection: Connection) -> list[Table]:
    """The tables of the database as it stands, parents first; those of an older schema have no models any more."""
    tables = MetaData()
    tables.reflect(connection)
    for table in tables.tables.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type = JSON(none_as_null=True)
            elif isinstance(column.type, DateTime):
                column.type = UtcDateTime()
    # No table comes with the references that close a circle.
    pairs = sort_tables_and_constraints(tables.tables.values())  # type: ignore[no-untyped-call]  # SQLAlchemy's
    return [table for table, _ in pairs if table is not None and table.name != "alembic_version"]


def _late(tables: list[Table]) -> dict[str, list[str]]:
    """By table, the columns that refer to rows which come later: of the same table, or of one that refers back."""
    place = {table.name: number for number, table in enumerate(tables)}
    return {
        table.name: [key.parent.name for key in table.foreign_keys if place[key.column.table.name] >= place[table.name]]
        for table in tables
    }


def _batches(archive: zipfile.ZipFile, table: Table) -> Iterator[list[dict[str, Any]]]:
    name = f"tables/{table.name}.jsonl"
    if name not in archive.namelist():
        return
    rows: list[dict[str, Any]] = []
    times = [column.name for column in table.columns if isinstance(column.type, UtcDateTime)]
    with archive.open(name) as file:
        for line in file:
            row = json.loads(line)
            for column in times:
                if row[column] is not None:
                    row[column] = datetime.fromisoformat(row[column])
            rows.append(row)
            if len(rows) == _ROWS:
                yield rows
                rows = []
    if rows:
        yield rows
