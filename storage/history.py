"""What a person has said: their annotations, found again by text, project, state and date, and each one's history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased, selectinload

from storage.enums import AnnotationStatus
from storage.errors import NotFound
from storage.models import (
    Annotation,
    Assignment,
    Completion,
    Critique,
    Item,
    ItemCompletion,
    Message,
    Project,
    Prompt,
    Refinement,
    User,
    utc_now,
)

# How long after a submit it can be taken up again by "undo".
SESSION_OF_WORK = timedelta(hours=8)


class State(StrEnum):
    """Where an annotation stands for its author."""

    COUNTS = "counts"
    DRAFT = "draft"
    REVISED = "revised"
    WITHDRAWN = "withdrawn"


class Cursor(NamedTuple):
    """The last line of a page: the next page begins after it."""

    at: datetime
    id: int


@dataclass(frozen=True)
class Filter:
    """Which annotations are looked for. `state` None: every submitted one. Moments are those of the submit."""

    text: str = ""
    project: Project | None = None
    state: State | None = State.COUNTS
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Line:
    """One annotation in the list, with what was said at a glance."""

    annotation: Annotation
    project: str
    prompt: str
    state: State
    at: datetime  # of the submit; of the first draft where nothing was submitted
    criticised: str  # the first critique


class Page(NamedTuple):
    """Some lines, newest first, and where the next ones begin (None: that was all)."""

    lines: list[Line]
    following: Cursor | None


@dataclass(frozen=True)
class Opened:
    """One annotation as its author saw the item; `versions` are all they said on it, newest first."""

    annotation: Annotation
    project: Project
    messages: list[Message]
    completions: list[tuple[int, str]]  # (id, text) in the order shown
    versions: list[Annotation]
    refined: dict[int, str]  # texts of the refinements of all versions, by completion id


def state_of(annotation: Annotation) -> State:
    """Where the annotation stands; a withdrawal also covers what was revised before it."""
    if annotation.withdrawn_at is not None:
        return State.WITHDRAWN
    if annotation.superseded_at is not None:
        return State.REVISED
    return State.DRAFT if annotation.status is AnnotationStatus.DRAFT else State.COUNTS


def list_mine(session: Session, user: User, wanted: Filter, after: Cursor | None = None, limit: int = 20) -> Page:
    """The person's annotations, newest first, `limit` at a time; costs the same on every page."""
    moment = Annotation.created_at if wanted.state is State.DRAFT else Annotation.submitted_at
    query = _matching(session, user, wanted, moment)
    if after is not None:
        query = query.where(tuple_(moment, Annotation.id) < tuple_(after.at, after.id))
    found = session.execute(query.order_by(moment.desc(), Annotation.id.desc()).limit(limit + 1)).all()
    shown = [row[0] for row in found[:limit]]
    following = Cursor(found[limit - 1][1], found[limit - 1][0]) if len(found) > limit else None
    return Page(_lines(session, shown), following)


def open_mine(session: Session, user: User, annotation_id: int) -> Opened:
    """One annotation of the person's with its item and history; raises `NotFound`, also for those of others."""
    annotation = session.get(Annotation, annotation_id)
    if annotation is None or annotation.user_id != user.id:
        raise NotFound(f"there is no annotation {annotation_id} of yours")
    item = session.get_one(Item, annotation.item_id)
    same = select(Annotation).where(Annotation.item_id == item.id, Annotation.user_id == user.id)
    versions = list(session.scalars(same.order_by(Annotation.id.desc()).options(*_said())))
    refined_ids = [one.refined_id for version in versions for one in version.refinements]
    return Opened(
        annotation,
        session.get_one(Project, item.project_id),
        session.get_one(Prompt, item.prompt_id).messages,
        _completions(session, annotation),
        versions,
        _texts(session, refined_ids),
    )


def last_mine(
    session: Session, user: User, project: Project | None = None, *, now: datetime | None = None
) -> Annotation | None:
    """What the person submitted last (in a project) and still counts; None when not in this session of work."""
    wanted = Filter(project=project, since=(now or utc_now()) - SESSION_OF_WORK)
    lines = list_mine(session, user, wanted, limit=1).lines
    return lines[0].annotation if lines else None


