"""What the people of one hidden taste say about a pool of replies, arm by arm."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import NamedTuple

from benchmarks.language_feedback.arms import USUAL, Arm, Crowd
from feedback_app.demo_people import Annotator, Habits, Taste
from storage.models import Message
from storage.submissions import CritiqueInput, Submission


class Shown(NamedTuple):
    """A prompt with two replies of the base model: (completion id, text)."""

    messages: list[Message]
    completions: list[tuple[int, str]]


def taste_of(seed: int, crowd: Crowd) -> Taste:
    """The hidden taste of a seed."""
    return Taste(seed, rules=crowd.rules)


def feedback(arm: Arm, seed: int, shown: list[Shown], quality_id: int, crowd: Crowd = USUAL) -> list[Submission]:
    """One submission for each pair of replies, as this arm enters them.

    The dice are thrown anew for each pair, from seed and prompt, so that whatever arms have in common is the same.
    """
    taste = taste_of(seed, crowd)
    said = []
    for pair in shown:
        rng = random.Random(f"{seed} {pair.messages[-1]['content']}")
        habits = Habits(critiques=1.0, refinements=1.0, mistaken=arm.mistaken, noise=crowd.noise)
        said.append(Annotator(taste, rng, habits).judge(pair.messages, pair.completions, quality_id))
    if arm.shuffled:
        said = _shuffled(said, seed)
    return [_entered(arm, one) for one in said]


def _entered(arm: Arm, said: Submission) -> Submission:
    return replace(
        said,
        ratings=said.ratings if arm.ratings else [],
        preference=said.preference if arm.ratings else None,
        critiques=said.critiques if arm.critiques or arm.rewritten else [],
        refinements=said.refinements if arm.rewritten else [],
    )


def _shuffled(said: list[Submission], seed: int) -> list[Submission]:
    """The same critiques, each on the criticised reply of another pair: all move on by one, in a random order."""
    criticised = [index for index, one in enumerate(said) if one.critiques]
    random.Random(f"shuffle {seed}").shuffle(criticised)
    moved = list(said)
    for here, there in zip(criticised, criticised[1:] + criticised[:1], strict=True):
        completion = said[here].critiques[0].completion_id
        moved[here] = replace(said[here], critiques=[CritiqueInput(completion, said[there].critiques[0].text)])
    return moved


def says_something(said: Submission) -> bool:
    """Whether anything of it can be stored."""
    return bool(said.ratings or said.preference or said.critiques or said.refinements)
