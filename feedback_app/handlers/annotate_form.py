"""What the annotate page sends: parsed from whatever a browser may send, kept as a draft, turned into a submission."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage.annotations import (
    CritiqueInput,
    PreferenceInput,
    RankInput,
    RatingInput,
    RefinementInput,
    Submission,
)
from storage.enums import Outcome
from storage.errors import Invalid
from storage.models import JsonObject

MAX_SIDES = 8  # completions that the page shows of an item
_MOST = 100  # critiques of one completion, ratings of one completion
_LONGEST_TAG = 200
_MALFORMED = "the form arrived incomplete; reload the page (your draft is kept)"


@dataclass(frozen=True)
class CritiqueForm:
    """A critique as it is written: of the whole, or of the characters [start, end) of the completion's text."""

    text: str = ""
    tags: tuple[str, ...] = ()
    fix: str = ""  # what it should say instead
    start: int | None = None
    end: int | None = None

    @property
    def says_something(self) -> bool:
        """Whether there is anything to keep beside the mark."""
        return bool(self.text.strip() or self.tags or self.fix.strip())

    def as_json(self) -> JsonObject:
        """For the draft and for the page."""
        return {"text": self.text, "tags": list(self.tags), "fix": self.fix, "start": self.start, "end": self.end}


@dataclass(frozen=True)
class SideForm:
    """What is said about one completion; an empty refinement is one that was not touched."""

    ratings: dict[int, int]  # by criterion id
    critiques: tuple[CritiqueForm, ...] = ()
    refinement: str = ""


@dataclass(frozen=True)
class Form:
    """What the page holds, by position as shown, not by id; `parse_form` makes it from raw values."""

    outcome: Outcome | None
    strength: int | None
    ranks: tuple[int | None, ...]  # 1 for the best, equal ones are ties; None: not ranked yet
    sides: tuple[SideForm, ...]

    def as_draft(self, at: float) -> JsonObject:
        """The draft stored in SQL; `at` is the browser's clock in milliseconds."""
        return {
            "at": at,
            "outcome": self.outcome and self.outcome.value,
            "strength": self.strength,
            "ranks": list(self.ranks),
            "sides": [
                {
                    "ratings": {str(key): value for key, value in side.ratings.items()},
                    "critiques": [critique.as_json() for critique in side.critiques],
                    "refinement": side.refinement,
                }
                for side in self.sides
            ],
        }

    @property
    def says_something(self) -> bool:
        """Whether anything was chosen, marked or written."""
        ranked = any(rank is not None for rank in self.ranks)
        return bool(self.outcome or ranked or any(s.ratings or s.critiques or s.refinement for s in self.sides))


def parse_form(raw: Any) -> Form:
    """The form from {"outcome", "strength", "ranks": [...], "sides": [{"ratings", "critiques", "refinement"}]}.

    Whatever is missing counts as empty. Raises `Invalid` when a value is of the wrong type: it comes from a browser and
    can be anything.
    """
    if not isinstance(raw, dict):
        raise Invalid(_MALFORMED)
    try:
        outcome = Outcome(raw["outcome"]) if raw.get("outcome") else None
    except (ValueError, TypeError) as error:
        raise Invalid(_MALFORMED) from error
    strength = raw.get("strength")
    if strength is not None and (isinstance(strength, bool) or strength not in (1, 2, 3)):
        raise Invalid("the strength is 1 (slightly), 2 (clearly) or 3 (much)")
    decided = outcome in (Outcome.FIRST, Outcome.SECOND)
    return Form(
        outcome,
        strength if decided else None,
        tuple(None if rank is None else whole(rank) for rank in _list(raw.get("ranks"), MAX_SIDES)),
        tuple(_side(side) for side in _list(raw.get("sides"), MAX_SIDES)),
    )


def read_draft(draft: JsonObject) -> Form | None:
    """The stored draft as a form; None when it is of a shape that the page never wrote."""
    try:
        return parse_form(draft if "sides" in draft else _as_now(draft))
    except (KeyError, TypeError, Invalid):
        return None


