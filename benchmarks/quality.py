"""The Quality tab at 100,000 annotations: how long it takes to open, the first time and again.

    python -m benchmarks.quality [--quick] [--json]

50,000 items, each judged by two of ten people: a comparison and four ratings (two criteria) each, so 400,000 ratings.
On SQLite and on a real PostgreSQL, each in a process of its own: from the call of the handler to the page's HTML.
"First" has connected and imported, but read nothing. The command line's report of all annotations is measured beside
it, without a promise. CPU seconds are this process's own (for PostgreSQL the server's come on top).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Engine

from benchmarks._fill import ANNOTATORS, copy, fill
from benchmarks._report import Bar, Outcome, run_benchmark
from benchmarks.store import postgres, stores
from storage.engine import make_engine, make_sessions, read_only
from storage.schema import upgrade

OPENS_SECONDS = 1.0
_AGAIN = 5

# The second opinion of each item: by another person, who differs now and then.
_SECOND = """
INSERT INTO assignments (id, project_id, item_id, user_id, status, shown_order, leased_at, expires_at, closed_at)
  SELECT id + :n, project_id, item_id, user_id % :people + 1, status, shown_order, leased_at, expires_at, closed_at
  FROM assignments WHERE id <= :n;
INSERT INTO annotations (id, item_id, user_id, assignment_id, status, seconds_spent, created_at, submitted_at)
  SELECT id + :n, item_id, user_id % :people + 1, id + :n, status, 10 + id % 60, created_at, submitted_at
  FROM annotations WHERE id <= :n;
INSERT INTO preferences (id, annotation_id, first_id, second_id, outcome, strength)
  SELECT id + :n, annotation_id + :n, second_id, first_id,
    CASE WHEN (outcome = 'first') = (id % 7 = 0) THEN 'first' ELSE 'second' END, strength
  FROM preferences WHERE id <= :n;
INSERT INTO criteria (id, project_id, name, description, low, high, position) VALUES (2, 1, 'tone', '', 1, 5, 1);
INSERT INTO ratings (id, annotation_id, completion_id, criterion_id, value)
  SELECT id + 2 * :n, annotation_id + :n, completion_id, 1, min(5, value + (id % 5 = 0))
  FROM ratings WHERE id <= 2 * :n;
INSERT INTO ratings (id, annotation_id, completion_id, criterion_id, value)
  SELECT id + 4 * :n, annotation_id, completion_id, 2, 1 + (value + id % 3) % 5 FROM ratings WHERE id <= 4 * :n;
UPDATE items SET judged = 2, status = 'done';
ANALYZE
"""


class Opened(NamedTuple):
    """Seconds from the call to the HTML, and of them on the CPU here; `all` is the command line's report."""

    first: float
    first_cpu: float
    again: float  # median of several
    again_cpu: float
    everything: float
    everything_cpu: float


def measure(args: argparse.Namespace) -> Outcome:
    """Fill an SQLite store, copy it to PostgreSQL, open the tab on each."""
    annotations = 10_000 if args.quick else 100_000
    bars: list[Bar] = []
    extra: dict[str, Any] = {"annotations": annotations}
    with tempfile.TemporaryDirectory(prefix="bench-quality-") as name, postgres(Path(name)) as server:
        begun = time.perf_counter()
        urls = make_stores(Path(name), server, annotations)
        extra["seconds to fill"] = round(time.perf_counter() - begun, 1)
        for kind, url in urls.items():
            opened = apart(url)
            extra[kind] = opened._asdict()
            bars.append(Bar(f"tab opens first, s, {kind}", opened.first, OPENS_SECONDS, "<="))
            bars.append(Bar(f"tab opens again, s, {kind}", opened.again, OPENS_SECONDS, "<="))
    return Outcome(bars, extra)


def make_stores(folder: Path, server: str, annotations: int) -> dict[str, str]:
    """Database URL by kind: the same rows in both."""
    urls = stores(folder, server, annotations)
    admin = make_engine(server).execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE store_{annotations}")
    admin.dispose()
    engines: dict[str, Engine] = {}
    for kind, url in urls.items():
        upgrade(url)
        engines[kind] = make_engine(url)
    items = annotations // 2
    fill(engines["sqlite"], items, fresh=0)
    with engines["sqlite"].begin() as connection:
        for statement in _SECOND.replace(":n", str(items)).replace(":people", str(ANNOTATORS)).split(";"):
            connection.exec_driver_sql(statement)
    copy(engines["sqlite"], engines["postgresql"])
    for engine in engines.values():
        engine.dispose()
    return urls


def apart(url: str) -> Opened:
    """Measure in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(opened_here, url).result()


def opened_here(url: str) -> Opened:
    """Open the tab as the page does, then look at everything as the command does."""
    from feedback_app.handlers.context import Context
    from feedback_app.handlers.quality import see_quality
    from feedback_app.pages.quality_tab import show
    from feedback_app.settings import load_settings
    from storage.accounts import create_user
    from storage.enums import Role
    from storage.models import Project
    from storage.quality import quality_report

    engine = make_engine(url)
    sessions = make_sessions(engine)
    with sessions.begin() as session:
        create_user(session, "olga", Role.OPERATOR)
    ctx = Context(load_settings(home=Path(tempfile.gettempdir())), sessions)

    def open_tab() -> tuple[float, float]:
        begun, begun_cpu = time.perf_counter(), time.process_time()
        if "Agreement on comparisons" not in show(see_quality(ctx, "olga", "bench")):
            raise RuntimeError("the tab shows no agreement: the store was filled wrongly")
        return time.perf_counter() - begun, time.process_time() - begun_cpu

    first, first_cpu = open_tab()
    again, again_cpu = zip(*(open_tab() for _ in range(_AGAIN)), strict=True)
    begun, begun_cpu = time.perf_counter(), time.process_time()
    with read_only(sessions) as session:
        quality_report(session, session.get_one(Project, 1))
    everything, everything_cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    engine.dispose()
    figures = first, first_cpu, statistics.median(again), statistics.median(again_cpu), everything, everything_cpu
    return Opened(*(round(one, 3) for one in figures))


if __name__ == "__main__":
    raise SystemExit(run_benchmark("quality", measure))
