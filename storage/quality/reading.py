"""What the quality figures rest on, added up in SQL: only sums and patterns of judgements come out of the database.

Things judged twice are told apart by who said what of them ("3:4,7:5": person 3 gave a 4, person 7 a 5), and each such
pattern is counted. There are far fewer patterns than judgements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import CTE, Integer, Select, String, case, cast, extract, func, literal, select, type_coerce, union_all
from sqlalchemy.orm import Session, aliased

from storage.enums import AssignmentStatus, CompletionOrigin, Outcome
from storage.judged import live_annotation
from storage.models import (
    Annotation,
    Assignment,
    AuditEvent,
    Completion,
    Critique,
    Item,
    ItemCompletion,
    ModelVersion,
    Preference,
    Project,
    Ranking,
    Rating,
)
from storage.quality.agreement import Floats, Ints, Units, make_units
from storage.quality.shares import Share
from storage.windows import belongs

LOWER, HIGHER, NEITHER = 0, 1, 2  # which of two completions is preferred, by id and so whatever the shown order


class Window(NamedTuple):
    """The newest live annotations of a project: those with an id from `low` on."""

    project: Project
    low: int


def newest(session: Session, project: Project, count: int | None) -> Window:
    """The window of the project's newest `count` live annotations; None: of all."""
    if count is None:
        return Window(project, 0)
    ids = _live(Window(project, 0)).with_only_columns(Annotation.id).order_by(Annotation.id.desc()).limit(count)
    return Window(project, session.scalar(select(func.min(ids.subquery().c.id))) or 0)


def rated(session: Session, window: Window) -> dict[int, Units]:
    """Criterion id -> what several people rated: a unit is a completion of an item."""
    shared = _shared(window)
    units = (
        select(Rating.criterion_id.label("criterion"), _signature(shared.c.user_id, Rating.value).label("said"))
        .join(shared, shared.c.id == Rating.annotation_id)
        .group_by(shared.c.item_id, Rating.completion_id, Rating.criterion_id)
        .having(func.count() > 1)
        .subquery()
    )
    counted = select(units.c.criterion, units.c.said, func.count()).group_by(units.c.criterion, units.c.said)
    found: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for criterion, said, number in session.connection().execute(counted):
        found[criterion].append((said, number))
    return {criterion: _parsed(rows) for criterion, rows in found.items()}


def compared(session: Session, window: Window) -> Units:
    """What several people compared or ranked: a unit is two completions of an item; values LOWER, HIGHER, NEITHER."""
    shared = _shared(window)
    swapped = Preference.first_id > Preference.second_id
    chosen = case(
        (Preference.outcome == Outcome.FIRST, case((swapped, HIGHER), else_=LOWER)),
        (Preference.outcome == Outcome.SECOND, case((swapped, LOWER), else_=HIGHER)),
        else_=NEITHER,  # a tie and "both bad" say the same of the two: neither is better
    )
    comparisons = select(
        shared.c.item_id.label("item"),
        shared.c.user_id.label("person"),
        case((swapped, Preference.second_id), else_=Preference.first_id).label("low"),
        case((swapped, Preference.first_id), else_=Preference.second_id).label("high"),
        chosen.label("value"),
    ).join(Preference, Preference.annotation_id == shared.c.id)
    one, other = aliased(Ranking), aliased(Ranking)
    place = case((one.rank < other.rank, LOWER), (one.rank > other.rank, HIGHER), else_=NEITHER)
    rankings = (
        select(shared.c.item_id, shared.c.user_id, one.completion_id, other.completion_id, place)
        .join(one, one.annotation_id == shared.c.id)
        .join(other, (other.annotation_id == one.annotation_id) & (other.completion_id > one.completion_id))
    )
    said = union_all(comparisons, rankings).subquery()
    units = (
        select(_signature(said.c.person, said.c.value).label("said"))
        .group_by(said.c.item, said.c.low, said.c.high)
        .having(func.count() > 1)
        .subquery()
    )
    counted = select(units.c.said, func.count()).group_by(units.c.said)
    return _parsed((row[0], row[1]) for row in session.connection().execute(counted))


class Work(NamedTuple):
    """One entry an annotation of the window."""

    user: Ints
    seconds: Floats  # spent on it; NaN where unknown
    day: Ints  # of the submit, in days since 1970 UTC; -1 where unknown


