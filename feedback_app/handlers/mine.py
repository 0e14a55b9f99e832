"""My annotations: find what one has said, see its history, say it anew, take it back. Each call is one transaction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.annotate import ItemView, Side, newer_draft
from feedback_app.handlers.annotate_form import (
    MAX_SIDES,
    CritiqueForm,
    Form,
    clock,
    parse_form,
    time_spent,
    to_submission,
    whole,
)
from feedback_app.handlers.context import Context
from feedback_app.handlers.values import text, to_enum
from storage import annotations as feedback
from storage import history, members
from storage.configs import AnnotationSettings, parse
from storage.enums import Outcome, Role
from storage.errors import Conflict, FeedbackError, Invalid, NotAllowed, NotFound
from storage.history import Cursor, Filter, Line, Opened, State
from storage.items import Lease
from storage.models import Annotation, Criterion, JsonObject, User
from storage.progress import Work, my_work
from storage.quality import Share
from storage.quality.own import own_agreement

_MAX_SEARCH = 200
_SNIPPET = 240
_SWAPPED = {Outcome.FIRST: Outcome.SECOND, Outcome.SECOND: Outcome.FIRST}


@dataclass(frozen=True)
class ListView:
    """Some of a person's annotations, newest first."""

    lines: list[Line]
    following: Cursor | None
    filtered: bool  # whether anything but the usual was asked for


@dataclass(frozen=True)
class OneView:
    """One annotation, opened. `item` holds what is in the form: what counts, or a revision that was begun."""

    opened: Opened
    state: State
    item: ItemView
    criteria: list[Criterion]
    tags: list[str]
    revising: bool  # show the form at once
    notice: str = ""


@dataclass(frozen=True)
class MineView:
    """The whole page. `one` is None while the list is shown."""

    user: str
    role: Role
    projects: list[str]
    project: str | None
    found: ListView
    one: OneView | None
    notice: str = ""
    work: Work | None = None
    target: int = 0  # of a day, where one project is looked at; 0: none
    agreement: Share | None = None  # with others, where the project shows it


def open_page(ctx: Context, name: str | None, project: Any, wanted: Any, last: Any, kept: Any = None) -> MineView:
    """The page as it is loaded: `wanted` is an annotation's id to open, `last` asks for the newest of this session.

    `kept` is the revision that the browser kept; it wins over the stored draft where it is newer.
    """
    with ctx.reading(name, policies.annotate) as (session, user):
        entered = {one.name: one for one in members.list_projects(session, user)}
        known = list(entered)
        here = project if isinstance(project, str) and project in known else None
        looked_at = entered[here] if here else next(iter(entered.values())) if len(entered) == 1 else None
        one, notice = None, ""
        try:
            if last:
                one = _last(session, user, here, kept)
            elif wanted:
                one = _one(session, user, whole(wanted), kept)
        except FeedbackError as error:
            notice = str(error)
        found = _found(session, user, {"project": here}, None)
        view = MineView(user.name, user.role, known, here, found, one, notice, my_work(session, user, looked_at))
        if looked_at is None:
            return view
        asked = parse(AnnotationSettings, looked_at.annotation_settings or {})
        agreement = own_agreement(session, looked_at, user) if asked.show_agreement else None
        return replace(view, target=asked.daily_target, agreement=agreement)


def look(ctx: Context, name: str | None, wanted: Any, after: Any = None) -> ListView:
    """The annotations that fit `wanted` {text, project, state, since, until}, from the line `after` [moment, id] on."""
    with ctx.reading(name, policies.annotate) as (session, user):
        return _found(session, user, wanted, after)


def open_one(ctx: Context, name: str | None, annotation: Any, kept: Any = None) -> OneView:
    """One of the person's own annotations with its item and history; `kept` as in `open_page`."""
    with ctx.reading(name, policies.annotate) as (session, user):
        return _one(session, user, whole(annotation), kept)


def undo(ctx: Context, name: str | None, project: str | None = None) -> OneView:
    """What the person submitted last, opened for revision; `NotFound` when that was not in this session of work."""
    with ctx.reading(name, policies.annotate) as (session, user):
        return _last(session, user, project)


