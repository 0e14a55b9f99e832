"""A data set repository as a folder: `datasets.load_dataset(folder)` gives the splits, and the card says what it is."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.enums import Split
from storage.export.files import ROW_GROUP, batches
from storage.export.rows import Table

CARD = "README.md"
MARK = "<!-- data set folder written by feedback-app; exporting again replaces it -->"


def write_folder(table: Table, folder: Path, what: str, project: str) -> int:
    """Write a Parquet file for each split, empty ones too, and the card; returns the number of rows."""
    data = folder / "data"
    data.mkdir(parents=True)
    counts = dict.fromkeys((split.value for split in Split), 0)
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(
                pq.ParquetWriter(data / f"{split}-00000-of-00001.parquet", table.schema, compression="zstd")
            )
            for split in counts
        }
        for batch in batches(table.rows, ROW_GROUP):
            for split, writer in writers.items():
                rows = [row for row in batch if row["split"] == split]
                if rows:
                    writer.write_table(pa.Table.from_pylist(rows, schema=table.schema))
                    counts[split] += len(rows)
    (folder / CARD).write_text(_card(what, project, counts), encoding="utf-8")
    return sum(counts.values())


def _card(what: str, project: str, counts: dict[str, int]) -> str:
    files = "".join(f"  - split: {split}\n    path: data/{split}-*.parquet\n" for split in counts)
    lines = "".join(f"| {split} | {count} |\n" for split, count in counts.items())
    return (
        f"---\ntags:\n- human-feedback\n- trl\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n"
        f"{MARK}\n\n# {what} of project {project}\n\n"
        "Human feedback collected with feedback-app. A prompt is in one split only, for ever.\n\n"
        f"| split | rows |\n|---|---|\n{lines}\n"
        "Load it with `datasets.load_dataset(FOLDER)`; TRL takes the columns as they are.\n"
    )
