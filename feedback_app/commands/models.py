"""`feedback-app models`: model versions, where they come from, and which one writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_app.commands import lineage as lineage_commands
from feedback_app.commands.compare import compare
from feedback_app.commands.export_version import export
from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, pick_project, table
from feedback_app.commands.train import flatten

if TYPE_CHECKING:
    from storage.models import ModelVersion
    from storage.taint import Standing

app = typer.Typer(help="Model versions: list, show, promote, roll back.", no_args_is_help=True)
Version = Annotated[str, typer.Argument(metavar="VERSION", help="For instance policy-v3.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]

_LONG = ("metrics", "parents", "annotations", "resolution", "gate", "evaluation")  # told in other words than JSON's


@app.command(name="list")
def list_(project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """The project's model versions."""
    from storage.engine import read_only
    from storage.registry import list_versions
    from storage.taint import standing

    with open_store() as store, read_only(store.sessions) as session:
        found = pick_project(session, project)
        stands = standing(session, found)
        rows = [_summary(version, stands[version.id]) for version in list_versions(session, found)]
        name = found.name
    shown = [
        (row["version"], row["status"], _mark(row), row["base_model"], row["run"], row["created_at"]) for row in rows
    ]
    columns = ("version", "status", "tainted", "base model", "run", "made")
    emit({"project": name, "versions": rows}, as_json, table(columns, shown))


@app.command()
def show(version: Version, project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """One version: metrics, and its lineage down to the annotations that trained it."""
    from storage.engine import read_only
    from storage.evaluations import as_shown
    from storage.gate import latest_result, row_of
    from storage.lineage import annotation_ids, lineage
    from storage.registry import get_version
    from storage.resolution import Rates, resolution_rates
    from storage.taint import standing

    with open_store() as store, read_only(store.sessions) as session:
        found = pick_project(session, project)
        row = get_version(session, found, version)
        line = lineage(session, row)
        payload = _summary(row, standing(session, found)[row.id]) | {
            "project": found.name,
            "metrics": row.metrics,
            "sha256": row.sha256,
            "folder": row.folder,
            "parents": [parent.name for parent in line.chain if parent.id != row.id],
            "snapshot": line.snapshot.content_hash if line.snapshot else None,
            "annotations": annotation_ids(session, row),
            "withdrawn": line.basis.withdrawn,
            "resolution": resolution_rates(session, found).get(row.id, Rates()).as_dict(),
            "gate": row_of(latest_result(session, row)),
            "evaluation": as_shown(session, row),
        }
    facts = [(key, value) for key, value in payload.items() if key not in _LONG]
    facts += [("parents", ", ".join(payload["parents"]) or None), ("annotations", len(payload["annotations"]))]
    if payload["gate"]:
        facts.append(("gate", f"{payload['gate']['verdict']}: {payload['gate']['why']}"))
    fixed = payload["resolution"]["fixed"]
    if fixed["of"]:
        facts.append(("resolved", f"{fixed['rate']:.0%} of {fixed['of']} ({fixed['low']:.0%} to {fixed['high']:.0%})"))
    facts += list(flatten(payload["metrics"]).items())
    emit(payload, as_json, table(("", ""), facts))


@app.command()
def promote(version: Version, project: OptionalProject = None, reason: Reason = "", as_json: JsonFlag = False) -> None:
    """Make a version the champion: it writes (a policy) or scores (a reward model) from now on, with no restart."""
    from storage.registry import champion, get_version
    from storage.registry import promote as make_champion

    with open_store() as store, store.sessions.begin() as session:
        found = pick_project(session, project)
        row = get_version(session, found, version)
        before = champion(session, found, row.kind)
        make_champion(session, row, None, reason)
        name = found.name
    previous = before.name if before else None
    emit(
        {"project": name, "champion": version, "previous": previous},
        as_json,
        f"{version} is the champion of {name} now" + (f" (before: {previous})" if previous else ""),
    )


@app.command()
def rollback(
    project: OptionalProject = None,
    kind: Annotated[str, typer.Option("--kind", help="policy or reward.")] = "policy",
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> None:
    """Give the place of champion back to the version that had it before."""
    from storage.enums import ModelKind
    from storage.registry import champion, roll_back

    if kind not in list(ModelKind):
        raise typer.BadParameter(f"'{kind}': choose from {', '.join(ModelKind)}", param_hint="'--kind'")
    with open_store() as store, store.sessions.begin() as session:
        found = pick_project(session, project)
        before = champion(session, found, ModelKind(kind))
        after = roll_back(session, found, None, ModelKind(kind), reason)
        names = [before.name if before else None, after.name]
        name = found.name
    emit(
        {"project": name, "champion": names[1], "previous": names[0]},
        as_json,
        f"{names[1]} is the champion of {name} again (before: {names[0]})",
    )


def _mark(row: dict[str, Any]) -> str:
    return f"{row['tainted_by']} annotations" if row["tainted_since"] else ""


def _summary(version: ModelVersion, stands: Standing) -> dict[str, Any]:
    return {
        "version": version.name,
        "kind": version.kind,
        "status": version.status,
        "base_model": version.base_model,
        "run": version.run_id,
        "created_at": version.created_at,
        # Annotations that trained it and were withdrawn or erased since, its ancestors' among them.
        "tainted_since": stands.since,
        "tainted_by": stands.withdrawn,
        "tainted_through": ", ".join(stands.through) or None,
        "revised": stands.revised,
    }


lineage_commands.register(app)
app.command()(compare)
app.command()(export)
