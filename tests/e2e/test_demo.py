"""`feedback-app demo`, smaller: a real worker, the shipped starter, simulated people."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from feedback_app.demo import run_demo
from storage.errors import Conflict

ANNOTATIONS, UNSEEN = 60, 12


@pytest.mark.timeout(600)
def test_the_loop_goes_round_once(tmp_path: Path) -> None:
    said: list[str] = []
    home = tmp_path / "demo"
    report = run_demo(said.append, home=home, annotations=ANNOTATIONS, seed=1, unseen=UNSEEN)

    assert (report.annotations, report.unseen_prompts) == (ANNOTATIONS, UNSEEN)
    assert (report.reward_version, report.policy_version) == ("reward-v1", "policy-v1")
    assert report.low <= report.gain <= report.high
    assert report.gain == pytest.approx(report.after - report.before)
    assert report.better + report.worse <= UNSEEN
    assert any("promoted" in line for line in said)
    with sqlite3.connect(home / "feedback.db") as store:
        unseen = (
            "SELECT count(*) FROM annotations a JOIN items i ON i.id = a.item_id JOIN prompts p ON p.id = i.prompt_id"
        )
        judged = store.execute(f"{unseen} WHERE p.id > {ANNOTATIONS}").fetchone()[0]
        champion = store.execute(
            "SELECT number FROM model_versions WHERE kind = 'policy' AND status = 'champion'"
        ).fetchone()[0]
    assert judged == 0  # the prompts that it is measured on were never judged
    assert champion == 1


def test_the_demo_leaves_a_folder_that_is_in_use_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(Conflict, match="not empty"):
        run_demo(lambda _line: None, home=tmp_path, annotations=20, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
