"""Gold items: an operator says what is right, and annotations on the item are scored by it.

An item with a standard (`Item.gold`) is out of the ordinary queue for good. It is handed out in a practice round
(`storage.practice`) or unannounced as an attention check (`storage.checks`); what is said on it never trains, counts
for no figure of agreement and is no preference data (`storage.judged.not_gold`), but is kept, with its score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import combinations
from typing import Any, NamedTuple

from pydantic import Field
from sqlalchemy import func, null, select, update
from sqlalchemy.orm import Session, selectinload

from storage import audit
from storage.configs import Settings, parse
from storage.enums import AnnotationStatus, AssignmentStatus, ItemKind, ItemStatus, Outcome, SelectionReason
from storage.errors import Conflict, Invalid, NotFound
from storage.leases import lock_item
from storage.models import Annotation, Assignment, Criterion, Item, ItemCompletion, Project, Prompt, User, utc_now
from storage.prompts import storable
from storage.selection import places
from storage.submissions import CritiqueInput, PreferenceInput, RankInput, RatingInput, Submission

MAX_EXPLANATION = 10_000
MAX_TOLERANCE = 1000
_KINDS = (ItemKind.PAIR, ItemKind.SINGLE, ItemKind.RANKING)


class GoldComparison(Settings):
    """What a comparison must come out at: `better` is a completion; without one it is a tie or both are bad."""

    better: int | None = None
    both_bad: bool = False
    tie_allowed: bool = False  # a tie is right as well


class GoldRating(Settings):
    """The value that a completion must get on a criterion, give or take `tolerance`."""

    completion_id: int
    criterion_id: int
    value: int
    tolerance: int = Field(0, ge=0, le=MAX_TOLERANCE)


class GoldRank(Settings):
    """A completion's place in the order that is right: 1 is the best, equal ranks are ties."""

    completion_id: int
    rank: int = Field(ge=1)


class GoldTag(Settings):
    """A tag that must be found: some critique of the completion carries it."""

    completion_id: int
    tag: str


class Standard(Settings):
    """What is right about an item; `explanation` is Markdown that people see after they practised on it."""

    comparison: GoldComparison | None = None
    ratings: tuple[GoldRating, ...] = ()
    ranking: tuple[GoldRank, ...] = ()
    tags: tuple[GoldTag, ...] = ()
    explanation: str = Field("", max_length=MAX_EXPLANATION)


class Sort(StrEnum):
    """The sorts of judgement that a standard can ask for."""

    COMPARISON = "comparison"
    RATING = "rating"
    RANKING = "ranking"
    TAG = "tag"


class Part(NamedTuple):
    """One thing that a standard asks for; `points` 0..1 is how much of it was said.

    `said` and `right` are: of a comparison `GoldComparison` (None where nobody said); of a rating the values; of a
    ranking {completion: rank}; of a tag the tag (`said` is None where it was not given).
    """

    sort: Sort
    points: float
    said: Any
    right: Any
    completion_id: int | None = None
    criterion_id: int | None = None
    tolerance: int = 0


@dataclass(frozen=True)
class Judged:
    """An annotation held against a standard; `score` as defined in `judge`."""

    score: float
    parts: tuple[Part, ...]


