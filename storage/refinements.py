"""Refinements made by models: which critiques wait for one, entering what a run selected, and what people say of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from storage import audit
from storage.criticised import SELECTED, Said, chunks, critiques_of
from storage.enums import CompletionOrigin, RefinementStatus, Split
from storage.errors import Conflict, Invalid, NotFound
from storage.judged import live_annotation
from storage.models import (
    Annotation,
    Completion,
    Critique,
    JsonObject,
    Message,
    Project,
    Prompt,
    Refinement,
    RefinementCritique,
    Run,
    User,
    utc_now,
)
from storage.prompts import add_completion, storable
from storage.submissions import MAX_CHARACTERS

_READ_TOGETHER = 500


class ToRefine(NamedTuple):
    """A live critique that nobody has answered with a better completion yet."""

    critique_id: int
    annotation_id: int
    completion_id: int
    prompt_id: int
    split: Split
    prompt: list[Message]
    completion: str
    critique: str
    span_start: int | None
    span_end: int | None
    tags: list[str]
    fix: str | None


@dataclass(frozen=True)
class Selected:
    """A refinement that a run selected. `version_id` None: written by an endpoint; say its model in `sampling`."""

    completion_id: int
    critique_ids: tuple[int, ...]
    text: str
    version_id: int | None = None
    judge_score: float | None = None  # 0..1
    reward: float | None = None
    rank: int | None = None  # among the candidates for these critiques, 1 is the best
    sampling: JsonObject | None = None
    seed: int | None = None
    token_count: int | None = None
    mean_logprob: float | None = None
    latency_ms: float | None = None


class Entered(NamedTuple):
    """The refinements stored, and how many were not, by reason."""

    refinements: list[Refinement]
    left_out: dict[str, int]


def critiques_to_refine(session: Session, project: Project, limit: int | None = None) -> list[ToRefine]:
    """The live critiques that have no refinement yet, oldest first, one for critiques with the same words.

    Neither by the annotator who wrote the critique, nor by a model: one that was rejected in review does not count,
    and neither does one made for other words. Prompts of every split: what is refined on test prompts measures models.
    """
    waiting = (one for batch in _batches(session, project) for one in _unanswered(session, batch))
    return list(islice(waiting, limit))


def _batches(session: Session, project: Project) -> Iterator[list[ToRefine]]:
    refined = exists().where(
        Refinement.annotation_id == Critique.annotation_id, Refinement.completion_id == Critique.completion_id
    )
    query = (
        select(
            Critique.id, Critique.annotation_id, Critique.completion_id, Prompt.id, Prompt.split, Prompt.messages,
            Completion.text, Critique.text, Critique.span_start, Critique.span_end, Critique.tags, Critique.fix,
        )
        .select_from(Critique)
        .join(Annotation, Annotation.id == Critique.annotation_id)
        .join(Completion, Completion.id == Critique.completion_id)
        .join(Prompt, Prompt.id == Completion.prompt_id)
        .where(Prompt.project_id == project.id, live_annotation(), Completion.text != "", ~refined)
        .order_by(Critique.id)
        .limit(_READ_TOGETHER)
    )  # fmt: skip
    last = 0
    while rows := session.execute(query.where(Critique.id > last)).all():
        yield [ToRefine._make(row) for row in rows]
        last = rows[-1][0]


def _unanswered(session: Session, batch: list[ToRefine]) -> Iterator[ToRefine]:
    answered = _answered(session, {one.completion_id for one in batch})
    for one in batch:
        said = Said(one.critique, one.span_start, one.span_end, tuple(one.tags or ()), one.fix or None)
        if said not in answered[one.completion_id]:
            answered[one.completion_id].add(said)  # its twin is answered with it
            yield one


def _answered(session: Session, completion_ids: Iterable[int]) -> dict[int, set[Said]]:
    """What the selected model refinements of these completions answer."""
    found: dict[int, set[Said]] = defaultdict(set)
    for chunk in chunks(sorted(completion_ids)):
        made = select(Refinement.id).where(
            Refinement.completion_id.in_(chunk), Refinement.annotation_id.is_(None), Refinement.status.in_(SELECTED)
        )
        for critiques in critiques_of(session, session.scalars(made).all()).values():
            for one in critiques:
                found[one.completion_id].add(one.said)
    return found


def add_model_refinements(session: Session, run: Run, rows: Iterable[Selected]) -> Entered:
    """Store what a run selected, as refinements nobody has reviewed yet; entering it again changes nothing.

    Left out, and counted by reason: "withdrawn" (its critiques were taken back or revised while the run was under
    way), "answered" (somebody refined it in the meantime), "same_text" (as the original), "rejected_before" (people
    rejected this very text). Raises `Invalid` for critiques of another completion.
    """
    left_out: Counter[str] = Counter()
    entered: list[Refinement] = []
    for row in rows:
        original = session.get_one(Completion, row.completion_id)
        critiques = _live(session, row.critique_ids)
        if any(one.completion_id != row.completion_id for one in critiques):
            raise Invalid(f"critiques {list(row.critique_ids)} are not all about completion {row.completion_id}")
        text = storable(row.text).strip()
        reason = _refused(session, run, row, original, critiques, text)
        if reason is not None:
            left_out[reason] += 1
            continue
        entered.append(_enter(session, run, row, original, text))
    session.flush()
    return Entered(entered, dict(left_out))


def _live(session: Session, critique_ids: Iterable[int]) -> list[Critique]:
    return list(
        session.scalars(
            select(Critique)
            .join(Annotation, Annotation.id == Critique.annotation_id)
            .where(Critique.id.in_(list(critique_ids)), live_annotation())
        )
    )


def _refused(
    session: Session, run: Run, row: Selected, original: Completion, critiques: list[Critique], text: str
) -> str | None:
    if not critiques or len(critiques) < len(set(row.critique_ids)) or not original.text:
        return "withdrawn"
    if not text or text == original.text.strip():
        return "same_text"
    others = session.execute(
        select(Refinement.run_id, Refinement.status, Completion.text)
        .join(RefinementCritique, RefinementCritique.refinement_id == Refinement.id)
        .join(Completion, Completion.id == Refinement.refined_id)
        .where(RefinementCritique.critique_id.in_(row.critique_ids))
    ).all()
    if any(status is RefinementStatus.REJECTED and other == text for _, status, other in others):
        return "rejected_before"
    # What this run itself entered is not in the way: it may select several for one critique.
    if any(status in SELECTED and (run_id != run.id or other == text) for run_id, status, other in others):
        return "answered"
    by_hand = exists().where(
        Refinement.annotation_id.in_([one.annotation_id for one in critiques]),
        Refinement.completion_id == row.completion_id,
    )
    return "answered" if session.scalar(select(by_hand)) else None


def _enter(session: Session, run: Run, row: Selected, original: Completion, text: str) -> Refinement:
    written = add_completion(
        session,
        session.get_one(Prompt, original.prompt_id),
        text,
        CompletionOrigin.REFINEMENT,
        model_version_id=row.version_id,
        run_id=run.id,
        sampling=row.sampling,
        seed=row.seed,
        token_count=row.token_count,
        mean_logprob=row.mean_logprob,
        latency_ms=row.latency_ms,
    ).row
    refinement = Refinement(
        completion_id=original.id,
        refined_id=written.id,
        run_id=run.id,
        judge_score=row.judge_score,
        reward=row.reward,
        rank=row.rank,
        status=RefinementStatus.UNREVIEWED,
    )
    session.add(refinement)
    session.flush()
    ids = sorted(set(row.critique_ids))
    session.add_all(RefinementCritique(refinement_id=refinement.id, critique_id=one) for one in ids)
    session.flush()
    return refinement


def get_model_refinement(session: Session, refinement_id: int) -> Refinement:
    """A refinement made by a model; raises `NotFound`."""
    found = session.get(Refinement, refinement_id)
    if found is None or found.annotation_id is not None:
        raise NotFound(f"no model wrote a refinement {refinement_id}")
    return found


def review(
    session: Session,
    refinement_id: int,
    user: User,
    verdict: RefinementStatus,
    text: str | None = None,
    *,
    now: datetime | None = None,
) -> Refinement:
    """Record what a person says of a model's refinement: accepted, edited (to `text`) or rejected.

    An edit that changes nothing accepts. The reviewer may change their mind; raises `Conflict` when somebody else
    reviewed it, `NotFound`, and `Invalid` for an edit without a text, or back to the original.
    """
    get_model_refinement(session, refinement_id)
    locked = select(Refinement).where(Refinement.id == refinement_id).with_for_update()
    refinement = session.scalars(locked.execution_options(populate_existing=True)).one()
    if verdict is RefinementStatus.UNREVIEWED:
        raise Invalid("say accepted, edited or rejected")
    if refinement.reviewer_id not in (None, user.id):
        raise Conflict("somebody else reviewed this refinement in the meantime; load the next item")
    edited = _edited(session, refinement, text) if verdict is RefinementStatus.EDITED else None
    if verdict is RefinementStatus.EDITED and edited is None:
        verdict = RefinementStatus.ACCEPTED
    refinement.status, refinement.edited_id = verdict, edited.id if edited else None
    refinement.reviewer_id, refinement.reviewed_at = user.id, now or utc_now()
    session.flush()
    project = _project(session, refinement)
    audit.record(session, user, "refinement.review", f"refinement {refinement.id}", project, verdict=verdict.value)
    return refinement


def _edited(session: Session, refinement: Refinement, text: str | None) -> Completion | None:
    """The reviewer's text as a completion; None when it is the model's own."""
    cleaned = storable(text or "").strip()
    if not cleaned:
        raise Invalid("an edited refinement needs a text; write it, or reject the refinement")
    if len(cleaned) > MAX_CHARACTERS:
        raise Invalid(f"the text has {len(cleaned):,} characters; at most {MAX_CHARACTERS:,} are kept: shorten it")
    original = session.get_one(Completion, refinement.completion_id)
    if cleaned == original.text.strip():
        raise Invalid("this is the original completion again; reject the refinement instead")
    if cleaned == session.get_one(Completion, refinement.refined_id).text.strip():
        return None
    prompt = session.get_one(Prompt, original.prompt_id)
    return add_completion(session, prompt, cleaned, CompletionOrigin.REFINEMENT).row


def _project(session: Session, refinement: Refinement) -> Project:
    owner = (
        select(Project)
        .join(Prompt, Prompt.project_id == Project.id)
        .join(Completion, Completion.prompt_id == Prompt.id)
        .where(Completion.id == refinement.completion_id)
    )
    return session.scalars(owner).one()


def refinement_counts(session: Session, project: Project) -> dict[str, int]:
    """How many refinements models wrote in a project, by status."""
    rows = session.execute(
        select(Refinement.status, func.count())
        .join(Completion, Completion.id == Refinement.completion_id)
        .join(Prompt, Prompt.id == Completion.prompt_id)
        .where(Prompt.project_id == project.id, Refinement.annotation_id.is_(None))
        .group_by(Refinement.status)
    )
    counted = dict(rows.all())
    return {status.value: counted.get(status, 0) for status in RefinementStatus}
