"""Data: counts, import from a file, prompts by hand, export."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback_app import policies
from feedback_app.handlers.context import Context
from feedback_app.handlers.values import text
from storage import annotations as feedback
from storage import audit, members, prompts, queue
from storage.engine import read_only, translate_errors
from storage.errors import FeedbackError, Invalid, NotFound
from storage.export import FORMATS as EXPORT_FORMATS
from storage.export import TABLES, ExportReport, export
from storage.ingest import FORMATS as IMPORT_FORMATS
from storage.ingest import IngestReport, ingest_file
from storage.models import Project
from storage.queue import QueueCounts

# A folder cannot be sent as one file; the command line writes it.
DOWNLOAD_FORMATS = tuple(one for one in EXPORT_FORMATS if one != "hf")
MAX_PROMPTS = 1000
MAX_PROMPT = 20_000


@dataclass(frozen=True)
class DataView:
    """How much a project holds."""

    project: str | None
    counts: dict[str, int]
    queue: QueueCounts | None
    tables: tuple[str, ...] = tuple(TABLES)


def see_data(ctx: Context, name: str | None, project: str | None) -> DataView:
    """Counts of everything in `project`."""
    with ctx.reading(name, policies.see_operations) as (session, user):
        found = members.find_project(session, user, project) if project else None
        if found is None:
            return DataView(None, {}, None)
        return DataView(found.name, feedback.annotation_counts(session, found), queue.queue_counts(session, found))


def add_prompts(ctx: Context, name: str | None, project: str | None, given: Any) -> int:
    """Add prompts written by hand, separated by lines of `---`; returns how many were new.

    Raises `Invalid` when there are none, too many, or one is too long.
    """
    blocks = [block.strip() for block in _split(text(given, "prompts", MAX_PROMPTS * MAX_PROMPT))]
    blocks = [block for block in blocks if block]
    if not blocks:
        raise Invalid("write at least one prompt")
    if len(blocks) > MAX_PROMPTS:
        raise Invalid(f"at most {MAX_PROMPTS} prompts at once; import a file for more")
    if max(map(len, blocks)) > MAX_PROMPT:
        raise Invalid(f"a prompt has at most {MAX_PROMPT} characters")
    with ctx.writing(name, policies.import_data) as (session, user):
        found = members.get_project(session, user, project or "")
        made = [prompts.add_prompt(session, found, [{"role": "user", "content": one}], "by hand") for one in blocks]
        new = sum(one.created for one in made)
        audit.record(session, user, "data.add", f"{new} prompts", found)
        return new


def _split(given: str) -> list[str]:
    blocks: list[list[str]] = [[]]
    for line in given.splitlines():
        if line.strip() == "---":
            blocks.append([])
        else:
            blocks[-1].append(line)
    return ["\n".join(block) for block in blocks]


def import_file(ctx: Context, name: str | None, project: str | None, path: Any, format: Any) -> IngestReport:
    """Import an uploaded file into `project` and delete the upload; raises `Invalid` when it cannot be read.

    Only files in the upload folder are taken: a path comes from the browser and could name anything.
    """
    with ctx.reading(name, policies.import_data) as (session, user):
        found = members.get_project(session, user, project or "")
    if not path or not isinstance(path, str):
        raise Invalid("choose a file first")
    if format not in ("auto", *IMPORT_FORMATS):
        raise Invalid(f"unknown format; choose from: auto, {', '.join(IMPORT_FORMATS)}")
    upload = _uploaded(ctx, path)
    try:
        with translate_errors():
            report = ingest_file(ctx.sessions, found.name, upload, format)
    except FeedbackError as error:
        # The upload folder means nothing to the person.
        raise type(error)(str(error).replace(str(upload), upload.name)) from error
    finally:
        upload.unlink(missing_ok=True)
    with ctx.writing(name, policies.import_data) as (session, user):
        detail = {"format": report.format, "prompts": report.prompts, "annotations": report.annotations}
        audit.record(
            session, user, "data.import", upload.name, members.get_project(session, user, found.name), **detail
        )
    return report


def _uploaded(ctx: Context, path: str) -> Path:
    uploads = (ctx.settings.home / "tmp" / "uploads").resolve()
    resolved = Path(path).resolve()
    if not resolved.is_relative_to(uploads) or not resolved.is_file():
        raise NotFound("the upload is gone; choose the file again")
    return resolved


def make_download(ctx: Context, name: str | None, project: str, what: str, format: str) -> tuple[Path, ExportReport]:
    """Write an export to a temporary file that the caller deletes; errors as in `storage.export.export`."""
    with ctx.writing(name, policies.export_data) as (session, user):
        found = members.get_project(session, user, project)
        if what not in TABLES or format not in DOWNLOAD_FORMATS:
            choices = f"{', '.join(TABLES)}; as {', '.join(DOWNLOAD_FORMATS)}"
            raise NotFound(f"no such download; there are: {choices} (a data set folder: feedback-app export)")
        audit.record(session, user, "data.export", what, found, format=format)
    folder = ctx.settings.home / "tmp" / "downloads"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    out = folder / f"{secrets.token_hex(8)}.{format}"
    with translate_errors(), read_only(ctx.sessions) as session:
        return out, export(session, session.get_one(Project, found.id), what, format, out)
