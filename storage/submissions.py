"""What an annotator submits, and the checks it must pass before it is stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from storage.enums import Outcome
from storage.errors import Invalid
from storage.models import Item, Project
from storage.prompts import storable

MAX_CHARACTERS = 20_000
MAX_TAGS = 50  # on one critique


@dataclass(frozen=True)
class RatingInput:
    """A whole number on a criterion's scale for one completion."""

    completion_id: int
    criterion_id: int
    value: int


@dataclass(frozen=True)
class PreferenceInput:
    """The outcome of comparing two completions in the order shown; strength 1 slightly, 2 clearly, 3 much better."""

    first_id: int
    second_id: int
    outcome: Outcome
    strength: int | None = None


@dataclass(frozen=True)
class RankInput:
    """A completion's place in an order of several: 1 is the best, equal ranks are ties."""

    completion_id: int
    rank: int


@dataclass(frozen=True)
class CritiqueInput:
    """Written feedback on a completion, optionally on the characters [span_start, span_end) of its text.

    `fix` is what it should say instead, in the annotator's words.
    """

    completion_id: int
    text: str
    span_start: int | None = None
    span_end: int | None = None
    tags: list[str] = field(default_factory=list)
    fix: str | None = None


@dataclass(frozen=True)
class RefinementInput:
    """A completion's text as the annotator would have it."""

    completion_id: int
    text: str


@dataclass(frozen=True)
class Submission:
    """Everything one annotator says about one item."""

    ratings: list[RatingInput] = field(default_factory=list)
    preference: PreferenceInput | None = None
    critiques: list[CritiqueInput] = field(default_factory=list)
    refinements: list[RefinementInput] = field(default_factory=list)
    seconds_spent: float | None = None
    rankings: list[RankInput] = field(default_factory=list)


def checked(session: Session, item: Item, submission: Submission, texts: dict[int, str]) -> Submission:
    """The submission about the item's `texts` as it will be stored; raises `Invalid` with one line for people."""
    refinements = _checked_refinements(submission.refinements, texts)
    cleaned = Submission(
        ratings=_checked_ratings(session, item, submission.ratings, texts),
        preference=_checked_preference(submission.preference, texts),
        critiques=[c for c in (_checked_critique(c, texts) for c in submission.critiques) if c.text or c.tags or c.fix],
        refinements=refinements,
        seconds_spent=_checked_seconds(submission.seconds_spent),
        rankings=_checked_rankings(submission.rankings, texts),
    )
    if not (cleaned.ratings or cleaned.preference or cleaned.rankings or cleaned.critiques or cleaned.refinements):
        raise Invalid("nothing was judged; choose, rate, or write a critique first")
    return cleaned


def _checked_seconds(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    if not 0 <= seconds < float("inf"):
        raise Invalid("the time spent must be a number of seconds, zero or more")
    return float(seconds)


def _belongs(completion_id: int, texts: dict[int, str]) -> None:
    if completion_id not in texts:
        raise Invalid("this feedback is about a completion of another item; reload the page")


def _unique(keys: Iterable[object], what: str) -> None:
    seen = list(keys)
    if len(set(seen)) < len(seen):
        raise Invalid(f"there are two {what} for one completion; keep one")


def _checked_ratings(
    session: Session, item: Item, ratings: list[RatingInput], texts: dict[int, str]
) -> list[RatingInput]:
    if not ratings:
        return []
    scales = {row.id: row for row in session.get_one(Project, item.project_id).criteria}
    for rating in ratings:
        _belongs(rating.completion_id, texts)
        scale = scales.get(rating.criterion_id)
        if scale is None:
            raise Invalid("a rating names a criterion that the project does not have (any more); reload the page")
        whole = isinstance(rating.value, int) and not isinstance(rating.value, bool)
        if not whole or not scale.low <= rating.value <= scale.high:
            raise Invalid(f"'{scale.name}' takes whole numbers from {scale.low} to {scale.high}, got {rating.value!r}")
    _unique(((r.completion_id, r.criterion_id) for r in ratings), "ratings of one criterion")
    return ratings


def _checked_preference(preference: PreferenceInput | None, texts: dict[int, str]) -> PreferenceInput | None:
    if preference is None:
        return None
    _belongs(preference.first_id, texts)
    _belongs(preference.second_id, texts)
    if preference.first_id == preference.second_id:
        raise Invalid("a comparison needs two different completions")
    decided = preference.outcome in (Outcome.FIRST, Outcome.SECOND)
    if decided and preference.strength not in (None, 1, 2, 3):
        raise Invalid("the strength of a preference is 1, 2 or 3")
    strength = preference.strength if decided else None
    return PreferenceInput(preference.first_id, preference.second_id, Outcome(preference.outcome), strength)


def _checked_rankings(rankings: list[RankInput], texts: dict[int, str]) -> list[RankInput]:
    """The same order with ranks 1, 2, 3, … without gaps, so that equal orders are equal rows."""
    if not rankings:
        return []
    for place in rankings:
        _belongs(place.completion_id, texts)
        if isinstance(place.rank, bool) or not isinstance(place.rank, int) or place.rank < 1:
            raise Invalid(f"a rank is a whole number, 1 for the best; got {place.rank!r}")
    _unique((place.completion_id for place in rankings), "ranks")
    if len(rankings) < 2:
        raise Invalid("a ranking needs two completions or more")
    dense = {rank: number for number, rank in enumerate(sorted({place.rank for place in rankings}), start=1)}
    return [RankInput(place.completion_id, dense[place.rank]) for place in rankings]


def _checked_text(text: str, what: str) -> str:
    cleaned = storable(text).strip()
    if len(cleaned) > MAX_CHARACTERS:
        raise Invalid(f"a {what} has {len(cleaned):,} characters; at most {MAX_CHARACTERS:,} are kept: shorten it")
    return cleaned


def _checked_critique(critique: CritiqueInput, texts: dict[int, str]) -> CritiqueInput:
    _belongs(critique.completion_id, texts)
    start, end = critique.span_start, critique.span_end
    if (start is None) != (end is None):
        raise Invalid("a critique's span needs both a start and an end")
    if start is not None and end is not None and not 0 <= start < end <= len(texts[critique.completion_id]):
        raise Invalid(f"a critique's span [{start}, {end}) lies outside the completion's text")
    # Each tag once, in the order given.
    tags = list(dict.fromkeys(tag for tag in (_checked_text(tag, "tag") for tag in critique.tags) if tag))
    if len(tags) > MAX_TAGS:
        raise Invalid(f"a critique has {len(tags)} tags; at most {MAX_TAGS} are kept")
    fix = _checked_text(critique.fix, "fix") or None if critique.fix else None
    return CritiqueInput(critique.completion_id, _checked_text(critique.text, "critique"), start, end, tags, fix)


def _checked_refinements(refinements: list[RefinementInput], texts: dict[int, str]) -> list[RefinementInput]:
    kept = []
    for refinement in refinements:
        _belongs(refinement.completion_id, texts)
        text = _checked_text(refinement.text, "refinement")
        if text and text != texts[refinement.completion_id].strip():
            kept.append(RefinementInput(refinement.completion_id, text))
    _unique((r.completion_id for r in kept), "refinements")
    return kept