def judge(standard: Standard, said: Submission) -> Judged:
    """How much of what is right was said.

    The score of an annotation is the mean over the sorts of judgement that the standard asks for, each from 0 to 1:

    - comparison: 1 for the right outcome (also for a tie where that is allowed), else 0; the strength does not count;
    - ratings: the share of those asked for that lie within their tolerance;
    - ranking: the share of all pairs of the ranked completions that stand as they should (before, behind or equal);
    - tags: the share of those asked for that some critique of their completion carries; others cost nothing.

    What was left out is wrong; what the standard does not ask for does not matter. The score of a practice round and
    the running score of a person's attention checks are means of this score over their items.
    """
    parts: list[Part] = []
    if standard.comparison is not None:
        compared = _comparison(said.preference)
        parts.append(Part(Sort.COMPARISON, _same(standard.comparison, compared), compared, standard.comparison))
    given = {(one.completion_id, one.criterion_id): one.value for one in said.ratings}
    for rating in standard.ratings:
        value = given.get((rating.completion_id, rating.criterion_id))
        near = value is not None and abs(value - rating.value) <= rating.tolerance
        about = rating.completion_id, rating.criterion_id, rating.tolerance
        parts.append(Part(Sort.RATING, float(near), value, rating.value, *about))
    if standard.ranking:
        right = {one.completion_id: one.rank for one in standard.ranking}
        ranks = {one.completion_id: one.rank for one in said.rankings}
        parts.append(Part(Sort.RANKING, _order(right, ranks), ranks, right))
    found = {(one.completion_id, tag.casefold()) for one in said.critiques for tag in one.tags}
    for wanted in standard.tags:
        hit = (wanted.completion_id, wanted.tag.casefold()) in found
        parts.append(Part(Sort.TAG, float(hit), wanted.tag if hit else None, wanted.tag, wanted.completion_id))
    sorts = [[part.points for part in parts if part.sort is sort] for sort in Sort]
    means = [sum(points) / len(points) for points in sorts if points]
    return Judged(sum(means) / len(means) if means else 0.0, tuple(parts))


def _comparison(preference: PreferenceInput | None) -> GoldComparison | None:
    if preference is None:
        return None
    winner = {Outcome.FIRST: preference.first_id, Outcome.SECOND: preference.second_id}.get(preference.outcome)
    return GoldComparison(better=winner, both_bad=preference.outcome is Outcome.BOTH_BAD)


def _same(right: GoldComparison, said: GoldComparison | None) -> float:
    if said is None:
        return 0.0
    tie = said.better is None and not said.both_bad
    return float((said.better, said.both_bad) == (right.better, right.both_bad) or (tie and right.tie_allowed))


def _order(right: dict[int, int], said: dict[int, int]) -> float:
    pairs = list(combinations(right, 2))
    hits = sum(
        one in said and other in said and _sign(right[one] - right[other]) == _sign(said[one] - said[other])
        for one, other in pairs
    )
    return hits / len(pairs)


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


# --- what is right about an item ---


def standard_of(session: Session, item: Item) -> Standard | None:
    """The item's standard, without the ratings of criteria that the project has no more; None: an ordinary item."""
    if item.gold is None:
        return None
    standard = parse(Standard, item.gold)
    known = set(session.scalars(select(Criterion.id).where(Criterion.project_id == item.project_id)))
    return standard.model_copy(update={"ratings": tuple(r for r in standard.ratings if r.criterion_id in known)})


def standard_from(
    said: Submission, *, tolerance: int = 1, tie_allowed: bool = False, explanation: str = ""
) -> Standard:
    """What an annotation says, as what is right; `tolerance` is of its ratings. Critiques count by their tags."""
    if not 0 <= tolerance <= MAX_TOLERANCE:
        raise Invalid(f"the tolerance is a whole number from 0 to {MAX_TOLERANCE} (got {tolerance})")
    comparison = _comparison(said.preference)
    if comparison is not None:
        comparison = comparison.model_copy(update={"tie_allowed": tie_allowed})
    tags = dict.fromkeys((one.completion_id, tag) for one in said.critiques for tag in one.tags)
    made = Standard(
        comparison=comparison,
        ratings=tuple(
            GoldRating(
                completion_id=one.completion_id, criterion_id=one.criterion_id, value=one.value, tolerance=tolerance
            )
            for one in said.ratings
        ),
        ranking=tuple(GoldRank(completion_id=one.completion_id, rank=one.rank) for one in said.rankings),
        tags=tuple(GoldTag(completion_id=completion_id, tag=tag) for completion_id, tag in tags),
        explanation=cleaned(explanation),
    )
    if not (made.comparison or made.ratings or made.ranking or made.tags):
        raise Invalid("this annotation only criticises in words or rewrites: there is nothing to score others by")
    return made


def said_in(annotation: Annotation) -> Submission:
    """What a stored annotation says, as far as standards can ask for it."""
    compared = next(iter(annotation.preferences), None)
    return Submission(
        ratings=[RatingInput(one.completion_id, one.criterion_id, one.value) for one in annotation.ratings],
        preference=PreferenceInput(compared.first_id, compared.second_id, compared.outcome) if compared else None,
        rankings=[RankInput(one.completion_id, one.rank) for one in annotation.rankings],
        critiques=[CritiqueInput(one.completion_id, one.text, tags=list(one.tags)) for one in annotation.critiques],
    )