def _matching(
    session: Session, user: User, wanted: Filter, moment: InstrumentedAttribute[Any]
) -> Select[int, datetime]:
    query = select(Annotation.id, moment).where(Annotation.user_id == user.id)
    if wanted.state is not None:
        query = query.where(_in_state(wanted.state))
    query = query.where(Annotation.status != AnnotationStatus.PRACTISED)
    if wanted.state is not State.DRAFT:
        query = query.where(Annotation.submitted_at.is_not(None))
    if wanted.since is not None:
        query = query.where(moment >= wanted.since)
    if wanted.until is not None:
        query = query.where(moment < wanted.until)
    text = wanted.text.strip()
    if wanted.project is None and not text:
        return query
    query = query.join(Item, Item.id == Annotation.item_id)
    if wanted.project is not None:
        # The person's annotations by their index, not the project's items by theirs.
        query = query.where(Item.project_id + 0 == wanted.project.id)
    return query.where(_says(session, text)) if text else query


def _in_state(state: State) -> ColumnElement[bool]:
    if state is State.WITHDRAWN:
        return Annotation.withdrawn_at.is_not(None)
    status = AnnotationStatus.DRAFT if state is State.DRAFT else AnnotationStatus.SUBMITTED
    superseded = Annotation.superseded_at
    return and_(
        Annotation.withdrawn_at.is_(None),
        Annotation.status == status,
        superseded.is_not(None) if state is State.REVISED else superseded.is_(None),
    )


def _says(session: Session, text: str) -> ColumnElement[bool]:
    """Whether the text stands in the prompt, in a completion shown, or in what the person wrote about it."""
    pattern = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    refined = aliased(Completion)
    return or_(
        exists().where(Prompt.id == Item.prompt_id, _message_holds(session, pattern)),
        exists().where(
            ItemCompletion.item_id == Item.id,
            Completion.id == ItemCompletion.completion_id,
            Completion.text.ilike(pattern, escape="\\"),
        ),
        exists().where(
            Critique.annotation_id == Annotation.id,
            or_(Critique.text.ilike(pattern, escape="\\"), Critique.fix.ilike(pattern, escape="\\")),
        ),
        exists().where(
            Refinement.annotation_id == Annotation.id,
            refined.id == Refinement.refined_id,
            refined.text.ilike(pattern, escape="\\"),
        ),
    )


def _message_holds(session: Session, pattern: str) -> ColumnElement[bool]:
    # JSON as stored spells letters beyond ASCII as escapes: it must be read as JSON to be searched.
    if session.get_bind().dialect.name == "postgresql":
        message = func.json_array_elements(Prompt.messages).table_valued("value", name="message")
        content: ColumnElement[str] = message.c.value.op("->>")("content")
    else:
        message = func.json_each(Prompt.messages).table_valued("value", name="message")
        content = func.json_extract(message.c.value, "$.content")
    return exists(select(1).select_from(message).where(content.ilike(pattern, escape="\\")))


def _said() -> list[Any]:
    return [
        selectinload(Annotation.ratings),
        selectinload(Annotation.preferences),
        selectinload(Annotation.rankings),
        selectinload(Annotation.critiques),
        selectinload(Annotation.refinements),
    ]


def _lines(session: Session, ids: Sequence[int]) -> list[Line]:
    rows = session.execute(
        select(Annotation, Project.name, Prompt.messages)
        .join(Item, Item.id == Annotation.item_id)
        .join(Prompt, Prompt.id == Item.prompt_id)
        .join(Project, Project.id == Item.project_id)
        .where(Annotation.id.in_(ids))
        .options(*_said())
    )
    by_id = {annotation.id: (annotation, project, messages) for annotation, project, messages in rows}
    lines = []
    for annotation_id in ids:
        annotation, project, messages = by_id[annotation_id]
        lines.append(
            Line(
                annotation,
                project,
                messages[-1]["content"],
                state_of(annotation),
                annotation.submitted_at or annotation.created_at,
                next((one.text for one in annotation.critiques if one.text), ""),
            )
        )
    return lines


def _completions(session: Session, annotation: Annotation) -> list[tuple[int, str]]:
    members = select(ItemCompletion.completion_id).where(ItemCompletion.item_id == annotation.item_id)
    order = list(session.scalars(members.order_by(ItemCompletion.position)))
    if annotation.assignment_id is not None:
        order = session.get_one(Assignment, annotation.assignment_id).shown_order
    texts = _texts(session, order)
    return [(completion_id, texts[completion_id]) for completion_id in order]


def _texts(session: Session, ids: Sequence[int]) -> dict[int, str]:
    return dict(session.execute(select(Completion.id, Completion.text).where(Completion.id.in_(ids))).all())
