"""The starter's language, written forwards: customer requests, replies with chosen facets, critiques of them.

Seeded: the same `random.Random` state gives the same text. `trainer.starter.checker` reads replies back.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import TypeVar

from trainer.starter import phrases
from trainer.starter.critiques import write_critique
from trainer.starter.facets import Action, Apology, Facets, Facts, Greeting, Length, Request, Tone, Value

__all__ = [
    "Composition",
    "Segment",
    "compose",
    "is_held_out",
    "revise",
    "sample_facets",
    "sample_prompts",
    "sample_request",
    "write_critique",
    "write_reply",
]

# How often the untuned starter is good, bad or middling. People who annotate must find something to say, yet a
# reply that names its customer or order must be right about them nearly always (the copying bars).
PRIOR: dict[type[Value], dict[Value, float]] = {
    Greeting: {Greeting.RIGHT: 0.60, Greeting.WRONG: 0.04, Greeting.MISSING: 0.36},
    Apology: {Apology.YES: 0.45, Apology.NO: 0.55},
    Facts: {Facts.RIGHT: 0.45, Facts.WRONG: 0.13, Facts.MISSING: 0.42},
    Action: {Action.CONCRETE: 0.45, Action.VAGUE: 0.55},
    Tone: {Tone.WARM: 0.25, Tone.NEUTRAL: 0.35, Tone.CURT: 0.23, Tone.RUDE: 0.17},
    Length: {Length.SHORT: 0.35, Length.MEDIUM: 0.40, Length.RAMBLING: 0.25},
}
V = TypeVar("V", bound=Value)
REMARKS_BY_LENGTH = {Length.SHORT: 0, Length.MEDIUM: 1, Length.RAMBLING: 3}

# What invented names are made of.
ONSETS = (*"bcdfghjklmnprstvwz", "br", "kr", "st", "th")
CODAS = ("", "", "n", "r", "l")


@dataclass(frozen=True)
class Segment:
    """One sentence of a reply and the slot it fills (greeting, opener, apology, facts, action, remark, closing)."""

    slot: str
    text: str


Composition = tuple[Segment, ...]
"""A reply as its sentences, in order."""


def is_held_out(intent: str, name: str, product: str) -> bool:
    """Whether this combination is kept from all training (one in ten, by a hash that never changes)."""
    digest = hashlib.sha256(f"{intent}|{name}|{product}".encode()).digest()
    return digest[0] % 10 == 0


def sample_request(rng: random.Random, held_out: bool, invented_names: float = 0.0) -> Request:
    """One request, from the held-out combinations or from the others.

    With probability `invented_names` the name is made of random syllables: training uses it so that the model
    learns to copy any name, not only those of the pool.
    """
    while True:
        intent = rng.choice(tuple(phrases.INTENTS))
        name = _invent_name(rng) if rng.random() < invented_names else rng.choice(phrases.NAMES)
        product = f"{rng.choice(phrases.QUALITIES)} {rng.choice(phrases.KINDS)}"
        if is_held_out(intent, name, product) == held_out:
            break
    slots = {
        "name": name,
        "order": f"#{rng.randrange(10_000, 100_000)}",
        "product": product,
        "days": str(rng.randrange(2, 30)),
    }
    statements, asks = phrases.INTENTS[intent]
    parts = [rng.choice(statements), rng.choice(asks)]
    if rng.random() < 0.5:
        parts.append(rng.choice(phrases.FAREWELLS))
        if rng.random() < 0.5:
            parts.insert(0, rng.choice(phrases.HELLOS).replace(",", "!"))
    else:
        parts.insert(0, f"{rng.choice(phrases.HELLOS)} {rng.choice(phrases.INTRODUCTIONS)}")
    text = " ".join(parts).format(**slots)
    return Request(intent, name, slots["order"], product, int(slots["days"]), text)


def sample_prompts(n: int, seed: int, held_out: bool) -> list[Request]:
    """`n` different requests; held-out ones are never seen by the starter's training."""
    rng = random.Random(seed)
    requests: dict[str, Request] = {}
    while len(requests) < n:
        request = sample_request(rng, held_out)
        requests.setdefault(request.text, request)
    return list(requests.values())


def sample_facets(rng: random.Random, uniform: bool = False) -> Facets:
    """Facets of one reply, each drawn by itself: as the starter writes them, or all values alike."""

    def draw(kind: type[V]) -> V:
        values = list(kind)
        weights = None if uniform else [PRIOR[kind][value] for value in values]
        return rng.choices(values, weights)[0]

    return Facets(draw(Greeting), draw(Apology), draw(Facts), draw(Action), draw(Tone), draw(Length))


def write_reply(rng: random.Random, request: Request, facets: Facets) -> str:
    """A reply to the request that has exactly these facets."""
    return as_text(compose(rng, request, facets))


def as_text(reply: Composition) -> str:
    """The sentences as the model writes them: a greeting has a line of its own, the rest is one paragraph."""
    lines = [segment.text for segment in reply if segment.slot == "greeting"]
    lines.append(" ".join(segment.text for segment in reply if segment.slot != "greeting"))
    return "\n".join(lines)


