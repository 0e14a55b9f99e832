"""The practice round: a new annotator judges gold items and is told at once what is right, before the queue opens.

A round has `AnnotationSettings.practice_items` gold items, fewer where there are not so many. Items that the person
has not practised on come first; beyond them they come again, and what was said before is superseded. The round's score
is the mean of its items' scores (`storage.gold.judge`); at `practice_pass` or more the person is admitted. A round
that was not passed may be repeated, as often as it takes. Practice is not work: it closes its assignments as
`practised`, and so are its annotations: no count of work and no export knows them, and they are never revised.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, func, select
from sqlalchemy.orm import Session, selectinload

from storage import audit
from storage.configs import AnnotationSettings, parse
from storage.enums import Admission, AnnotationStatus, AssignmentStatus, ItemStatus, SelectionReason
from storage.errors import Conflict
from storage.gold import Judged, judge, said_in, standard_of
from storage.leases import Lease, lease_item, lease_of
from storage.models import Annotation, Assignment, Item, Project, Prompt, Standing, User, utc_now
from storage.selection import Chosen
from storage.standings import Stage, get_standing, stage


@dataclass(frozen=True)
class Round:
    """How a person's practice stands. `score` and `passed` are of the last finished round."""

    size: int  # items of a round, as far as there are any; 0: none can be handed out
    done: int  # of the round that is going on
    going_on: bool
    attempts: int  # finished rounds
    score: float | None
    passed: bool
    mark: float  # the score that passes


@dataclass(frozen=True)
class Answer:
    """One practised item: what was said, what is right, and why. Completions stand in the order shown."""

    annotation_id: int
    prompt: str  # its last message
    shown_order: list[int]
    judged: Judged
    explanation: str


def see_round(session: Session, project: Project, user: User) -> Round:
    """How the person's practice in the project stands."""
    settings = parse(AnnotationSettings, project.annotation_settings or {})
    own = session.get(Standing, (project.id, user.id))
    going_on = _going_on(own)
    done = _done(session, project, user, own.round_started_at) if own and going_on else 0
    return Round(
        size=min(settings.practice_items, done + len(_candidates(session, project, user, own))),
        done=done,
        going_on=going_on,
        attempts=own.attempts if own else 0,
        score=own.score if own else None,
        passed=own is not None and own.admitted is Admission.PASSED,
        mark=settings.practice_pass,
    )


def begin_round(session: Session, project: Project, user: User, *, now: datetime | None = None) -> None:
    """Begin a practice round; one that is going on goes on. Raises `Conflict` for people who need none."""
    if stage(session, project, user) is not Stage.PRACTICE:
        raise Conflict("you need no practice in this project; go on with the next item")
    own = get_standing(session, project, user)
    if not _going_on(own):
        own.round_started_at, own.round_ended_at = now or utc_now(), None
        session.flush()


def practise_next(
    session: Session, project: Project, user: User, *, now: datetime | None = None, rng: random.Random
) -> Lease | None:
    """The next item of the round that is going on, leased; None when there is no round or no item for it."""
    # Two tabs of one person take turns, as in `storage.leases.lease_next`.
    session.execute(select(User.id).where(User.id == user.id).with_for_update(key_share=True))
    moment = now or utc_now()
    if stage(session, project, user) is not Stage.PRACTICE:
        return None
    own = session.get(Standing, (project.id, user.id))
    if own is None or not _going_on(own):
        return None
    held = session.scalars(
        select(Assignment)
        .join(Item, Item.id == Assignment.item_id)
        .where(_practice_of(project, user), Assignment.status == AssignmentStatus.LEASED, _fit())
        .order_by(Assignment.id)
    ).first()
    if held is not None:
        return lease_of(session, held)
    candidates = _candidates(session, project, user, own)
    fresh = [item_id for item_id, practised in candidates if not practised]
    pool = fresh or [item_id for item_id, _ in candidates]
    if not pool:
        return None
    query = select(Item).where(Item.id == rng.choice(pool)).with_for_update().execution_options(populate_existing=True)
    item = session.scalars(query).one()
    _supersede(session, item, user, moment)
    chosen = Chosen(item, SelectionReason.PRACTICE, 1 / len(pool))
    return lease_item(session, project, user, chosen, moment, rng)