def work(session: Session, window: Window) -> Work:
    """When and how long people worked."""
    moment = cast(extract("epoch", Annotation.submitted_at), Integer)
    rows = (
        session.connection()
        .execute(_live(window).with_only_columns(Annotation.user_id, Annotation.seconds_spent, moment))
        .all()
    )
    table = np.array([tuple(row) for row in rows], dtype=np.float64).reshape(-1, 3)  # None becomes NaN
    day = np.where(np.isnan(table[:, 2]), -1, table[:, 2] // 86_400).astype(np.int64)
    return Work(table[:, 0].astype(np.int64), table[:, 1], day)


class Leanings(NamedTuple):
    """What comparisons that were decided for one side tell of habits."""

    first: Share  # of those made on the page: how often the one shown first won
    longer: Share  # of those between texts of different length: how often the longer won


def leanings(session: Session, window: Window) -> dict[int, Leanings]:
    """User id -> leanings. Imported comparisons have no shown order: they count for length only."""
    live = _live(window).cte("live")
    first, second = aliased(Completion), aliased(Completion)
    won_first = Preference.outcome == Outcome.FIRST
    longer_first = func.length(first.text) - func.length(second.text)
    on_page = live.c.assignment_id.is_not(None)

    def number(*conditions: Any) -> Any:
        return func.count().filter(*conditions)

    query = (
        select(
            live.c.user_id,
            number(on_page, won_first),
            number(on_page),
            number(longer_first > 0, won_first) + number(longer_first < 0, ~won_first),
            number(longer_first != 0),
        )
        .join(Preference, Preference.annotation_id == live.c.id)
        .join(first, first.id == Preference.first_id)
        .join(second, second.id == Preference.second_id)
        .where(Preference.outcome.in_((Outcome.FIRST, Outcome.SECOND)))
        .group_by(live.c.user_id)
    )
    rows = session.connection().execute(query)
    return {user: Leanings(Share(won, page), Share(long, lengths)) for user, won, page, long, lengths in rows}


class Turned(NamedTuple):
    """What became of the items that were handed to a person and are closed."""

    closed: int  # submitted or skipped
    skipped: int  # flagged ones among them
    flagged: int


def turned_down(session: Session, project: Project) -> dict[int, Turned]:
    """User id -> how many items of the queue they skipped and flagged, over all time."""
    skipped = Assignment.status == AssignmentStatus.SKIPPED
    closed = (
        select(Assignment.user_id, func.count(), func.count().filter(skipped))
        .where(
            Assignment.project_id == project.id,
            Assignment.status.in_((AssignmentStatus.SUBMITTED, AssignmentStatus.SKIPPED)),
        )
        .group_by(Assignment.user_id)
    )
    flags = (
        select(AuditEvent.user_id, func.count())
        .where(AuditEvent.project_id == project.id, AuditEvent.action == "item.flag")
        .group_by(AuditEvent.user_id)
    )
    flagged = {user: number for user, number in session.connection().execute(flags) if user is not None}
    return {
        user: Turned(total, skips, flagged.get(user, 0)) for user, total, skips in session.connection().execute(closed)
    }


class Writer(NamedTuple):
    """Who wrote completions: a model version by its name, or else their origin."""

    name: str
    judged: int  # times that one of its completions was judged
    criticised: int
    tags: dict[str, int]  # tag -> critiques that carry it


def writers(session: Session, window: Window) -> list[Writer]:
    """What was criticised, by who wrote it; model versions first, the newest before the others."""
    live = _live(window).cte("live")
    by = Completion.model_version_id, type_coerce(Completion.origin, String)
    judged = (
        select(*by, func.count())
        .select_from(live)
        .join(ItemCompletion, ItemCompletion.item_id == live.c.item_id)
        .join(Completion, Completion.id == ItemCompletion.completion_id)
        .group_by(*by)
    )
    tags = cast(Critique.tags, String)
    criticised = (
        select(*by, tags, func.count())
        .select_from(live)
        .join(Critique, Critique.annotation_id == live.c.id)
        .join(Completion, Completion.id == Critique.completion_id)
        .group_by(*by, tags)
    )
    names: dict[int | None, str] = dict(session.execute(_version_names(window.project)).all())
    found: dict[tuple[int, str], Writer] = {}
    for version, origin, number in session.connection().execute(judged):
        found[_writer_key(version, origin)] = Writer(names.get(version) or _ORIGINS[origin], number, 0, {})
    for version, origin, written, number in session.connection().execute(criticised):
        key = _writer_key(version, origin)
        writer = found.get(key) or Writer(names.get(version) or _ORIGINS[origin], 0, 0, {})
        for tag in set(_tags(written)):
            writer.tags[tag] = writer.tags.get(tag, 0) + number
        found[key] = writer._replace(criticised=writer.criticised + number)
    return [found[key] for key in sorted(found, reverse=True)]


_ORIGINS = {
    CompletionOrigin.MODEL.value: "a model of unknown version",
    CompletionOrigin.HUMAN.value: "people",
    CompletionOrigin.IMPORTED.value: "imported",
    CompletionOrigin.REFINEMENT.value: "refinements",
}


def _writer_key(version: int | None, origin: str) -> tuple[int, str]:
    return (version, "") if version is not None else (-1, origin)


def _tags(written: str) -> list[str]:
    import orjson

    return [str(tag) for tag in orjson.loads(written) or []]


def _version_names(project: Project) -> Select[int, str]:
    name = type_coerce(ModelVersion.kind, String) + literal("-v") + cast(ModelVersion.number, String)
    return select(ModelVersion.id, name).where(ModelVersion.project_id == project.id)


def _live(window: Window) -> Select[int, int, int, int | None]:
    return (
        select(Annotation.id, Annotation.item_id, Annotation.user_id, Annotation.assignment_id)
        .join(Item, Item.id == Annotation.item_id)
        .where(
            # By ids in a window, by the project's items otherwise: see `belongs`.
            belongs(Item.project_id, window.project) if window.low else Item.project_id == window.project.id,
            Annotation.id >= window.low,
            live_annotation(),
        )
    )


def _shared(window: Window) -> CTE:
    """Live annotations of items that several people judge, one of them within the window at least."""
    everything = Window(window.project, 0)
    live = _live(everything)
    if window.low:
        # Whoever judged the same item long before counts as well.
        items = _live(window).with_only_columns(Annotation.item_id)
        live = live.where(Annotation.item_id.in_(items))
    candidates = live.cte("candidates")
    several = select(candidates.c.item_id).group_by(candidates.c.item_id).having(func.count() > 1)
    return select(candidates).where(candidates.c.item_id.in_(several)).cte("shared")


def _signature(person: Any, value: Any) -> Any:
    return func.aggregate_strings(cast(person, String) + literal(":") + cast(value, String), ",")


def _parsed(rows: Iterable[tuple[str, int]]) -> Units:
    return make_units((_pattern(said), number) for said, number in rows)


def _pattern(said: str) -> list[tuple[int, int]]:
    pairs = (pair.split(":") for pair in said.split(","))
    return [(int(person), int(value)) for person, value in pairs]
