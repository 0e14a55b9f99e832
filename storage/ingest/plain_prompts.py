"""Plain prompts: a `prompt` column with a text or chat messages; JSONL, CSV or Parquet."""

from __future__ import annotations

from storage.ingest.records import Record, Row, prompt_of


def parse(row: Row) -> Record:
    """A prompt without completions."""
    return Record(prompt_of(row))
