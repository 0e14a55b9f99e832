"""What tests of gold items share: marking some, and judging them rightly or wrongly."""

from __future__ import annotations

import random
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import annotations, gold, projects
from storage.annotations import PreferenceInput, RatingInput, Submission
from storage.enums import Outcome, Role
from storage.gold import GoldComparison, GoldRating, Standard
from storage.items import Lease
from storage.models import Item, Project, User
from storage.practice import begin_round, practise_next
from tests import factories


def make_gold(session: Session, project: Project, count: int = 1, **standard: Any) -> list[Item]:
    """Pairs in which the older completion is better and is rated 5, give or take 1."""
    made = []
    for item in factories.make_items(session, project, count):
        better = item.members[0].completion_id
        rating = GoldRating(completion_id=better, criterion_id=project.criteria[0].id, value=5, tolerance=1)
        values = {
            "comparison": GoldComparison(better=better),
            "ratings": (rating,),
            "explanation": "It gives the *date*.",
        }
        made.append(gold.mark(session, item, Standard(**{**values, **standard}), None))
    return made


def ask(session: Session, project: Project, **settings: Any) -> Project:
    return projects.update_project(session, project, annotation_settings=settings)


def right(lease: Lease, project: Project) -> Submission:
    """What `make_gold` says is right."""
    return _said(lease, project, better=True)


def wrong(lease: Lease, project: Project) -> Submission:
    return _said(lease, project, better=False)


def _said(lease: Lease, project: Project, *, better: bool) -> Submission:
    (first, _), (second, _) = lease.completions[:2]
    older = min(first, second)
    outcome = Outcome.FIRST if (older == first) is better else Outcome.SECOND
    value = 4 if better else 1
    return Submission(
        ratings=[RatingInput(older, project.criteria[0].id, value)],
        preference=PreferenceInput(first, second, outcome, 2),
        seconds_spent=3.0,
    )


def practise(session: Session, project: Project, user: User, *rightly: bool) -> None:
    """One round with as many answers as given."""
    begin_round(session, project, user)
    for good in rightly:
        lease = practise_next(session, project, user, rng=random.Random(0))
        assert lease is not None
        annotations.submit(session, lease.assignment_id, user, (right if good else wrong)(lease, project))


def operator(session: Session) -> User:
    return session.scalar(select(User).where(User.role == Role.OPERATOR)) or factories.make_user(
        session, role=Role.OPERATOR
    )
