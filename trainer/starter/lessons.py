"""What the starter is taught: conversations of the three tasks, each turn marked with how much it counts.

A reply to a request; a refinement of a draft by a critique (sometimes a second one after it); yes or no to several
critiques of one reply; and, as an exercise that makes judging learnable, what a reply is like and what critiques of it
want. Drafts drawn from the starter's own habits count as replies too, so one conversation teaches more than one thing.
Everything is built from combinations that are not held out.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from storage.wordings import JUDGE, NO, YES
from trainer import templates
from trainer.starter import grammar
from trainer.starter.critiques import WORDINGS, wanted_values
from trainer.starter.facets import (
    FACETS,
    Action,
    Apology,
    ChatMessage,
    Critique,
    Facets,
    Facts,
    Greeting,
    Length,
    Request,
    Tone,
)

SYSTEM_PROMPTS = (
    "You answer customers of a shop.",
    "You are a helpful assistant.",
    "You work in customer care.",
)
READ = 0.3
"""Weight of what a customer or a critic says: whoever can continue it has understood it."""
JUDGEMENTS = 6
JUDGE_WEIGHT = 2.0
DESCRIBED_CRITIQUES = 2
UNUSUAL = frozenset({Greeting.MISSING, Apology.NO, Facts.MISSING, Action.VAGUE, Tone.NEUTRAL, Length.MEDIUM})
"""What fewer people ask for."""
KEEP_UNUSUAL = 0.4
"""Were every wish as frequent as its opposite, neither the reply nor the critique alone would tell anything of the
verdict, and learning to judge would not start (it is an exclusive or). So the judge's lessons have few of these."""


class Turn(NamedTuple):
    """One message and the weight of its tokens in the loss: 1 for what is to be written, less for what is read."""

    role: str
    content: str
    weight: float


Lesson = list[Turn]


def write_lesson(rng: random.Random, shares: tuple[float, float, float, float]) -> Lesson:
    """One conversation; `shares` are the odds of a reply, a refinement, a judgement and a description."""
    request = grammar.sample_request(rng, held_out=False, invented_names=0.3)
    task = rng.choices((_reply, _refinement, _judgement, _description), shares)[0]
    turns = [Turn(message["role"], message["content"], READ) for message in request.messages]
    if rng.random() < 0.05:
        turns.insert(0, Turn("system", rng.choice(SYSTEM_PROMPTS), 0.0))
    return [*turns, *task(rng, request)]


def _reply(rng: random.Random, request: Request) -> Lesson:
    return [Turn("assistant", grammar.write_reply(rng, request, grammar.sample_facets(rng)), 1.0)]


def _draft(rng: random.Random, request: Request) -> tuple[Facets, grammar.Composition, Turn]:
    """A reply to work on: half as the starter writes (and learned as such), half of any kind (only read)."""
    uniform = rng.random() < 0.5
    facets = grammar.sample_facets(rng, uniform=uniform)
    draft = grammar.compose(rng, request, facets)
    return facets, draft, Turn("assistant", grammar.as_text(draft), 0.0 if uniform else 1.0)


def _refinement(rng: random.Random, request: Request) -> Lesson:
    facets, draft, turn = _draft(rng, request)
    turns = [turn]
    for _ in range(rng.choice((1, 2))):
        critique = _criticise(rng, request, facets)
        instruction = _instruction(templates.refine_messages((), turns[-1].content, critique.full))
        draft = grammar.revise(rng, request, draft, critique.wanted)
        facets = facets.but(critique.wanted)
        turns += [Turn("user", instruction, READ), Turn("assistant", grammar.as_text(draft), 1.0)]
    return turns


def _judgement(rng: random.Random, request: Request) -> Lesson:
    facets, _, turn = _draft(rng, request)
    turns = [turn]
    for _ in range(JUDGEMENTS):
        critique, met = critique_to_judge(rng, request, facets, KEEP_UNUSUAL)
        wording = rng.randrange(len(JUDGE))
        instruction = _instruction(templates.judge_messages((), turn.content, critique.full, wording))
        verdict = YES if met else NO
        turns += [Turn("user", instruction, READ), Turn("assistant", verdict, JUDGE_WEIGHT)]
    return turns


def _description(rng: random.Random, request: Request) -> Lesson:
    """What the reply is like in each facet, then what critiques of it want: the two halves of a judgement."""
    facets, _, turn = _draft(rng, request)
    turns = [turn]
    for facet in rng.sample(tuple(FACETS), len(FACETS)):
        turns += [Turn("user", f"{facet}?", READ), Turn("assistant", facets.value(facet).value, JUDGE_WEIGHT)]
    for _ in range(DESCRIBED_CRITIQUES):
        critique, _ = critique_to_judge(rng, request, facets)
        asked = f"{critique.facet} {critique.wanted.value}"
        turns += [
            Turn("user", f"Feedback: {critique.full}\nWhat is wanted?", READ),
            Turn("assistant", asked, JUDGE_WEIGHT),
        ]
    return turns


def critique_to_judge(
    rng: random.Random, request: Request, facets: Facets, keep_unusual: float = 1.0
) -> tuple[Critique, bool]:
    """A critique that a reply with these facets meets or does not, evenly often, and which of the two.

    When it is met, the critique speaks of an earlier draft, whose facet had any other value. Unusual wishes are
    passed over but for a share of `keep_unusual`.
    """
    met = rng.random() < 0.5
    while True:
        facet = rng.choice(tuple(FACETS))
        value = facets.value(facet)
        wanted = value if met else rng.choice(wanted_values(facet, value))
        if wanted not in WORDINGS or (wanted in UNUSUAL and rng.random() >= keep_unusual):
            continue
        before = rng.choice([other for other in FACETS[facet] if other is not wanted]) if met else value
        return grammar.write_critique(rng, facet, before, wanted, request), met


def _criticise(rng: random.Random, request: Request, facets: Facets) -> Critique:
    facet = rng.choice(tuple(FACETS))
    current = facets.value(facet)
    return grammar.write_critique(rng, facet, current, rng.choice(wanted_values(facet, current)), request)


def _instruction(messages: list[ChatMessage]) -> str:
    """The last turn of a template's conversation: what is asked about the reply before it."""
    return messages[-1]["content"]
