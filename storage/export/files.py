"""Rows into one file: JSON Lines, CSV, Parquet. Rows stream; a few thousand are held at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from storage.arrow import to_table
from storage.export.rows import Table
from storage.spreadsheets import guarded

ROW_GROUP = 2_000  # few enough that a writer holds little, enough that columns compress


def write_jsonl(table: Table, path: Path) -> int:
    """One JSON object a line; times in ISO 8601. Returns the number of rows."""
    count = 0
    with path.open("wb") as file:
        for row in table.rows:
            file.write(orjson.dumps(_in_order(row, table), option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def write_csv(table: Table, path: Path) -> int:
    """One line a row; a single message is its text, other lists and objects are JSON; formulas are guarded."""
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table.schema.names)
        for row in table.rows:
            writer.writerow([_cell(row[name]) for name in table.schema.names])
            count += 1
    return count


def write_parquet(table: Table, path: Path) -> int:
    """Row groups of some thousand rows, with the table's schema."""
    count = 0
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for batch in batches(table.rows, ROW_GROUP):
            writer.write_table(to_table(batch, table.schema))
            count += len(batch)
    return count


def batches(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """The rows in lists of at most `size`."""
    stream = iter(rows)
    while batch := list(islice(stream, size)):
        yield batch


def _in_order(row: dict[str, Any], table: Table) -> dict[str, Any]:
    return {name: row[name] for name in table.schema.names}


def _cell(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1 and _is_plain_message(value[0]):
        value = value[0]["content"]
    if isinstance(value, (list, dict)):
        return orjson.dumps(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    return guarded(value) if isinstance(value, str) else value


def _is_plain_message(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"role", "content"} and value["role"] in ("user", "assistant")
