"""Whole annotations as `storage.export.annotation_bundles` writes them: everything one annotator said about an item."""

from __future__ import annotations

import json
from typing import Any

from storage.enums import Outcome
from storage.ingest.records import (
    BadRow,
    CritiqueMark,
    Judgement,
    Record,
    Row,
    checked_feedback,
    checked_text,
    prompt_of,
    value_of,
)

Numbers = dict[int, int]  # completion id in the file -> its number in the record


def parse(row: Row) -> Record:
    """One item with one judgement. Only live annotations are taken: others count no more, or never did (gold items)."""
    state = row.get("state") or "live"
    if state != "live":
        raise BadRow(f"the annotation is {state}")
    completions = _objects(row, "completions")
    numbers = {_whole(one, "id"): number for number, one in enumerate(completions)}
    if not completions or len(numbers) < len(completions):
        raise BadRow("'completions' is empty or holds one twice")
    compared = _comparison(row, numbers)
    rest = [number for number in range(len(completions)) if number not in compared[:2]]
    judgement = Judgement(
        shown=(*compared[:2], *rest),
        annotator=_annotator(row),
        outcome=compared[2] if compared else None,
        strength=compared[3] if compared else None,
        ranks=tuple((_number(one, numbers), _whole(one, "rank")) for one in _objects(row, "rankings")),
        ratings=tuple(
            (_number(one, numbers), checked_text(one.get("criterion"), "criterion"), _whole(one, "value"))
            for one in _objects(row, "ratings")
        ),
        critiques=tuple(_critique(one, numbers, completions) for one in _objects(row, "critiques")),
        refinements=tuple(
            (_number(one, numbers), checked_feedback(one.get("text"), "refinement"))
            for one in _objects(row, "refinements")
        ),
    )
    texts = tuple(checked_text(one.get("text"), "completions") for one in completions)
    return Record(prompt_of(row), texts, (judgement,))


def _annotator(row: Row) -> str:
    return checked_text(row.get("annotator") or "somebody", "annotator")


def _comparison(row: Row, numbers: Numbers) -> tuple[()] | tuple[int, int, Outcome, int | None]:
    """First, second, outcome and strength; empty where nothing was compared."""
    compared = _objects(row, "preferences")
    if not compared:
        return ()
    one = compared[0]  # the page asks for one comparison an item
    try:
        outcome = Outcome(str(one.get("outcome")))
    except ValueError as error:
        raise BadRow("'preferences' holds an outcome that is not known") from error
    strength = None if one.get("strength") is None else _whole(one, "strength")
    if strength not in (None, 1, 2, 3):
        raise BadRow("'preferences' holds a strength that is not 1, 2 or 3")
    return _number(one, numbers, "first_id"), _number(one, numbers, "second_id"), outcome, strength


def _critique(one: dict[str, Any], numbers: Numbers, completions: list[dict[str, Any]]) -> CritiqueMark:
    number = _number(one, numbers)
    start, end = (None if one.get(name) is None else _whole(one, name) for name in ("span_start", "span_end"))
    if (start is None) != (end is None) or (
        start is not None and end is not None and not 0 <= start < end <= len(str(completions[number].get("text")))
    ):
        raise BadRow(f"a critique's span {start} to {end} is outside the text")
    tags = one.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise BadRow("'critiques' holds tags that are not texts")
    # Tags or a fix alone are a critique, too.
    text, fix = (checked_feedback(one[name], name) if one.get(name) else "" for name in ("text", "fix"))
    return CritiqueMark(number, text, start, end, tuple(tags), fix or None)


def _number(one: dict[str, Any], numbers: Numbers, name: str = "completion_id") -> int:
    number = numbers.get(_whole(one, name))
    if number is None:
        raise BadRow(f"'{name}' is of a completion that the item does not have")
    return number


def _whole(one: dict[str, Any], name: str) -> int:
    value = one.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRow(f"'{name}' is not a whole number")
    return value


def _objects(row: Row, name: str) -> list[dict[str, Any]]:
    """The column as a list of objects; a CSV cell holds it as JSON."""
    value = value_of(row, name) if name == "completions" else row.get(name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRow(f"'{name}' is not JSON") from error
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise BadRow(f"'{name}' is not a list of objects")
    return value
