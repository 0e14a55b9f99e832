"""A whole cycle with a real worker, which is given up half-way and replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from storage import cycle
from storage.cycle import Installation
from storage.engine import read_only
from storage.enums import GateVerdict, ModelKind, RunKind, RunStatus, VersionStatus
from storage.evaluations import figures, latest_evaluation
from storage.gate import latest_result
from storage.models import Project
from storage.projects import update_project
from storage.registry import champion, get_version
from tests.trainer.working import ASKED, judge, run_of, work
from trainer.cycle import advance_cycles
from trainer.worker import Worker

pytestmark = [pytest.mark.timeout(280), pytest.mark.usefixtures("warm")]


def test_a_cycle_trains_measures_judges_and_promotes_across_workers(
    sessions: sessionmaker[Session], project_id: int, home: Path, make_worker: Callable[..., Worker]
) -> None:
    judge(sessions, project_id)
    values: dict[str, Any] = ASKED | {"max_steps": 2, "steps": "reward,calibrate,refine,train,evaluate,gate"}
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        update_project(
            session,
            project,
            gate_settings={"required": ["kl", "ece"], "ece_target": 1.0, "min_comparisons": 1, "auto_promote": True},
        )
        run_id = cycle.queue_cycle(session, project, values).id
    place = Installation(home, "starter")

    def until(done: Callable[[], bool]) -> Callable[[], bool]:
        def looked() -> bool:
            advance_cycles(sessions, place)
            return done()

        return looked

    def trained() -> bool:
        return run_of(sessions, run_id).step == 4

    first = make_worker()
    work(first, until(trained))
    first.close()
    work(make_worker(), until(lambda: run_of(sessions, run_id).status.ended))
    run = run_of(sessions, run_id)
    assert run.status is RunStatus.SUCCEEDED, run.error
    assert run.result is not None
    states = {one["step"]: one["state"] for one in run.result["steps"]}
    with read_only(sessions) as session:
        project = session.get_one(Project, project_id)
        assert [child.kind for child in cycle.children(session, run)] == [
            RunKind.REWARD, RunKind.EVALUATE, RunKind.DPO, RunKind.EVALUATE
        ]  # fmt: skip
        reward = champion(session, project, ModelKind.REWARD)
        assert reward is not None
        assert reward.name == "reward-v1", "it passed its own gate"
        version = get_version(session, project, "policy-v1")
        measured = latest_evaluation(session, version)
        verdict = latest_result(session, version)
        assert measured is not None
        assert measured.reward_id == reward.id
        assert figures(measured)["win_rate"].value is not None, "the reward model of this cycle judged"
        assert verdict is not None
        assert (verdict.verdict, run.result["verdict"]) == (GateVerdict.PASS, "pass"), verdict.figures
        assert champion(session, project) == version
        assert version.status is VersionStatus.CHAMPION
    assert run.result["promoted"]
    assert states == {
        "reward": "done", "calibrate": "done", "refine": "skipped", "train": "done", "evaluate": "done", "gate": "done",
        "promote": "done",
    }  # fmt: skip
