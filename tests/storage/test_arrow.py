"""Plain values as Arrow columns: the same as Arrow makes of them, without pandas."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pyarrow as pa

from storage.arrow import MESSAGES, to_table

SCHEMA = pa.schema(
    [
        ("messages", MESSAGES),
        ("text", pa.string()),
        ("id", pa.int64()),
        ("weight", pa.float64()),
        ("label", pa.bool_()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("ids", pa.list_(pa.int64())),
        ("tags", pa.list_(pa.string())),
    ]
)
CHAT = [{"role": "user", "content": "hé\0llo 你好"}, {"role": "assistant", "content": ""}]
ROWS: list[tuple[object, ...]] = [
    (CHAT, None, None, None, None, None, None, None),
    ([], "x", -5, 0.1, True, datetime(2024, 1, 1, 2, 3, 4, 5, tzinfo=UTC), (1, -2), ["a", None]),
    (CHAT[:1], "", 2**62, -0.0, False, datetime(1960, 1, 1, tzinfo=UTC), [], []),
]


def test_columns_are_those_that_arrow_makes():
    made = to_table(ROWS, SCHEMA)
    made.validate(full=True)
    columns = [pa.array([row[n] for row in ROWS], field.type) for n, field in enumerate(SCHEMA)]
    assert made.equals(pa.Table.from_arrays(columns, schema=SCHEMA))
    assert to_table([], SCHEMA).equals(SCHEMA.empty_table())


def test_pandas_stays_out_of_the_process():
    code = (
        "import sys; from tests.storage.test_arrow import ROWS, SCHEMA, to_table; import pyarrow.parquet as pq;"
        "pq.write_table(to_table(ROWS, SCHEMA), '/dev/null'); sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
