"""Simulated annotators for `feedback-app demo`: a hidden taste over what a reply is like, and people who have it.

They see what a person sees: the prompt and the completions of a lease. What they think reaches the store through
their annotations only; nothing downstream of the store can look the taste up.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from storage.enums import Outcome
from storage.submissions import CritiqueInput, PreferenceInput, RatingInput, RefinementInput, Submission

if TYPE_CHECKING:
    from storage.models import Message
    from trainer.starter.facets import Facets, Request, Value

# What most people would say of each value of a facet, in points; a seed scales every facet for one hidden taste.
COMMON_SENSE: dict[str, dict[str, float]] = {
    "greeting": {"right": 1.0, "missing": 0.0, "wrong": -1.5},
    "apology": {"yes": 0.7, "no": 0.0},
    "facts": {"right": 0.8, "missing": 0.0, "wrong": -1.5},
    "action": {"concrete": 1.2, "vague": 0.0},
    "tone": {"warm": 0.8, "neutral": 0.4, "curt": -0.4, "rude": -1.5},
    "length": {"short": 0.1, "medium": 0.3, "rambling": -0.7},
}
NOISE = 0.5  # of one look at one reply, standard deviation, in points
TIE_WITHIN = 0.35
NOT_FIT_TO_SEND = -2.0
RULE_INTENTS = 3  # matters that one context rule is about

Points = dict[str, dict[str, float]]  # by facet, then by its value


class Taste:
    """A hidden preference over facets, drawn from a seed; `rules` facets are liked otherwise in some matters."""

    def __init__(self, seed: int, rules: int = 0) -> None:
        rng = random.Random(f"taste {seed}")
        points: Points = {
            facet: {value: points * scale for value, points in values.items()}
            for facet, values in COMMON_SENSE.items()
            for scale in (rng.uniform(0.5, 1.5),)
        }
        self._points: dict[str, Points] = defaultdict(lambda: points)  # by the request's intent
        for intents, facet, values in _context_rules(rng, points, rules):
            for intent in intents:
                self._points[intent] = {**self._points[intent], facet: values}
        self.worst = sum(min(values.values()) for values in points.values())
        self.best = sum(max(values.values()) for values in points.values())

    def of(self, request: Request, facets: Facets | None) -> float:
        """How much a reply with these facets is worth, in points; an unreadable one (None) as little as the worst."""
        if facets is None:
            return self.worst
        return sum(points[_word(facets, facet)] for facet, points in self._points[request.intent].items())

    def of_text(self, messages: Sequence[Message], text: str) -> float:
        """How much a reply to this prompt is worth."""
        request = request_in(messages)
        return self.of(request, read(request, text))

    def wish(self, request: Request, facets: Facets, facet: str) -> tuple[str, float]:
        """The value that would be liked best of a facet, and how many points it would bring."""
        points = self._points[request.intent][facet]
        best = max(points, key=lambda value: points[value])
        return best, points[best] - points[_word(facets, facet)]


def _context_rules(rng: random.Random, points: Points, rules: int) -> Iterator[tuple[list[str], str, dict[str, float]]]:
    """So many facets, each with the matters in which its two best values change places."""
    from trainer.starter.phrases import INTENTS

    for facet in rng.sample(sorted(points), rules):
        values = points[facet]
        first, second = sorted(values, key=lambda value: -values[value])[:2]
        changed = {**values, first: values[second], second: values[first]}
        yield rng.sample(sorted(INTENTS), RULE_INTENTS), facet, changed


@dataclass(frozen=True)
class Habits:
    """How somebody writes feedback: shares from 0 to 1, and `noise`, which is `NOISE` unless said otherwise."""

    critiques: float = 0.8  # of the worse replies
    refinements: float = 0.3  # of those that are criticised
    mistaken: float = 0.0  # of the critiques: they ask for something that is not wanted
    noise: float = NOISE


@dataclass(frozen=True)
class Reading:
    """One look at one reply."""

    completion_id: int
    facets: Facets | None
    points: float


class Annotator:
    """A person with the taste, a steady hand (the rng), noise in every look, and habits."""

    def __init__(self, taste: Taste, rng: random.Random, habits: Habits = Habits()) -> None:
        self._taste, self._rng, self._habits = taste, rng, habits

    def judge(self, messages: Sequence[Message], completions: Sequence[tuple[int, str]], quality_id: int) -> Submission:
        """What this person says about two completions (id and text): ratings, a comparison, maybe a critique of the
        worse one and a rewrite."""
        request = request_in(messages)
        first, second = (self._look(request, *completion) for completion in completions[:2])
        worse = min(first, second, key=lambda reading: reading.points)
        critiques, refinements = self._criticise(request, worse)
        return Submission(
            ratings=[RatingInput(r.completion_id, quality_id, _stars(r.points)) for r in (first, second)],
            preference=_compare(first, second),
            critiques=critiques,
            refinements=refinements,
            seconds_spent=round(self._rng.uniform(8, 60), 1),
        )

    def _look(self, request: Request, completion_id: int, text: str) -> Reading:
        facets = read(request, text)
        return Reading(completion_id, facets, self._taste.of(request, facets) + self._rng.gauss(0, self._habits.noise))

    def _criticise(self, request: Request, reading: Reading) -> tuple[list[CritiqueInput], list[RefinementInput]]:
        """A critique of what costs the most points, and sometimes the reply as it should have been."""
        from trainer.starter.facets import facet_of
        from trainer.starter.grammar import write_critique, write_reply

        facets = reading.facets
        if facets is None or self._rng.random() > self._habits.critiques:
            return [], []
        wanted = self._wanted(request, facets)
        if wanted is None:
            return [], []
        critique = write_critique(self._rng, facet_of(wanted), facets.value(facet_of(wanted)), wanted, request)
        said = [CritiqueInput(reading.completion_id, critique.full)]
        if self._rng.random() > self._habits.refinements:
            return said, []
        better = write_reply(self._rng, request, facets.but(wanted))
        return said, [RefinementInput(reading.completion_id, better)]

    def _wanted(self, request: Request, facets: Facets) -> Value | None:
        """What the person asks for: the change that brings the most points, or by mistake one that brings none."""
        from trainer.starter.critiques import WORDINGS
        from trainer.starter.facets import FACETS

        worth = {
            value: self._taste.of(request, facets.but(value)) - self._taste.of(request, facets)
            for facet, values in FACETS.items()
            for value in values
            if value in WORDINGS and value is not facets.value(facet)
        }
        useless = [value for value, gain in worth.items() if gain <= 0]
        if self._rng.random() < self._habits.mistaken and useless:
            return self._rng.choice(useless)
        best = max(worth, key=lambda value: worth[value])
        return best if worth[best] > 0 else None


def request_in(messages: Sequence[Message]) -> Request:
    """The request that a prompt makes; the demo's own prompts always parse."""
    from trainer.starter.checker import request_of

    request = request_of(messages[-1]["content"])
    if request is None:
        raise ValueError(f"not a prompt of the demo: {messages[-1]['content']!r}")
    return request


def read(request: Request, text: str) -> Facets | None:
    """What a reply is like, or None."""
    from trainer.starter.checker import read_reply

    return read_reply(request, text)


def _compare(first: Reading, second: Reading) -> PreferenceInput:
    gap = first.points - second.points
    if max(first.points, second.points) < NOT_FIT_TO_SEND:
        outcome = Outcome.BOTH_BAD
    elif abs(gap) < TIE_WITHIN:
        outcome = Outcome.TIE
    else:
        outcome = Outcome.FIRST if gap > 0 else Outcome.SECOND
    decided = outcome in (Outcome.FIRST, Outcome.SECOND)
    strength = (1 if abs(gap) < 1 else 2 if abs(gap) < 2.5 else 3) if decided else None
    return PreferenceInput(first.completion_id, second.completion_id, outcome, strength)


def _stars(points: float) -> int:
    """Points as 1 to 5."""
    return max(1, min(5, round(2.5 + points * 0.7)))


def _word(facets: Facets, facet: str) -> str:
    value: Enum = facets.value(facet)
    return str(value.value)
