"""The annotator's page: be served an item, keep a draft, submit, skip, flag. Every function is one transaction."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from storage import annotations as feedback
from storage import items, members, queue
from storage.annotations import CritiqueInput, PreferenceInput, Progress, RatingInput, Submission
from storage.enums import ItemKind, Outcome, Role
from storage.errors import Conflict, Invalid, NotFound
from storage.items import Lease
from storage.models import Criterion, JsonObject, Message, Project, User

MAX_FLAG_REASON = 1000
_MALFORMED = "the form arrived incomplete; reload the page (your draft is kept)"


@dataclass(frozen=True)
class Side:
    """One completion as shown, with what has been said about it so far."""

    completion_id: int
    text: str
    ratings: dict[int, int] = field(default_factory=dict)  # by criterion id
    critique: str = ""
    refinement: str | None = None  # None: not touched


@dataclass(frozen=True)
class ItemView:
    """An item in the annotator's hands; `sides` stand in the order of the assignment."""

    assignment_id: int
    kind: ItemKind
    prompt: list[Message]
    sides: list[Side]
    outcome: Outcome | None = None
    strength: int | None = None


@dataclass(frozen=True)
class PageView:
    """Everything the page shows after one call. `item` is None when there is nothing to judge; `waiting` says why."""

    user: str
    role: Role
    project: str | None
    projects: list[str]
    guidelines: str
    criteria: list[Criterion]
    progress: Progress | None
    left: int  # unjudged items in the queue, the one shown included
    item: ItemView | None
    waiting: Literal["", "no project", "being written", "all judged"] = ""
    notice: str = ""


@dataclass(frozen=True)
class Form:
    """What the page holds, as the browser sent it: positions, not ids. `parse_form` makes it from raw values."""

    outcome: Outcome | None
    strength: int | None
    ratings: tuple[dict[int, int], ...]
    critiques: tuple[str, ...]
    refinements: tuple[str, ...]

    def as_draft(self, at: float) -> JsonObject:
        """The draft stored in SQL; `at` is the browser's clock in milliseconds."""
        return {
            "at": at,
            "outcome": self.outcome and self.outcome.value,
            "strength": self.strength,
            "ratings": [{str(key): value for key, value in side.items()} for side in self.ratings],
            "critiques": list(self.critiques),
            "refinements": list(self.refinements),
        }

    @property
    def says_something(self) -> bool:
        """Whether anything was chosen or written beyond the prefilled refinements."""
        return bool(self.outcome or any(self.ratings) or any(text.strip() for text in self.critiques))


def open_page(ctx: Context, name: str | None, project: str | None, kept: Any = None) -> PageView:
    """The page as it is loaded: the project asked for (or the first) and the person's item there.

    `kept` is the draft that the browser kept; it wins over the stored one where it is newer and of the same item.
    """
    with ctx.writing(name, policies.annotate) as (session, user):
        return _page(session, user, project, kept=kept)


def next_item(ctx: Context, name: str | None, project: str | None) -> PageView:
    """Look again for an item."""
    return open_page(ctx, name, project)


def save_draft(ctx: Context, name: str | None, assignment: Any, at: Any, *raw: Any) -> None:
    """Keep what has been typed so far; a lease that is over makes it a no-op (the page shows that on submit)."""
    with ctx.writing(name, policies.annotate) as (session, user):
        form = parse_form(raw)
        try:
            feedback.save_draft(session, _whole(assignment), user, form.as_draft(_clock(at)))
        except (Conflict, NotFound):
            return


def submit(ctx: Context, name: str | None, project: str | None, assignment: Any, seconds: Any, *raw: Any) -> PageView:
    """Store the annotation and lease the next item, in one transaction; a second submit of the same item is harmless.

    Raises `Invalid` with the mend when something is missing or out of range; nothing is stored then.
    """
    try:
        with ctx.writing(name, policies.annotate) as (session, user):
            lease = items.get_lease(session, _whole(assignment), user)
            submission = to_submission(lease, parse_form(raw), _seconds(seconds))
            feedback.submit(session, lease.assignment_id, user, submission)
            return _page(session, user, project)
    except Conflict as conflict:
        return _moved_on(ctx, name, project, conflict)


def skip(ctx: Context, name: str | None, project: str | None, assignment: Any) -> PageView:
    """Give the item to others and take the next one."""
    try:
        with ctx.writing(name, policies.annotate) as (session, user):
            items.skip(session, _whole(assignment), user)
            return _page(session, user, project)
    except Conflict as conflict:
        return _moved_on(ctx, name, project, conflict)


def flag(ctx: Context, name: str | None, project: str | None, assignment: Any, reason: Any) -> PageView:
    """Take the item out of the queue because something is wrong with it; operators see the reason."""
    text = reason.strip() if isinstance(reason, str) else ""
    if not text:
        raise Invalid("say in a few words what is wrong with this item")
    if len(text) > MAX_FLAG_REASON:
        raise Invalid(f"the reason is too long: at most {MAX_FLAG_REASON} characters")
    try:
        with ctx.writing(name, policies.annotate) as (session, user):
            items.flag(session, _whole(assignment), user, text)
            return _page(session, user, project)
    except Conflict as conflict:
        return _moved_on(ctx, name, project, conflict)


def _moved_on(ctx: Context, name: str | None, project: str | None, conflict: Conflict) -> PageView:
    # Another tab or a double click was first: say so and show what comes next.
    with ctx.writing(name, policies.annotate) as (session, user):
        return _page(session, user, project, notice=str(conflict))


# --- from the browser ---


