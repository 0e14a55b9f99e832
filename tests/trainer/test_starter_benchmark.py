"""What every benchmark prints, and the exit code that scripts go by."""

from __future__ import annotations

import argparse
import json

import pytest

from benchmarks._report import Bar, Outcome, run_benchmark
from benchmarks.starter import Judged, balanced_accuracy


@pytest.mark.parametrize(
    ("value", "target", "op", "holds"),
    [(0.97, 0.97, ">=", True), (0.96, 0.97, ">=", False), (10, 10, "<=", True), (float("nan"), 1, "<=", False)],
)
def test_a_bar_holds_at_its_target_and_never_for_nan(value: float, target: float, op: str, holds: bool) -> None:
    bar = Bar("b", value, target, op)
    assert bar.holds is holds


def test_json_is_one_object_last_on_stdout_and_a_short_bar_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    def measure(args: argparse.Namespace) -> Outcome:
        print("noise")
        return Outcome([Bar("good", 2, 1), Bar("bad", float("inf"), 1, "<=")], {"rows": 7, "quick_seen": args.quick})

    assert run_benchmark("thing", measure, ["--json", "--quick"]) == 1
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["benchmark"] == "thing"
    assert report["quick"] is report["quick_seen"] is True
    assert report["rows"] == 7
    assert report["bars"][0] == {"name": "good", "value": 2, "target": 1, "op": ">=", "holds": True}
    assert report["bars"][1]["value"] is None
    assert report["holds"] is False
    assert set(report["machine"]) == {"cores", "memory_gb"}


def test_all_bars_holding_exits_0_with_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_benchmark("thing", lambda _: Outcome([Bar("rows a second", 2, 1)]), []) == 0
    assert "rows a second" in capsys.readouterr().out


def test_ctrl_c_is_one_line_and_the_exit_code_of_an_interrupted_program(capsys: pytest.CaptureFixture[str]) -> None:
    def measure(args: argparse.Namespace) -> Outcome:
        raise KeyboardInterrupt

    assert run_benchmark("thing", measure, ["--json"]) == 130
    assert capsys.readouterr() == ("", "python -m benchmarks.thing: stopped before it could report\n")


def test_a_judge_that_always_says_yes_is_no_better_than_chance() -> None:
    rows = [Judged("tone", truth, True) for truth in (True, True, True, False)]
    assert balanced_accuracy(rows) == 0.5
