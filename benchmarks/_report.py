"""What every benchmark shares: bars with targets, a table for people, one JSON object for machines.

def measure(args: argparse.Namespace) -> Outcome:
    return Outcome([Bar("submit p95 ms, sqlite", 12.3, 150, "<=")], {"rows": 1000})

if __name__ == "__main__":
    raise SystemExit(run_benchmark("store", measure))
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Bar:
    """One promise: `value op target`. A value that is not a number never holds."""

    name: str
    value: float
    target: float
    op: Literal[">=", "<="] = ">="

    @property
    def holds(self) -> bool:
        """Whether the measured value keeps the promise."""
        if math.isnan(self.value):
            return False
        return self.value >= self.target if self.op == ">=" else self.value <= self.target


@dataclass(frozen=True)
class Outcome:
    """What a benchmark measured: its bars, and any further JSON-ready figures worth keeping."""

    bars: list[Bar]
    extra: dict[str, Any] = field(default_factory=dict)


def machine() -> dict[str, float]:
    """Cores this process may use and the memory of the machine in GB."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"cores": cores, "memory_gb": round(psutil.virtual_memory().total / 1e9, 1)}


def run_benchmark(
    name: str,
    measure: Callable[[argparse.Namespace], Outcome],
    argv: Sequence[str] | None = None,
    arguments: Callable[[argparse.ArgumentParser], None] | None = None,
) -> int:
    """Parse `--quick` and `--json` (and what `arguments` adds), measure, report; returns the exit code.

    With --json the last line on stdout is one object {benchmark, machine, quick, seconds, holds, bars, ...extra}
    and the table goes to stderr.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--quick", action="store_true", help="a smaller measurement")
    parser.add_argument("--json", action="store_true", help="one JSON object, last on stdout")
    if arguments is not None:
        arguments(parser)
    args = parser.parse_args(argv)
    started = time.perf_counter()
    try:
        outcome = measure(args)
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped before it could report", file=sys.stderr)
        return 130  # what a shell says of a program that Ctrl-C ended
    seconds = round(time.perf_counter() - started, 1)
    holds = all(bar.holds for bar in outcome.bars)
    _print_table(name, outcome, seconds, Console(stderr=args.json))
    if args.json:
        report = {
            "benchmark": name,
            "machine": machine(),
            "quick": args.quick,
            "seconds": seconds,
            "holds": holds,
            "bars": [
                {"name": b.name, "value": _number(b.value), "target": b.target, "op": b.op, "holds": b.holds}
                for b in outcome.bars
            ],
            **outcome.extra,
        }
        print(json.dumps(report), flush=True)
    return 0 if holds else 1


def _number(value: float) -> float | None:
    """JSON knows no NaN and no infinity: they become null."""
    return round(value, 4) if math.isfinite(value) else None


def _print_table(name: str, outcome: Outcome, seconds: float, console: Console) -> None:
    table = Table(title=f"benchmarks.{name} ({seconds} s)", title_justify="left")
    for column in ("bar", "value", "target", "holds"):
        table.add_column(column, justify="left" if column == "bar" else "right")
    for bar in outcome.bars:
        verdict = "[green]yes[/green]" if bar.holds else "[red]no[/red]"
        table.add_row(bar.name, f"{bar.value:,.4g}", f"{bar.op} {bar.target:,g}", verdict)
    console.print(table)
    for key, value in outcome.extra.items():
        console.print(f"{key}: {value}", highlight=False)
