"""Model versions: who made them from what, which one is the champion, and how it became so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from storage import audit
from storage.enums import ModelKind, VersionStatus
from storage.errors import Conflict, Invalid, NotFound
from storage.gate_results import latest_result, passed
from storage.models import (
    Completion,
    GateResult,
    Message,
    ModelVersion,
    Project,
    Promotion,
    Prompt,
    Run,
    User,
    utc_now,
)
from storage.queue import mark_stale
from storage.taint import inherited
from storage.webhooks import WebhookEvent, announce


class BeforeAfter(NamedTuple):
    """What two versions wrote for one prompt."""

    prompt_messages: list[Message]
    old_text: str
    new_text: str
    old_id: int  # of the completions
    new_id: int


def base_version(session: Session, project: Project, default_base_model: str) -> ModelVersion:
    """The base model itself as a version without a folder, made on first use: `policy-v0`.

    It is the champion while no trained version is. When the base model's setting is changed later, a version for the
    new one is made: it takes over from an untrained champion at once, otherwise it is a candidate to promote.
    """
    _take_turns(session, project)
    wanted = project.base_model or default_base_model
    versions = [v for v in list_versions(session, project) if v.kind is ModelKind.POLICY]
    found = next((v for v in versions if v.folder is None and v.base_model == wanted), None)
    if found is not None:
        return found
    version = ModelVersion(
        project_id=project.id,
        kind=ModelKind.POLICY,
        number=next_number(session, project, ModelKind.POLICY) if versions else 0,
        status=VersionStatus.CANDIDATE,
        base_model=wanted,
        metrics={},
    )
    session.add(version)
    session.flush()
    current = champion(session, project)
    if current is None:
        version.status = VersionStatus.CHAMPION
        session.flush()
    elif current.folder is None:
        _enthrone(session, project, version, None, "the base model's setting was changed")
    return version


def _take_turns(session: Session, project: Project) -> None:
    # Numbers and the champion are decided one at a time per project.
    session.execute(select(Project.id).where(Project.id == project.id).with_for_update(key_share=True))


def champion(session: Session, project: Project, kind: ModelKind = ModelKind.POLICY) -> ModelVersion | None:
    """The version in service, or None before the first."""
    return session.scalar(
        select(ModelVersion).where(
            ModelVersion.project_id == project.id,
            ModelVersion.kind == kind,
            ModelVersion.status == VersionStatus.CHAMPION,
        )
    )


def newest_candidate(session: Session, project: Project, kind: ModelKind = ModelKind.POLICY) -> ModelVersion | None:
    """The newest version that nobody has decided about yet, or None."""
    return session.scalar(
        select(ModelVersion)
        .where(
            ModelVersion.project_id == project.id,
            ModelVersion.kind == kind,
            ModelVersion.status == VersionStatus.CANDIDATE,
        )
        .order_by(ModelVersion.number.desc())
        .limit(1)
    )


def next_number(session: Session, project: Project, kind: ModelKind) -> int:
    """The number that the next version gets; policies count from 1, 0 is the base model."""
    highest = session.scalar(
        select(func.max(ModelVersion.number)).where(ModelVersion.project_id == project.id, ModelVersion.kind == kind)
    )
    return (highest or 0) + 1


def register_version(
    session: Session,
    run: Run,
    kind: ModelKind,
    folder: str,
    sha256: str,
    metrics: Mapping[str, Any],
    base_model: str,
) -> ModelVersion:
    """Enter what a run made as a candidate; `folder` is relative to FEEDBACK_HOME. A run has one version at most.

    Registering the same run again (its worker died after this) returns the version that is there.
    """
    project = session.get_one(Project, run.project_id)
    _take_turns(session, project)
    found = session.scalar(select(ModelVersion).where(ModelVersion.run_id == run.id))
    if found is not None:
        return found
    parent = session.get(ModelVersion, run.parent_version_id) if run.parent_version_id else None
    version = ModelVersion(
        project_id=project.id,
        kind=kind,
        number=next_number(session, project, kind),
        status=VersionStatus.CANDIDATE,
        base_model=base_model,
        folder=folder,
        sha256=sha256,
        parent_id=parent.id if parent is not None and parent.kind is kind else None,
        run_id=run.id,
        snapshot_id=run.snapshot_id,
        metrics=dict(metrics),
        tainted_at=inherited(session, run.snapshot_id, parent),
    )
    session.add(version)
    session.flush()
    audit.record(session, None, "model.register", version.name, project, run=run.id, sha256=sha256)
    return version


def get_version(session: Session, project: Project, name: str) -> ModelVersion:
    """The version called `policy-v3` or `reward-v1`; raises `NotFound`, naming those that are there."""
    kind, _, number = name.strip().partition("-v")
    if kind in ModelKind.__members__.values() and number.isdecimal():
        found = session.scalar(
            select(ModelVersion).where(
                ModelVersion.project_id == project.id,
                ModelVersion.kind == ModelKind(kind),
                ModelVersion.number == int(number),
            )
        )
        if found is not None:
            return found
    known = ", ".join(version.name for version in list_versions(session, project)) or "none yet"
    raise NotFound(f"project '{project.name}' has no model version '{name}'; versions: {known}")


def list_versions(session: Session, project: Project) -> list[ModelVersion]:
    """Every version of a project, policies first, newest first."""
    return list(
        session.scalars(
            select(ModelVersion)
            .where(ModelVersion.project_id == project.id)
            .order_by(ModelVersion.kind, ModelVersion.number.desc())
        )
    )


def promote(session: Session, version: ModelVersion, user: User | None, reason: str = "") -> Promotion:
    """Make `version` the champion: the next generate run uses it, and unjudged items of older policies are set aside.

    Raises `Conflict` when it is the champion already or was rejected, or when it has not passed the gate against the
    present champion and no `reason` says why it takes over all the same.
    """
    project = session.get_one(Project, version.project_id)
    _take_turns(session, project)
    stored = session.get_one(ModelVersion, version.id, populate_existing=True)
    if stored.status is VersionStatus.CHAMPION:
        raise Conflict(f"{stored.name} is the champion already")
    if stored.status is VersionStatus.REJECTED:
        raise Conflict(f"{stored.name} was rejected; train a new version instead")
    result = _result_to_rest_on(session, stored, champion(session, project, stored.kind), reason.strip())
    promotion = _enthrone(session, project, stored, user, reason.strip())
    promotion.gate_result_id = result.id if result else None
    found = result.verdict.value if result else None
    audit.record(session, user, "model.promote", stored.name, project, reason=reason.strip(), gate=found)
    _tell(session, stored, "promoted")
    return promotion


def _result_to_rest_on(
    session: Session, version: ModelVersion, rival: ModelVersion | None, reason: str
) -> GateResult | None:
    """The newest verdict on the version, where it is about the present champion; raises `Conflict`."""
    result = latest_result(session, version)
    if result is not None and result.champion_id != (rival.id if rival else None):
        result = None
    if passed(result, rival) or reason:
        return result
    between = f"{version.name} against {rival.name}" if rival else version.name
    state = f"{result.verdict.value} ({result.figures.get('why', '')})" if result else "not given yet"
    raise Conflict(
        f"the gate's verdict on {between} is {state}; judge it again (feedback-app gate {version.name}), "
        "or give a reason (--reason) to promote it all the same"
    )


def _enthrone(session: Session, project: Project, version: ModelVersion, user: User | None, reason: str) -> Promotion:
    previous = champion(session, project, version.kind)
    if previous is not None:
        previous.status = VersionStatus.RETIRED
        session.flush()  # first off the throne, then on: the index allows one champion
    version.status = VersionStatus.CHAMPION
    promotion = Promotion(
        version_id=version.id,
        previous_id=previous.id if previous else None,
        user_id=user.id if user else None,
        reason=reason,
    )
    session.add(promotion)
    session.flush()
    if version.kind is ModelKind.POLICY:
        mark_stale(session, project, [version.id])
    return promotion


def roll_back(
    session: Session,
    project: Project,
    user: User | None,
    kind: ModelKind = ModelKind.POLICY,
    reason: str = "",
    *,
    now: datetime | None = None,
) -> ModelVersion:
    """Put the champion's predecessor back in service and return it; a second roll back goes one further.

    Raises `Conflict` when there is none.
    """
    _take_turns(session, project)
    current = champion(session, project, kind)
    last = None
    if current is not None:
        last = session.scalar(
            select(Promotion)
            .where(Promotion.version_id == current.id, Promotion.rolled_back_at.is_(None))
            .order_by(Promotion.id.desc())
            .limit(1)
        )
    previous = session.get(ModelVersion, last.previous_id) if last is not None and last.previous_id else None
    if current is None or last is None or previous is None:
        raise Conflict(f"no {kind.value} model was in service before; there is nothing to roll back to")
    current.status = VersionStatus.RETIRED
    session.flush()
    previous.status = VersionStatus.CHAMPION
    last.rolled_back_at = now or utc_now()
    session.flush()
    if kind is ModelKind.POLICY:
        mark_stale(session, project, [previous.id])
    audit.record(
        session, user, "model.rollback", previous.name, project, reason=reason.strip(), instead_of=current.name
    )
    _tell(session, previous, "rolled back")
    return previous


def _tell(session: Session, champion: ModelVersion, action: str) -> None:
    told = {"action": action, "version": champion.name, "kind": champion.kind.value}
    announce(session, champion.project_id, WebhookEvent.PROMOTION, told)


def retire(session: Session, version: ModelVersion, user: User | None, reason: str = "") -> None:
    """Take a version that is not in service off the list of choices; it can still be promoted later.

    Unjudged items that only retired and rejected policies wrote for are set aside, here and in `reject`.
    """
    _close(session, version, user, VersionStatus.RETIRED, reason)


def reject(session: Session, version: ModelVersion, user: User | None, reason: str = "") -> None:
    """Decide that a version must never be promoted."""
    _close(session, version, user, VersionStatus.REJECTED, reason)


def _close(session: Session, version: ModelVersion, user: User | None, status: VersionStatus, reason: str) -> None:
    project = session.get_one(Project, version.project_id)
    _take_turns(session, project)
    stored = session.get_one(ModelVersion, version.id, populate_existing=True)
    if stored.status is VersionStatus.CHAMPION:
        raise Conflict(f"{stored.name} is in service; promote another version or roll back first")
    if stored.folder is None and status is VersionStatus.REJECTED:
        raise Invalid("the base model cannot be rejected; it is what everything is trained from")
    stored.status = status
    session.flush()
    if stored.kind is ModelKind.POLICY:
        mark_stale(session, project, _in_use(session, project))
    action = "model.retire" if status is VersionStatus.RETIRED else "model.reject"
    audit.record(session, user, action, stored.name, project, reason=reason.strip())


def _in_use(session: Session, project: Project) -> list[int]:
    """Ids of the policies that are in service or may yet be."""
    return list(
        session.scalars(
            select(ModelVersion.id).where(
                ModelVersion.project_id == project.id,
                ModelVersion.kind == ModelKind.POLICY,
                ModelVersion.status.in_((VersionStatus.CHAMPION, VersionStatus.CANDIDATE)),
            )
        )
    )


def before_after(
    session: Session, project: Project, old: ModelVersion, new: ModelVersion, limit: int
) -> list[BeforeAfter]:
    """What both versions wrote for the same prompts, newest prompts first, one pair a prompt."""
    before, after = aliased(Completion), aliased(Completion)
    firsts = (
        select(func.min(before.id).label("old_id"), func.min(after.id).label("new_id"))
        .join(after, after.prompt_id == before.prompt_id)
        .where(before.model_version_id == old.id, after.model_version_id == new.id)
        .group_by(before.prompt_id)
        .subquery()
    )
    rows = session.execute(
        select(Prompt.messages, before.text, after.text, before.id, after.id)
        .join(before, before.prompt_id == Prompt.id)
        .join(firsts, firsts.c.old_id == before.id)
        .join(after, after.id == firsts.c.new_id)
        .where(Prompt.project_id == project.id)
        .order_by(Prompt.id.desc())
        .limit(limit)
    )
    return [BeforeAfter(*row) for row in rows]
