"""The annotator's page: be served an item, keep a draft, submit, skip, flag. Every function is one transaction."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers import practice
from feedback_app.handlers.annotate_form import (
    MAX_SIDES,
    CritiqueForm,
    Form,
    SideForm,
    clock,
    parse_form,
    read_draft,
    time_spent,
    to_submission,
    whole,
)
from feedback_app.handlers.context import Context
from feedback_app.handlers.practice import Lesson
from storage import annotations as feedback
from storage import items, members, questions, queue
from storage.annotations import Progress
from storage.configs import AnnotationSettings, parse
from storage.enums import AnnotationStatus, ItemKind, Outcome, Role
from storage.errors import Conflict, Invalid, NotFound
from storage.items import Lease
from storage.models import Criterion, Message, Project, User
from storage.standings import Stage, stage

MAX_FLAG_REASON = 1000
_Waiting = Literal["", "no project", "being written", "all judged", "paused", "no practice", "asked"]
LEFT = 200  # unjudged items that are counted at most: the count is made with every submit


@dataclass(frozen=True)
class Side:
    """One completion as shown, with what has been said about it so far."""

    completion_id: int
    text: str
    ratings: dict[int, int] = field(default_factory=dict)  # by criterion id
    critiques: tuple[CritiqueForm, ...] = ()
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
    ranks: tuple[int | None, ...] = ()


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
    left: int  # unjudged items in the queue, the one shown included; LEFT means as many or more
    item: ItemView | None
    waiting: _Waiting = ""
    notice: str = ""
    tags: tuple[str, ...] = ()
    settings: AnnotationSettings = AnnotationSettings()  # noqa: RUF009  frozen
    submitted: bool = False  # this call stored an annotation, which can be taken back
    lesson: Lesson | None = None  # of a person who has to practise first


def open_page(ctx: Context, name: str | None, project: str | None, kept: Any = None) -> PageView:
    """The page as it is loaded: the project asked for (or the first) and the person's item there.

    `kept` is the draft that the browser kept; it wins over the stored one where it is newer and of the same item.
    """
    with ctx.writing(name, policies.annotate) as (session, user):
        return _page(session, user, project, kept=kept)


def next_item(ctx: Context, name: str | None, project: str | None) -> PageView:
    """Look again for an item."""
    return open_page(ctx, name, project)


def save_draft(ctx: Context, name: str | None, assignment: Any, at: Any, raw: Any) -> None:
    """Keep what has been typed so far; a lease that is over makes it a no-op (the page shows that on submit)."""
    with ctx.writing(name, policies.annotate) as (session, user):
        form = parse_form(raw)
        try:
            feedback.save_draft(session, whole(assignment), user, form.as_draft(clock(at)))
        except (Conflict, NotFound):
            return


def submit(ctx: Context, name: str | None, project: str | None, assignment: Any, seconds: Any, raw: Any) -> PageView:
    """Store the annotation and lease the next item, in one transaction; a second submit of the same item is harmless.

    Raises `Invalid` with the mend when something is missing or out of range; nothing is stored then.
    """
    try:
        with ctx.writing(name, policies.annotate) as (session, user):
            form, spent = parse_form(raw), time_spent(seconds)
            stored = feedback.submit(session, whole(assignment), user, lambda shown: to_submission(shown, form, spent))
            practised = stored.status is AnnotationStatus.PRACTISED
            return _page(session, user, project, submitted=not practised, practised=practised)
    except Conflict as conflict:
        return _moved_on(ctx, name, project, conflict)


def practise(ctx: Context, name: str | None, project: str | None) -> PageView:
    """Begin a practice round, or take its next item; whoever needs no (more) practice gets the next item."""
    with ctx.writing(name, policies.annotate) as (session, user):
        found = _choose(session, members.project_ids(session, user), project)
        if found is not None:
            practice.begin(session, found, user)
        return _page(session, user, project)


def skip(ctx: Context, name: str | None, project: str | None, assignment: Any) -> PageView:
    """Give the item to others and take the next one."""
    try:
        with ctx.writing(name, policies.annotate) as (session, user):
            items.skip(session, whole(assignment), user)
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
            items.flag(session, whole(assignment), user, text)
            return _page(session, user, project)
    except Conflict as conflict:
        return _moved_on(ctx, name, project, conflict)


def _moved_on(ctx: Context, name: str | None, project: str | None, conflict: Conflict) -> PageView:
    # Another tab or a double click was first: say so and show what comes next.
    with ctx.writing(name, policies.annotate) as (session, user):
        return _page(session, user, project, notice=str(conflict))


# --- to the page ---


def _choose(session: Session, known: dict[str, int], wanted: str | None) -> Project | None:
    if not known:
        return None
    return session.get_one(Project, known[wanted] if wanted in known else next(iter(known.values())))


def _page(
    session: Session,
    user: User,
    wanted: str | None,
    *,
    kept: Any = None,
    notice: str = "",
    submitted: bool = False,
    practised: bool = False,
) -> PageView:
    known = members.project_ids(session, user)
    project = _choose(session, known, wanted)
    if project is None:
        return PageView(user.name, user.role, None, [], "", [], None, 0, None, waiting="no project", notice=notice)
    at = stage(session, project, user)
    lesson: Lesson | None = None
    asked = False
    if practised:
        lesson, lease = practice.after_answer(session, project, user), None
    elif at is Stage.PRACTICE:
        lesson, lease = practice.next_step(session, project, user)
    elif submitted and questions.draw(session, project, user, random.Random()):
        lease, asked = None, True  # a question beside the queue, now and then
    else:
        lease = items.lease_next(session, project, user, rng=random.Random())
        asked = lease is None and at is Stage.WORK and any(questions.waiting(session, project, user))
    progress, left = queue.work_ahead(session, project, user, LEFT)
    return PageView(
        user=user.name,
        role=user.role,
        project=project.name,
        projects=list(known),
        guidelines=project.guidelines,
        criteria=list(project.criteria),
        progress=progress,
        left=left,
        item=item_view(lease, project, kept) if lease else None,
        waiting="" if lease else "asked" if asked else _waiting(at, lesson, left),
        notice=notice,
        tags=tuple(project.tags),
        settings=parse(AnnotationSettings, project.annotation_settings),
        submitted=submitted,
        lesson=lesson,
    )


def _waiting(at: Stage, lesson: Lesson | None, unjudged: int) -> _Waiting:
    if at is Stage.PAUSED:
        return "paused"
    if lesson is not None:
        return "no practice" if lesson.state == "none" else ""
    return "all judged" if unjudged else "being written"


def item_view(lease: Lease, project: Project, kept: Any) -> ItemView:
    """The item as the page shows it, with the newer of the stored draft and the one that the browser kept."""
    shown = lease.completions[:MAX_SIDES]
    draft = newer_draft(lease, kept)
    if draft is None:
        return ItemView(lease.assignment_id, lease.kind, lease.prompt_messages, [Side(*one) for one in shown])
    known = {criterion.id for criterion in project.criteria}
    said = [*draft.sides, *[SideForm({})] * (len(shown) - len(draft.sides))]
    sides = [
        Side(
            completion_id,
            text,
            {key: value for key, value in side.ratings.items() if key in known},
            tuple(critique for critique in side.critiques if (critique.end or 0) <= len(text)),
            side.refinement or None,
        )
        for (completion_id, text), side in zip(shown, said, strict=False)
    ]
    return ItemView(
        lease.assignment_id, lease.kind, lease.prompt_messages, sides, draft.outcome, draft.strength, draft.ranks
    )


def newer_draft(lease: Lease, kept: Any) -> Form | None:
    """The draft in the store, or the one that the browser kept (`kept`) where that is newer and of the same item."""
    stored, stored_at = None, -1.0
    if lease.draft:
        stored_at = clock(lease.draft.get("at"))
        stored = read_draft(lease.draft)
    if not isinstance(kept, dict) or str(kept.get("assignment")) != str(lease.assignment_id):
        return stored
    try:
        own = parse_form(kept.get("form"))
    except Invalid:
        return stored
    return own if own.says_something and clock(kept.get("at")) > stored_at else stored
