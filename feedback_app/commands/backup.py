"""`feedback-app backup` and `restore`: everything that cannot be made again, in one file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from feedback_app.commands.shared import JsonFlag, emit, open_store, prepare_home

BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="The backup, for instance feedback-2026-01-31.zip.")]


def backup(file: BackupFile, as_json: JsonFlag = False) -> None:
    """Write people, feedback, snapshots, runs and models into FILE; everything may go on meanwhile."""
    from storage.backup import write_backup

    with open_store() as store:
        made = write_backup(store.settings.store_url, store.sessions, store.settings.home, file)
    with file.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    size = file.stat().st_size
    payload = {
        "file": str(file), "rows": made.rows, "files": made.files, "missing": made.missing,
        "bytes": size, "sha256": digest,
    }  # fmt: skip
    lines = [f"{file}: {sum(made.rows.values()):,} rows, {made.files:,} files, {size / 1e6:,.1f} MB"]
    lines += [f"not found, so not in it: {folder}" for folder in made.missing]
    emit(payload, as_json, *lines, "It holds what people wrote: keep it where only you can read it.")


def restore(
    file: BackupFile,
    replace: Annotated[
        bool, typer.Option("--replace", help="Into a store that is in use: what is in it now is replaced.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Put a backup into the store: all of it, or nothing."""
    from feedback_app.settings import load_settings
    from storage.backup import restore_backup
    from storage.engine import translate_errors

    settings = load_settings()
    with translate_errors():
        prepare_home(settings)
        found, aside = restore_backup(settings.store_url, settings.home, file, replace=replace)
    payload = {
        "file": str(file), "made_at": found.made_at, "rows": found.rows, "files": found.files,
        "missing": found.missing, "aside": aside,
    }  # fmt: skip
    lines = [f"restored what was backed up on {found.made_at:%Y-%m-%d %H:%M} UTC: {sum(found.rows.values()):,} rows"]
    if aside:
        lines.append(f"the files that were here before are in {aside}; delete that folder when all is well")
    emit(payload, as_json, *lines, "Everybody signs in again; a way in: feedback-app user passwd NAME")
