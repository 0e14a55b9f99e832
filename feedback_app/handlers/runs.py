"""Runs: what training would use, start, follow, cancel, let go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from feedback_app.handlers.project import due_of
from feedback_app.handlers.values import number, parse_pairs, to_enum, whole
from storage import audit, auto, cycle, evaluations, members, run_events, runs, training
from storage.auto import Choice
from storage.critique_configs import RECIPES
from storage.enums import RunKind, RunStatus
from storage.errors import Invalid, NotFound
from storage.models import ModelVersion, Project, Run, Snapshot, User, utc_now
from storage.schedule import Due
from storage.seeds import OverSeeds, over_seeds
from storage.training import Preview

LISTED = 30
LOG_LINES = 400
# Settings that the page asks for by name; everything else goes through "more settings".
ASKED = ("epochs", "learning_rate", "beta")

# Steps of a cycle are unlike; a playground has no last one.
_WITHOUT_PACE = (RunKind.CYCLE, RunKind.PLAYGROUND)
AUTO = "auto"  # in place of a kind of run: the application chooses

Series = dict[str, list[tuple[int, float | None]]]


@dataclass(frozen=True)
class RunView:
    """One run with all that the page shows of it."""

    run: Run
    asked_by: str | None
    parent: str | None
    made: str | None  # the model version it made
    snapshot: Snapshot | None
    plotted: Run  # whose curves are shown: its own, or for a cycle those of its newest training
    series: Series
    log: list[str]
    seconds_left: float | None
    children: list[Run]  # of a cycle, in order
    evaluation: dict[str, Any] | None = None  # what it measured (storage.evaluations.shown)
    seeds: OverSeeds | None = None  # the same over the seeds with which its version was trained


@dataclass(frozen=True)
class RunsView:
    """The newest runs of a project and the one selected; `live` while one of them is queued or running."""

    project: str | None
    runs: list[Run]
    selected: RunView | None
    live: bool
    now: datetime
    due: Due | None = None  # what the project starts by itself


def see_runs(ctx: Context, name: str | None, project: str | None, run: Any) -> RunsView:
    """The runs of `project` and the selected one (the newest when `run` is empty or not of this project)."""
    with ctx.reading(name, policies.see_operations) as (session, user):
        return _runs_view(session, _find(session, user, project), run)


def what_training_uses(ctx: Context, name: str | None, project: str | None) -> Preview | None:
    """What a training run would use now and what is missing; None without a project."""
    with ctx.reading(name, policies.see_operations) as (session, user):
        found = _find(session, user, project)
        return training.preview(session, found) if found else None


def start(
    ctx: Context, name: str | None, project: str | None, kind: Any, asked: Mapping[str, Any], more: Any
) -> RunsView:
    """Queue a run of `kind`, or what `AUTO` chooses; `asked`: the named fields (None: unset), `more`: name=value lines.

    Raises `Invalid` for unknown or bad settings and `NotEnoughData` with the missing number.
    """
    with ctx.writing(name, policies.train) as (session, user):
        found = members.get_project(session, user, project or "")
        named = {key: number(value, key) for key, value in asked.items()}
        own = parse_pairs(more)
        values = {key: value for key, value in named.items() if value is not None} | own
        run = _queue(ctx, session, found, kind, values, own, user)
        audit.record(session, user, "run.start", f"run {run.id}", found, kind=run.kind.value)
        return _runs_view(session, found, run.id)


def _queue(
    ctx: Context,
    session: Session,
    project: Project,
    kind: Any,
    values: dict[str, Any],
    own: dict[str, Any],
    user: User,
) -> Run:
    """`values` are all settings, `own` those that are no fields of the form: not every kind has all its fields."""
    base, home = ctx.settings.base_model, ctx.settings.home
    if kind == AUTO:
        choice = auto.choose(auto.collected(session, project))
        fields = _of_kind(choice.kind, values, own)
        return auto.queue_auto(session, project, fields, home=home, default_base_model=base, user=user, choice=choice)[
            0
        ]
    wanted = to_enum(RunKind, kind, "kind of run")
    if wanted is RunKind.CYCLE:
        return cycle.queue_cycle(session, project, values, user=user)
    if wanted is RunKind.GENERATE:
        return training.queue_generate(session, project, own, default_base_model=base, user=user)
    if wanted is RunKind.REFINE:
        return training.queue_refine(session, project, own, default_base_model=base, user=user)
    if wanted is RunKind.EVALUATE:
        return evaluations.queue_evaluation_of(session, project, own, default_base_model=base, user=user)
    fitting = _of_kind(wanted, values, own)
    return training.queue_training(session, project, wanted, fitting, home=home, default_base_model=base, user=user)


def _of_kind(kind: RunKind | None, values: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Without the fields of the form that a kind does not have; what somebody wrote out stays, and may be refused."""
    if kind not in RECIPES:
        return own
    known = RECIPES[kind].config.model_fields
    return {key: value for key, value in values.items() if key in own or key in known}


