"""The annotators' half under load: next item, submit, the API, and memory: `python -m benchmarks.annotate`.

    python -m benchmarks.annotate [--quick] [--json] [--only think,hammer,api,memory] [--database sqlite]
                                  [--label-studio PYTHON]

One web process (`feedback-app web`), 50,000 items at an overlap of 2, 50 people over raw HTTP, the load on the same
cores. A judgement is a preference, two ratings and a critique.

- think: ask for the item, look at it for a second with a draft saved in the middle, submit; again.
- hammer: submit, and with the item that the answer brings submit again, without a pause, through the page's functions.
- api: single feedback requests, each with an idempotency key, by 50 connections of one program: about completions that
  are stored already (known), and about a prompt and two completions that are not (new).
- memory: 100,000 submits through the page's functions; the resident memory after the first 10,000 and after all.

With --label-studio, the Python of an environment that has it: its submit (50 people without a pause) and export here.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, make_url

from benchmarks._fill import copy, fill
from benchmarks._label_studio import neighbour
from benchmarks._load import Spec
from benchmarks._report import Bar, Outcome, run_benchmark
from benchmarks._served import Measured, People, Web, functions, load, make_people, web
from benchmarks.store import postgres
from storage.engine import make_engine
from storage.schema import upgrade

PEOPLE = 50
NEXT_MS, SUBMIT_MS = 100, 150
HAMMER, API = 150, 400
MEMORY_RATIO = 1.1
PAGE, FEEDBACK = "/annotate/gradio_api/run/predict", "/api/v1/feedback"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What can be left out."""
    parser.add_argument("--only", default="think,hammer,api,memory", help="parts, with commas between them")
    parser.add_argument("--seconds", type=float, help="of each load; 30, quick 4")
    parser.add_argument("--label-studio", type=Path, metavar="PYTHON", help="of an environment that has Label Studio")
    parser.add_argument("--database", default="sqlite,postgresql", help="databases, with commas between them")


def measure(args: argparse.Namespace) -> Outcome:
    """Each part on each database, each database with a store of its own."""
    parts, wanted = args.only.split(","), args.database.split(",")
    judged, fresh, seconds, submits = (500, 4_500, 4.0, 1_200) if args.quick else (5_000, 45_000, 30.0, 100_000)
    seconds = args.seconds or seconds
    bars: list[Bar] = []
    extra: dict[str, Any] = {"items": judged + fresh, "people": PEOPLE}
    with tempfile.TemporaryDirectory(prefix="bench-annotate-") as name, _server(Path(name), wanted) as server:
        for kind, url in _stores(Path(name), server, wanted, judged, fresh).items():
            people = make_people(url, PEOPLE)
            with web(Path(name) / kind, url) as served:
                if set(parts) & {"think", "hammer", "api"}:
                    bars += _latencies(Path(name), kind, served, people, parts, seconds, judged, extra)
        if "memory" in parts:
            bars += _memory(Path(name), server, wanted, submits, extra)
        if args.label_studio:
            got, more = neighbour(args.label_studio, Path(name), (2_500 if args.quick else 50_000), PEOPLE, seconds)
            extra["Label Studio"] = asdict(got) | more
    return Outcome(bars, extra)


@contextmanager
def _server(folder: Path, wanted: list[str]) -> Iterator[str]:
    if "postgresql" not in wanted:
        yield ""
        return
    with postgres(folder) as address:
        yield address


