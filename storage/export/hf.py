"""A data set repository as a folder: `datasets.load_dataset(folder)` gives the splits, and the card says what it is."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq

from storage.arrow import to_table
from storage.enums import Split
from storage.export.files import ROW_GROUP, batches
from storage.export.rows import Table

CARD = "README.md"
MARK = "<!-- data set folder written by feedback-app; exporting again replaces it -->"


def write_folder(table: Table, folder: Path, what: str, project: str) -> int:
    """Write a Parquet file for each split that has rows (`datasets` loads no empty one), and the card.

    Returns the number of rows.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    writers: dict[str, pq.ParquetWriter] = {}
    counts: Counter[str] = Counter()
    place = table.schema.get_field_index("split")
    with ExitStack() as stack:
        for batch in batches(table.rows, ROW_GROUP):
            for split in {row[place] for row in batch}:
                rows = [row for row in batch if row[place] == split]
                if split not in writers:
                    path = data / f"{split}-00000-of-00001.parquet"
                    writers[split] = stack.enter_context(pq.ParquetWriter(path, table.schema, compression="zstd"))
                writers[split].write_table(to_table(rows, table.schema))
                counts[split] += len(rows)
    by_split = {split.value: counts[split.value] for split in Split if counts[split.value]}
    (folder / CARD).write_text(_card(what, project, by_split), encoding="utf-8")
    return counts.total()


def _card(what: str, project: str, counts: dict[str, int]) -> str:
    data_files = "".join(f"  - split: {split}\n    path: data/{split}-*.parquet\n" for split in counts)
    lines = "".join(f"| {split} | {count} |\n" for split, count in counts.items())
    configs = f"configs:\n- config_name: default\n  data_files:\n{data_files}" if counts else ""
    return (
        f"---\ntags:\n- human-feedback\n- trl\n{configs}---\n"
        f"{MARK}\n\n# {what} of project {project}\n\n"
        "Human feedback collected with feedback-app. A prompt is in one split only, for ever.\n\n"
        f"| split | rows |\n|---|---|\n{lines}\n"
        "Load it with `datasets.load_dataset(FOLDER)`; TRL takes the columns as they are.\n"
    )