def save_draft(ctx: Context, name: str | None, annotation: Any, at: Any, form: Any) -> None:
    """Keep what has been typed of a revision; `form` None throws it away. What does not count any more is left be."""
    with ctx.writing(name, policies.annotate) as (session, user):
        draft = None if form is None else parse_form(form).as_draft(clock(at))
        try:
            feedback.draft_revision(session, whole(annotation), user, draft)
        except (Conflict, NotFound):
            return  # the page says so when the revision is sent


def revise(ctx: Context, name: str | None, annotation: Any, seconds: Any, form: Any) -> OneView:
    """Let `form` take the place of what the person said; raises `Conflict` when another tab was first."""
    with ctx.writing(name, policies.annotate) as (session, user):
        opened = history.open_mine(session, user, whole(annotation))
        if not members.may_enter(session, user, opened.project):
            raise NotAllowed("this project is closed to you by now; you can still take back what you said")
        submission = to_submission(_as_lease(opened).completions, parse_form(form), time_spent(seconds))
        new = feedback.revise(session, opened.annotation.id, user, submission)
        session.expire_all()
        return _one(session, user, new.id, notice="saved; what you said before stays in the history")


def withdraw(ctx: Context, name: str | None, annotation: Any) -> OneView:
    """Take one's own annotation back, with all that it superseded; others get the item instead."""
    with ctx.writing(name, policies.annotate) as (session, user):
        opened = history.open_mine(session, user, whole(annotation))
        feedback.withdraw(session, opened.annotation.id, user)
        session.expire_all()
        return _one(session, user, opened.annotation.id, notice="taken back; nothing will be trained on it any more")


# --- the list ---


def _found(session: Session, user: User, wanted: Any, after: Any) -> ListView:
    if not isinstance(wanted, dict):
        raise Invalid("the search arrived incomplete; reload the page")
    sought = text(wanted.get("text"), "search", _MAX_SEARCH).strip()
    state = wanted.get("state") or State.COUNTS.value
    chosen = None if state == "all" else to_enum(State, state, "state")
    named = text(wanted.get("project"), "project")
    since, until = _moment(wanted.get("since")), _moment(wanted.get("until"))
    project = members.get_project(session, user, named) if named else None
    page = history.list_mine(session, user, Filter(sought, project, chosen, since, until), _cursor(after))
    filtered = bool(sought or named or since or until or chosen is not State.COUNTS)
    return ListView(page.lines, page.following, filtered)


def _moment(value: Any) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise Invalid("a date is not readable; choose it again") from error
    if moment.tzinfo is None:
        raise Invalid("a date came without its time zone; reload the page")
    return moment


def _cursor(value: Any) -> Cursor | None:
    if not value:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise Invalid("the list arrived incomplete; reload the page")
    moment = _moment(value[0])
    return Cursor(moment, whole(value[1])) if moment else None


# --- one of them ---


def _last(session: Session, user: User, project: str | None, kept: Any = None) -> OneView:
    found = members.get_project(session, user, project) if project else None
    last = history.last_mine(session, user, found)
    if last is None:
        raise NotFound("there is nothing to undo: you have submitted nothing in the last hours")
    return _one(session, user, last.id, kept, revising=True)


def _one(
    session: Session,
    user: User,
    annotation_id: int,
    kept: Any = None,
    *,
    revising: bool = False,
    notice: str = "",
) -> OneView:
    opened = history.open_mine(session, user, annotation_id)
    annotation = opened.annotation
    state = history.state_of(annotation)
    counts = state is State.COUNTS
    draft = newer_draft(_as_lease(opened), kept) if counts else None
    if draft is not None and not notice:
        notice = "you began to change this before; what you typed is here again"
    tags = list(opened.project.tags)
    item = _item(opened, draft)
    return OneView(
        opened,
        state,
        item,
        list(opened.project.criteria),
        tags,
        counts and (revising or draft is not None),
        notice,
    )


