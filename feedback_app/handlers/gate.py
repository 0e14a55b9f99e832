"""The gate behind the Models tab: the verdict on a version, what it rests on, and the project's bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from feedback_app.handlers.values import number
from storage import audit, evaluations, gate, members, projects
from storage.errors import FeedbackError, Invalid
from storage.evaluations import latest_evaluation
from storage.gate_configs import GateSettings
from storage.models import Evaluation, GateResult, ModelVersion, Project
from storage.registry import champion

NUMBERS = tuple(
    name for name, field in GateSettings.model_fields.items() if field.annotation in (int, float)
)  # in the order of the class
SWITCHES = ("auto_promote", "roll_back")


@dataclass(frozen=True)
class GateView:
    """The newest verdict on a version; `against` is whom it was held against, `champion` who is in service now."""

    result: GateResult | None
    champion: str | None
    against: str | None
    passed: bool  # against the present champion
    evaluated: bool  # there is an evaluation against the present champion
    newer: bool  # ... that no verdict rests on yet
    not_evaluated: FeedbackError | None  # why it cannot be evaluated now
    not_judged: FeedbackError | None  # why it cannot be judged now
    notes: list[str]  # of the evaluation that the verdict rests on: what could not be measured, and why


def see_gate(session: Session, project: Project, version: ModelVersion, default_base_model: str) -> GateView:
    """What the gate says of `version`."""
    rival = champion(session, project, version.kind)
    result = gate.latest_result(session, version)
    against = session.get(ModelVersion, result.champion_id) if result and result.champion_id else None
    found = latest_evaluation(session, version, rival)
    return GateView(
        result=result,
        champion=rival.name if rival else None,
        against=against.name if against else None,
        passed=gate.passed(result, rival),
        evaluated=found is not None,
        newer=found is not None and (result is None or result.evaluation_id != found.id),
        not_evaluated=evaluations.refusal(session, project, version, default_base_model),
        not_judged=gate.refusal(session, project, version),
        notes=_notes(session, result),
    )


def _notes(session: Session, result: GateResult | None) -> list[str]:
    found = session.get(Evaluation, result.evaluation_id) if result and result.evaluation_id else None
    return [str(note) for note in found.metrics.get("notes", [])] if found else []


def save_bars(ctx: Context, name: str | None, project: str | None, values: Mapping[str, Any]) -> GateSettings:
    """Change the bars of a project; raises `Invalid` that names the field."""
    with ctx.writing(name, policies.edit_project) as (session, user):
        found = members.get_project(session, user, project or "")
        given: dict[str, Any] = {one: number(values.get(one), one.replace("_", " ")) for one in NUMBERS}
        given |= {one: values.get(one) is True for one in SWITCHES}
        required = values.get("required")
        if not isinstance(required, list):
            raise Invalid("required figures: give a list of names")
        given["required"] = required
        projects.update_project(session, found, gate_settings=given)
        audit.record(session, user, "project.update", found.name, found, settings=["gate"])
        return gate.gate_settings(found)
