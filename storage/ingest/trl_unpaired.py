"""TRL unpaired preferences: a completion with a thumb up or down, stored as a rating on the criterion "thumb"."""

from __future__ import annotations

from typing import Any

from storage.ingest.records import BadRow, Judgement, Record, Row, completion_of, prompt_of, value_of

_WORDS = {"true": True, "1": True, "false": False, "0": False}


def parse(row: Row) -> Record:
    """`prompt`, `completion`, `label`; standard or conversational."""
    thumb = _label(value_of(row, "label"))
    return Record(prompt_of(row), (completion_of(row, "completion"),), (Judgement((0,), thumbs=((0, thumb),)),))


def _label(value: Any) -> bool:
    known = _WORDS.get(str(value).strip().lower())  # bool, 0 or 1, or a CSV cell
    if known is None:
        raise BadRow("'label' is neither true nor false")
    return known