def parse_form(raw: Sequence[Any]) -> Form:
    """The form from (verdict, ratings A, ratings B, critique A, critique B, refinement A, refinement B).

    Raises `Invalid` when a value is of the wrong type: the values come from a browser and can be anything.
    """
    if len(raw) != 7:
        raise Invalid(_MALFORMED)
    verdict, *rest = raw
    verdict = verdict if isinstance(verdict, dict) else {}
    try:
        outcome = Outcome(verdict["outcome"]) if verdict.get("outcome") else None
    except (ValueError, TypeError) as error:
        raise Invalid(_MALFORMED) from error
    strength = verdict.get("strength")
    if strength is not None and (isinstance(strength, bool) or strength not in (1, 2, 3)):
        raise Invalid("the strength is 1 (slightly), 2 (clearly) or 3 (much)")
    decided = outcome in (Outcome.FIRST, Outcome.SECOND)
    return Form(
        outcome,
        strength if decided else None,
        tuple(_ratings(value) for value in rest[0:2]),
        tuple(_text(value) for value in rest[2:4]),
        tuple(_text(value) for value in rest[4:6]),
    )


def to_submission(lease: Lease, form: Form, seconds: float | None) -> Submission:
    """`form` said about `lease`; raises `Invalid` when a pair was not compared."""
    shown = lease.completions[:2]
    pair = lease.kind is ItemKind.PAIR
    if pair and form.outcome is None:
        raise Invalid("choose A, B, tie or both bad first (keys 1 to 4)")
    preference = None
    if pair and form.outcome is not None:
        preference = PreferenceInput(shown[0][0], shown[1][0], form.outcome, form.strength)
    sides = list(zip(shown, form.ratings, form.critiques, form.refinements, strict=False))
    return Submission(
        ratings=[
            RatingInput(completion_id, criterion_id, value)
            for (completion_id, _), ratings, _, _ in sides
            for criterion_id, value in ratings.items()
        ],
        preference=preference,
        critiques=[
            CritiqueInput(completion_id, critique.strip(), None, None, [])
            for (completion_id, _), _, critique, _ in sides
            if critique.strip()
        ],
        refinements=[
            feedback.RefinementInput(completion_id, refinement)
            for (completion_id, text), _, _, refinement in sides
            if refinement.strip() and refinement.strip() != text.strip()
        ],
        seconds_spent=seconds,
    )


def _ratings(value: Any) -> dict[int, int]:
    given = value.get("values") if isinstance(value, dict) else None
    if given is None:
        return {}
    if not isinstance(given, dict) or len(given) > 100:
        raise Invalid(_MALFORMED)
    return {_whole(key): _whole(rating) for key, rating in given.items() if rating is not None}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Invalid(_MALFORMED)
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Invalid(_MALFORMED)
    try:
        number = int(value)
    except ValueError as error:
        raise Invalid(_MALFORMED) from error
    if not 0 <= number < 2**31:
        raise Invalid(_MALFORMED)
    return number


def _clock(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 <= value < 1e14 else 0.0


def _seconds(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return round(float(value), 1) if number and 0 <= value <= 86400 else None


# --- to the page ---


def _page(session: Session, user: User, wanted: str | None, *, kept: Any = None, notice: str = "") -> PageView:
    known = members.list_projects(session, user)
    project = next((one for one in known if one.name == wanted), known[0] if known else None)
    if project is None:
        return PageView(user.name, user.role, None, [], "", [], None, 0, None, waiting="no project", notice=notice)
    lease = items.lease_next(session, project, user, rng=random.Random())
    counts = queue.queue_counts(session, project)
    return PageView(
        user=user.name,
        role=user.role,
        project=project.name,
        projects=[one.name for one in known],
        guidelines=project.guidelines,
        criteria=list(project.criteria),
        progress=feedback.my_progress(session, project, user),
        left=counts.unjudged,
        item=_item(lease, project, kept) if lease else None,
        waiting="" if lease else "all judged" if counts.unjudged else "being written",
        notice=notice,
    )


def _item(lease: Lease, project: Project, kept: Any) -> ItemView:
    draft = _newer_draft(lease, kept)
    known = {criterion.id for criterion in project.criteria}
    sides = []
    for position, (completion_id, text) in enumerate(lease.completions[:2]):
        if draft is None:
            sides.append(Side(completion_id, text))
            continue
        ratings = {key: value for key, value in draft.ratings[position].items() if key in known}
        refinement = draft.refinements[position]
        sides.append(Side(completion_id, text, ratings, draft.critiques[position], refinement or None))
    outcome, strength = (draft.outcome, draft.strength) if draft else (None, None)
    return ItemView(lease.assignment_id, lease.kind, lease.prompt_messages, sides, outcome, strength)


def _newer_draft(lease: Lease, kept: Any) -> Form | None:
    stored, stored_at = None, -1.0
    if lease.draft:
        stored_at = _clock(lease.draft.get("at"))
        stored = _read_draft(lease.draft)
    if not isinstance(kept, dict) or str(kept.get("assignment")) != str(lease.assignment_id):
        return stored
    fields = kept.get("fields")
    try:
        own = parse_form(fields) if isinstance(fields, list) else None
    except Invalid:
        return stored
    return own if own and own.says_something and _clock(kept.get("at")) > stored_at else stored


def _read_draft(draft: JsonObject) -> Form | None:
    """The stored draft as a form; None when it was written by an older version in another shape."""
    try:
        ratings = [{"values": side} for side in draft["ratings"]]
        verdict = {"outcome": draft["outcome"], "strength": draft["strength"]}
        return parse_form([verdict, *ratings, *draft["critiques"], *draft["refinements"]])
    except (KeyError, TypeError, Invalid):
        return None