def _as_now(draft: JsonObject) -> JsonObject:
    """A draft of version 1, which had one critique a completion, in today's shape."""
    sides = zip(draft["ratings"], draft["critiques"], draft["refinements"], strict=True)
    return {
        **draft,
        "sides": [
            {"ratings": ratings, "critiques": [{"text": critique}] if critique else [], "refinement": refinement}
            for ratings, critique, refinement in sides
        ],
    }


def to_submission(completions: Sequence[tuple[int, str]], form: Form, seconds: float | None) -> Submission:
    """`form` said about completions (id and text) in the order shown.

    Raises `Invalid` when they were not compared, or not all of them ranked.
    """
    shown = completions[:MAX_SIDES]
    sides = [(completion_id, text, side) for (completion_id, text), side in zip(shown, form.sides, strict=False)]
    return Submission(
        ratings=[
            RatingInput(completion_id, criterion_id, value)
            for completion_id, _, side in sides
            for criterion_id, value in side.ratings.items()
        ],
        preference=_preference(shown, form),
        rankings=_rankings(shown, form),
        critiques=[
            CritiqueInput(
                completion_id, critique.text.strip(), critique.start, critique.end, list(critique.tags), critique.fix
            )
            for completion_id, _, side in sides
            for critique in side.critiques
            if critique.says_something
        ],
        refinements=[
            RefinementInput(completion_id, side.refinement)
            for completion_id, text, side in sides
            if side.refinement.strip() and side.refinement.strip() != text.strip()
        ],
        seconds_spent=seconds,
    )


def _preference(shown: Sequence[tuple[int, str]], form: Form) -> PreferenceInput | None:
    if len(shown) != 2:
        return None
    if form.outcome is None:
        raise Invalid("choose A, B, tie or both bad first (keys 1 to 4)")
    return PreferenceInput(shown[0][0], shown[1][0], form.outcome, form.strength)


def _rankings(shown: Sequence[tuple[int, str]], form: Form) -> list[RankInput]:
    if len(shown) < 3:
        return []
    ranked = [(one, rank) for (one, _), rank in zip(shown, form.ranks, strict=False) if rank is not None]
    if len(ranked) < len(shown):
        raise Invalid(f"rank all {len(shown)} first: press their numbers, the best one first, or drag them")
    return [RankInput(completion_id, rank) for completion_id, rank in ranked]


def _side(raw: Any) -> SideForm:
    if not isinstance(raw, dict):
        raise Invalid(_MALFORMED)
    critiques = tuple(_critique(one) for one in _list(raw.get("critiques"), _MOST))
    return SideForm(_ratings(raw.get("ratings")), critiques, _text(raw.get("refinement")))


def _critique(raw: Any) -> CritiqueForm:
    if not isinstance(raw, dict):
        raise Invalid(_MALFORMED)
    tags = tuple(_text(tag) for tag in _list(raw.get("tags"), _MOST))
    if any(len(tag) > _LONGEST_TAG for tag in tags):
        raise Invalid(f"a tag has more than {_LONGEST_TAG} characters")
    start, end = (None if raw.get(name) is None else whole(raw[name]) for name in ("start", "end"))
    return CritiqueForm(_text(raw.get("text")), tags, _text(raw.get("fix")), start, end)


def _ratings(value: Any) -> dict[int, int]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > _MOST:
        raise Invalid(_MALFORMED)
    return {whole(key): whole(rating) for key, rating in value.items() if rating is not None}


def _list(value: Any, most: int) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > most:
        raise Invalid(_MALFORMED)
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Invalid(_MALFORMED)
    return value


def whole(value: Any) -> int:
    """A whole number, zero or more, as JSON or a form field may carry it; raises `Invalid` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Invalid(_MALFORMED)
    try:
        number = int(value)
    except ValueError as error:
        raise Invalid(_MALFORMED) from error
    if not 0 <= number < 2**31:
        raise Invalid(_MALFORMED)
    return number


def clock(value: Any) -> float:
    """A browser's clock in milliseconds; 0 where it is none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 <= value < 1e14 else 0.0


def time_spent(value: Any) -> float | None:
    """How long the item was in view; None where the browser did not say so."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return round(float(value), 1) if number and 0 <= value <= 86400 else None
