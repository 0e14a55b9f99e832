"""PandaLM's test set: two responses to an instruction, compared by three annotators (0 tie, 1 first, 2 second)."""

from __future__ import annotations

from typing import Any

from storage.enums import Outcome
from storage.ingest.records import BadRow, Judgement, Record, Row, checked_text, require_different, value_of

_OUTCOMES = {0: Outcome.TIE, 1: Outcome.FIRST, 2: Outcome.SECOND}
ANNOTATORS = ("annotator1", "annotator2", "annotator3")


def parse(row: Row) -> Record:
    """The instruction and its input are the prompt; each annotator present is a judgement of their own."""
    parts = [part for name in ("instruction", "input") if isinstance(part := row.get(name), str) and part.strip()]
    instruction = checked_text("\n\n".join(parts), "instruction")
    first, second = (_response(value_of(row, name), name) for name in ("response1", "response2"))
    require_different(first, second)
    judgements = tuple(
        Judgement((0, 1), annotator=name, outcome=_outcome(row[name], name))
        for name in ANNOTATORS
        if row.get(name) is not None
    )
    if not judgements:
        raise BadRow("no annotator's choice")
    return Record([{"role": "user", "content": instruction}], (first, second), judgements)


def _response(value: Any, name: str) -> str:
    # Whoever published the file let "True" be read as a truth value: the model had written the word.
    return checked_text(str(value) if isinstance(value, bool) else value, name)


def _outcome(value: Any, name: str) -> Outcome:
    outcome = _OUTCOMES.get(value) if isinstance(value, int) and not isinstance(value, bool) else None
    if outcome is None:
        raise BadRow(f"'{name}' is not 0, 1 or 2")
    return outcome
