"""What became of a person's critiques: refinements, snapshots, runs, model versions, and what those write now.

A critique is in a snapshot when it led to a row of it; a model version learnt from it when it was trained on one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from storage.criticised import Said
from storage.enums import ResolutionVerdict, VersionStatus
from storage.judged import live_annotation
from storage.models import (
    Annotation,
    Completion,
    Critique,
    Message,
    ModelVersion,
    Project,
    Prompt,
    Refinement,
    RefinementCritique,
    Resolution,
    Snapshot,
    SnapshotRow,
    SnapshotRowCritique,
    User,
)


class Rewritten(NamedTuple):
    """A refinement because of the critique: by the person, or by a model and where its review stands."""

    text: str
    status: str  # own, unreviewed, accepted, edited, rejected


class Trained(NamedTuple):
    """A snapshot that holds the critique's rows; and a version trained on it, where there is one."""

    snapshot: str  # the beginning of its hash
    at: datetime
    run_id: int | None
    version: str | None
    status: VersionStatus | None


class Answered(NamedTuple):
    """What a newer version wrote for the same prompt, and what the person said of it."""

    version: str
    text: str
    verdict: ResolutionVerdict | None


@dataclass(frozen=True)
class Story:
    """One critique and everything that came of it."""

    critique_id: int
    annotation_id: int
    project: str
    prompt: list[Message]
    completion: str
    said: Said
    at: datetime | None
    rewritten: list[Rewritten] = field(default_factory=list)
    trained: list[Trained] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)


def stories(session: Session, user: User, limit: int = 20, before: int | None = None) -> list[Story]:
    """The person's critiques that count, newest first; `before` is the id of the last one seen."""
    query = (
        select(Critique, Annotation.submitted_at, Project.name, Prompt.messages, Completion.text)
        .join(Annotation, Annotation.id == Critique.annotation_id)
        .join(Completion, Completion.id == Critique.completion_id)
        .join(Prompt, Prompt.id == Completion.prompt_id)
        .join(Project, Project.id == Prompt.project_id)
        .where(Annotation.user_id == user.id, live_annotation())
        .order_by(Critique.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(Critique.id < before)
    rows = session.execute(query).all()
    ids = [critique.id for critique, *_ in rows]
    rewritten, trained, answered = _rewritten(session, ids), _trained(session, ids), _answered(session, ids)
    return [
        Story(
            critique_id=critique.id,
            annotation_id=critique.annotation_id,
            project=project,
            prompt=messages,
            completion=text,
            said=Said(critique.text, critique.span_start, critique.span_end, tuple(critique.tags or ()), critique.fix),
            at=at,
            rewritten=rewritten[critique.id],
            trained=trained[critique.id],
            answered=answered[critique.id],
        )
        for critique, at, project, messages, text in rows
    ]


def _rewritten(session: Session, ids: Sequence[int]) -> dict[int, list[Rewritten]]:
    found: dict[int, list[Rewritten]] = defaultdict(list)
    own = (
        select(Critique.id, Completion.text)
        .join(
            Refinement,
            (Refinement.annotation_id == Critique.annotation_id) & (Refinement.completion_id == Critique.completion_id),
        )
        .join(Completion, Completion.id == Refinement.refined_id)
        .where(Critique.id.in_(ids))
    )
    for critique_id, text in session.execute(own):
        found[critique_id].append(Rewritten(text, "own"))
    refined, edited = aliased(Completion), aliased(Completion)
    by_models = (
        select(RefinementCritique.critique_id, refined.text, edited.text, Refinement.status)
        .join(Refinement, Refinement.id == RefinementCritique.refinement_id)
        .join(refined, refined.id == Refinement.refined_id)
        .outerjoin(edited, edited.id == Refinement.edited_id)
        .where(RefinementCritique.critique_id.in_(ids))
        .order_by(Refinement.id)
    )
    for critique_id, text, better, status in session.execute(by_models):
        found[critique_id].append(Rewritten(better or text, status.value if status else "unreviewed"))
    return found


def _trained(session: Session, ids: Sequence[int]) -> dict[int, list[Trained]]:
    query: Any = (
        select(
            SnapshotRowCritique.critique_id, Snapshot.content_hash, Snapshot.created_at, ModelVersion, Snapshot.id
        )
        .join(SnapshotRow, SnapshotRow.id == SnapshotRowCritique.snapshot_row_id)
        .join(Snapshot, Snapshot.id == SnapshotRow.snapshot_id)
        .outerjoin(ModelVersion, ModelVersion.snapshot_id == Snapshot.id)
        .where(SnapshotRowCritique.critique_id.in_(ids))
        .order_by(Snapshot.id, ModelVersion.id)
    )  # fmt: skip
    found: dict[int, dict[Trained, None]] = defaultdict(dict)
    for critique_id, digest, at, version, _ in session.execute(query):
        run_id, name, status = (version.run_id, version.name, version.status) if version else (None, None, None)
        found[critique_id][Trained(digest[:12], at, run_id, name, status)] = None
    return defaultdict(list, {critique_id: list(of) for critique_id, of in found.items()})


def _answered(session: Session, ids: Sequence[int]) -> dict[int, list[Answered]]:
    query = (
        select(Resolution.critique_id, ModelVersion, Completion.text, Resolution.verdict)
        .join(ModelVersion, ModelVersion.id == Resolution.version_id)
        .join(Completion, Completion.id == Resolution.completion_id)
        .where(Resolution.critique_id.in_(ids))
        .order_by(Resolution.id)
    )
    found: dict[int, list[Answered]] = defaultdict(list)
    for critique_id, version, text, verdict in session.execute(query):
        found[critique_id].append(Answered(version.name, text, verdict))
    return found
