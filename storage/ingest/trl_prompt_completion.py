"""TRL prompt-completion rows: demonstrations. They become completions; nobody judged them, so no annotation."""

from __future__ import annotations

from storage.ingest.records import Record, Row, completion_of, prompt_of


def parse(row: Row) -> Record:
    """`prompt`, `completion`; standard or conversational."""
    return Record(prompt_of(row), (completion_of(row, "completion"),))
