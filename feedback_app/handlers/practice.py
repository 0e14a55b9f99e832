"""Practice on the annotate page: what a person who has to practise first is shown between the items."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from storage.items import Lease
from storage.models import Project, User
from storage.practice import Answer, Round, answers, begin_round, practise_next, see_round
from storage.standings import Stage, stage


@dataclass(frozen=True)
class Lesson:
    """Where a person is in their practice. "item": one is in hand; "none": no item can be handed out.

    After an item `answers` holds what was right about it, after the last one (passed or failed) about all of the round.
    """

    state: Literal["intro", "item", "answer", "passed", "failed", "none"]
    round: Round
    answers: tuple[Answer, ...] = ()


def begin(session: Session, project: Project, user: User) -> None:
    """Begin a round, or go on with it, where the person has to practise; otherwise nothing is to be done."""
    if stage(session, project, user) is Stage.PRACTICE:
        begin_round(session, project, user)


def next_step(session: Session, project: Project, user: User) -> tuple[Lesson, Lease | None]:
    """What comes next for a person who has to practise: the introduction, the last result, or an item."""
    state = see_round(session, project, user)
    if state.going_on:
        lease = practise_next(session, project, user, rng=random.Random())
        if lease is not None:
            return Lesson("item", state), lease
    if not state.size:
        return Lesson("none", state), None
    if state.attempts and not state.going_on:
        return Lesson("failed", state, tuple(answers(session, project, user))), None
    return Lesson("intro", state), None


def after_answer(session: Session, project: Project, user: User) -> Lesson:
    """What was right about the item that was just submitted; after the last one, how the round ended."""
    state = see_round(session, project, user)
    given = tuple(answers(session, project, user))
    if state.going_on:
        return Lesson("answer", state, given[-1:])
    return Lesson("passed" if state.passed else "failed", state, given)
