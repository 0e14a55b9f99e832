"""The gate: what a candidate must show against the champion, and the verdicts that were given.

Problem: nobody shall promote on a feeling, and nobody shall be kept from promoting what must go out. Decision: a
verdict is a row with every figure and bar as they were; `registry.promote` takes a pass against the present champion,
or a reason from a person. Invariant: a promotion names the verdict it rested on, and the log says who overruled it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from storage import audit, verdicts
from storage.blind_tests import of_people
from storage.configs import parse
from storage.enums import GateVerdict, VersionStatus
from storage.errors import Conflict, FeedbackError, NotEnoughData
from storage.evaluations import figures, latest_evaluation
from storage.gate_configs import GateSettings
from storage.gate_results import latest_result, passed
from storage.models import GateResult, ModelVersion, Project, User
from storage.registry import champion, newest_candidate

__all__ = ["GateSettings", "canary_share", "gate_settings", "judge", "latest_result", "passed", "refusal", "row_of"]

_IN_AN_ITEM = 2  # completions, in the queue as in the playground


def gate_settings(project: Project) -> GateSettings:
    """What the project asks of a candidate."""
    return parse(GateSettings, project.gate_settings or {})


def judge(session: Session, project: Project, version: ModelVersion, user: User | None = None) -> GateResult:
    """Hold what was measured of a version against the present champion to the project's bars, and keep the verdict.

    That is its newest evaluation and its newest blind test. Raises what `refusal` says.
    """
    if (problem := refusal(session, project, version)) is not None:
        raise problem
    rival = champion(session, project, version.kind)
    found = latest_evaluation(session, version, rival)
    people = of_people(session, version, rival)
    settings = gate_settings(project)
    measured = figures(found) if found else {}
    decided = verdicts.verdict(version.kind, measured, settings, people[1] if people else None)
    result = GateResult(
        project_id=project.id,
        version_id=version.id,
        champion_id=rival.id if rival else None,
        evaluation_id=found.id if found else None,
        blind_test_id=people[0].id if people else None,
        verdict=decided.verdict,
        settings=settings.model_dump(mode="json"),
        figures={"rows": [row.as_dict() for row in decided.rows], "why": decided.why},
    )
    session.add(result)
    session.flush()
    audit.record(session, user, "model.judge", version.name, project, verdict=decided.verdict.value, why=decided.why)
    return result


def refusal(session: Session, project: Project, version: ModelVersion) -> FeedbackError | None:
    """Why a version cannot be judged now: it is the champion, was rejected, or nothing was measured of it yet."""
    if version.status is VersionStatus.CHAMPION:
        return Conflict(f"{version.name} is the champion already; the gate is for those that want its place")
    if version.status is VersionStatus.REJECTED:
        return Conflict(f"{version.name} was rejected; train a new version instead")
    rival = champion(session, project, version.kind)
    if latest_evaluation(session, version, rival) is None and of_people(session, version, rival) is None:
        between = f"{version.name} against {rival.name}" if rival else version.name
        return NotEnoughData(f"{between}: not evaluated yet; do that first: feedback-app evaluate {version.name}")
    return None


def canary_share(session: Session, project: Project) -> float:
    """Of new items, those in which the newest candidate writes one completion: 0 without one, and once it is judged.

    So many that it writes the project's share of all new completions, up to one in each item: people compare it there.
    """
    first, second = champion(session, project), newest_candidate(session, project)
    if second is None or second.folder is None or (first is not None and second.number < first.number):
        return 0.0
    result = latest_result(session, second)
    against = first.id if first is not None else None
    if result is not None and result.champion_id == against and result.verdict is not GateVerdict.INCONCLUSIVE:
        return 0.0
    return min(1.0, _IN_AN_ITEM * gate_settings(project).canary_share)


def row_of(result: GateResult | None) -> dict[str, Any] | None:
    """A verdict for JSON; None of none."""
    if result is None:
        return None
    return {
        "verdict": result.verdict.value,
        "why": result.figures.get("why", ""),
        "against": result.champion_id,
        "evaluation": result.evaluation_id,
        "blind_test": result.blind_test_id,
        "at": result.created_at,
        "rows": result.figures.get("rows", []),
        "settings": result.settings,
    }
