"""The command: runs what is not there yet, then says what came out."""

from __future__ import annotations

import argparse
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks._report import Bar, Outcome, run_benchmark
from benchmarks.language_feedback import real, report
from benchmarks.language_feedback.arms import ARMS, BASE, SHORT, SIZES, USUAL, Arm, Crowd
from benchmarks.language_feedback.likelihood import divergence
from benchmarks.language_feedback.stages import WORKERS, make_pool, open_store, run_cell

FULL_SEEDS, SHORT_SEEDS = range(10), range(2)
SHORT_SIZES = (200,)


def measure(args: argparse.Namespace) -> Outcome:
    """Run every cell that is missing, seed by seed, and report all there are; with --real the people's own words."""
    args.home.mkdir(parents=True, exist_ok=True)
    if args.real:
        return Outcome([], real.measure(args.home, partial(Console(stderr=True).print, highlight=False)))
    crowd = Crowd(args.rules, args.noise)
    arms, sizes, seeds = (SHORT, SHORT_SIZES, SHORT_SEEDS) if args.quick else (ARMS, SIZES, FULL_SEEDS)
    if args.seeds:
        seeds = range(args.seeds[0], args.seeds[1])
    sizes = tuple(args.sizes or sizes)
    ledger = args.home / "cells.jsonl"
    for seed in seeds:
        _run_seed(args.home, ledger, seed, crowd, arms, sizes)
    cells = report.by_arm([cell for cell in _read(ledger, crowd) if cell["seed"] in seeds])
    names = [arm.name for arm in arms]
    told = report.table(cells, sizes, names)
    (args.home / "table.md").write_text(told + "\n")
    report.plot(cells, sizes, names, args.home / "quality.svg")
    Console(stderr=True).print(told, f"\nplot: {args.home / 'quality.svg'}", highlight=False)
    return _outcome(report.verdicts(cells, sizes))


def _run_seed(home: Path, ledger: Path, seed: int, crowd: Crowd, arms: tuple[Arm, ...], sizes: tuple[int, ...]) -> None:
    done = {(cell["arm"], cell["size"]) for cell in _read(ledger, crowd) if cell["seed"] == seed}
    wanted = [(arm, size) for size in sizes for arm in arms if arm is not BASE] + [(BASE, 0)] * (BASE in arms)
    missing = [(arm, size) for arm, size in wanted if (arm.name, size) not in done]
    if not missing:
        return
    entering = threading.Lock()

    def run(arm: Arm, size: int) -> None:
        cell = run_cell(store, arm, seed, size, crowd, pool)
        with entering:
            cell["kl"] = divergence(cell.pop("written"))
            with ledger.open("a") as file:
                file.write(json.dumps(cell, ensure_ascii=False) + "\n")
            quality = sum(cell["quality"].values()) / len(cell["quality"])
            Console(stderr=True).print(
                f"seed {seed}, {cell['size']} annotations, {cell['arm']}: quality {quality:.3f}, "
                f"KL {cell['kl']:.1f}, {cell['seconds']} s, {cell.get('pairs', '')}",
                highlight=False,
            )

    with open_store(home / f"seed-{seed}") as store, ThreadPoolExecutor(WORKERS) as threads:
        pool = make_pool(store, seed, max(size * arm.times for arm, size in missing))
        running = [threads.submit(run, arm, size) for arm, size in missing]
        try:
            for finished in as_completed(running):
                finished.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)  # the cells under way end first, and are kept
            raise


def _read(ledger: Path, crowd: Crowd) -> list[dict[str, Any]]:
    """The finished cells of such people; a line that a kill cut short does not count.

    Cells without a word about their people are of a time when all were the usual ones.
    """
    if not ledger.exists():
        return []
    cells: list[dict[str, Any]] = []
    for line in ledger.read_text().splitlines():
        try:
            cells.append(asdict(USUAL) | json.loads(line))
        except ValueError:
            continue
    return [cell for cell in cells if Crowd(cell["rules"], cell["noise"]) == crowd]


def _outcome(verdicts: dict[str, report.Interval]) -> Outcome:
    """The registered bars: the lower ends of the intervals lie above zero."""
    bars = [
        Bar(f"{name}, lower end", gap.low if not math.isnan(gap.low) else -1.0, 0.0)
        for name, gap in verdicts.items()
        if name.startswith("default - ")
    ]
    return Outcome(bars, {name: str(gap) for name, gap in verdicts.items()})


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", type=Path, default=Path("data/language_feedback"), help="where cells are kept")
    parser.add_argument("--real", action="store_true", help="critiques of real people instead (minutes)")
    parser.add_argument("--seeds", type=int, nargs=2, metavar=("FIRST", "END"), help="other seeds, END not included")
    parser.add_argument("--rules", type=int, default=USUAL.rules, help="facets liked otherwise in some matters, 0 to 6")
    parser.add_argument("--noise", type=float, default=USUAL.noise, help="of each look at a reply, points of the taste")
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, metavar="N", help="annotations: 50, 200, 800")


if __name__ == "__main__":
    raise SystemExit(run_benchmark("language_feedback", measure, arguments=_arguments))
