"""Rows out of files, one at a time: JSON Lines, JSON arrays, CSV, Parquet, each also gzipped where that is usual.

Memory does not grow with the file. What cannot be read is a row with a problem instead of a value, so that the rest
of the file still is.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import ijson
import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import Invalid, NotFound
from storage.ingest.records import BadRow
from storage.spreadsheets import unguarded

MAX_LINE = 64 << 20  # bytes of one JSON line; a longer one is skipped instead of filling the memory
_BATCH = 500


class FileRow(NamedTuple):
    """A row's line number (JSON Lines, CSV) or record number (arrays, Parquet), from 1, and its value or problem."""

    number: int
    value: dict[str, Any] | None
    problem: str | None = None

    def content(self) -> dict[str, Any]:
        """The value; raises `BadRow` with the problem when there is none."""
        if self.value is None:
            raise BadRow(self.problem or "unreadable")
        return self.value


def read_rows(path: Path) -> Iterator[FileRow]:
    """Every row of the file; raises `NotFound` or `Invalid` at once when there is no such file or kind of file."""
    if not path.exists():
        raise NotFound(f"there is no file {path}; check the path")
    if not path.is_file():
        raise Invalid(f"{path} is not a file; name one file to import")
    try:
        with _opened(path) as file:
            start = file.peek(4096)  # type: ignore[attr-defined]  # both openers give a buffered reader
    except (OSError, EOFError, zlib.error) as error:
        raise Invalid(f"{path} cannot be read: {error}") from error
    if not start.strip(b"\xef\xbb\xbf \t\r\n"):
        raise Invalid(f"{path} is empty; there is nothing to import")
    if start.startswith(b"PAR1"):
        return _parquet_rows(path)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Invalid(f"{path} is in UTF-16; save it as UTF-8 first")
    if ".csv" in [suffix.lower() for suffix in path.suffixes]:
        return _csv_rows(path)
    first = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if first == b"[":
        return _array_rows(path)
    if first == b"{" or {".jsonl", ".ndjson", ".json"} & {suffix.lower() for suffix in path.suffixes}:
        return _json_lines(path)
    raise Invalid(
        f"{path} is neither JSON Lines, a JSON array, CSV (named .csv) nor Parquet; convert it to one of them"
    )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if zipped:
            with gzip.open(raw) as file:
                yield io.BufferedReader(file)
        else:
            yield raw


def _json_lines(path: Path) -> Iterator[FileRow]:
    number = 0
    with _opened(path) as file:
        try:
            while line := file.readline(MAX_LINE):
                number += 1
                if len(line) == MAX_LINE and not line.endswith(b"\n"):
                    while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                        pass
                    yield FileRow(number, None, "the line is longer than 64 MiB")
                elif line.strip(b"\xef\xbb\xbf \t\r\n"):
                    yield _json_row(number, line)
        except (OSError, EOFError, zlib.error) as error:
            yield _broken_off(number + 1, error)


def _json_row(number: int, line: bytes) -> FileRow:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return FileRow(number, None, "not UTF-8")
    except (ValueError, RecursionError):
        return FileRow(number, None, "broken JSON")
    return _object_row(number, value)


def _object_row(number: int, value: Any) -> FileRow:
    if not isinstance(value, dict):
        return FileRow(number, None, "not a JSON object")
    return FileRow(number, value)


def _array_rows(path: Path) -> Iterator[FileRow]:
    number = 0
    with _opened(path) as file:
        if file.peek(3).startswith(b"\xef\xbb\xbf"):  # type: ignore[attr-defined]  # see read_rows
            file.read(3)
        try:
            for value in ijson.items(file, "item", use_float=True):
                number += 1
                yield _object_row(number, value)
        except ijson.JSONError:
            yield FileRow(number + 1, None, "broken JSON; the rest of the array cannot be read")
        except UnicodeDecodeError:
            yield FileRow(number + 1, None, "not UTF-8; the rest of the array cannot be read")
        except (OSError, EOFError, zlib.error) as error:
            yield _broken_off(number + 1, error)


def _csv_rows(path: Path) -> Iterator[FileRow]:
    csv.field_size_limit(MAX_LINE)
    with _opened(path) as file:
        # Undecodable bytes become lone surrogates, which are found again below: one bad cell spoils one row only.
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.DictReader(text, strict=True)
        while True:
            number = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield FileRow(number, None, f"broken CSV: {error}")
                continue
            except (OSError, EOFError, zlib.error) as error:
                yield _broken_off(number, error)
                return
            yield _csv_row(number if number > 1 else reader.line_num, row)


def _csv_row(number: int, row: dict[str | None, Any]) -> FileRow:
    if None in row:
        return FileRow(number, None, "more cells than columns")
    cells = [*row, *(cell for cell in row.values() if cell is not None)]
    if any("\udc80" <= sign <= "\udcff" for cell in cells for sign in cell or ""):
        return FileRow(number, None, "not UTF-8")
    return FileRow(number, {str(name): cell and unguarded(cell) for name, cell in row.items()})


def _parquet_rows(path: Path) -> Iterator[FileRow]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for value in batch.to_pylist():
                    number += 1
                    yield FileRow(number, value)
    except (pa.ArrowException, OSError) as error:
        if number == 0:
            raise Invalid(f"{path} is not a readable Parquet file: {str(error).splitlines()[0]}") from error
        yield _broken_off(number + 1, error)


def _broken_off(number: int, error: Exception) -> FileRow:
    return FileRow(number, None, f"the file breaks off: {str(error).splitlines()[0]}")