def compose(rng: random.Random, request: Request, facets: Facets) -> Composition:
    """The sentences of a reply with these facets; apology, facts and action come in any order, then the remarks."""
    body = [_action(rng, request, facets.action)]
    if facets.apology is Apology.YES:
        body.append(_apology(rng))
    if facets.facts is not Facts.MISSING:
        body.append(_facts(rng, request, facets.facts))
    rng.shuffle(body)
    body += _remarks(rng, REMARKS_BY_LENGTH[facets.length], ())
    opener = [_opener(rng, facets.tone)] if rng.random() < 0.5 else []
    greeting = [] if facets.greeting is Greeting.MISSING else [_greeting(rng, request, facets.greeting)]
    return (*greeting, *opener, *body, _closing(rng, facets.tone))


def revise(rng: random.Random, request: Request, reply: Composition, wanted: Value) -> Composition:
    """The same reply with one facet changed to `wanted` and every other sentence kept word for word.

    A new apology opens the middle, new facts stand before the action, a new remark before the closing.
    """
    if isinstance(wanted, Greeting):
        rest = _without(reply, "greeting")
        return rest if wanted is Greeting.MISSING else (_greeting(rng, request, wanted), *rest)
    if isinstance(wanted, Tone):
        swap = {"opener": _opener, "closing": _closing}
        return tuple(swap[part.slot](rng, wanted) if part.slot in swap else part for part in reply)
    if isinstance(wanted, Apology):
        rest = _without(reply, "apology")
        return rest if wanted is Apology.NO else _insert_before(rest, _BODY, _apology(rng))
    if isinstance(wanted, Action):
        return tuple(_action(rng, request, wanted) if part.slot == "action" else part for part in reply)
    if isinstance(wanted, Facts):
        return _revise_facts(rng, request, reply, wanted)
    if isinstance(wanted, Length):
        return _revise_length(rng, reply, wanted)
    raise TypeError(f"no facet has the value {wanted!r}")


_BODY = ("apology", "facts", "action", "remark")


def _revise_facts(rng: random.Random, request: Request, reply: Composition, wanted: Facts) -> Composition:
    if wanted is Facts.MISSING:
        return _without(reply, "facts")
    new = _facts(rng, request, wanted)
    if any(part.slot == "facts" for part in reply):
        return tuple(new if part.slot == "facts" else part for part in reply)
    return _insert_before(reply, ("action",), new)


def _revise_length(rng: random.Random, reply: Composition, wanted: Length) -> Composition:
    """The first remarks stay; what is too many goes, what is missing comes last."""
    count = REMARKS_BY_LENGTH[wanted]
    kept: list[Segment] = []
    remarks: list[str] = []
    for part in reply[:-1]:
        if part.slot != "remark" or len(remarks) < count:
            kept.append(part)
            remarks += [part.text] if part.slot == "remark" else []
    return (*kept, *_remarks(rng, count - len(remarks), tuple(remarks)), reply[-1])


def _without(reply: Composition, slot: str) -> Composition:
    return tuple(part for part in reply if part.slot != slot)


def _insert_before(reply: Composition, slots: tuple[str, ...], new: Segment) -> Composition:
    at = next(index for index, part in enumerate(reply) if part.slot in slots)
    return (*reply[:at], new, *reply[at:])


def _greeting(rng: random.Random, request: Request, value: Greeting) -> Segment:
    name = request.name
    while value is Greeting.WRONG and name == request.name:
        name = rng.choice(phrases.NAMES)
    return Segment("greeting", rng.choice(phrases.GREETINGS).format(name=name))


def _facts(rng: random.Random, request: Request, value: Facts) -> Segment:
    template = rng.choice(phrases.STATEMENTS)
    product, days = request.product, request.days
    if value is Facts.WRONG:
        # The order number stays right: a reply about the wrong thing, not a slip of the pen.
        if "{days}" in template and rng.random() < 0.5:
            days = rng.choice([day for day in range(2, 30) if day != days])
        else:
            product = _other_product(rng, product)
    return Segment("facts", template.format(order=request.order, product=product, days=days))


def _other_product(rng: random.Random, product: str) -> str:
    while True:
        other = f"{rng.choice(phrases.QUALITIES)} {rng.choice(phrases.KINDS)}"
        if other.split()[1] != product.split()[1]:
            return other


def _action(rng: random.Random, request: Request, value: Action) -> Segment:
    if value is Action.VAGUE:
        return Segment("action", rng.choice(phrases.VAGUE_ACTIONS))
    when = rng.choice(phrases.WHENS)
    when = when.format(n=rng.randrange(4, 20) if "{n}th" in when else rng.randrange(2, 10))
    return Segment("action", rng.choice(phrases.ACTIONS[request.intent]).format(when=when))


def _apology(rng: random.Random) -> Segment:
    return Segment("apology", rng.choice(phrases.APOLOGIES))


def _opener(rng: random.Random, tone: Tone) -> Segment:
    return Segment("opener", rng.choice(phrases.OPENERS[tone.value]))


def _closing(rng: random.Random, tone: Tone) -> Segment:
    return Segment("closing", rng.choice(phrases.CLOSINGS[tone.value]))


def _remarks(rng: random.Random, count: int, present: tuple[str, ...]) -> list[Segment]:
    choices = [remark for remark in phrases.REMARKS if remark not in present]
    return [Segment("remark", text) for text in rng.sample(choices, max(count, 0))]


def _invent_name(rng: random.Random) -> str:
    """Two or three random syllables."""
    syllables = (rng.choice(ONSETS) + rng.choice("aeiou") + rng.choice(CODAS) for _ in range(rng.randrange(2, 4)))
    return "".join(syllables).capitalize()
