"""The life of a run, what its worker says about it, and what many workers at once must not do."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from storage import audit, runs
from storage.configs import DpoConfig
from storage.enums import RunKind, RunStatus
from storage.errors import Conflict, NotFound
from storage.models import Project, Run, utc_now
from storage.runs import MetricPoint
from tests import factories

TRAINING = [RunKind.REWARD, RunKind.DPO]
EVERYTHING = list(RunKind)


@pytest.fixture
def project(session: Session) -> Project:
    return factories.make_project(session)


def test_the_oldest_run_of_a_wanted_kind_is_claimed(session: Session, project: Project) -> None:
    dpo = factories.make_run(session, project, RunKind.DPO)
    generate = factories.make_run(session, project, RunKind.GENERATE)
    assert runs.claim_run(session, "w", [RunKind.REWARD]) is None
    assert runs.claim_run(session, "w", []) is None
    assert runs.claim_run(session, "w", [RunKind.GENERATE]) is generate
    claimed = runs.claim_run(session, "w", EVERYTHING)
    assert claimed is dpo
    assert (dpo.status, dpo.worker, dpo.attempts) == (RunStatus.RUNNING, "w", 1)
    assert dpo.started_at is not None
    assert runs.claim_run(session, "w", EVERYTHING) is None


def test_a_project_trains_one_run_at_a_time(session: Session, project: Project) -> None:
    other = factories.make_project(session)
    first = factories.make_run(session, project, RunKind.REWARD)
    second = factories.make_run(session, project, RunKind.DPO)
    elsewhere = factories.make_run(session, other, RunKind.DPO)
    generate = factories.make_run(session, project, RunKind.GENERATE)
    claimed = [runs.claim_run(session, "w", EVERYTHING) for _ in range(4)]
    assert claimed == [first, elsewhere, generate, None]
    runs.finish_run(session, first.id, "w", RunStatus.SUCCEEDED)
    assert runs.claim_run(session, "w", EVERYTHING) is second


def test_the_database_itself_refuses_a_second_training_run(session: Session, project: Project) -> None:
    for _ in range(2):
        session.add(Run(project_id=project.id, kind=RunKind.DPO, status=RunStatus.RUNNING, config={}))
    with pytest.raises(IntegrityError):
        session.flush()


def test_one_run_for_one_cause(session: Session, project: Project) -> None:
    made = factories.make_run(session, project, cause="cron 3:00")
    with pytest.raises(Conflict, match="cron 3:00"):
        factories.make_run(session, project, cause="cron 3:00")
    factories.make_run(session, factories.make_project(session), cause="cron 3:00")
    by_hand = [factories.make_run(session, project) for _ in range(2)]
    assert runs.list_runs(session, project) == [*reversed(by_hand), made]
    assert runs.list_runs(session, limit=1)[0].project_id == project.id
    event = audit.list_events(session, project)[-1]
    assert (event.action, event.subject, event.detail["cause"]) == ("run.queue", f"run {made.id}", "cron 3:00")


def test_a_run_stores_its_whole_config(session: Session, project: Project) -> None:
    run = runs.queue_run(session, project, RunKind.DPO, asked={"beta": 0.2}, config=DpoConfig(beta=0.2), seed=3)
    session.expire_all()
    stored = runs.get_run(session, run.id)
    assert (stored.asked, stored.seed) == ({"beta": 0.2}, 3)
    assert DpoConfig(**stored.config) == DpoConfig(beta=0.2)
    with pytest.raises(NotFound, match="no run 99"):
        runs.get_run(session, 99)


def test_a_heartbeat_carries_progress_and_brings_back_the_cancel(session: Session, project: Project) -> None:
    run = factories.make_run(session, project, worker="w")
    moment = utc_now() + timedelta(seconds=30)
    assert runs.heartbeat(session, run.id, "w", 3, 10, now=moment) == runs.Beat(cancel=False, lost=False)
    stored = runs.get_run(session, run.id)
    assert (stored.step, stored.total_steps, stored.heartbeat_at) == (3, 10, moment)
    runs.heartbeat(session, run.id, "w")
    assert runs.get_run(session, run.id).step == 3, "a beat without a step keeps the last one"
    runs.request_cancel(session, run, factories.make_user(session))
    assert runs.heartbeat(session, run.id, "w") == runs.Beat(cancel=True, lost=False)
    assert runs.heartbeat(session, run.id, "another") == runs.Beat(cancel=False, lost=True)
    runs.finish_run(session, run.id, "w", RunStatus.CANCELLED, error="cancelled")
    assert runs.heartbeat(session, run.id, "w").lost


def test_a_queued_run_is_cancelled_at_once(session: Session, project: Project) -> None:
    user = factories.make_user(session, "olga")
    run = runs.request_cancel(session, factories.make_run(session, project), user)
    assert (run.status, run.error) == (RunStatus.CANCELLED, "cancelled by olga")
    assert run.finished_at is not None
    assert runs.claim_run(session, "w", EVERYTHING) is None
    with pytest.raises(Conflict, match="ended already"):
        runs.request_cancel(session, run, user)


def test_a_cancel_of_a_stale_copy_reaches_the_running_run(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        project = factories.make_project(session)
        stale = factories.make_run(session, project)
    with sessions.begin() as session:
        runs.claim_run(session, "w", EVERYTHING)
    assert stale.status is RunStatus.QUEUED, "the page still shows it as queued"
    with sessions.begin() as session:
        found = runs.request_cancel(session, stale, None)
        assert found.status is RunStatus.RUNNING
        assert runs.heartbeat(session, found.id, "w").cancel


def test_only_the_holder_ends_a_run(session: Session, project: Project) -> None:
    run = factories.make_run(session, project, worker="w")
    with pytest.raises(Conflict, match="no longer held by ghost"):
        runs.finish_run(session, run.id, "ghost", RunStatus.FAILED)
    runs.finish_run(
        session, run.id, "w", RunStatus.FAILED, error="NaN", result={"loss": None}, environment={"torch": "2"}
    )
    stored = runs.get_run(session, run.id)
    assert (stored.status, stored.error, stored.result, stored.environment) == (
        RunStatus.FAILED, "NaN", {"loss": None}, {"torch": "2"},
    )  # fmt: skip
    with pytest.raises(Conflict):
        runs.finish_run(session, run.id, "w", RunStatus.SUCCEEDED)
    with pytest.raises(ValueError, match="no end"):
        runs.finish_run(session, run.id, "w", RunStatus.QUEUED)


def test_a_lost_run_goes_back_and_is_given_up_after_three_claims(session: Session, project: Project) -> None:
    run = factories.make_run(session, project)
    moment, patience = utc_now(), timedelta(seconds=30)
    started = []
    for attempt in (1, 2, 3):
        assert runs.claim_run(session, f"w{attempt}", EVERYTHING, now=moment) is run
        started.append(run.started_at)
        assert runs.requeue_lost(session, patience, now=moment + timedelta(seconds=29)) == []
        moment += timedelta(minutes=1)
        expected = [run.id] if attempt < 3 else []
        assert runs.requeue_lost(session, patience, now=moment) == expected
    assert set(started) == {started[0]}
    assert run.status is RunStatus.FAILED
    assert "lost 3 times" in (run.error or "")
    assert runs.heartbeat(session, run.id, "w3").lost


def test_a_lost_run_that_was_to_be_cancelled_is(session: Session, project: Project) -> None:
    run = factories.make_run(session, project, worker="w")
    runs.request_cancel(session, run, None)
    assert runs.requeue_lost(session, timedelta(0), now=factories.later(minutes=1)) == []
    assert run.status is RunStatus.CANCELLED


def test_a_worker_that_stops_in_good_order_costs_no_attempt(session: Session, project: Project) -> None:
    run = factories.make_run(session, project, worker="w")
    assert runs.release_run(session, run.id, "w")
    stored = runs.get_run(session, run.id)
    assert (stored.status, stored.attempts, stored.worker) == (RunStatus.QUEUED, 0, None)
    assert not runs.release_run(session, run.id, "w")


def test_metrics_are_replaced_thinned_and_never_infinite(session: Session, project: Project) -> None:
    run = factories.make_run(session, project, worker="w")
    runs.add_metrics(session, run.id, [])
    runs.add_metrics(session, run.id, [MetricPoint(n, "loss", 1 / n) for n in range(1, 1234)])
    runs.add_metrics(session, run.id, [MetricPoint(1, "loss", float("nan")), MetricPoint(1233, "loss", 0.5)])
    runs.add_metrics(session, run.id, [MetricPoint(5, "margin", float("inf")), MetricPoint(5, "margin", 2.0)])
    series = runs.metric_series(session, run.id, max_points=100)
    loss = series["loss"]
    assert (loss[0], loss[-1]) == ((1, None), (1233, 0.5))
    assert 90 <= len(loss) <= 101
    steps = [step for step, _ in loss]
    assert steps == sorted(set(steps))
    assert series["margin"] == [(5, 2.0)]
    assert len(runs.metric_series(session, run.id, max_points=5000)["loss"]) == 1233
    assert runs.metric_series(session, run.id + 1) == {}


def test_log_lines_are_read_on_from_where_one_stopped(session: Session, project: Project) -> None:
    run = factories.make_run(session, project, worker="w")
    runs.add_log(session, run.id, ["one", "nul \x00", "x" * 9000])
    runs.add_log(session, run.id, ["four"])
    assert [line[:6] for line in runs.log_lines(session, run.id)] == ["one", "nul \ufffd", "xxxxxx", "four"]
    assert len(runs.log_lines(session, run.id)[2]) == 4000
    assert runs.log_lines(session, run.id, after=3) == ["four"]
    assert runs.log_lines(session, run.id, limit=1) == ["one"]


def test_of_many_workers_each_run_goes_to_one(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        projects = [factories.make_project(session) for _ in range(3)]
        for project in projects:
            for kind in (RunKind.GENERATE, RunKind.GENERATE, RunKind.REWARD, RunKind.DPO):
                factories.make_run(session, project, kind)
    claimed: list[tuple[int, int, RunKind]] = []
    failures: list[BaseException] = []
    start = threading.Barrier(6)

    def work(number: int) -> None:
        try:
            start.wait()
            while True:
                with sessions.begin() as session:
                    run = runs.claim_run(session, f"w{number}", EVERYTHING)
                if run is None:
                    return
                claimed.append((run.id, run.project_id, run.kind))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len({run_id for run_id, _, _ in claimed}) == len(claimed)
    assert Counter(kind for _, _, kind in claimed)[RunKind.GENERATE] == 6
    training = Counter(project_id for _, project_id, kind in claimed if kind.trains)
    assert training == {project.id: 1 for project in projects}
    with sessions() as session:
        waiting = session.scalars(select(Run).where(Run.status == RunStatus.QUEUED)).all()
        assert all(run.kind.trains for run in waiting)
        assert len(waiting) == 3
