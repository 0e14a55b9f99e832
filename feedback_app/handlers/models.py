"""Model versions: list, lineage, before and after, and the decisions about them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from feedback_app.handlers.gate import GateView, see_gate
from feedback_app.handlers.values import text, to_enum
from storage import audit, blind_tests, gate, members, monitoring, rebuilding, registry, taint
from storage.chances import Chances, chances
from storage.enums import ModelKind, VersionStatus
from storage.errors import Invalid, NotFound
from storage.evaluations import queue_evaluation
from storage.gate_configs import GateSettings
from storage.lineage import Lineage, lineage
from storage.models import Alert, ModelVersion, Project, Run, utc_now
from storage.registry import BeforeAfter
from storage.resolution import Rates, resolution_rates
from storage.taint import Standing

CARDS = 6
MAX_REASON = 2000


class Decision(StrEnum):
    """What an operator can decide about a version."""

    PROMOTE = "promote"
    ROLL_BACK = "roll back"
    RETIRE = "retire"
    REJECT = "reject"


@dataclass(frozen=True)
class VersionView:
    """The selected version with what it rests on, and the same prompts written by it and by another."""

    version: ModelVersion
    lineage: Lineage
    standing: Standing
    rates: Rates | None  # of resolution; None: nobody was asked
    against: str | None
    cards: list[BeforeAfter]
    chances: Chances  # that the selected version's completion on a card is better than the other's
    gate: GateView
    rebuilds: list[Run]  # that train it again without what was taken back, oldest first
    rebuilt_as: ModelVersion | None


@dataclass(frozen=True)
class ModelsView:
    """The versions of a project and the one selected."""

    project: str | None
    versions: list[ModelVersion]
    standings: dict[int, Standing]  # by version id
    selected: VersionView | None
    alerts: list[Alert]  # of the last days, newest first
    bars: GateSettings  # what a candidate must show in this project
    now: datetime
    notice: str = ""


def see_models(ctx: Context, name: str | None, project: str | None, version: Any) -> ModelsView:
    """The versions of `project`; selected is the one asked for, else the newest candidate, else the champion."""
    with ctx.reading(name, policies.see_operations) as (session, user):
        return _view(ctx, session, members.find_project(session, user, project) if project else None, version)


def decide(ctx: Context, name: str | None, project: str | None, version: Any, decision: Any, reason: Any) -> ModelsView:
    """Promote, retire or reject the selected version, or roll its kind back; the reason goes into the history.

    A version that passed the gate is promoted, and a roll back made, without a reason too. Raises `Invalid` where one
    is missing and `Conflict` when the version's state or the gate forbids it.
    """
    with ctx.writing(name, policies.manage_models) as (session, user):
        found = members.get_project(session, user, project or "")
        wanted = to_enum(Decision, decision, "decision")
        why = text(reason, "reason", MAX_REASON).strip()
        if not why and wanted in (Decision.RETIRE, Decision.REJECT):
            raise Invalid("give a reason; whoever looks at the history will want it")
        row = registry.get_version(session, found, text(version, "version"))
        if wanted is Decision.PROMOTE:
            registry.promote(session, row, user, why)
            notice = f"{row.name} is the champion now; the next completions are its own"
        elif wanted is Decision.ROLL_BACK:
            back = registry.roll_back(session, found, user, row.kind, why)
            notice = f"{back.name} is the champion again"
        else:
            close = registry.retire if wanted is Decision.RETIRE else registry.reject
            close(session, row, user, why)
            notice = f"{row.name} is {'retired' if wanted is Decision.RETIRE else 'rejected'}"
        return _view(ctx, session, found, row.name, notice)


def evaluate(ctx: Context, name: str | None, project: str | None, version: Any) -> ModelsView:
    """Queue a run that measures the selected version against the champion on test prompts."""
    with ctx.writing(name, policies.train) as (session, user):
        found = members.get_project(session, user, project or "")
        row = registry.get_version(session, found, text(version, "version"))
        run = queue_evaluation(session, found, row, default_base_model=ctx.settings.base_model, user=user)
        audit.record(session, user, "run.queue", f"run {run.id}", found, kind=run.kind.value)
        return _view(ctx, session, found, row.name, f"run {run.id} evaluates {row.name}; judge it when it has ended")


def judge(ctx: Context, name: str | None, project: str | None, version: Any) -> ModelsView:
    """Hold the selected version to the bars of its project; raises `NotEnoughData` while nothing was measured."""
    with ctx.writing(name, policies.manage_models) as (session, user):
        found = members.get_project(session, user, project or "")
        row = registry.get_version(session, found, text(version, "version"))
        result = gate.judge(session, found, row, user)
        notice = f"the gate's verdict on {row.name}: {result.verdict.value}"
        return _view(ctx, session, found, row.name, notice)


def start_test(ctx: Context, name: str | None, project: str | None, version: Any) -> ModelsView:
    """Let people compare the selected version with the champion, blind; raises what says why that cannot be."""
    with ctx.writing(name, policies.manage_models) as (session, user):
        found = members.get_project(session, user, project or "")
        row = registry.get_version(session, found, text(version, "version"))
        blind_tests.start(session, found, row, default_base_model=ctx.settings.base_model, user=user)
        return _view(ctx, session, found, row.name, f"people compare {row.name} with the champion from now on")


def stop_test(ctx: Context, name: str | None, project: str | None, version: Any) -> ModelsView:
    """End the blind test that is going on."""
    with ctx.writing(name, policies.manage_models) as (session, user):
        found = members.get_project(session, user, project or "")
        blind_tests.stop(session, blind_tests.get_test(session, found), user)
        return _view(ctx, session, found, version, "the blind test is stopped")


def _view(ctx: Context, session: Session, project: Project | None, wanted: Any, notice: str = "") -> ModelsView:
    if project is None:
        return ModelsView(None, [], {}, None, [], GateSettings(), utc_now())
    versions = registry.list_versions(session, project)
    row = _pick(session, project, versions, wanted)
    standings = taint.standing(session, project)
    selected = _selected(ctx, session, project, versions, row, standings) if row else None
    alerts = monitoring.recent_alerts(session, project)
    bars = gate.gate_settings(project)
    return ModelsView(project.name, versions, standings, selected, alerts, bars, utc_now(), notice)


def _pick(session: Session, project: Project, versions: list[ModelVersion], wanted: Any) -> ModelVersion | None:
    if isinstance(wanted, str) and wanted:
        try:
            return registry.get_version(session, project, wanted)
        except NotFound:
            pass  # of another project, most likely: fall back to what matters here
    return (
        registry.newest_candidate(session, project) or registry.champion(session, project) or next(iter(versions), None)
    )


def _selected(
    ctx: Context,
    session: Session,
    project: Project,
    versions: list[ModelVersion],
    row: ModelVersion,
    standings: dict[int, Standing],
) -> VersionView:
    line = lineage(session, row)
    against = _rival(versions, line, row)
    cards = registry.before_after(session, project, against, row, CARDS) if against else []
    rates = resolution_rates(session, project).get(row.id)
    name = against.name if against else None
    known = chances(session, project, [(card.new_id, card.old_id) for card in cards])
    judged = see_gate(session, project, row, ctx.settings.base_model)
    again = (rebuilding.rebuilds(session, row), rebuilding.rebuilt_as(session, row)) if row.tainted_at else ([], None)
    return VersionView(row, line, standings[row.id], rates, name, cards, known, judged, *again)


def _rival(versions: list[ModelVersion], line: Lineage, row: ModelVersion) -> ModelVersion | None:
    """Who a policy is compared with: the champion; the champion itself with its parent."""
    if row.kind is not ModelKind.POLICY:
        return None
    if row.status is not VersionStatus.CHAMPION:
        policies_ = (one for one in versions if one.kind is ModelKind.POLICY)
        return next((one for one in policies_ if one.status is VersionStatus.CHAMPION), None)
    return line.chain[1] if len(line.chain) > 1 else None
