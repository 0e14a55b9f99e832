"""The arms: what of the people's feedback is entered, and how it is trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from feedback_app.demo_people import NOISE

SIZES = (50, 200, 800)
STEPS = {50: 40, 200: 80, 800: 160}  # optimiser steps of every arm of a size
BATCH = 16
UNSEEN = 100  # prompts that the trained policies write for


@dataclass(frozen=True)
class Crowd:
    """What all people of a run have in common."""

    rules: int = 2  # facets of a taste that are liked otherwise in some matters
    noise: float = NOISE


USUAL = Crowd()


@dataclass(frozen=True)
class Arm:
    """One way of using the same people."""

    name: str
    ratings: bool = True  # comparisons and ratings are entered
    critiques: bool = False  # critiques are entered, and refined
    times: int = 1  # so many times as many annotations: what the time of the critiques would have bought
    mistaken: float = 0.1  # share of critiques that ask for something useless
    shuffled: bool = False  # each critique stands with another reply
    rewritten: bool = False  # people rewrite what they criticise; no model does
    settings: dict[str, Any] = field(default_factory=dict)  # of the DPO run


BASE = Arm("base", ratings=False)
RATINGS = Arm("ratings")
LONGER = Arm("ratings x3", times=3)
DEFAULT = Arm("ratings + critiques", critiques=True)
SHUFFLED = Arm("ratings + shuffled critiques", critiques=True, shuffled=True)
ARMS = (
    BASE,
    RATINGS,
    Arm("ratings + SFT on the best", settings={"sft_weight": 4.0}),
    LONGER,
    Arm("critiques only", ratings=False, critiques=True),
    DEFAULT,
    SHUFFLED,
    Arm("ratings + critiques, 40 % wrong", critiques=True, mistaken=0.4),
    Arm("ratings + critiques, 70 % wrong", critiques=True, mistaken=0.7),
    Arm("ratings + human refinements", rewritten=True),
)
SHORT = (BASE, RATINGS, DEFAULT, SHUFFLED)
"""What the verdict rests on: the arms of the short version."""


def by_name(name: str) -> Arm:
    """The arm of this name; StopIteration for none."""
    return next(arm for arm in ARMS if arm.name == name)