def what_auto_would_do(ctx: Context, name: str | None, project: str | None) -> Choice | None:
    """What "let the application choose" would start now, and why; None without a project."""
    with ctx.reading(name, policies.see_operations) as (session, user):
        found = _find(session, user, project)
        return auto.choose(auto.collected(session, found)) if found else None


def cancel(ctx: Context, name: str | None, project: str | None, run: Any) -> RunsView:
    """Stop the selected run: a queued one at once, a running one within a step; raises `Conflict` when it ended."""
    with ctx.writing(name, policies.train) as (session, user):
        found = members.get_project(session, user, project or "")
        row = _run_of(session, found, run)
        runs.request_cancel(session, row, user)
        audit.record(session, user, "run.cancel", f"run {row.id}", found)
        return _runs_view(session, found, row.id)


def resume(ctx: Context, name: str | None, project: str | None, run: Any) -> RunsView:
    """Let the selected run go on from its last checkpoint; raises `Conflict` for one that cannot."""
    with ctx.writing(name, policies.train) as (session, user):
        found = members.get_project(session, user, project or "")
        row = runs.resume_run(session, _run_of(session, found, run), user)
        return _runs_view(session, found, row.id)


def _run_of(session: Session, project: Project, run: Any) -> Run:
    row = runs.get_run(session, whole(run, "run"))
    if row.project_id != project.id:
        raise NotFound(f"run {row.id} is not of project '{project.name}'")
    return row


def _find(session: Session, user: User, name: str | None) -> Project | None:
    return members.find_project(session, user, name) if name else None


def _runs_view(session: Session, project: Project | None, selected: Any) -> RunsView:
    now = utc_now()
    if project is None:
        return RunsView(None, [], None, False, now)
    rows = runs.list_runs(session, project, LISTED)
    live = any(not row.status.ended for row in rows)
    chosen = _selected(session, project, rows, selected, now)
    return RunsView(project.name, rows, chosen, live, now, due_of(session, project))


def _selected(session: Session, project: Project, rows: list[Run], wanted: Any, now: datetime) -> RunView | None:
    row = next((row for row in rows if str(row.id) == str(wanted)), None)
    if row is None and wanted:
        try:
            older = runs.get_run(session, whole(wanted, "run"))
        except (Invalid, NotFound):
            older = None
        row = older if older is not None and older.project_id == project.id else None
    row = row or next(iter(rows), None)
    if row is None:
        return None
    asker = session.get(User, row.requested_by_id) if row.requested_by_id else None
    parent = session.get(ModelVersion, row.parent_version_id) if row.parent_version_id else None
    made = (row.result or {}).get("model_version")
    children = cycle.children(session, row) if row.kind is RunKind.CYCLE else []
    plotted = next((one for one in reversed(children) if one.kind.trains), row)
    return RunView(
        run=row,
        asked_by=asker.name if asker else None,
        parent=parent.name if parent else None,
        made=str(made) if made else None,
        snapshot=session.get(Snapshot, row.snapshot_id) if row.snapshot_id else None,
        plotted=plotted,
        series=run_events.metric_series(session, plotted.id),
        log=run_events.log_lines(session, row.id, limit=100_000)[-LOG_LINES:],
        seconds_left=None if row.kind in _WITHOUT_PACE else time_left(row, now),
        children=children,
        evaluation=evaluations.evaluation_of(session, row) if row.kind is RunKind.EVALUATE else None,
        seeds=over_seeds(session, parent) if row.kind is RunKind.EVALUATE and parent else None,
    )


def time_left(run: Run, now: datetime) -> float | None:
    """Seconds until the last step at the pace so far; None while that is not known."""
    if run.status is not RunStatus.RUNNING or not run.started_at or not run.step or not run.total_steps:
        return None
    elapsed = (now - run.started_at).total_seconds()
    return max(0.0, elapsed / run.step * (run.total_steps - run.step))