def after_practice(session: Session, project: Project, user: User, now: datetime) -> None:
    """Finish the round when this was its last item: note the score, admit whoever passed."""
    own = session.get(Standing, (project.id, user.id), populate_existing=True)
    if own is None or not _going_on(own):
        return
    state = see_round(session, project, user)
    if state.done < state.size:
        return
    answers = _answered(session, project, user, own)
    own.score = sum(one.gold_score or 0.0 for one in answers) / len(answers)
    own.attempts += 1
    own.round_ended_at = now
    passed = own.score >= state.mark - 1e-9  # the mean of thirds is not exact
    if passed:
        own.admitted, own.admitted_at = Admission.PASSED, now
    session.flush()
    action = "practice.pass" if passed else "practice.fail"
    audit.record(session, user, action, f"user {user.name}", project, score=own.score, attempt=own.attempts)


def answers(session: Session, project: Project, user: User) -> list[Answer]:
    """The answers of the person's last round, in the order given, as far as their items are still gold items."""
    own = session.get(Standing, (project.id, user.id))
    if own is None or own.round_started_at is None:
        return []
    found = []
    for annotation in _answered(session, project, user, own):
        standard = standard_of(session, annotation.item)
        if standard is not None and annotation.assignment_id is not None:
            order = session.get_one(Assignment, annotation.assignment_id).shown_order
            judged = judge(standard, said_in(annotation))
            prompt = session.get_one(Prompt, annotation.item.prompt_id).messages[-1]["content"]
            found.append(Answer(annotation.id, prompt, order, judged, standard.explanation))
    return found


def _going_on(own: Standing | None) -> bool:
    return own is not None and own.round_started_at is not None and own.round_ended_at is None


def _practice_of(project: Project, user: User) -> ColumnElement[bool]:
    return and_(
        Assignment.user_id == user.id,
        Assignment.project_id == project.id,
        Assignment.reason == SelectionReason.PRACTICE,
    )


def _fit() -> ColumnElement[bool]:
    return and_(Item.gold.is_not(None), Item.status != ItemStatus.FLAGGED)


def _done(session: Session, project: Project, user: User, since: datetime | None) -> int:
    query = select(func.count()).select_from(Assignment).where(_practice_of(project, user))
    done = query.where(Assignment.status == AssignmentStatus.PRACTISED, Assignment.closed_at >= since)
    return session.scalars(done).one()


def _answered(session: Session, project: Project, user: User, own: Standing) -> list[Annotation]:
    """What was said in the last round and not superseded by a later one."""
    said = ("ratings", "preferences", "rankings", "critiques")
    return list(
        session.scalars(
            select(Annotation)
            .join(Assignment, Assignment.id == Annotation.assignment_id)
            .where(
                _practice_of(project, user),
                Assignment.status == AssignmentStatus.PRACTISED,
                Annotation.status == AnnotationStatus.PRACTISED,
                Annotation.superseded_at.is_(None),
                Annotation.gold_score.is_not(None),
                Annotation.submitted_at >= own.round_started_at,
            )
            .order_by(Annotation.submitted_at, Annotation.id)
            .options(*(selectinload(getattr(Annotation, name)) for name in (*said, "item")))
        )
    )


def _candidates(session: Session, project: Project, user: User, own: Standing | None) -> list[tuple[int, bool]]:
    """The gold items that this round can still hand out, and whether the person practised on them before."""
    mine = and_(Assignment.item_id == Item.id, Assignment.user_id == user.id)
    practised = exists().where(mine, Assignment.status == AssignmentStatus.PRACTISED)
    judged = exists().where(mine, Assignment.status.in_((AssignmentStatus.SUBMITTED, AssignmentStatus.SKIPPED)))
    imported = exists().where(
        Annotation.item_id == Item.id, Annotation.user_id == user.id, Annotation.assignment_id.is_(None)
    )
    query = select(Item.id, practised).where(Item.project_id == project.id, _fit(), ~judged, ~imported)
    if own is not None and _going_on(own):
        this_round = Assignment.closed_at >= own.round_started_at
        query = query.where(~exists().where(mine, Assignment.status == AssignmentStatus.PRACTISED, this_round))
    return [(item_id, bool(before)) for item_id, before in session.execute(query.order_by(Item.id))]


def _supersede(session: Session, item: Item, user: User, now: datetime) -> None:
    """Room for another answer of the person's: the one of an earlier round stays, marked."""
    earlier = session.scalar(
        select(Annotation).where(
            Annotation.item_id == item.id,
            Annotation.user_id == user.id,
            Annotation.status == AnnotationStatus.PRACTISED,
            Annotation.superseded_at.is_(None),
            Annotation.withdrawn_at.is_(None),
        )
    )
    if earlier is not None:
        earlier.superseded_at = now
        session.flush()