def _item(opened: Opened, draft: Form | None) -> ItemView:
    said = opened.annotation
    shown = opened.completions[:MAX_SIDES]
    outcome, strength = _preference(said, shown)
    ranks = {one.completion_id: one.rank for one in said.rankings}
    places: tuple[int | None, ...] = tuple(ranks.get(one) for one, _ in shown)
    sides = [_side(opened, completion_id, words) for completion_id, words in shown]
    if draft is not None:
        outcome, strength, places = draft.outcome, draft.strength, draft.ranks
        sides = [
            Side(side.completion_id, side.text, typed.ratings, typed.critiques, typed.refinement or None)
            for side, typed in zip(sides, draft.sides, strict=False)
        ]
    kind = said.item.kind
    return ItemView(said.id, kind, opened.messages, sides, outcome, strength, places)


def _side(opened: Opened, completion_id: int, words: str) -> Side:
    said, known = opened.annotation, {criterion.id for criterion in opened.project.criteria}
    critiques = (
        CritiqueForm(one.text, tuple(one.tags), one.fix or "", one.span_start, one.span_end)
        for one in said.critiques
        if one.completion_id == completion_id
    )
    refined = next((one.refined_id for one in said.refinements if one.completion_id == completion_id), None)
    return Side(
        completion_id,
        words,
        {
            one.criterion_id: one.value
            for one in said.ratings
            if one.completion_id == completion_id and one.criterion_id in known
        },
        tuple(critiques),
        opened.refined[refined] if refined is not None else None,
    )


def _preference(said: Annotation, shown: list[tuple[int, str]]) -> tuple[Outcome | None, int | None]:
    """The outcome in the order shown: an import may name the two the other way round."""
    if not said.preferences or len(shown) != 2:
        return None, None
    one = said.preferences[0]
    outcome = one.outcome if one.first_id == shown[0][0] else _SWAPPED.get(one.outcome, one.outcome)
    return outcome, one.strength


def _as_lease(opened: Opened) -> Lease:
    """The item as the annotate page knows it, under the annotation's id; nothing is leased."""
    said = opened.annotation
    return Lease(
        said.id, said.item_id, opened.messages, opened.completions, said.created_at, said.draft, said.item.kind
    )


def line_of(line: Line) -> JsonObject:
    """One line of the list, short enough to send by the dozen."""
    said = line.annotation
    preference = said.preferences[0] if said.preferences else None
    return {
        "id": said.id,
        "at": line.at.isoformat(),
        "project": line.project,
        "state": line.state.value,
        "prompt": line.prompt[:_SNIPPET],
        "outcome": preference.outcome.value if preference else None,
        "strength": preference.strength if preference else None,
        "ranked": len(said.rankings),
        "ratings": len(said.ratings),
        "critiques": len(said.critiques),
        "refinements": len(said.refinements),
        "criticised": line.criticised[:_SNIPPET],
        "begun": said.draft is not None and line.state is State.COUNTS,
    }


def said_of(opened: Opened, version: Annotation) -> JsonObject:
    """What one version says, by the letters of the completions shown."""
    letters = {completion_id: "ABCDEFGH"[place] for place, (completion_id, _) in enumerate(opened.completions[:8])}
    texts = dict(opened.completions)
    names = {criterion.id: criterion.name for criterion in opened.project.criteria}
    outcome, strength = _preference(version, opened.completions)
    placed = [(letters[one.completion_id], one.rank) for one in version.rankings if one.completion_id in letters]
    return {
        "id": version.id,
        "state": history.state_of(version).value,
        "at": (version.submitted_at or version.created_at).isoformat(),
        "outcome": outcome.value if outcome else None,
        "strength": strength,
        "order": [list(one) for one in sorted(placed, key=lambda one: (one[1], one[0]))],
        "ratings": [
            [letters[one.completion_id], names.get(one.criterion_id, "a former criterion"), one.value]
            for one in version.ratings
            if one.completion_id in letters
        ],
        "critiques": [
            {
                "of": letters[one.completion_id],
                "text": one.text,
                "fix": one.fix or "",
                "tags": one.tags,
                "quote": "" if one.span_start is None else texts[one.completion_id][one.span_start : one.span_end],
            }
            for one in version.critiques
            if one.completion_id in letters
        ],
        "refinements": [
            {"of": letters[one.completion_id], "text": opened.refined[one.refined_id]}
            for one in version.refinements
            if one.completion_id in letters
        ],
    }
