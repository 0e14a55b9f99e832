"""`feedback-app runs`: what was queued, how it goes, why it ended."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, table
from feedback_app.commands.train import flatten, run_payload

app = typer.Typer(help="Runs: list, show, cancel, resume, read the log.", no_args_is_help=True)
RunId = Annotated[int, typer.Argument(metavar="RUN", min=1, help="The run's number.")]


@app.command(name="list")
def list_(
    project: OptionalProject = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many, newest first.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """The newest runs, of one project (and what it waits for to train by itself) or of all."""
    from storage.engine import read_only
    from storage.models import utc_now
    from storage.projects import get_project
    from storage.runs import list_runs
    from storage.schedule import due

    with open_store() as store, read_only(store.sessions) as session:
        found = get_project(session, project) if project else None
        rows = [
            {
                "run": run.id,
                "project": run.project.name,
                "kind": run.kind,
                "status": run.status,
                "step": run.step,
                "total_steps": run.total_steps,
                "created_at": run.created_at,
                "error": run.error,
            }
            for run in list_runs(session, found, limit)
        ]
        waits = due(session, found, utc_now()) if found else None
    shown = [(*(row[k] for k in ("run", "project", "kind", "status")), _steps(row), row["created_at"]) for row in rows]
    payload: dict[str, Any] = {"runs": rows}
    lines = [table(("run", "project", "kind", "status", "steps", "queued"), shown)]
    if waits is not None:
        payload["by_itself"] = {"reason": waits.reason, "starts": waits.kinds, "next_at": waits.next_at}
        payload["by_itself"]["refused"] = list(waits.refused)
        lines.append(f"by itself: {waits.reason}")
        lines += [f"due, but not started: {why}" for why in waits.refused]
    emit(payload, as_json, *lines)


@app.command()
def show(run: RunId, as_json: JsonFlag = False) -> None:
    """One run: its config, metrics, result, and why it ended."""
    from storage.engine import read_only
    from storage.runs import get_run

    with open_store() as store, read_only(store.sessions) as session:
        row = get_run(session, run)
        payload = run_payload(row, row.project.name)
        payload |= {
            "error": row.error,
            "config": row.config,
            "snapshot": row.snapshot.content_hash if row.snapshot else None,
            "cause": row.cause,
            "worker": row.worker,
            "attempts": row.attempts,
            "created_at": row.created_at,
            "started_at": row.started_at,
            "finished_at": row.finished_at,
            "environment": row.environment,
        }
    facts = [(key, value) for key, value in payload.items() if not isinstance(value, dict)]
    facts += list(flatten({key: payload[key] or {} for key in ("metrics", "config")}).items())
    if payload["error"] is None:
        del payload["error"]  # the key stands for a command or run that failed
    emit(payload, as_json, table(("", ""), facts))


@app.command()
def cancel(run: RunId, as_json: JsonFlag = False) -> None:
    """Stop a run: a queued one at once, a running one within a step."""
    from storage.runs import get_run, request_cancel

    with open_store() as store, store.sessions.begin() as session:
        row = get_run(session, run)
        row = request_cancel(session, row, None)
        status = row.status
    line = f"run {run} is {status}" if status.ended else f"run {run} is asked to stop"
    emit({"run": run, "status": status}, as_json, line)


@app.command()
def resume(run: RunId, as_json: JsonFlag = False) -> None:
    """Let a run that failed or was cancelled go on from its last checkpoint."""
    from storage.runs import get_run, resume_run

    with open_store() as store, store.sessions.begin() as session:
        row = resume_run(session, get_run(session, run), None)
        status = row.status
    emit({"run": run, "status": status}, as_json, f"run {run} is {status} again; a worker takes it")


@app.command()
def log(
    run: RunId,
    after: Annotated[int, typer.Option("--after", min=0, help="Leave out the first lines.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """What a run has written."""
    from storage.engine import read_only
    from storage.runs import get_run, log_lines

    with open_store() as store, read_only(store.sessions) as session:
        get_run(session, run)
        lines = log_lines(session, run, after=after, limit=1_000_000)
    emit({"run": run, "lines": lines}, as_json, *lines)


def _steps(row: dict[str, Any]) -> str | None:
    return None if row["step"] is None else f"{row['step']}/{row['total_steps'] or '?'}"
