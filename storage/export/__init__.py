"""Export of a project's feedback, one file a table and a format; see `export`."""

from __future__ import annotations

import gc
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from storage.artifacts import publish_folder, write_via
from storage.engine import translate_errors
from storage.errors import Conflict, Invalid, NotFound
from storage.export import (
    annotation_bundles,
    critiques,
    preference,
    prompt_completion,
    quality,
    ratings,
    refinements,
    unpaired,
)
from storage.export.files import write_csv, write_jsonl, write_parquet
from storage.export.hf import CARD, MARK, write_folder
from storage.export.rows import Table
from storage.models import Project

__all__ = ["FORMATS", "TABLES", "ExportReport", "export"]

TABLES: dict[str, Callable[[Session, Project], Table]] = {
    "preference": preference.table,
    "unpaired": unpaired.table,
    "prompt-completion": prompt_completion.table,
    "ratings": ratings.table,
    "critiques": critiques.table,
    "refinements": refinements.table,
    "annotations": annotation_bundles.table,
    "quality": quality.table,
}
_FILES: dict[str, Callable[[Table, Path], int]] = {
    "jsonl": write_jsonl,
    "parquet": write_parquet,
    "csv": write_csv,
}
FORMATS = (*_FILES, "hf")


@dataclass(frozen=True)
class ExportReport:
    """The number of rows written and the SHA-256 of the file (of a folder: `storage.artifacts.folder_sha256`)."""

    rows: int
    sha256: str


def export(session: Session, project: Project, what: str, format: str, out: Path) -> ExportReport:
    """Write the table `what` of a project as `format` to `out`: a file, or with "hf" a data set folder.

    Rows stream, so memory does not grow with them; give a session of `storage.engine.read_only`, which keeps no
    writer waiting meanwhile. `out` is there when all of it is; an older export is replaced in one step, or kept when
    anything fails. Raises `Invalid` for an unknown name, `NotFound` without a parent folder, `Conflict` when `out`
    is something that an export must not replace, `StoreUnavailable` for a full disk.
    """
    if what not in TABLES:
        raise Invalid(f"unknown table '{what}'; choose from: {', '.join(TABLES)}")
    if format not in FORMATS:
        raise Invalid(f"unknown export format '{format}'; choose from: {', '.join(FORMATS)}")
    if not out.absolute().parent.is_dir():
        raise NotFound(f"there is no folder {out.absolute().parent}; create it first")
    table = TABLES[what](session, project)
    with translate_errors(), _no_collector():
        return _to_folder(table, out, what, project) if format == "hf" else _to_file(table, out, _FILES[format])


@contextmanager
def _no_collector() -> Iterator[None]:
    """Rows make no cycles, yet so many objects that the collector would take a third of the time to look for some."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _to_file(table: Table, out: Path, write: Callable[[Table, Path], int]) -> ExportReport:
    if out.is_dir():
        raise Conflict(f"{out} is a folder; name a file in it")
    rows = 0

    def fill(temporary: Path) -> None:
        nonlocal rows
        rows = write(table, temporary)

    write_via(out, fill)
    with out.open("rb") as file:
        return ExportReport(rows, hashlib.file_digest(file, "sha256").hexdigest())


def _to_folder(table: Table, out: Path, what: str, project: Project) -> ExportReport:
    _require_replaceable(out)
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.", suffix=".tmp") as name:
        scratch = Path(name)
        rows = write_folder(table, scratch / "written", what, project.name)
        sha256 = publish_folder(scratch / "written", scratch / "ready")
        if out.exists():
            out.rename(scratch / "replaced")
        (scratch / "ready").rename(out)
    return ExportReport(rows, sha256)


def _require_replaceable(out: Path) -> None:
    """Raise `Conflict` unless `out` is free, an empty folder, or an export of ours: a slip must not cost a home."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    card = out / CARD
    if not card.is_file() or MARK not in card.read_text(encoding="utf-8", errors="replace"):
        raise Conflict(f"{out} holds something else than an export; name a new folder")
