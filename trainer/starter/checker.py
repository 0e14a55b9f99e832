"""The grammar read backwards: from a reply to its facets, from a prompt to its request.

For tests, benchmarks and simulated annotators only. No training code imports this: a model that is trained against
the checker would learn the checker, not what people want.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from trainer.starter import phrases
from trainer.starter.facets import Action, Apology, Facets, Facts, Greeting, Length, Request, Tone, Value
from trainer.starter.grammar import REMARKS_BY_LENGTH

SLOTS = {
    "name": r"(?P<name>[^\W\d_]+)",
    "order": r"(?P<order>#\d+)",
    "product": rf"(?P<product>(?:{'|'.join(phrases.QUALITIES)}) (?:{'|'.join(phrases.KINDS)}))",
    "days": r"(?P<days>\d+)",
    "when": "(?:" + "|".join(re.escape(when).replace(r"\{n\}", r"\d+") for when in phrases.WHENS) + ")",
}


class Sentence(NamedTuple):
    """A sentence that was recognised: its slot, what the slot's value is where the words tell, and what it names."""

    slot: str
    value: Value | None
    named: dict[str, str]


class Mentions(NamedTuple):
    """Names and order numbers that a reply states, as written."""

    names: tuple[str, ...]
    orders: tuple[str, ...]


def read_reply(request: Request, text: str) -> Facets | None:
    """The facets of a reply to this request; None when it is not a sentence-by-sentence product of the grammar.

    The order of slots is the grammar's: greeting, opener, the middle in any order, closing. An action must be one of
    the request's intent.
    """
    sentences = _parse(text, request.intent)
    return None if sentences is None else _facets(request, sentences)


def mentions(text: str) -> Mentions:
    """What names a reply greets and what order numbers it states, whether the rest of it parses or not."""
    head, newline, _ = text.partition("\n")
    names = (head.split()[-1].rstrip(","),) if newline and head.split() else ()
    return Mentions(names, tuple(re.findall(r"#\w*", text)))


def request_of(prompt_text: str) -> Request | None:
    """The request that a customer's message makes; None for a message that the grammar does not write."""
    for intent, pattern in _request_patterns():
        if match := pattern.fullmatch(prompt_text):
            slots = {key.rstrip("0123456789"): value for key, value in match.groupdict().items() if value}
            return Request(intent, slots["name"], slots["order"], slots["product"], int(slots["days"]), prompt_text)
    return None


def _facets(request: Request, sentences: list[Sentence]) -> Facets | None:
    by_slot: dict[str, list[Sentence]] = {}
    for sentence in sentences:
        by_slot.setdefault(sentence.slot, []).append(sentence)
    if any(len(by_slot.get(slot, ())) > 1 for slot in ("apology", "facts")) or len(by_slot.get("action", ())) != 1:
        return None
    tones = {sentence.value for slot in ("opener", "closing") for sentence in by_slot.get(slot, ())}
    remarks = len(by_slot.get("remark", ()))
    length = max((count, length.value) for length, count in REMARKS_BY_LENGTH.items() if count <= remarks)[1]
    tone, action = tones.pop(), by_slot["action"][0].value
    if tones or not isinstance(tone, Tone) or not isinstance(action, Action):
        return None
    return Facets(
        greeting=_greeting(request, by_slot.get("greeting", [])),
        apology=Apology.YES if "apology" in by_slot else Apology.NO,
        facts=_facts(request, by_slot.get("facts", [])),
        action=action,
        tone=tone,
        length=Length(length),
    )


def _greeting(request: Request, sentences: Sequence[Sentence]) -> Greeting:
    if not sentences:
        return Greeting.MISSING
    return Greeting.RIGHT if sentences[0].named["name"] == request.name else Greeting.WRONG


def _facts(request: Request, sentences: Sequence[Sentence]) -> Facts:
    if not sentences:
        return Facts.MISSING
    truth = {"order": request.order, "product": request.product, "days": str(request.days)}
    named = sentences[0].named
    return Facts.RIGHT if all(truth[key] == value for key, value in named.items()) else Facts.WRONG


