"""When a project trains by itself, and what it says while it waits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from storage import annotations, projects, registry, runs
from storage.enums import ResolutionVerdict, RunKind, RunStatus
from storage.errors import Conflict, Invalid
from storage.models import Project, Resolution, Run, User
from storage.schedule import Due, due, next_cron
from tests import factories

NOON = datetime(2026, 5, 2, 12, tzinfo=UTC)


@pytest.fixture
def ann(session: Session) -> User:
    return factories.make_user(session, "ann")


def make_project(session: Session, policy: Mapping[str, Any], items: int = 6) -> Project:
    project = factories.make_project(session, training_policy=policy)
    project.created_at = NOON - timedelta(days=10)
    factories.make_items(session, project, items)
    return project


def train(session: Session, project: Project, found: Due, at: datetime) -> list[Run]:
    """Queue what is due, as the schedule does."""
    made = []
    for kind in found.kinds:
        made.append(factories.make_run(session, project, kind, cause=f"{found.cause}:{kind}"))
        made[-1].created_at = at
    session.flush()
    return made


def end(session: Session, made: list[Run]) -> None:
    for run in made:
        run.status = RunStatus.SUCCEEDED
    session.flush()


def test_off_never_starts(session: Session, ann: User) -> None:
    project = make_project(session, {"mode": "off"})
    factories.make_annotation(session, project, ann, now=NOON)
    assert due(session, project, NOON + timedelta(days=99)) == Due("training starts by hand only")


def test_every_n_counts_usable_annotations_since_the_last_training(session: Session, ann: User) -> None:
    project = make_project(session, {"mode": "every_n", "every_n": 2, "kinds": ["dpo"]})
    factories.make_annotation(session, project, ann, now=NOON)
    found = due(session, project, NOON)
    assert (found.kinds, found.cause) == ([], None)
    assert found.reason.startswith("1 more annotation is needed (1 of 2")
    factories.make_annotation(session, project, ann, now=NOON)
    found = due(session, project, NOON)
    assert (found.kinds, found.cause) == ([RunKind.DPO], "every_n after the start")
    first = train(session, project, found, at=NOON + timedelta(minutes=1))
    assert "queued" in due(session, project, NOON + timedelta(minutes=2)).reason
    end(session, first)
    assert "0 of 2" in due(session, project, NOON + timedelta(minutes=3)).reason
    for _ in range(2):
        factories.make_annotation(session, project, ann, now=NOON + timedelta(minutes=5))
    again = due(session, project, NOON + timedelta(minutes=6))
    assert again.cause == f"every_n after run {first[0].id}"


def test_one_cause_queues_one_run_of_each_kind(session: Session, ann: User) -> None:
    project = make_project(session, {"mode": "every_n", "every_n": 1, "kinds": ["reward", "dpo"]})
    factories.make_annotation(session, project, ann, now=NOON)
    found = due(session, project, NOON)
    assert found == due(session, project, NOON + timedelta(minutes=1)), "asked again, the cause is the same"
    made = train(session, project, found, at=NOON)
    assert [run.kind for run in made] == [RunKind.REWARD, RunKind.DPO]
    with pytest.raises(Conflict):
        train(session, project, found, at=NOON)


def test_cron_starts_once_per_time_and_only_with_something_new(session: Session, ann: User) -> None:
    project = make_project(session, {"mode": "cron", "cron": "0 3 * * *", "kinds": ["reward"]})
    three = NOON.replace(hour=3) + timedelta(days=1)
    before = due(session, project, NOON)
    assert (before.kinds, before.next_at) == ([], three)
    assert "no new annotations" in before.reason
    factories.make_annotation(session, project, ann, now=NOON)
    late = due(session, project, NOON)  # the worker was off for days: one training makes up for all of them
    assert late.kinds == [RunKind.REWARD]
    end(session, train(session, project, late, at=NOON))
    factories.make_annotation(session, project, ann, now=NOON + timedelta(hours=1))
    waiting = due(session, project, three - timedelta(minutes=1))
    assert (waiting.kinds, waiting.next_at) == ([], three)
    assert "2026-05-03 03:00 UTC" in waiting.reason
    found = due(session, project, three + timedelta(minutes=1))
    assert (found.kinds, found.cause) == ([RunKind.REWARD], f"cron {three.isoformat()}")
    assert found.next_at == three + timedelta(days=1)
    end(session, train(session, project, found, at=three + timedelta(minutes=1)))
    assert due(session, project, three + timedelta(hours=1)).kinds == []


def test_nothing_starts_while_a_run_is_under_way(session: Session, ann: User) -> None:
    project = make_project(session, {"mode": "every_n", "every_n": 1})
    by_hand = factories.make_run(session, project, worker="w")
    by_hand.created_at = NOON
    newer = factories.make_run(session, project)
    newer.status = RunStatus.CANCELLED
    factories.make_annotation(session, project, ann, now=NOON + timedelta(minutes=1))
    found = due(session, project, NOON + timedelta(minutes=2))
    assert (found.kinds, found.reason) == ([], f"run {by_hand.id} (dpo) is running")


def test_generation_is_no_training(session: Session, ann: User) -> None:
    project = make_project(session, {"mode": "every_n", "every_n": 1})
    factories.make_annotation(session, project, ann, now=NOON)
    factories.make_run(session, project, RunKind.GENERATE, worker="w")
    assert due(session, project, NOON).kinds


def test_a_failed_training_waits_for_new_annotations(session: Session, ann: User) -> None:
    project = make_project(session, {"mode": "every_n", "every_n": 1, "kinds": ["dpo"]})
    factories.make_annotation(session, project, ann, now=NOON)
    made = train(session, project, due(session, project, NOON), at=NOON + timedelta(seconds=1))
    runs.claim_run(session, "w", [RunKind.DPO])
    runs.finish_run(session, made[0].id, "w", RunStatus.FAILED, error="NaN")
    assert due(session, project, NOON + timedelta(hours=1)).kinds == []


def test_cron_lines_follow_crontab(session: Session) -> None:
    assert next_cron("*/15 * * * *", NOON) == NOON + timedelta(minutes=15)
    assert next_cron("0 3 * * *", NOON) == NOON.replace(hour=3) + timedelta(days=1)
    assert next_cron("0 0 30 2 *", NOON) is None, "the thirtieth of February"
    with pytest.raises(Invalid, match="five fields"):
        next_cron("0 3 * *", NOON)
    project = factories.make_project(session)
    projects.update_project(session, project, training_policy={"mode": "cron", "cron": "30 2 * * 1-5"})
    assert project.training_policy["cron"] == "30 2 * * 1-5"


def test_a_low_resolution_rate_starts_it_when_there_is_something_new_to_learn(session: Session, ann: User) -> None:
    policy = {"mode": "resolution", "resolution_below": 0.5, "resolution_least": 3, "every_n": 1, "kinds": ["cycle"]}
    project = make_project(session, policy)
    assert "needs 3 answers about the champion; there are 0" in due(session, project, NOON).reason
    version = factories.make_version(session, project)
    registry.promote(session, version, None, "better")
    session.get_one(Run, version.run_id).created_at = NOON - timedelta(days=1)
    for verdict in (ResolutionVerdict.FIXED, ResolutionVerdict.NOT, ResolutionVerdict.PARTLY):
        lease = factories.make_lease(session, project, ann, now=NOON)
        completion = lease.completions[0][0]
        said = annotations.Submission(critiques=[annotations.CritiqueInput(completion, "Too long.")])
        annotation = annotations.submit(session, lease.assignment_id, ann, said, now=NOON)
        row = Resolution(critique_id=annotation.critiques[0].id, completion_id=completion, version_id=version.id)
        row.verdict, row.held_out = verdict, False
        session.add(row)
    session.flush()
    found = due(session, project, NOON)
    assert found.kinds == [RunKind.CYCLE]
    assert found.reason.startswith("policy-v1 fixed 1 of 3 things that people criticised; 3 new annotations since run")
    assert found.cause == f"resolution after run {version.run_id}"
    project.training_policy = {**project.training_policy, "every_n": 9}
    assert due(session, project, NOON).reason.endswith("6 more annotations are needed (3 of 9 since the last training)")
    project.training_policy = {**project.training_policy, "resolution_below": 0.3}
    assert "1 of 3" in due(session, project, NOON).reason
    assert due(session, project, NOON).reason.endswith("not less than 30%")
    for kinds, message in ((["cycle", "dpo"], "alone"), (["refine"], "trains nothing")):
        with pytest.raises(Invalid, match=message):
            projects.update_project(session, project, training_policy={**policy, "kinds": kinds})
