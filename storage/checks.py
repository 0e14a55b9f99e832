"""Attention checks: gold items handed out unannounced among the others, and how a person does on them.

One in `check_every` items handed to an annotator is a check, by chance, so that nobody can know which. It is drawn
uniformly from the gold items that were never in their hands; where none is left, none comes. It is shown, saved and
submitted as any other item.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from sqlalchemy import Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from storage.enums import AnnotationStatus, ItemStatus, Role, SelectionReason
from storage.models import Annotation, Assignment, Item, Project, Standing, User

NEWEST = 20  # checks that a running score rests on, at most
ENOUGH = 5  # checks from which on it is held against the project's mark


class CheckScore(NamedTuple):
    """The mean score (`storage.gold.judge`) of a person's newest checks since an operator last lifted a pause."""

    score: float | None
    checks: int

    def below(self, mark: float) -> bool:
        """Whether it is under the mark, on enough checks to say so."""
        return self.checks >= ENOUGH and self.score is not None and self.score < mark - 1e-9


class Drawn(NamedTuple):
    """The check that comes next, locked, or none; `share` is how probable any check was, `propensity` this one."""

    item: Item | None
    share: float
    propensity: float


def draw(session: Session, project: Project, user: User, every: int, rng: random.Random) -> Drawn:
    """Throw the dice for a check in place of the next ordinary item; the caller makes the lease of it."""
    if not every or user.role is not Role.ANNOTATOR:
        return Drawn(None, 0.0, 0.0)
    candidates = list(session.scalars(_never_held(project, user)))
    if not candidates:
        return Drawn(None, 0.0, 0.0)
    share = 1 / every
    if rng.random() < share:
        rng.shuffle(candidates)
        for item_id in candidates:
            query = select(Item).where(Item.id == item_id, Item.gold.is_not(None)).with_for_update(skip_locked=True)
            item = session.scalar(query.execution_options(populate_existing=True))
            if item is not None:
                return Drawn(item, share, share / len(candidates))
    return Drawn(None, share, 0.0)


def _never_held(project: Project, user: User) -> Select[int]:
    held = exists().where(Assignment.item_id == Item.id, Assignment.user_id == user.id)
    judged = exists().where(Annotation.item_id == Item.id, Annotation.user_id == user.id)
    return (
        select(Item.id)
        .where(Item.project_id == project.id, Item.gold.is_not(None), Item.status != ItemStatus.FLAGGED, ~held, ~judged)
        .order_by(Item.id)
    )


def check_scores(session: Session, project: Project, user: User | None = None) -> dict[int, CheckScore]:
    """User id -> running score, of everybody who was checked, or of one person."""
    rank = func.row_number().over(partition_by=Annotation.user_id, order_by=Annotation.submitted_at.desc())
    ranked = (
        select(Annotation.user_id, Annotation.gold_score.label("score"), rank.label("rank"))
        .join(Item, Item.id == Annotation.item_id)
        .join(Assignment, Assignment.id == Annotation.assignment_id)
        .outerjoin(Standing, and_(Standing.user_id == Annotation.user_id, Standing.project_id == Item.project_id))
        .where(
            Item.project_id == project.id,
            Item.gold.is_not(None),
            Assignment.reason == SelectionReason.ATTENTION,
            Annotation.status == AnnotationStatus.SUBMITTED,
            Annotation.superseded_at.is_(None),
            Annotation.withdrawn_at.is_(None),
            Annotation.gold_score.is_not(None),
            or_(Standing.checks_from.is_(None), Annotation.submitted_at > Standing.checks_from),
        )
    )
    if user is not None:
        ranked = ranked.where(Annotation.user_id == user.id)
    newest = ranked.subquery()
    means = (
        select(newest.c.user_id, func.avg(newest.c.score), func.count())
        .where(newest.c.rank <= NEWEST)
        .group_by(newest.c.user_id)
    )
    return {user_id: CheckScore(float(mean), number) for user_id, mean, number in session.execute(means)}
