"""Import of feedback and prompts from files, one file a format; see `ingest_file`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from storage.errors import Conflict, Invalid
from storage.ingest.detect import FORMATS, detect, parser_of, unknown_columns
from storage.ingest.reading import FileRow, read_rows
from storage.ingest.records import BadRow, Record
from storage.ingest.store import Stored, write_batch
from storage.projects import create_project, find_project

__all__ = ["FORMATS", "IngestReport", "ingest_file"]

_BATCH = 250  # records a transaction: long enough to be quick, short enough that a submit need not wait for it
_LISTED = 100  # bad lines named in the report; all are counted
_PEEK = 100  # rows looked at to recognise the format


@dataclass
class IngestReport:
    """What an import added. `pairs` are pairs of completions compared; each annotator of one is an annotation."""

    format: str
    project_created: bool = False
    prompts: int = 0
    completions: int = 0
    pairs: int = 0
    ratings: int = 0
    critiques: int = 0
    refinements: int = 0
    annotations: int = 0
    skipped: dict[str, int] = field(default_factory=dict)  # reason -> records
    skipped_lines: list[tuple[int, str]] = field(default_factory=list)  # the first bad ones: line or record, reason


def ingest_file(sessions: sessionmaker[Session], project_name: str, path: Path, format: str = "auto") -> IngestReport:
    """Import a file into a project, which is created when missing.

    Unlike the rest of the store this takes the session factory and commits batch by batch: a file may be larger than
    memory, and nobody's submit should wait for all of it. An import that was cut short is completed by importing the
    file again, since what is there already adds nothing. Bad rows are skipped and reported.
    Raises `NotFound` and `Invalid` when the file as a whole cannot be read or its format is not known.
    """
    rows = read_rows(path)
    if format == "auto":
        format, rows = _recognised(path, rows)
    parse = parser_of(format)
    report = IngestReport(format)
    skipped: Counter[str] = Counter()

    def records() -> Iterator[Record]:
        for row in rows:
            try:
                yield parse(row.content())
            except BadRow as problem:
                skipped[str(problem)] += 1
                if len(report.skipped_lines) < _LISTED:
                    report.skipped_lines.append((row.number, str(problem)))

    stream = records()
    while batch := list(islice(stream, _BATCH)):
        _add(report, skipped, _write(sessions, project_name, batch, format))
    report.skipped = dict(sorted(skipped.items()))
    return report


def _recognised(path: Path, rows: Iterator[FileRow]) -> tuple[str, Iterator[FileRow]]:
    """The format of the first row that has one, and all rows again."""
    seen: list[FileRow] = []
    for row in islice(rows, _PEEK):
        seen.append(row)
        if row.value is not None and (found := detect(row.value)):
            return found, chain(seen, rows)
    readable = next((row.value for row in seen if row.value is not None), None)
    if readable is None:
        problem = f"; line {seen[0].number}: {seen[0].problem}" if seen else ""
        raise Invalid(f"{path}: not one record could be read{problem}; give a file of records")
    raise unknown_columns(path, [str(name) for name in readable])


def _write(sessions: sessionmaker[Session], project_name: str, batch: list[Record], format: str) -> Stored:
    for attempt in (1, 2):
        try:
            with sessions.begin() as session:
                project = find_project(session, project_name)
                created = project is None
                stored = write_batch(session, project or create_project(session, project_name), batch, format)
            return stored._replace(project_created=created)
        except (IntegrityError, Conflict):
            # Another import of the same rows was faster; its rows are visible to a second look.
            if attempt == 2:
                raise
    raise AssertionError("unreachable")


def _add(report: IngestReport, skipped: Counter[str], stored: Stored) -> None:
    report.project_created |= stored.project_created
    for name in ("prompts", "completions", "pairs", "ratings", "critiques", "refinements", "annotations"):
        setattr(report, name, getattr(report, name) + getattr(stored, name))
    skipped.update(stored.skipped)
