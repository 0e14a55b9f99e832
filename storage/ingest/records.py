"""What every import format turns its rows into, and helpers to read chat messages out of foreign columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage.enums import Outcome
from storage.errors import Invalid
from storage.models import Message
from storage.prompts import clean_messages, storable
from storage.submissions import MAX_CHARACTERS

Row = Mapping[str, Any]


class BadRow(Invalid):
    """A row that cannot be imported; its text is the reason that is counted and shown beside the line number."""


@dataclass(frozen=True)
class CritiqueMark:
    """A critique of completion number `completion` of its record, optionally on the characters [start, end)."""

    completion: int
    text: str
    start: int | None = None
    end: int | None = None
    tags: tuple[str, ...] = ()
    fix: str | None = None  # what it should say instead


@dataclass(frozen=True)
class Judgement:
    """What one annotator said about some completions of a record, all given by their number in it.

    `shown` are the completions of the item; an outcome compares the first two of them.
    """

    shown: tuple[int, ...]
    annotator: str = ""  # empty: the format's only annotator
    outcome: Outcome | None = None
    strength: int | None = None  # of the outcome, as `storage.submissions.PreferenceInput` has it
    ranks: tuple[tuple[int, int], ...] = ()  # completion, rank: 1 for the best, equal ones are ties
    thumbs: tuple[tuple[int, bool], ...] = ()
    ratings: tuple[tuple[int, str, int], ...] = ()  # completion, name of a criterion of the project, value
    critiques: tuple[CritiqueMark, ...] = ()
    refinements: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Record:
    """A prompt with the completions and judgements that one row of a file holds."""

    messages: list[Message]
    completions: tuple[str, ...] = ()
    judgements: tuple[Judgement, ...] = ()


def comparison(messages: list[Message], first: str, second: str, outcome: Outcome = Outcome.FIRST) -> Record:
    """A record of one annotator's comparison; raises `BadRow` when the texts do not differ."""
    require_different(first, second)
    return Record(messages, (first, second), (Judgement((0, 1), outcome=outcome),))


def require_different(first: str, second: str) -> None:
    """Raise `BadRow` unless there is something to choose between."""
    if first == second:
        raise BadRow("the two completions are the same text")


def value_of(row: Row, name: str) -> Any:
    """The column `name`; raises `BadRow` when it is missing or null."""
    value = row.get(name)
    if value is None:
        raise BadRow(f"no value for '{name}'")
    return value


def text_of(row: Row, name: str) -> str:
    """The column `name` as text with something in it."""
    return checked_text(value_of(row, name), name)


def checked_text(value: Any, name: str) -> str:
    """`value` when it is a text with something in it; NUL and lone surrogates, which no store holds, are replaced."""
    if not isinstance(value, str):
        raise BadRow(f"'{name}' is not a text")
    if not value.strip():
        raise BadRow(f"'{name}' is empty")
    return storable(value)


def checked_feedback(value: Any, name: str) -> str:
    """`value` as a critique or refinement: no longer than what the page takes either."""
    text = checked_text(value, name).strip()
    if len(text) > MAX_CHARACTERS:
        raise BadRow(f"'{name}' has more than {MAX_CHARACTERS:,} characters")
    return text


def prompt_of(row: Row, name: str = "prompt") -> list[Message]:
    """The column `name` as a prompt: a text is one message of the user, a list is chat messages."""
    value = decoded(value_of(row, name))
    if isinstance(value, list):
        return checked_prompt(messages_of(value, name))
    return [{"role": "user", "content": checked_text(value, name)}]


def completion_of(row: Row, name: str) -> str:
    """The column `name` as a completion: a text, or a list with one message of the assistant."""
    value = decoded(value_of(row, name))
    if not isinstance(value, list):
        return checked_text(value, name)
    messages = messages_of(value, name)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise BadRow(f"'{name}' is not exactly one message of the assistant")
    return checked_text(messages[0]["content"], name)


def messages_of(value: list[Any], name: str) -> list[Message]:
    """A list of {"role", "content"} as messages, without other keys."""
    messages = []
    for entry in value:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("role", "content")):
            raise BadRow(f"'{name}' holds a message without role and content")
        messages.append({"role": entry["role"], "content": entry["content"]})
    return messages


def checked_prompt(messages: list[Message]) -> list[Message]:
    """Messages that the store takes as a prompt: known roles, the user's turn last and not empty."""
    try:
        return clean_messages(messages)
    except Invalid as error:
        raise BadRow(str(error)) from error


def decoded(value: Any) -> Any:
    """CSV has no lists: a cell that is a JSON array of messages is read as one; everything else stays as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("[{"):
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed if all(isinstance(entry, dict) and "role" in entry for entry in parsed) else value
