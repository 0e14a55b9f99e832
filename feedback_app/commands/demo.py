"""`feedback-app demo`: the loop without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, emit, say, table


def demo(
    home: Annotated[
        Path | None, typer.Option("--home", help="Keep its data in this new folder (else a temporary one).")
    ] = None,
    annotations: Annotated[int, typer.Option("--annotations", min=20, help="How many items are annotated.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Another seed: other people, other prompts.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Run the whole loop with simulated annotators: annotate, train, promote, and measure on prompts never seen."""
    from feedback_app.demo import run_demo

    report = run_demo(say, home=home, annotations=annotations, seed=seed)
    rows: list[tuple[str, Any]] = [
        ("annotations", report.annotations),
        ("reward model", report.reward_version),
        ("its accuracy on test prompts", report.reward_accuracy),
        ("promoted policy", report.policy_version),
        ("prompts never seen", report.unseen_prompts),
        ("quality before", report.before),
        ("quality after", report.after),
        ("gain, 95 % interval", f"{report.gain:+.2f} ({report.low:+.2f} to {report.high:+.2f})"),
        ("unseen prompts better / worse", f"{report.better} / {report.worse}"),
        ("seconds", report.seconds),
    ]
    emit(vars(report), as_json, table(("", ""), rows, title="the loop, once around"), report.verdict)