def find_annotation(session: Session, project: Project, annotation_id: int) -> Annotation:
    """An annotation of the project that counts, to be made a standard; raises `NotFound`, also for drafts."""
    found = session.get(Annotation, annotation_id)
    if found is not None and session.get_one(Item, found.item_id).project_id == project.id and _counts(found):
        return found
    raise NotFound(f"there is no annotation {annotation_id} in {project.name} that counts")


def annotation_on(session: Session, project: Project, item_id: int, author: User | None = None) -> Annotation:
    """The one annotation that counts on an item (of `author`, where there are several).

    Raises `NotFound` where there is none, `Invalid` that names the choices where there are several.
    """
    find_item(session, project, item_id)
    query = select(Annotation).where(Annotation.item_id == item_id, Annotation.status == AnnotationStatus.SUBMITTED)
    rows = [row for row in session.scalars(query.order_by(Annotation.id)) if _counts(row)]
    if author is not None:
        rows = [row for row in rows if row.user_id == author.id]
    if not rows:
        raise NotFound(f"nobody has judged item {item_id} yet; judge it first, or import what is right")
    if len(rows) > 1:
        raise Invalid(f"item {item_id} has several annotations; choose one: {', '.join(str(row.id) for row in rows)}")
    return rows[0]


def find_item(session: Session, project: Project, item_id: int) -> Item:
    """An item of the project; raises `NotFound`."""
    item = session.get(Item, item_id)
    if item is None or item.project_id != project.id:
        raise NotFound(f"there is no item {item_id} in {project.name}")
    return item


def _counts(annotation: Annotation) -> bool:
    unchanged = annotation.superseded_at is None and annotation.withdrawn_at is None
    return annotation.status is AnnotationStatus.SUBMITTED and unchanged


def mark(session: Session, item: Item, standard: Standard, who: User | None, **detail: Any) -> Item:
    """Make `item` a gold item, or change what is right about it; everything said on it is scored anew.

    It leaves the ordinary queue; whoever holds it may still submit. Raises `Invalid` when the standard does not fit.
    """
    item = lock_item(session, item.id)
    _check(session, item, standard)
    item.gold = standard.model_dump(mode="json")
    item.status = ItemStatus.DONE
    session.flush()
    said = (AnnotationStatus.SUBMITTED, AnnotationStatus.PRACTISED)
    for annotation in session.scalars(
        select(Annotation).where(Annotation.item_id == item.id, Annotation.status.in_(said))
    ):
        annotation.gold_score = judge(standard, said_in(annotation)).score
    session.flush()
    audit.record(session, who, "gold.mark", f"item {item.id}", session.get_one(Project, item.project_id), **detail)
    return item


def unmark(session: Session, item: Item, who: User | None, *, now: datetime | None = None, **detail: Any) -> Item:
    """Make a gold item an ordinary one again. What was said on it counts from now on, but for practice.

    People who practised on it were told what is right: they do not get it again. Raises `Conflict` for an ordinary one.
    """
    item = lock_item(session, item.id)
    if item.gold is None:
        raise Conflict(f"item {item.id} is no gold item")
    practised = select(Assignment.id).where(
        Assignment.item_id == item.id, Assignment.reason == SelectionReason.PRACTICE
    )
    quiet = {"synchronize_session": False}
    scored = update(Annotation).where(Annotation.item_id == item.id)
    session.execute(scored.values(gold_score=None), execution_options=quiet)
    leased = update(Assignment).where(Assignment.id.in_(practised), Assignment.status == AssignmentStatus.LEASED)
    expired = {"status": AssignmentStatus.EXPIRED, "closed_at": now or utc_now()}
    session.execute(leased.values(**expired), execution_options=quiet)
    session.expire_all()
    item.gold = null()  # None would be stored as the JSON value null, which is not NULL
    session.flush()
    session.refresh(item)
    live = select(func.count()).where(
        Annotation.item_id == item.id,
        Annotation.status == AnnotationStatus.SUBMITTED,
        Annotation.superseded_at.is_(None),
        Annotation.withdrawn_at.is_(None),
    )
    item.judged = session.scalars(live).one()
    item.status = ItemStatus.DONE if item.judged >= places(session, item) else ItemStatus.OPEN
    session.flush()
    audit.record(session, who, "gold.unmark", f"item {item.id}", session.get_one(Project, item.project_id), **detail)
    return item


