"""Rows of feedback made by hand, with exactly the ids, splits and states that a test of pairs needs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.enums import (
    AnnotationStatus,
    CompletionOrigin,
    ItemKind,
    ItemStatus,
    Outcome,
    Role,
    Split,
)
from storage.models import (
    Annotation,
    Completion,
    Criterion,
    Critique,
    Item,
    ItemCompletion,
    Preference,
    Project,
    Prompt,
    Ranking,
    Rating,
    Refinement,
    User,
    utc_now,
)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Desk:
    """Writes feedback into one project, straight into the tables."""

    def __init__(self, session: Session, project: str = "desk", criteria: Sequence[tuple[str, int, int]] = ()) -> None:
        self.session = session
        self.project = Project(name=project, sampling={}, training_policy={})
        session.add(self.project)
        session.flush()
        wanted = criteria or [("quality", 1, 5)]
        self.criteria = {name: Criterion(project_id=self.project.id, name=name, low=a, high=b) for name, a, b in wanted}
        session.add_all(self.criteria.values())
        session.flush()

    def user(self, name: str) -> User:
        found = self.session.scalar(select(User).where(User.name == name))
        if found is None:
            found = User(name=name, role=Role.ANNOTATOR)
            self._add(found)
        return found

    def prompt(self, text: str, split: Split = Split.TRAIN) -> Prompt:
        messages = [{"role": "user", "content": text}]
        prompt = Prompt(project_id=self.project.id, content_hash=_hash(text), messages=messages, split=split)
        return self._add(prompt)

    def completion(self, prompt: Prompt, text: str) -> Completion:
        where = Completion.prompt_id == prompt.id, Completion.content_hash == _hash(text)
        found = self.session.scalar(select(Completion).where(*where))
        if found is not None:
            return found
        made = Completion(prompt_id=prompt.id, content_hash=_hash(text), text=text, origin=CompletionOrigin.MODEL)
        return self._add(made)

    def item(self, prompt: Prompt, completions: Sequence[Completion]) -> Item:
        ids = sorted(c.id for c in completions)
        fingerprint = _hash(repr(ids))
        where = Item.prompt_id == prompt.id, Item.fingerprint == fingerprint
        found = self.session.scalar(select(Item).where(*where))
        if found is not None:
            return found
        item = self._add(
            Item(
                project_id=self.project.id,
                prompt_id=prompt.id,
                kind=ItemKind.PAIR if len(ids) > 1 else ItemKind.SINGLE,
                status=ItemStatus.DONE,
                fingerprint=fingerprint,
            )
        )
        for position, completion_id in enumerate(ids):
            self.session.add(ItemCompletion(item_id=item.id, position=position, completion_id=completion_id))
        self.session.flush()
        return item

    def judge(
        self,
        user: str,
        completions: Sequence[Completion],
        outcome: Outcome | None = None,
        strength: int | None = None,
        ratings: Sequence[tuple[Completion, str, int]] = (),
        refinement: tuple[Completion, str] | None = None,
        critique: tuple[Completion, str, int, int] | tuple[Completion, str] | None = None,
        ranks: Sequence[int] = (),
        status: AnnotationStatus = AnnotationStatus.SUBMITTED,
        **fields: Any,
    ) -> Annotation:
        """One annotation on the item of `completions`; a comparison is of the first two, in the order given.

        `ranks` are of the completions in the order given.
        """
        prompt = self.session.get_one(Prompt, completions[0].prompt_id)
        annotation = self._add(
            Annotation(
                item_id=self.item(prompt, completions).id,
                user_id=self.user(user).id,
                status=status,
                submitted_at=utc_now(),
                **fields,
            )
        )
        one = annotation.id
        if outcome is not None:
            first, second = completions[0].id, completions[1].id
            self._add(
                Preference(annotation_id=one, first_id=first, second_id=second, outcome=outcome, strength=strength)
            )
        for completion, rank in zip(completions, ranks, strict=False):
            self._add(Ranking(annotation_id=one, completion_id=completion.id, rank=rank))
        for completion, name, value in ratings:
            criterion = self.criteria[name].id
            self._add(Rating(annotation_id=one, completion_id=completion.id, criterion_id=criterion, value=value))
        if refinement is not None:
            refined = self.completion(prompt, refinement[1])
            self._add(Refinement(annotation_id=one, completion_id=refinement[0].id, refined_id=refined.id))
        if critique is not None:
            start, end = (critique[2], critique[3]) if len(critique) == 4 else (None, None)
            self._add(
                Critique(
                    annotation_id=one,
                    completion_id=critique[0].id,
                    text=critique[1],
                    span_start=start,
                    span_end=end,
                    tags=["tone"],
                    fix="Kindly.",
                )
            )
        return annotation

    def _add(self, row: Any) -> Any:
        self.session.add(row)
        self.session.flush()
        return row
