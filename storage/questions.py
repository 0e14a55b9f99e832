"""Questions beside the queue: is a model's refinement right, and did the new model fix what one criticised?

Neither is an annotation: an answer says something of a refinement or of a model version, in the row that asked. An
item of its own kind stands for each question, so that the queue's counts and "never twice" hold for them too; it is
made when the question is first put, and never served as an ordinary item (`ItemStatus.OWN`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session

from storage import refinements, resolution
from storage.configs import AnnotationSettings, parse
from storage.criticised import Said, critiques_of
from storage.enums import AssignmentStatus, ItemKind, ItemStatus, RefinementStatus, ResolutionVerdict
from storage.errors import NotAllowed, NotFound
from storage.items import add_item
from storage.judged import live_annotation
from storage.members import may_enter
from storage.models import (
    Annotation,
    Assignment,
    Completion,
    Critique,
    Item,
    Message,
    ModelVersion,
    Project,
    Prompt,
    Refinement,
    RefinementCritique,
    Resolution,
    User,
    utc_now,
)
from storage.standings import PAUSED, Stage, stage
from storage.windows import belongs

_NEXT = 20  # reviews to choose from: people at work in the same minute rarely get the same one


class Waiting(NamedTuple):
    """Whether there is a question of each kind for a person."""

    resolution: bool
    review: bool


@dataclass(frozen=True)
class Question:
    """One question as it is shown. `critiques` are of `old`; `new` is what a model wrote instead."""

    item_id: int
    kind: ItemKind
    project: str
    prompt: list[Message]
    critiques: list[Said]
    old: str
    new: str
    pair: tuple[int, int]  # the completions that they are, `new` first
    version: str | None  # who wrote `new`, where it is one of the project's versions
    held_out: bool = False


def waiting(session: Session, project: Project, user: User) -> Waiting:
    """What could be asked now."""
    settings = parse(AnnotationSettings, project.annotation_settings or {})
    asked = session.scalar(_resolutions(project, user).limit(1)) is not None
    reviews = settings.review_share > 0 and session.scalar(_reviews(project, user).limit(1)) is not None
    return Waiting(asked, reviews)


def draw(session: Session, project: Project, user: User, rng: random.Random) -> bool:
    """Whether a question comes next instead of an item: after a submit, by the project's shares."""
    settings = parse(AnnotationSettings, project.annotation_settings or {})
    place = rng.random()
    if place >= settings.resolution_share + settings.review_share:
        return False
    found = waiting(session, project, user)
    return found.resolution if place < settings.resolution_share else found.review


def next_question(
    session: Session, project: Project, user: User, rng: random.Random, kind: ItemKind | None = None
) -> Question | None:
    """A question for this person, of one's own critiques first; None when there is none, or they may not work here."""
    if not may_enter(session, user, project) or stage(session, project, user) is not Stage.WORK:
        return None
    settings = parse(AnnotationSettings, project.annotation_settings or {})
    if kind in (None, ItemKind.RESOLUTION):
        row = session.scalar(_resolutions(project, user).limit(1))
        if row is not None:
            return _resolution_question(session, project, row)
    if kind in (None, ItemKind.REVIEW) and settings.review_share > 0:
        found = session.scalars(_reviews(project, user).limit(_NEXT)).all()
        if found:
            return _review_question(session, project, rng.choice(found))
    return None


def question_of(session: Session, item_id: int, user: User) -> Question | None:
    """The question of an item as it was put to this person; None when it is theirs no more."""
    item = session.get(Item, item_id)
    if item is None or item.owner_id not in (None, user.id):
        return None
    project = session.get_one(Project, item.project_id)
    if not may_enter(session, user, project) or stage(session, project, user) is not Stage.WORK:
        return None
    if item.kind is ItemKind.RESOLUTION:
        row = session.scalar(_resolutions(project, user).where(Resolution.item_id == item.id))
        return _resolution_question(session, project, row) if row else None
    found = session.scalar(_reviews(project, user).where(Refinement.review_item_id == item.id))
    return _review_question(session, project, found) if found else None


def answer_resolution(
    session: Session, item_id: int, user: User, verdict: ResolutionVerdict, *, now: datetime | None = None
) -> Resolution:
    """Say whether the new completion fixed what one criticised; see `storage.resolution.answer`."""
    item = _item(session, item_id, user, ItemKind.RESOLUTION)
    row = resolution.answer(session, item.id, user, verdict, now=now)
    _close(session, item, user, now)
    return row


def answer_review(
    session: Session,
    item_id: int,
    user: User,
    verdict: RefinementStatus,
    text: str | None = None,
    *,
    now: datetime | None = None,
) -> Refinement:
    """Accept, edit or reject a model's refinement; see `storage.refinements.review`."""
    item = _item(session, item_id, user, ItemKind.REVIEW)
    found = session.scalar(select(Refinement.id).where(Refinement.review_item_id == item.id))
    if found is None:
        raise NotFound("the refinement is gone; load the next question")
    row = refinements.review(session, found, user, verdict, text, now=now)
    item.status = ItemStatus.DONE
    _close(session, item, user, now)
    return row


