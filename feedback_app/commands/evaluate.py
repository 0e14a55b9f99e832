"""`feedback-app evaluate`: measure a version on prompts that never train."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from feedback_app.commands.shared import (
    JsonFlag,
    OptionalProject,
    RunSettings,
    WaitFlag,
    emit,
    open_store,
    pick_project,
    say,
    table,
)
from feedback_app.commands.train import parse_settings, run_payload, run_table

_COLUMNS = ("figure", "value", "95 %", "champion", "difference", "n")


def evaluate(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="For instance policy-v3 or reward-v1.")],
    project: OptionalProject = None,
    settings: RunSettings = None,
    wait: WaitFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure a version on test prompts beside the champion: figures with intervals. A worker does it."""
    from storage.audit import record
    from storage.engine import read_only
    from storage.enums import RunStatus
    from storage.evaluations import as_shown, queue_evaluation
    from storage.registry import get_version

    values = parse_settings(settings or [])
    with open_store() as store:
        with store.sessions.begin() as session:
            found = pick_project(session, project)
            row = get_version(session, found, version)
            base = store.settings.base_model
            run = queue_evaluation(session, found, row, default_base_model=base, values=values)
            record(session, None, "run.queue", f"run {run.id}", found, kind=run.kind.value, by="command line")
            name = found.name
        if wait:
            from feedback_app.waiting import own_worker, wait_for_run

            with own_worker(store.sessions, say, "train", store.settings.logs) as look_after:
                run = wait_for_run(store.sessions, run.id, say, look_after)
        payload = run_payload(run, name)
        lines: list[Any] = []
        if run.status is RunStatus.SUCCEEDED:
            with read_only(store.sessions) as session:
                payload["evaluation"] = as_shown(session, row)
            lines = _told(version, payload["evaluation"] or {})
        elif not wait:
            lines = [
                run_table(payload),
                f"queued; a worker takes it (feedback-app worker). Look: feedback-app runs show {run.id}",
            ]
    if run.status in (RunStatus.FAILED, RunStatus.CANCELLED):
        payload["error"] = run.error or f"the run was {run.status}"
        say(f"error: run {run.id} {run.status}: {payload['error']}")
    emit(payload, as_json, *lines)
    if "error" in payload:
        raise typer.Exit(1)


def _told(version: str, evaluation: dict[str, Any]) -> list[Any]:
    against = f" beside {evaluation['against']}" if evaluation["against"] else ""
    judged = f", judged by {evaluation['judged_by']}" if evaluation["judged_by"] else ""
    title = f"{version}{against} on {evaluation['split']} prompts{judged}"
    rows = [_cells(name, figure) for name, figure in evaluation["figures"].items()]
    return [table(_COLUMNS, rows, title), *(f"note: {note}" for note in evaluation["notes"])]


def _cells(name: str, figure: dict[str, Any]) -> tuple[Any, ...]:
    apart = figure["difference"]
    above = f"{_short(apart['value'])} ({_interval(apart)})" if apart else ""
    return name, _short(figure["value"]), _interval(figure), _short(figure["champion"], ""), above, figure["n"] or ""


def _interval(figure: dict[str, Any]) -> str:
    return "" if figure["low"] is None else f"{_short(figure['low'])} to {_short(figure['high'])}"


def _short(value: float | None, nothing: str = "-") -> str:
    return nothing if value is None else f"{value:.4g}"
