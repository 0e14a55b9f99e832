"""Rows into one file: JSON Lines, CSV, Parquet. Rows stream; a few thousand are held at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
        for row in table.named():
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def write_csv(table: Table, path: Path) -> int:
    """One line a row; a single message is its text, other lists and objects are JSON; formulas are guarded."""
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table.schema.names)
        for row in table.rows:
            writer.writerow(map(_cell, row))
            count += 1
    return count


def write_parquet(table: Table, path: Path) -> int:
    """Row groups of some thousand rows, with the table's schema; one is compressed while the next is read."""
    count = 0
    written: Future[None] | None = None
    with ThreadPoolExecutor(1) as other, pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for batch in batches(table.rows, ROW_GROUP):
            columns = to_table(batch, table.schema)
            if written is not None:
                written.result()
            written = other.submit(writer.write_table, columns)
            count += len(batch)
        if written is not None:
            written.result()
    return count


def batches(rows: Iterable[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    """The rows in lists of at most `size`."""
    stream = iter(rows)
    while batch := list(islice(stream, size)):
        yield batch


def _cell(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1 and _is_plain_message(value[0]):
        value = value[0]["content"]
    if isinstance(value, (list, tuple, dict)):
        return orjson.dumps(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    return guarded(value) if isinstance(value, str) else value


def _is_plain_message(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"role", "content"} and value["role"] in ("user", "assistant")