def _check(session: Session, item: Item, standard: Standard) -> None:
    if item.owner_id is not None or item.kind not in _KINDS:
        raise Invalid(f"item {item.id} is of kind '{item.kind}', which cannot be a gold item")
    members = set(session.scalars(select(ItemCompletion.completion_id).where(ItemCompletion.item_id == item.id)))
    better = standard.comparison.better if standard.comparison else None
    about: list[GoldRating | GoldRank | GoldTag] = [*standard.ratings, *standard.ranking, *standard.tags]
    named = {one.completion_id for one in about}
    if better is not None:
        named.add(better)
    if named - members:
        raise Invalid(f"what is right names a completion that item {item.id} does not have")
    if not (standard.comparison or about):
        raise Invalid("say what is right: an outcome, ratings, an order or tags")
    if standard.comparison and len(members) != 2:
        raise Invalid(f"item {item.id} has {len(members)} completions; a comparison is of two")
    if standard.ranking and not 3 <= len(standard.ranking) == len(members):
        raise Invalid(f"the order that is right must name every completion of item {item.id}, three at least")
    _check_ratings(session, item, standard.ratings)


def _check_ratings(session: Session, item: Item, ratings: Sequence[GoldRating]) -> None:
    scales = {row.id: row for row in session.scalars(select(Criterion).where(Criterion.project_id == item.project_id))}
    for rating in ratings:
        scale = scales.get(rating.criterion_id)
        if scale is None or not scale.low <= rating.value <= scale.high:
            name = f"'{scale.name}' goes from {scale.low} to {scale.high}" if scale else "there is no such criterion"
            raise Invalid(f"a rating that is right is off its scale: {name}")


def cleaned(explanation: str) -> str:
    """An explanation as it is stored; raises `Invalid` when it is too long."""
    text = storable(explanation).strip()
    if len(text) > MAX_EXPLANATION:
        raise Invalid(f"an explanation has at most {MAX_EXPLANATION:,} characters (got {len(text):,})")
    return text


# --- the list ---


@dataclass(frozen=True)
class GoldLine:
    """A gold item with how people did on it."""

    item: Item
    standard: Standard
    prompt: str
    answers: int  # of practice and checks
    score: float | None  # their mean


def list_gold(session: Session, project: Project) -> list[GoldLine]:
    """The project's gold items, the newest first."""
    asked = Assignment.reason.in_((SelectionReason.PRACTICE, SelectionReason.ATTENTION))
    scores = (
        select(Annotation.item_id, func.count(Annotation.gold_score), func.avg(Annotation.gold_score))
        .join(Item, Item.id == Annotation.item_id)
        .join(Assignment, Assignment.id == Annotation.assignment_id)
        .where(Item.project_id == project.id, Item.gold.is_not(None), asked, Annotation.withdrawn_at.is_(None))
        .group_by(Annotation.item_id)
    )
    found = {item_id: (number, mean) for item_id, number, mean in session.execute(scores)}
    rows = session.execute(
        select(Item, Prompt.messages)
        .join(Prompt, Prompt.id == Item.prompt_id)
        .where(Item.project_id == project.id, Item.gold.is_not(None))
        .order_by(Item.id.desc())
        .options(selectinload(Item.members))
    )
    lines = []
    for item, messages in rows:
        number, mean = found.get(item.id, (0, None))
        standard = standard_of(session, item) or Standard()
        lines.append(GoldLine(item, standard, messages[-1]["content"], number, mean))
    return lines


def count_gold(session: Session, project: Project) -> int:
    """How many gold items can be handed out: flagged ones cannot."""
    usable = Item.project_id == project.id, Item.gold.is_not(None), Item.status != ItemStatus.FLAGGED
    return session.scalars(select(func.count()).select_from(Item).where(*usable)).one()
