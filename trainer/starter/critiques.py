"""Critiques of a reply: what one may mind about each facet, and what is wanted instead.

The wording of a critique belongs to one wanted value only, so that nobody has to guess what would mend it.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from trainer.starter.facets import (
    FACETS,
    Action,
    Apology,
    Critique,
    Facts,
    Greeting,
    Length,
    Request,
    Tone,
    Value,
)


class Wording(NamedTuple):
    """Texts by what the reply is like now (under None: for any), and fixes. Slots: {name} {order} {product} {days}."""

    texts: dict[Value | None, tuple[str, ...]]
    fixes: tuple[str, ...]


WORDINGS: dict[Value, Wording] = {
    Greeting.RIGHT: Wording(
        {
            Greeting.WRONG: (
                "You called the customer by the wrong name.",
                "That is not the customer's name.",
                "You called her by the wrong name.",
                "Wrong name in the greeting.",
                "The greeting names somebody else.",
                "He has a different name.",
            ),
            Greeting.MISSING: (
                "There is no greeting.",
                "You forgot to greet the customer.",
                "The reply starts without a greeting.",
                "Not even a hello.",
                "The customer is not addressed by name.",
                "It lacks a salutation.",
            ),
        },
        (
            "Greet {name} by name.",
            "The name is {name}.",
            "Begin with Dear {name}.",
            "Write Hello {name} first.",
            "Use the name {name}.",
        ),
    ),
    Greeting.MISSING: Wording(
        {
            None: (
                "No greeting is needed.",
                "Skip the greeting.",
                "I do not want a greeting here.",
                "The salutation is too much.",
                "Too formal, the hello can go.",
            )
        },
        ("Leave the greeting out.", "Start without the name.", "Drop the first line.", "Delete the salutation."),
    ),
    Apology.YES: Wording(
        {
            None: (
                "No apology.",
                "There is no apology.",
                "You never say sorry.",
                "You should apologise.",
                "The customer deserves an apology.",
                "Not a word of regret.",
                "It does not apologise for the trouble.",
            )
        },
        ("Say that you are sorry.", "Add an apology.", "Write that we are sorry.", "Start by saying sorry."),
    ),
    Apology.NO: Wording(
        {
            None: (
                "Stop saying sorry.",
                "You apologise for nothing.",
                "The apology is not needed.",
                "We should not apologise here.",
                "Too apologetic.",
                "There is no reason for regret.",
            )
        },
        ("Take the apology out.", "Leave out the sorry.", "Remove the apology.", "Answer without an apology."),
    ),
    Facts.RIGHT: Wording(
        {
            Facts.WRONG: (
                "The details of the order are wrong.",
                "You mixed up the facts.",
                "That is not what was ordered.",
                "The order details do not match.",
                "You describe another purchase.",
                "Wrong facts about the order.",
            ),
            Facts.MISSING: (
                "You do not mention the order.",
                "Repeat the order number and the product.",
                "It does not say which order this is about.",
                "The order number is missing.",
                "The facts of the case are not repeated.",
                "Which order? Which product?",
            ),
        },
        (
            "It is order {order}, the {product}.",
            "Write {order} and {product}.",
            "Mention the {product} from order {order}.",
            "Say that it is about the {product}, {order}.",
        ),
    ),
    Facts.MISSING: Wording(
        {
            None: (
                "No need to repeat the order.",
                "The customer knows what they ordered.",
                "Do not repeat the details of the order.",
                "The order number is noise here.",
                "Too many details about the purchase.",
            )
        },
        ("Leave the order details out.", "Cut the sentence about the order.", "Do not name order or product."),
    ),
    Action.CONCRETE: Wording(
        {
            None: (
                "Give a date.",
                "Too vague.",
                "When will something happen?",
                "What exactly will you do, and when?",
                "Say what happens next.",
                "There is no clear promise.",
                "I miss a concrete step.",
            )
        },
        (
            "Name the step and the day.",
            "Say what you will do and by when.",
            "Promise it for a certain day.",
            "Say in how many days it is done.",
        ),
    ),
    Action.VAGUE: Wording(
        {
            None: (
                "Do not promise a date.",
                "We cannot keep that promise.",
                "The promise is too firm.",
                "You cannot know the day.",
                "Too specific about what we will do.",
            )
        },
        ("Keep it open.", "Only say that we look into it.", "Leave the day out.", "Say it without a date."),
    ),
    Tone.WARM: Wording(
        {
            None: (
                "Be warmer.",
                "The tone is cold.",
                "Could you sound more friendly?",
                "It lacks warmth.",
                "Speak more kindly.",
                "This is not friendly enough.",
            )
        },
        ("Be warm and kind.", "End with a friendly wish.", "Show that you are happy to help.", "Add some warmth."),
    ),
    Tone.NEUTRAL: Wording(
        {
            None: (
                "The tone is not professional.",
                "Keep the tone neutral.",
                "Please be businesslike.",
                "The style should be plain and polite.",
                "Use a matter-of-fact tone.",
                "This does not sound like an office letter.",
            )
        },
        ("Write in a neutral tone.", "Be polite and plain.", "Close like a business letter.", "Stay factual in tone."),
    ),
    Length.SHORT: Wording(
        {
            None: (
                "Too long.",
                "Get to the point.",
                "This is too wordy.",
                "Half of it has nothing to do with the case.",
                "Cut the chatter.",
                "Be brief.",
            )
        },
        ("Keep only what matters.", "Drop every side remark.", "Make it short.", "No small talk at all."),
    ),
    Length.MEDIUM: Wording(
        {
            Length.SHORT: (
                "Too short.",
                "This is too brief.",
                "Say a little more.",
                "It could be somewhat longer.",
                "The reply is too thin.",
            ),
            Length.RAMBLING: (
                "It rambles.",
                "Too many side remarks.",
                "You ramble on and on.",
                "Fewer remarks, please.",
                "It strays from the matter too often.",
            ),
        },
        ("One side remark is enough.", "Aim for medium length.", "Have exactly one extra remark."),
    ),
}
"""How each wanted value is asked for. Nobody asks for a wrong name, wrong facts, rudeness, curtness or rambling."""


def wanted_values(facet: str, current: Value) -> list[Value]:
    """What somebody who minds this facet as it is now can want instead; may be empty for no facet."""
    return [value for value in FACETS[facet] if value in WORDINGS and value != current]


def write_critique(
    rng: random.Random, facet: str, current: Value, wanted: Value, request: Request, fix: bool | None = None
) -> Critique:
    """A critique of a reply whose `facet` is `current` and should be `wanted`; half of them with a fix.

    `fix` forces one or none. Raises KeyError when nobody asks for `wanted`, ValueError when the facet already is so.
    """
    if wanted == current or not isinstance(wanted, FACETS[facet]):
        raise ValueError(f"a critique of {facet} that is {current} cannot want {wanted}")
    wording = WORDINGS[wanted]
    texts = wording.texts.get(current) or wording.texts[None]
    slots = {"name": request.name, "order": request.order, "product": request.product}
    with_fix = rng.random() < 0.5 if fix is None else fix
    fixed = rng.choice(wording.fixes).format(**slots) if with_fix else None
    return Critique(rng.choice(texts).format(**slots), fixed, facet, wanted)
