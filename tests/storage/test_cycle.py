"""One turn of the loop: what a cycle does, skips, survives, and never does twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from storage import annotations, cycle, projects, registry, runs, schedule
from storage.cycle import Installation
from storage.enums import ModelKind, RunKind, RunStatus, Split
from storage.errors import Conflict, Invalid
from storage.models import Project, Run, utc_now
from tests import factories
from tests.storage.test_training import judge
from trainer.cycle import advance_cycles
from trainer.schedule import queue_due


@pytest.fixture
def place(home: Path) -> Installation:
    return Installation(home, "starter")


def criticise(session: Session, project: Project) -> None:
    user = factories.make_user(session)
    factories.make_item(session, project, split=Split.TRAIN)
    lease = factories.make_lease(session, project, user)
    said = annotations.CritiqueInput(lease.completions[0][0], "No date is given.")
    annotations.submit(session, lease.assignment_id, user, annotations.Submission(critiques=[said]))


def steps_of(run: Run) -> dict[str, str]:
    return {one["step"]: one["state"] for one in (run.result or {})["steps"]}


def step_of(run: Run, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in (run.result or {})["steps"] if one["step"] == name)
    return found


def work(session: Session, run: Run, status: RunStatus = RunStatus.SUCCEEDED, error: str | None = None) -> Run:
    """The child that waits, claimed and ended as a worker does."""
    child = runs.claim_run(session, "w", list(RunKind))
    assert child is not None
    assert child.parent_run_id == run.id
    result: dict[str, Any] | None = None
    if status is RunStatus.SUCCEEDED:
        result = {"test_accuracy": 0.75, "fit": {}}
        if child.kind.trains:
            kind = ModelKind.REWARD if child.kind is RunKind.REWARD else ModelKind.POLICY
            version = registry.register_version(session, child, kind, f"folder {child.id}", "0" * 64, {}, "starter")
            result["model_version"] = version.name
    runs.finish_run(session, child.id, "w", status, result=result, error=error)
    return child


def test_a_cycle_walks_through_its_steps_and_says_what_each_did(
    sessions: sessionmaker[Session], place: Installation
) -> None:
    with sessions.begin() as session:
        project = factories.make_project(session)
        judge(session, project)
        criticise(session, project)
        olga = factories.make_user(session, "olga")
        projects.update_project(session, project, cycle_settings={"steps": ["train", "refine", "reward", "rules"]})
        run = cycle.queue_cycle(session, project, {"lora_r": 4, "beta": 0.2}, user=olga)
        with pytest.raises(Conflict, match=f"run {run.id} .cycle. is queued"):
            cycle.queue_cycle(session, project, {})
        assert cycle.ready_cycles(session) == [run.id]
    kinds = []
    for _ in range(3):
        assert advance_cycles(sessions, place) == [run.id]
        assert advance_cycles(sessions, place) == [], "it waits"
        with sessions.begin() as session:
            assert runs.requeue_lost(session, timedelta(0), utc_now() + timedelta(days=9)) == [], "nobody holds it"
            run = runs.get_run(session, run.id)
            assert not cycle.advance(session, run.id, place)
            assert run.status is RunStatus.RUNNING
            kinds.append(work(session, run).kind)
    assert kinds == [RunKind.REWARD, RunKind.REFINE, RunKind.DPO]
    assert advance_cycles(sessions, place) == [run.id]
    assert advance_cycles(sessions, place) == []
    with sessions() as session:
        run = runs.get_run(session, run.id)
        made = cycle.children(session, run)
        assert (run.status, run.step, run.total_steps) == (RunStatus.SUCCEEDED, 4, 4)
        assert steps_of(run) == {"reward": "done", "refine": "done", "rules": "skipped", "train": "done"}
        assert run.result is not None
        assert run.result["model_version"] == "policy-v1"
        assert step_of(run, "reward") | {"why": ""} == {
            "step": "reward", "state": "done", "run": made[0].id, "why": "", "model_version": "reward-v1",
            "figures": {"test_accuracy": 0.75},
        }  # fmt: skip
        assert "18 training pairs are enough for DPO" in step_of(run, "train")["why"]
        assert "nothing is to be written for rules" in step_of(run, "rules")["why"]
        assert [one.requested_by_id for one in made] == [olga.id] * 3
        assert (made[0].asked, made[2].asked) == ({"lora_r": 4}, {"lora_r": 4, "beta": 0.2}), "each takes what it knows"
        assert [line.split(":")[0] for line in runs.log_lines(session, run.id)][-1] == "train"


def test_what_has_nothing_to_do_is_skipped_with_the_reason(session: Session, place: Installation) -> None:
    project = factories.make_project(session)
    run = cycle.queue_cycle(session, project, {"recipe": "kto"})
    assert cycle.advance(session, run.id, place)
    assert run.status is RunStatus.SUCCEEDED
    assert set(steps_of(run).values()) == {"skipped"}
    assert list(steps_of(run)) == [
        "reward", "calibrate", "refine", "rules", "train", "evaluate", "gate", "promote"
    ]  # fmt: skip
    for step, why in (
        ("reward", "pairs"), ("refine", "no critique"), ("train", "needed"), ("gate", "no policy was trained"),
        ("calibrate", "no reward model was trained"),
    ):  # fmt: skip
        assert why in step_of(run, step)["why"], step
    assert not cycle.advance(session, run.id, place)
    for values, message in (
        ({"steps": ["promote"]}, "auto_promote"), ({"recipe": "reward"}, "recipe"), ({"epoch": 2}, "'epoch' is no"),
    ):  # fmt: skip
        with pytest.raises(Invalid, match=message):
            cycle.queue_cycle(session, project, values)


@pytest.mark.parametrize("how", ["fails", "is cancelled", "is cancelled with the cycle"])
def test_a_child_that_does_not_succeed_ends_the_cycle(session: Session, place: Installation, how: str) -> None:
    project = factories.make_project(session)
    judge(session, project)
    run = cycle.queue_cycle(session, project, {})
    cycle.advance(session, run.id, place)
    (child,) = cycle.children(session, run)
    if how == "fails":
        work(session, run, RunStatus.FAILED, "the loss was nan")
        expected = (RunStatus.FAILED, f"step reward failed (run {child.id}): the loss was nan")
    elif how == "is cancelled":
        runs.request_cancel(session, child, None)
        expected = (RunStatus.CANCELLED, f"run {child.id} (reward) was cancelled")
    else:
        runs.claim_run(session, "w", [RunKind.REWARD])
        runs.request_cancel(session, run, None)
        assert runs.heartbeat(session, child.id, "w").cancel
        assert not cycle.advance(session, run.id, place), "the child is still stopping"
        runs.finish_run(session, child.id, "w", RunStatus.CANCELLED, error="cancelled")
        expected = (RunStatus.CANCELLED, "cancelled")
    assert cycle.advance(session, run.id, place)
    assert (run.status, run.error) == expected
    assert steps_of(run)["reward"] == ("failed" if how == "fails" else "cancelled")
    assert len(cycle.children(session, run)) == 1
    with pytest.raises(Conflict, match="has ended"):
        runs.request_cancel(session, run, None)
    queued = cycle.queue_cycle(session, project, {})
    assert runs.request_cancel(session, queued, None).status is RunStatus.CANCELLED


def together(work: Callable[[], object], count: int = 2) -> None:
    start, failures = threading.Barrier(count), []

    def guarded() -> None:
        try:
            start.wait()
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def test_two_schedulers_make_one_cycle_and_two_workers_one_child_a_step(
    sessions: sessionmaker[Session], place: Installation, home: Path
) -> None:
    with sessions.begin() as session:
        policy = {"mode": "every_n", "every_n": 5, "kinds": ["cycle"]}
        project = factories.make_project(session, training_policy=policy)
        judge(session, project)
        found = schedule.due(session, project, utc_now())
        assert (found.kinds, found.cause) == ([RunKind.CYCLE], "every_n after the start")
    together(lambda: queue_due(sessions, home, "starter"), 4)
    with sessions() as session:
        run = session.scalars(select(Run)).one()
        assert (run.kind, run.cause) == (RunKind.CYCLE, "every_n after the start:cycle")
        assert schedule.due(session, project, utc_now()).reason == f"run {run.id} (cycle) is queued"
    for made in (1, 2, 3):
        together(lambda: advance_cycles(sessions, place), 4)
        with sessions.begin() as session:
            assert session.scalar(select(func.count()).select_from(Run)) == 1 + made
            work(session, runs.get_run(session, run.id))
    with sessions.begin() as session:
        run = runs.get_run(session, run.id)
        assert [child.kind for child in cycle.children(session, run)] == [RunKind.REWARD, RunKind.EVALUATE, RunKind.DPO]
        assert "not evaluated yet" in step_of(run, "calibrate")["why"]
        run.status = RunStatus.SUCCEEDED
        waiting = schedule.due(session, project, utc_now())
        assert waiting.reason == "5 more annotations are needed (0 of 5 since the last training)"


def test_a_cycle_that_cannot_go_on_ends_with_a_line(
    sessions: sessionmaker[Session], place: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sessions.begin() as session:
        run = cycle.queue_cycle(session, factories.make_project(session), {})

    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("storage.cycle.queue_training", broken)
    assert advance_cycles(sessions, place) == []
    with sessions() as session:
        ended = runs.get_run(session, run.id)
        assert (ended.status, (ended.error or "")[:24]) == (RunStatus.FAILED, "ZeroDivisionError: a bug")