def _parse(text: str, intent: str) -> list[Sentence] | None:
    """The text as sentences in the grammar's order, or None. Every sentence ends in . or ! and fits one pattern."""
    sentences: list[Sentence] = []
    head, newline, rest = text.partition("\n")
    if newline:
        greeting = _recognise(head, _greeting_patterns())
        if greeting is None:
            return None
        sentences.append(greeting)
    else:
        rest = head
    patterns = _sentence_patterns(intent)
    position = 0
    while position < len(rest):
        step = _next_sentence(rest, position, patterns)
        if step is None:
            return None
        sentence, position = step
        sentences.append(sentence)
    body = sentences[1:] if newline else sentences
    slots = [sentence.slot for sentence in body]
    if len(slots) < 2 or slots[-1] != "closing" or "closing" in slots[:-1] or "opener" in slots[1:]:
        return None
    return sentences


def _next_sentence(
    text: str, position: int, patterns: Sequence[tuple[re.Pattern[str], str, Value | None]]
) -> tuple[Sentence, int] | None:
    """The one pattern that fits up to a space or the end. The grammar has no two that could."""
    for pattern, slot, value in patterns:
        match = pattern.match(text, position)
        if match and (match.end() == len(text) or (text[match.end()] == " " and match.end() + 1 < len(text))):
            return Sentence(slot, value, match.groupdict()), match.end() + 1
    return None


def _recognise(text: str, patterns: Sequence[re.Pattern[str]]) -> Sentence | None:
    for pattern in patterns:
        if match := pattern.fullmatch(text):
            return Sentence("greeting", None, match.groupdict())
    return None


def _pattern(template: str) -> str:
    """The template as a regular expression, its slots as named groups."""
    return re.sub(r"\\\{(\w+)\\\}", lambda slot: SLOTS[slot.group(1)], re.escape(template))


@cache
def _greeting_patterns() -> list[re.Pattern[str]]:
    return [re.compile(_pattern(template)) for template in phrases.GREETINGS]


@cache
def _sentence_patterns(intent: str) -> list[tuple[re.Pattern[str], str, Value | None]]:
    """(pattern, slot, value told by the words alone); the longest template first, so that none hides another."""
    rows: list[tuple[str, str, Value | None]] = []
    for tone in Tone:
        rows += [(text, "opener", tone) for text in phrases.OPENERS[tone.value]]
        rows += [(text, "closing", tone) for text in phrases.CLOSINGS[tone.value]]
    rows += [(text, "apology", None) for text in phrases.APOLOGIES]
    rows += [(text, "facts", None) for text in phrases.STATEMENTS]
    rows += [(text, "action", Action.CONCRETE) for text in phrases.ACTIONS[intent]]
    rows += [(text, "action", Action.VAGUE) for text in phrases.VAGUE_ACTIONS]
    rows += [(text, "remark", None) for text in phrases.REMARKS]
    rows.sort(key=lambda row: -len(row[0]))
    return [(re.compile(_pattern(text)), slot, value) for text, slot, value in rows]


@cache
def _request_patterns() -> list[tuple[str, re.Pattern[str]]]:
    """One pattern an intent and a statement; slots of one name are numbered, as a group's name may stand once only."""
    return [
        (intent, re.compile("|".join(_numbered(_request_forms(statement, asks)))))
        for intent, (statements, asks) in phrases.INTENTS.items()
        for statement in statements
    ]


def _request_forms(statement: str, asks: Sequence[str]) -> Iterator[str]:
    """The two shapes of a message: introduction first, or farewell last."""

    def any_of(templates: Sequence[str]) -> str:
        return "(?:" + "|".join(_pattern(template) for template in templates) + ")"

    hello = any_of(phrases.HELLOS)
    core = f"{_pattern(statement)} {any_of(asks)}"
    for introduction in phrases.INTRODUCTIONS:
        yield f"{hello} {_pattern(introduction)} {core}"
    shout = any_of([text.replace(",", "!") for text in phrases.HELLOS])
    for farewell in phrases.FAREWELLS:
        yield f"(?:{shout} )?{core} {_pattern(farewell)}"


def _numbered(forms: Iterator[str]) -> Iterator[str]:
    for number, form in enumerate(forms):
        yield re.sub(r"\(\?P<(\w+)>", rf"(?P<\g<1>{number}>", form)
