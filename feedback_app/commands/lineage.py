"""`feedback-app models lineage` and `models rebuild`: what trained a version; the same without what was taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, pick_project, table

if TYPE_CHECKING:
    from storage.chances import Chances
    from storage.lineage import Taught, Traced
    from storage.models import ModelVersion, Project

Version = Annotated[str, typer.Argument(metavar="VERSION", help="For instance policy-v3.")]
Rows = Annotated[int, typer.Option("--rows", min=1, max=10_000, help="So many rows of the snapshot at a time.")]
After = Annotated[int, typer.Option("--after", min=0, help="Go on after this row, as the last answer said.")]
Tainted = Annotated[bool, typer.Option("--tainted", help="Only rows that rest on what was taken back since.")]
OfAnnotation = Annotated[
    int | None, typer.Option("--annotation", min=1, help="The other way: the versions that learned from this one.")
]
OptionalVersion = Annotated[str | None, typer.Argument(metavar="[VERSION]", help="For instance policy-v3.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `feedback-app models`."""
    app.command()(lineage)
    app.command()(rebuild)


def lineage(
    version: OptionalVersion = None,
    annotation: OfAnnotation = None,
    project: OptionalProject = None,
    rows: Rows = 20,
    after: After = 0,
    tainted: Tainted = False,
    as_json: JsonFlag = False,
) -> None:
    """From a version to the annotations that trained it, row by row; or from an annotation to what learned from it."""
    from storage.engine import read_only
    from storage.errors import Invalid
    from storage.lineage import trace
    from storage.registry import get_version

    if (version is None) == (annotation is None):
        raise Invalid("name a version, or an annotation with --annotation NUMBER")
    with open_store() as store, read_only(store.sessions) as session:
        found = pick_project(session, project)
        if annotation is not None:
            traced = _traced(trace(session, found, annotation))
            lines = [(one["version"], one["rows"], one["through"], one["tainted_since"]) for one in traced["learned"]]
            emit(traced, as_json, table(("learned in", "rows", "through", "tainted"), lines))
            return
        payload = _of_version(session, found, get_version(session, found, version or ""), rows, after, tainted)
    facts = [(key, payload[key]) for key in ("version", "status", "tainted_since", "run", "snapshot")]
    facts += [("parents", ", ".join(payload["parents"]) or None), *payload["basis"].items()]
    lines = [
        (one["split"], one["source"], " ".join(one["prompt"].split())[:60], ", ".join(map(str, one["annotations"])))
        for one in payload["entries"]
    ]
    more = [] if payload["after"] is None else [f"more: --after {payload['after']}"]
    emit(payload, as_json, table(("", ""), facts), table(("split", "source", "prompt", "annotations"), lines), *more)


def rebuild(version: Version, project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Train a tainted version again without what was taken back: same recipe, settings and seed, a new snapshot."""
    from storage.rebuilding import rebuild as queue_rebuild
    from storage.registry import get_version

    with open_store() as store, store.sessions.begin() as session:
        found = pick_project(session, project)
        run = queue_rebuild(
            session,
            get_version(session, found, version),
            home=store.settings.home,
            default_base_model=store.settings.base_model,
        )
        payload = {"project": found.name, "rebuilds": version, "run": run.id, "kind": run.kind, "status": run.status}
    emit(payload, as_json, f"run {payload['run']} ({payload['kind']}) trains {version} again; a worker will take it")


def _of_version(
    session: Any, project: Project, row: ModelVersion, rows: int, after: int, tainted: bool
) -> dict[str, Any]:
    from storage import lineage as store
    from storage.chances import chances

    line = store.lineage(session, row)
    page = store.TaughtPage([], None)
    if line.snapshot is not None:
        page = store.taught(session, line.snapshot, after=after, limit=rows, tainted=tainted)
    pairs = [(one.row.chosen_id, one.row.rejected_id) for one in page.rows]
    known = chances(session, project, [(a, b) for a, b in pairs if b is not None])
    return {
        "version": row.name,
        "status": row.status,
        "tainted_since": row.tainted_at,
        "parents": [one.name for one in line.chain[1:]],
        "run": row.run_id,
        "snapshot": line.snapshot.content_hash if line.snapshot else None,
        "basis": line.basis._asdict(),
        "entries": [_entry(one, known) for one in page.rows],
        "after": page.after,
    }


def _entry(one: Taught, known: Chances) -> dict[str, Any]:
    found = known.of.get((one.row.chosen_id, one.row.rejected_id or 0))
    return {
        "split": one.row.split,
        "source": one.row.source,
        "weight": one.row.weight,
        "chosen_is_better": found and found._asdict(),
        "prompt": one.row.prompt,
        "annotations": one.row.annotation_ids,
        "withdrawn": [said.id for said in one.annotations if said.withdrawn_at is not None],
        "critiques": [{"id": said.id, "text": said.text} for said in one.critiques],
        "refinements": one.row.refinement_ids,
        "rules": one.rules,
    }


def _traced(found: Traced) -> dict[str, Any]:
    return {
        "annotation": found.annotation.id,
        "project": found.project.name,
        "user": found.user,
        "submitted_at": found.annotation.submitted_at,
        "withdrawn_at": found.annotation.withdrawn_at,
        "critiques": [{"id": one.id, "text": one.text} for one in found.critiques],
        "refinements": [one.id for one in found.refinements],
        "rules": found.rules,
        "snapshots": [one.content_hash for one in found.snapshots],
        "learned": [
            {
                "version": one.version.name,
                "status": one.version.status,
                "rows": one.rows,
                "rules": one.rules,
                "through": one.through,
                "snapshot": one.snapshot.content_hash if one.snapshot else None,
                "tainted_since": one.version.tainted_at,
            }
            for one in found.learned
        ],
    }
