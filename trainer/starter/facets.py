"""What the starter's language can vary: a customer's request, and the facets of a reply to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypedDict


class ChatMessage(TypedDict):
    """One message of a conversation, as chat templates and TRL take it."""

    role: str
    content: str


class Value(Enum):
    """A value of some facet. Plain, not str: a missing greeting is not equal to missing facts."""


class Greeting(Value):
    """Does the reply greet the customer, and by the right name?"""

    RIGHT = "right"
    WRONG = "wrong"
    MISSING = "missing"


class Apology(Value):
    """Does the reply apologise?"""

    YES = "yes"
    NO = "no"


class Facts(Value):
    """Does the reply repeat order number and product (and days), and are they the customer's?"""

    RIGHT = "right"
    WRONG = "wrong"
    MISSING = "missing"


class Action(Value):
    """Does the reply say what will be done and by when, or stay vague?"""

    CONCRETE = "concrete"
    VAGUE = "vague"


class Tone(Value):
    """How the reply speaks."""

    WARM = "warm"
    NEUTRAL = "neutral"
    CURT = "curt"
    RUDE = "rude"


class Length(Value):
    """How much is said beside the matter: nothing, one remark, or three and more."""

    SHORT = "short"
    MEDIUM = "medium"
    RAMBLING = "rambling"


FACETS: dict[str, type[Value]] = {
    "greeting": Greeting,
    "apology": Apology,
    "facts": Facts,
    "action": Action,
    "tone": Tone,
    "length": Length,
}
"""Every facet by its name (the field of `Facets`), with its values."""


def facet_of(value: Value) -> str:
    """The name of the facet that this is a value of."""
    return type(value).__name__.lower()


@dataclass(frozen=True)
class Facets:
    """What a reply is like, one value a facet."""

    greeting: Greeting
    apology: Apology
    facts: Facts
    action: Action
    tone: Tone
    length: Length

    def value(self, facet: str) -> Value:
        """The value of the facet with this name; AttributeError for a name that is none."""
        value: Value = getattr(self, facet)
        return value

    def but(self, wanted: Value) -> Facets:
        """The same with one facet changed to this value."""
        change: dict[str, Any] = {facet_of(wanted): wanted}
        return replace(self, **change)


@dataclass(frozen=True)
class Request:
    """A customer's message and what is in it. `days` is how long ago the customer ordered."""

    intent: str
    name: str
    order: str
    product: str
    days: int
    text: str

    @property
    def messages(self) -> list[ChatMessage]:
        """The request as a prompt: one user message."""
        return [{"role": "user", "content": self.text}]


@dataclass(frozen=True)
class Critique:
    """What somebody minds about one facet of a reply, and what they want instead.

    `text` stands by itself; `fix`, when there is one, says how to mend it.
    """

    text: str
    fix: str | None
    facet: str
    wanted: Value

    @property
    def full(self) -> str:
        """Text and fix in one string, as the refine and judge tasks read it."""
        return self.text if self.fix is None else f"{self.text} {self.fix}"
