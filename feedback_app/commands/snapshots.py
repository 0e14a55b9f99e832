"""`feedback-app snapshots`: what training was given, row by row, and what changed from one to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, pick_project, table

if TYPE_CHECKING:
    from storage.models import Snapshot
    from storage.snapshot_diff import RowChange, RowView

app = typer.Typer(help="Training data, frozen: list, show, compare.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="Its number, or the first characters of its hash.")]
Other = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="The newer one.")]
Rows = Annotated[int, typer.Option("--rows", min=0, help="At most so many rows for people; --json holds all.")]
_PROMPT = 60  # characters of a prompt in a table


@app.command(name="list")
def list_(project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """The project's snapshots, newest first."""
    from storage.engine import read_only
    from storage.snapshot_diff import list_snapshots

    with open_store() as store, read_only(store.sessions) as session:
        found = pick_project(session, project)
        rows = [_summary(snapshot) for snapshot in list_snapshots(session, found)]
        name = found.name
    columns = ("snapshot", "hash", "form", "rows", "sources", "made", "tainted")
    shown = [
        (row["snapshot"], row["hash"][:12], row["form"], row["rows"], _counted(row["used"]), row["created_at"],
         row["tainted_since"])
        for row in rows
    ]  # fmt: skip
    emit({"project": name, "snapshots": rows}, as_json, table(columns, shown))


@app.command()
def show(name: Name, project: OptionalProject = None, rows: Rows = 20, as_json: JsonFlag = False) -> None:
    """One snapshot: what went in and what did not, and the feedback behind each row."""
    from storage.engine import read_only
    from storage.snapshot_diff import get_snapshot, rows_of_snapshot

    with open_store() as store, read_only(store.sessions) as session:
        found = pick_project(session, project)
        snapshot = get_snapshot(session, found, name)
        views = rows_of_snapshot(session, snapshot, None if as_json else rows)
        payload = _summary(snapshot) | {
            "project": found.name,
            "folder": snapshot.folder,
            "settings": snapshot.settings,
            "report": snapshot.report,
            "entries": [_row(view) for view in views],
        }
    facts = [(key, payload[key]) for key in ("snapshot", "hash", "form", "rows", "folder", "created_at")]
    facts += [("used", _counted(payload["used"])), ("left out", _counted(payload["left_out"]))]
    emit(payload, as_json, table(("", ""), facts), table(_COLUMNS, [_line(view) for view in views]))


@app.command()
def diff(
    older: Name, newer: Other, project: OptionalProject = None, rows: Rows = 50, as_json: JsonFlag = False
) -> None:
    """What was added, removed and changed between two snapshots, and the annotation or critique that caused it."""
    from storage.engine import read_only
    from storage.snapshot_diff import difference, get_snapshot

    with open_store() as store, read_only(store.sessions) as session:
        found = pick_project(session, project)
        a, b = get_snapshot(session, found, older), get_snapshot(session, found, newer)
        differs = difference(session, a, b)
        payload: dict[str, Any] = {
            "project": found.name,
            "a": a.content_hash,
            "b": b.content_hash,
            "added": [_change(one) for one in differs.added],
            "removed": [_change(one) for one in differs.removed],
            "changed": [_change(one) for one in differs.changed],
            "settings": {name: list(values) for name, values in differs.settings.items()},
        }
    lines = [
        f"{sign} {_told(one.after or one.before)}\n    because: {_causes(one)}"
        for sign, changes in (("+", differs.added), ("-", differs.removed), ("~", differs.changed))
        for one in changes
    ]
    counts = f"{len(differs.added)} added, {len(differs.removed)} removed, {len(differs.changed)} changed"
    if len(lines) > rows:
        counts += f"; the first {rows} of {len(lines)}, --json gives them all"
    settings = [f"{name}: {values[0]} -> {values[1]}" for name, values in payload["settings"].items()]
    emit(payload, as_json, counts, *settings, *lines[:rows])


_COLUMNS = ("split", "source", "weight", "prompt", "annotations", "critiques", "refinements")


def _summary(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "snapshot": snapshot.id,
        "hash": snapshot.content_hash,
        "form": snapshot.form,
        "rows": snapshot.report.get("pairs"),
        "used": snapshot.report.get("used", {}),
        "left_out": snapshot.report.get("left_out", {}),
        "created_at": snapshot.created_at,
        "tainted_since": snapshot.tainted_at,
    }


def _row(view: RowView | None) -> dict[str, Any] | None:
    return None if view is None else view._asdict()


def _change(change: RowChange) -> dict[str, Any]:
    return {
        "before": _row(change.before),
        "after": _row(change.after),
        "causes": [cause._asdict() for cause in change.causes],
    }


def _told(view: RowView | None) -> str:
    """A row in one line."""
    if view is None:
        return ""
    named = ("annotation", view.annotation_ids), ("critique", view.critique_ids), ("refinement", view.refinement_ids)
    ids = ", ".join(f"{name} {one}" for name, found in named for one in found)
    return f"{view.split} {view.source} {view.weight:g} “{_line(view)[3]}” ({ids})"


def _line(view: RowView) -> tuple[Any, ...]:
    prompt = " ".join(view.prompt.split())
    ids = (", ".join(map(str, one)) for one in (view.annotation_ids, view.critique_ids, view.refinement_ids))
    shortened = prompt if len(prompt) <= _PROMPT else prompt[: _PROMPT - 1] + "…"
    return (view.split, view.source, view.weight, shortened, *ids)


def _causes(change: RowChange) -> str:
    return "; ".join(" ".join(filter(None, (one.what, str(one.id or ""), one.happened))) for one in change.causes)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items()) or "-"
