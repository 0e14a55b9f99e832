"""The queue under fire: does an item ever have too many people, is a judgement ever lost, does an item get stuck?

    python -m benchmarks.queue [--quick] [--json]

On SQLite and on a real PostgreSQL, each time until every item is done: 32 threads of one program, each a person; then
8 processes; then 8 processes of which one after the other is killed (SIGKILL) in the middle of whatever it does, its
place taken by a person who was not there before. A killed person's lease runs out after two seconds. People skip 3 %
of the items, save a draft on every eighth, and come back for an item that is repeated for agreement.

- doubled: items with more annotations than places, people with two annotations or assignments on one item, and moments
  (a watcher looks all the time) in which an item had more annotations and live leases together than places;
- lost: annotations whose commit was confirmed to the person and which are not there afterwards;
- stuck: items not done once every lease has run out, or done with another number of annotations than they count.

Then the next item's latency where 50,000 items are open: one transaction with its commit, ten people in turn, at an
overlap of 2, without reward models and with two that have scored everything.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, insert, make_url, select

from benchmarks._crowd import PROCESSES, THREADS, Proof, in_processes, in_threads
from benchmarks._fill import ANNOTATORS, copy, fill
from benchmarks._report import Bar, Outcome, run_benchmark
from benchmarks.store import postgres
from storage.engine import make_engine, make_sessions
from storage.enums import (
    ModelKind,
    VersionStatus,
)
from storage.items import lease_next, skip
from storage.models import (
    Completion,
    CompletionScore,
    ModelVersion,
    Project,
    User,
)
from storage.schema import upgrade

NEXT_MS = 25  # p95, of the 100 ms that the page promises in all


def latencies(url: str, rounds: int) -> dict[str, float]:
    """Milliseconds for the next item; each is skipped again, outside the measurement."""
    engine = make_engine(url)
    sessions = make_sessions(engine)
    rng = random.Random(0)
    with sessions() as session:
        users = [session.get_one(User, n) for n in range(1, ANNOTATORS + 1)]
    taken: list[float] = []
    for n in range(rounds + ANNOTATORS):
        user = users[n % ANNOTATORS]
        begun = time.perf_counter()
        with sessions.begin() as session:
            lease = lease_next(session, session.get_one(Project, 1), user, rng=rng)
        taken.append(1000 * (time.perf_counter() - begun))
        if lease is None:
            raise RuntimeError("the queue ran empty: the store was filled wrongly")
        with sessions.begin() as session:
            skip(session, lease.assignment_id, user)
    engine.dispose()
    counted = taken[ANNOTATORS:]  # the first of each person warm the caches
    return {
        "p50": round(statistics.median(counted), 2),
        "p95": round(statistics.quantiles(counted, n=20)[-1], 2),
        "max": round(max(counted), 2),
    }


def score_everything(engine: Engine) -> None:
    """Two reward models and their scores of every completion."""
    with engine.begin() as connection:
        for number in (1, 2):
            version = {
                "project_id": 1, "kind": ModelKind.REWARD, "number": number, "status": VersionStatus.CANDIDATE,
                "base_model": "starter", "metrics": {},
            }  # fmt: skip
            version_id = connection.execute(
                insert(ModelVersion).values(version).returning(ModelVersion.id)
            ).scalar_one()
            value = (Completion.id * (7 + number)) % 11 / 3.0
            rows = select(Completion.id, version_id, value, func.current_timestamp())
            columns = ["completion_id", "version_id", "value", "created_at"]
            connection.execute(insert(CompletionScore).from_select(columns, rows))
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")


def measure(args: argparse.Namespace) -> Outcome:
    """All trials on both databases, then the latencies."""
    items, kills, open_items, rounds = (120, 8, 5_000, 100) if args.quick else (2_000, 40, 50_000, 500)
    bars: list[Bar] = []
    extra: dict[str, Any] = {"items": items}
    with tempfile.TemporaryDirectory(prefix="bench-queue-") as name, postgres(Path(name)) as server:
        store = _Stores(Path(name), server)
        for kind in ("sqlite", "postgresql"):
            trials: dict[str, Callable[[str, Path], Proof]] = {
                f"{THREADS} threads": lambda url, _: in_threads(url, items),
                f"{PROCESSES} processes": lambda url, logs: in_processes(url, items, logs),
                f"{PROCESSES} processes, {kills} killed": lambda url, logs: in_processes(
                    url, items, logs, kills=kills, overlap=2
                ),
            }
            for trial, run in trials.items():
                proof = run(store.make(kind), store.folder())
                extra[f"{trial}, {kind}"] = {key: value for key, value in vars(proof).items() if value != []}
                bars += [Bar(f"{w}: {trial}, {kind}", getattr(proof, w), 0, "<=") for w in ("doubled", "lost", "stuck")]
        urls = {kind: store.make(kind) for kind in ("sqlite", "postgresql")}
        engines = {kind: make_engine(url) for kind, url in urls.items()}
        fill(engines["sqlite"], 0, fresh=open_items)
        copy(engines["sqlite"], engines["postgresql"])
        for what, prepare in (("no scores", None), ("scored by two", score_everything)):
            for kind, engine in engines.items():
                if prepare is not None:
                    prepare(engine)
                found = latencies(urls[kind], rounds)
                extra[f"next item ms, {open_items:,} open, {what}, {kind}"] = found
                bars.append(Bar(f"next item p95 ms, {open_items:,} open, {what}, {kind}", found["p95"], NEXT_MS, "<="))
        for engine in engines.values():
            engine.dispose()
    return Outcome(bars, extra)


@dataclass
class _Stores:
    """Empty, migrated stores and empty folders, one after the other."""

    root: Path
    server: str
    count: int = 0

    def make(self, kind: str) -> str:
        self.count += 1
        url = f"sqlite:///{self.root}/queue-{self.count}.db"
        if kind == "postgresql":
            admin = make_engine(self.server).execution_options(isolation_level="AUTOCOMMIT")
            with admin.connect() as connection:
                connection.exec_driver_sql(f"CREATE DATABASE queue_{self.count}")
            admin.dispose()
            database = make_url(self.server).set(database=f"queue_{self.count}")
            url = database.render_as_string(hide_password=False)
        upgrade(url)
        return url

    def folder(self) -> Path:
        self.count += 1
        made = self.root / f"logs-{self.count}"
        made.mkdir()
        return made


if __name__ == "__main__":
    raise SystemExit(run_benchmark("queue", measure))