def _stores(
    folder: Path, server: str, wanted: list[str], judged: int, fresh: int, name: str = "annotate"
) -> dict[str, str]:
    """Filled stores by database; PostgreSQL's is a copy of SQLite's."""
    urls = {"sqlite": f"sqlite:///{folder}/{name}.db"}
    if "postgresql" in wanted:
        urls["postgresql"] = make_url(server).set(database=name).render_as_string(hide_password=False)
        admin = make_engine(server).execution_options(isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        admin.dispose()
    engines: dict[str, Engine] = {}
    for kind, url in urls.items():
        upgrade(url)
        engines[kind] = make_engine(url)
    fill(engines["sqlite"], judged, fresh)
    if "postgresql" in wanted:
        copy(engines["sqlite"], engines["postgresql"])
    for engine in engines.values():
        engine.dispose()
    return {kind: urls[kind] for kind in wanted}


def _latencies(
    folder: Path,
    kind: str,
    served: Web,
    people: People,
    parts: list[str],
    seconds: float,
    judged: int,
    extra: dict[str, Any],
) -> list[Bar]:
    bars: list[Bar] = []
    warm_up = min(3.0, seconds / 2)
    numbers = functions(served.port, people.cookies[0])
    page = Spec("think", served.port, seconds, warm_up, PAGE, people.cookies, numbers)
    program = Spec("api-new", served.port, seconds, warm_up, FEEDBACK, [people.token] * PEOPLE)
    if "think" in parts:
        got = load(served, folder, page)
        extra[f"think, {kind}"] = asdict(got)
        bars += [
            Bar(f"next item p95 ms, {kind}", got.p95.get("next item", float("nan")), NEXT_MS, "<="),
            Bar(f"submit p95 ms, {kind}", got.p95.get("submit", float("nan")), SUBMIT_MS, "<="),
            Bar(f"errors, {kind}", got.errors, 0, "<="),
        ]
    if "hammer" in parts:
        got = load(served, folder, replace(page, kind="hammer"))
        extra[f"hammer, {kind}"] = asdict(got)
        bars += _rates("submits/s, page", kind, got, HAMMER)
    if "api" in parts:
        # Items from the end of the queue: the page's people have come nowhere near.
        got = load(served, folder, replace(program, kind="api-known", first=judged))
        extra[f"api, known completions, {kind}"] = asdict(got)
        bars += _rates("submits/s, API, known completions", kind, got, API)
        got = load(served, folder, program)
        extra[f"api, new completions, {kind}"] = asdict(got)
        bars += _rates("submits/s, API, new completions", kind, got, API)
    extra[f"web MB, {kind}"] = round(served.rss_mb)
    return bars


def _rates(name: str, kind: str, got: Measured, target: float) -> list[Bar]:
    return [
        Bar(f"{name}, {kind}", got.per_second, target),
        Bar(f"errors of {name}, {kind}", got.errors, 0, "<="),
    ]


def _memory(folder: Path, server: str, wanted: list[str], submits: int, extra: dict[str, Any]) -> list[Bar]:
    """Resident memory after a tenth of the submits and after all; twice as many are there to be had."""
    bars = []
    for kind, url in _stores(folder, server, wanted, 0, submits, "memory").items():
        people = make_people(url, PEOPLE)
        with web(folder / f"memory-{kind}", url) as served:
            numbers = functions(served.port, people.cookies[0])
            sizes, begun = [served.rss_mb], time.perf_counter()
            done = errors = 0
            for _ in range(10):
                spec = Spec("hammer", served.port, 3_600, 0, PAGE, people.cookies, numbers, limit=submits // 10)
                got = load(served, folder, spec)
                done, errors = done + got.submits, errors + got.errors
                sizes.append(served.rss_mb)
        extra[f"memory, {kind}"] = {
            "submits": done,
            "seconds": round(time.perf_counter() - begun),
            "MB before and after each tenth": [round(size, 1) for size in sizes],
        }
        bars += [
            Bar(
                f"memory after all submits / after a tenth, {kind}", round(sizes[-1] / sizes[1], 3), MEMORY_RATIO, "<="
            ),
            Bar(f"errors in {submits:,} submits, {kind}", errors, 0, "<="),
        ]
    return bars


if __name__ == "__main__":
    raise SystemExit(run_benchmark("annotate", measure, arguments=arguments))