def pass_over(session: Session, item_id: int, user: User, *, now: datetime | None = None) -> None:
    """Leave a question unanswered; it never comes again for this person."""
    _close(session, _item(session, item_id, user, None), user, now)


def _admit(session: Session, project: Project, user: User) -> None:
    if not may_enter(session, user, project):
        raise NotAllowed("this project is open to its members only, and you are not one now; ask an operator")
    if stage(session, project, user) is Stage.PAUSED:
        raise NotAllowed(PAUSED)


def _item(session: Session, item_id: int, user: User, kind: ItemKind | None) -> Item:
    item = session.get(Item, item_id, with_for_update=True, populate_existing=True)
    kinds = (ItemKind.RESOLUTION, ItemKind.REVIEW) if kind is None else (kind,)
    if item is None or item.kind not in kinds or item.owner_id not in (None, user.id):
        raise NotFound("this question was not put to you; load the next one")
    _admit(session, session.get_one(Project, item.project_id), user)
    return item


def _close(session: Session, item: Item, user: User, now: datetime | None) -> None:
    moment = now or utc_now()
    mine = select(Assignment).where(Assignment.item_id == item.id, Assignment.user_id == user.id)
    assignment = session.scalar(mine)
    if assignment is None:
        shown = [member.completion_id for member in item.members]
        assignment = Assignment(
            project_id=item.project_id, item_id=item.id, user_id=user.id, shown_order=shown, expires_at=moment
        )
        session.add(assignment)
    assignment.status, assignment.closed_at = AssignmentStatus.ANSWERED, moment
    session.flush()


def _resolutions(project: Project, user: User) -> Select[Resolution]:
    """One's own critiques that a newer model has answered, oldest first."""
    passed = exists().where(Assignment.item_id == Resolution.item_id, Assignment.user_id == user.id)
    return (
        select(Resolution)
        .join(Item, Item.id == Resolution.item_id)
        .join(Critique, Critique.id == Resolution.critique_id)
        .join(Annotation, Annotation.id == Critique.annotation_id)
        .where(
            belongs(Item.project_id, project),
            Item.owner_id == user.id,
            Resolution.verdict.is_(None),
            live_annotation(),
            ~passed,
        )
        .order_by(Resolution.id)
    )


def _reviews(project: Project, user: User) -> Select[Refinement]:
    """Refinements by models that nobody has reviewed, oldest first; not those that this person passed over."""
    passed = exists().where(Assignment.item_id == Refinement.review_item_id, Assignment.user_id == user.id)
    live = exists().where(
        RefinementCritique.refinement_id == Refinement.id,
        Critique.id == RefinementCritique.critique_id,
        Annotation.id == Critique.annotation_id,
        live_annotation(),
    )
    return (
        select(Refinement)
        .join(Completion, Completion.id == Refinement.completion_id)
        .join(Prompt, Prompt.id == Completion.prompt_id)
        .where(
            Prompt.project_id == project.id,
            Refinement.annotation_id.is_(None),
            Refinement.status == RefinementStatus.UNREVIEWED,
            Completion.text != "",
            live,
            ~passed,
        )
        .order_by(Refinement.id)
    )


def _resolution_question(session: Session, project: Project, row: Resolution) -> Question:
    critique = session.get_one(Critique, row.critique_id)
    old, new = session.get_one(Completion, critique.completion_id), session.get_one(Completion, row.completion_id)
    said = Said(critique.text, critique.span_start, critique.span_end, tuple(critique.tags or ()), critique.fix)
    return Question(
        item_id=row.item_id or 0,
        kind=ItemKind.RESOLUTION,
        project=project.name,
        prompt=session.get_one(Prompt, old.prompt_id).messages,
        critiques=[said],
        old=old.text,
        new=new.text,
        pair=(new.id, old.id),
        version=session.get_one(ModelVersion, row.version_id).name,
        held_out=row.held_out,
    )


def _review_question(session: Session, project: Project, row: Refinement) -> Question:
    old, new = session.get_one(Completion, row.completion_id), session.get_one(Completion, row.refined_id)
    prompt = session.get_one(Prompt, old.prompt_id)
    if row.review_item_id is None:
        item = add_item(session, prompt, [old, new], ItemKind.REVIEW).row
        item.status = ItemStatus.OWN
        row.review_item_id = item.id
        session.flush()
    version = session.get(ModelVersion, new.model_version_id) if new.model_version_id else None
    said = list(dict.fromkeys(one.said for one in critiques_of(session, [row.id])[row.id]))
    return Question(
        item_id=row.review_item_id,
        kind=ItemKind.REVIEW,
        project=project.name,
        prompt=prompt.messages,
        critiques=said,
        old=old.text,
        new=new.text,
        pair=(new.id, old.id),
        version=version.name if version else None,
    )
