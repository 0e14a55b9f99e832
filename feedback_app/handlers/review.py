"""Questions beside the queue, and what became of one's critiques."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from storage import members, questions
from storage.chances import Chances, chances
from storage.enums import ItemKind, RefinementStatus, ResolutionVerdict
from storage.errors import Invalid
from storage.models import User
from storage.questions import Question
from storage.stories import Story, stories

STORIES = 20  # on one page
# A word, white space, one mark, or one character of a script that writes no spaces.
_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"\s+|[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")
_LONGEST_DIFF = 4000  # tokens of both texts: beyond, the difference takes too long to be worth it


class Piece(NamedTuple):
    """A piece of a text in a comparison: `same`, `gone` (only in the old one) or `new`."""

    kind: str
    text: str


@dataclass(frozen=True)
class QuestionView:
    """The page with a question; None: there is none left."""

    project: str | None
    question: Question | None
    changes: list[Piece]
    chances: Chances | None = None  # that the new text is better; None: not for this person, or no question


def open_question(ctx: Context, name: str | None, project: str | None, item_id: int | None = None) -> QuestionView:
    """The question of the item, or the next one for a person, in the project asked for or in any of theirs."""
    with ctx.writing(name, policies.annotate) as (session, user):
        same = questions.question_of(session, item_id, user) if item_id else None
        if same is not None:
            return _view(session, user, same)
        known = members.list_projects(session, user)
        wanted = [one for one in known if one.name == project]
        rest = [one for one in known if one.name != project]
        for one in wanted + rest:
            found = questions.next_question(session, one, user, random.Random())
            if found is not None:
                return _view(session, user, found)
        return QuestionView(project if wanted else None, None, [])


def _view(session: Session, user: User, question: Question) -> QuestionView:
    known = None
    if user.role in policies.OPERATORS:
        known = chances(session, members.get_project(session, user, question.project), [question.pair])
    return QuestionView(question.project, question, word_changes(question.old, question.new), known)


def answer(ctx: Context, name: str | None, kind: str, item_id: int, verdict: str, text: str = "") -> None:
    """Store an answer; raises `Invalid` for a verdict that the kind of question does not have."""
    with ctx.writing(name, policies.annotate) as (session, user):
        if kind == ItemKind.RESOLUTION and verdict in ResolutionVerdict.__members__.values():
            questions.answer_resolution(session, item_id, user, ResolutionVerdict(verdict))
        elif kind == ItemKind.REVIEW and verdict in RefinementStatus.__members__.values():
            # Browsers send line breaks as two characters.
            plain = text.replace("\r\n", "\n")
            questions.answer_review(session, item_id, user, RefinementStatus(verdict), plain)
        else:
            raise Invalid("choose one of the answers")


def pass_over(ctx: Context, name: str | None, item_id: int) -> None:
    """Leave a question unanswered."""
    with ctx.writing(name, policies.annotate) as (session, user):
        questions.pass_over(session, item_id, user)


def my_critiques(ctx: Context, name: str | None, before: int | None) -> list[Story]:
    """What became of the person's critiques, newest first, some at a time."""
    with ctx.reading(name, policies.annotate) as (session, user):
        return stories(session, user, STORIES, before)


def word_changes(old: str, new: str) -> list[Piece]:
    """What went and what came from `old` to `new`, word by word."""
    before, after = _TOKEN.findall(old), _TOKEN.findall(new)
    if len(before) + len(after) > _LONGEST_DIFF:
        return [Piece("gone", old), Piece("new", new)]
    pieces = []
    for tag, low, high, first, last in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces.append(Piece("same", "".join(before[low:high])))
            continue
        if high > low:
            pieces.append(Piece("gone", "".join(before[low:high])))
        if last > first:
            pieces.append(Piece("new", "".join(after[first:last])))
    return pieces
