"""`feedback-app import` and `export`: files in, files out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, ProjectName, emit, open_store, table

COUNTS = ("prompts", "completions", "pairs", "ratings", "critiques", "refinements")


class What(StrEnum):
    """What can be exported."""

    PREFERENCE = "preference"
    UNPAIRED = "unpaired"
    PROMPT_COMPLETION = "prompt-completion"
    RATINGS = "ratings"
    CRITIQUES = "critiques"
    REFINEMENTS = "refinements"
    ANNOTATIONS = "annotations"
    QUALITY = "quality"


class FileFormat(StrEnum):
    """How it can be written."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    CSV = "csv"
    HF = "hf"


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON, JSONL, CSV or Parquet; .gz is read too.")],
    project: ProjectName,
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="The file's format; `auto` knows each by its columns.")
    ] = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Bring prompts and feedback into a project; it is made when it is not there. Importing again adds nothing."""
    from storage.ingest import FORMATS, ingest_file

    if format_ not in ("auto", *FORMATS):
        choices = ", ".join(("auto", *FORMATS))
        raise typer.BadParameter(f"'{format_}' is not known; choose from: {choices}", param_hint="'--format'")
    with open_store() as store:
        report = ingest_file(store.sessions, project, file, format_)
    payload: dict[str, Any] = {"project": project, "file": file}
    payload |= {key: value for key, value in vars(report).items() if key != "skipped_lines"}
    payload["skipped_lines"] = [{"line": line, "reason": reason} for line, reason in report.skipped_lines]
    rows = [(name, getattr(report, name)) for name in COUNTS]
    lines: list[Any] = [table(("added", "number"), rows, title=f"{file.name} into project {project}")]
    if report.skipped:
        lines.append(table(("skipped because", "number"), list(report.skipped.items())))
        lines += [f"  line {line}: {reason}" for line, reason in report.skipped_lines[:10]]
    emit(payload, as_json, *lines)


def export(
    project: ProjectName,
    what: Annotated[What, typer.Option("--what", help="Which rows.")],
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="The file, or with hf the folder, to write.")],
    format_: Annotated[FileFormat, typer.Option("--format", help="How they are written.")] = FileFormat.JSONL,
    as_json: JsonFlag = False,
) -> None:
    """Write a project's feedback as a data set that TRL and `datasets` read as it is."""
    from storage.engine import read_only
    from storage.export import export as write
    from storage.projects import get_project

    with open_store() as store, read_only(store.sessions) as session:
        found = get_project(session, project)
        report = write(session, found, what.value, format_.value, out)
    payload = {"project": project, "what": what, "format": format_, "out": out}
    payload |= {"rows": report.rows, "sha256": report.sha256}
    emit(payload, as_json, f"{report.rows} rows in {out}", f"sha256 {report.sha256}")
