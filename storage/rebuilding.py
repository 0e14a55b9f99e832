"""Train a version again without the feedback that was taken back since: the same recipe, settings and seed."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.enums import RunStatus
from storage.errors import Conflict, Invalid
from storage.models import ModelVersion, Project, Run, User
from storage.training import queue_asked, recipe_of, still_known


def rebuild(
    session: Session,
    version: ModelVersion,
    *,
    home: Path,
    default_base_model: str,
    user: User | None = None,
) -> Run:
    """Queue the training of a tainted version on a new snapshot, which leaves out what was taken back.

    What was asked for its run is asked again, with its seed; its parent is the nearest ancestor that is not tainted,
    or what an ancestor was rebuilt as. Raises `Invalid` when the version is not tainted, `Conflict` when it is being
    rebuilt, was rebuilt already, or the project's base model has changed, `NotEnoughData` when too little is left.
    """
    project = session.get_one(Project, version.project_id)
    run = session.get(Run, version.run_id) if version.run_id else None
    if version.tainted_at is None or run is None:
        raise Invalid(f"{version.name} rests on nothing that was taken back; there is nothing to rebuild")
    base = project.base_model or default_base_model
    if base != version.base_model:
        raise Conflict(
            f"{version.name} was trained from {version.base_model}, the project's base model is {base} now;"
            " train a new version, or set the base model back"
        )
    earlier = rebuilds(session, version)
    _refuse_second(session, version, earlier)
    return queue_asked(
        session,
        project,
        run.kind,
        still_known(run.asked, recipe_of(run.kind).config) | {"seed": run.seed},
        _clean_parent(session, version),
        home=home,
        user=user,
        cause=f"rebuild {len(earlier) + 1} of {version.name}",
    )


def rebuilds(session: Session, version: ModelVersion) -> list[Run]:
    """The runs that rebuild a version, oldest first."""
    cause = Run.cause.like(f"rebuild % of {version.name}")
    return list(session.scalars(select(Run).where(Run.project_id == version.project_id, cause).order_by(Run.id)))


def rebuilt_as(session: Session, version: ModelVersion) -> ModelVersion | None:
    """The newest version that stands in for a tainted one and is not tainted itself."""
    ids = [run.id for run in rebuilds(session, version)]
    clean = select(ModelVersion).where(ModelVersion.run_id.in_(ids), ModelVersion.tainted_at.is_(None))
    return session.scalar(clean.order_by(ModelVersion.id.desc()).limit(1))


def rebuild_of(session: Session, version: ModelVersion) -> str | None:
    """The name of the version that this one was rebuilt from; None for any other."""
    run = session.get(Run, version.run_id) if version.run_id else None
    cause = run.cause if run is not None else None
    return cause.rpartition(" of ")[2] if cause is not None and cause.startswith("rebuild ") else None


def _refuse_second(session: Session, version: ModelVersion, earlier: list[Run]) -> None:
    for run in earlier:
        if not run.status.ended:
            raise Conflict(f"{version.name} is being rebuilt by run {run.id}")
        if run.status is RunStatus.SUCCEEDED and (found := rebuilt_as(session, version)) is not None:
            raise Conflict(f"{version.name} was rebuilt as {found.name}; promote that one")


def _clean_parent(session: Session, version: ModelVersion) -> ModelVersion | None:
    parent = session.get(ModelVersion, version.parent_id) if version.parent_id else None
    while parent is not None and parent.tainted_at is not None:
        if (better := rebuilt_as(session, parent)) is not None:
            return better
        parent = session.get(ModelVersion, parent.parent_id) if parent.parent_id else None
    return parent
