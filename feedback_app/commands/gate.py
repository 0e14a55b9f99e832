"""`feedback-app gate`: does a version reach the bars that its project sets?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, pick_project, table

_COLUMNS = ("figure", "value", "95 %", "bar", "verdict", "n")


def gate(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="For instance policy-v3.")],
    project: OptionalProject = None,
    as_json: JsonFlag = False,
) -> None:
    """Hold a version's newest evaluation against the project's bars, keep the verdict; exit code 1 unless it passes.

    The bars are settings of the project, `gate.…`.
    """
    from storage.enums import GateVerdict
    from storage.gate import judge, row_of
    from storage.registry import champion, get_version

    with open_store() as store, store.sessions.begin() as session:
        found = pick_project(session, project)
        row = get_version(session, found, version)
        rival = champion(session, found, row.kind)
        result = judge(session, found, row)
        told = row_of(result) or {}
        payload = {"project": found.name, "version": row.name, "champion": rival.name if rival else None, **told}
    against = f" against {rival.name}" if rival else ""
    head = f"{row.name}{against}: {result.verdict.value}: {told['why']}"
    open_ = [f"{one['name']}: {one['why']}" for one in told["rows"] if one["verdict"] in ("fail", "inconclusive")]
    emit(payload, as_json, head, gate_table(told["rows"]), *open_)
    if result.verdict is not GateVerdict.PASS:
        raise typer.Exit(1)


def gate_table(rows: list[dict[str, Any]]) -> Any:
    """The rows of a verdict; a figure that must reach its bar has a star, the interval is of what the bar is for."""
    return table(_COLUMNS, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    held = row["difference"] if row["on"] == "difference" and row["difference"] else row
    interval = f"{_short(held['low'])} to {_short(held['high'])}" if held["low"] is not None else ""
    name = f"{row['name']}{' *' if row['required'] else ''}"
    shown = _short(row["value"]) if row["value"] is not None else "-"
    return name, shown, interval, row["bar"] or "", row["verdict"] or "", row["n"] or ""


def _short(value: float) -> str:
    return f"{value:.4g}"
