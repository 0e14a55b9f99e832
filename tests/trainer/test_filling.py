"""When a worker queues generation and training by itself: what it asks for, and that it never asks twice."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from storage import annotations, blind_tests, gate, registry
from storage.annotations import CritiqueInput, Submission
from storage.audit import list_events
from storage.engine import read_only
from storage.enums import RunKind, RunStatus, Split
from storage.models import Completion, Project, Run, utc_now
from storage.projects import update_project
from storage.runs import claim_run, finish_run, list_runs
from storage.schedule import due
from tests.factories import (
    make_annotation,
    make_item,
    make_items,
    make_judgeable,
    make_lease,
    make_project,
    make_prompt,
    make_user,
    make_version,
)
from trainer.filling import FIRST, fill_queues
from trainer.schedule import queue_due


def _project(sessions: sessionmaker[Session], prompts: int = 30, **fields: Any) -> int:
    with sessions.begin() as session:
        project = make_project(session, **fields)
        for _ in range(prompts):
            make_prompt(session, project)
        return project.id


def _fill(sessions: sessionmaker[Session], **fields: Any) -> list[Run]:
    ids = fill_queues(sessions, "starter", **fields)
    with read_only(sessions) as session:
        return [session.get_one(Run, run_id) for run_id in ids]


def _finish(sessions: sessionmaker[Session], run: Run, status: RunStatus, items: int | None = None) -> None:
    with sessions.begin() as session:
        claim_run(session, "w", [run.kind])
        finish_run(session, run.id, "w", status, result=None if items is None else {"items": items})


def test_an_empty_queue_gets_a_small_run_first_and_the_rest_afterwards(sessions: sessionmaker[Session]) -> None:
    project_id = _project(sessions, queue_target=20)
    (first,) = _fill(sessions)
    assert first.config["prompts"] == FIRST
    assert _fill(sessions) == []  # it is not done yet
    _finish(sessions, first, RunStatus.SUCCEEDED, items=FIRST)
    with sessions.begin() as session:
        make_items(session, session.get_one(Project, project_id), FIRST)
    (second,) = _fill(sessions)
    assert second.config["prompts"] == 20 - FIRST


def test_a_queue_that_is_full_or_nearly_so_is_left_alone(sessions: sessionmaker[Session]) -> None:
    project_id = _project(sessions, queue_target=8)
    with sessions.begin() as session:
        make_items(session, session.get_one(Project, project_id), 7)
    assert _fill(sessions) == []


def test_nothing_is_asked_without_prompts_or_with_a_target_of_zero(
    sessions: sessionmaker[Session],
) -> None:
    _project(sessions, prompts=0)
    _project(sessions, queue_target=0)
    assert _fill(sessions) == []


def test_each_project_gets_its_own_run(sessions: sessionmaker[Session]) -> None:
    wanted = {_project(sessions), _project(sessions)}
    assert {run.project_id for run in _fill(sessions)} == wanted


def test_runs_that_bring_nothing_are_not_repeated_at_once(sessions: sessionmaker[Session]) -> None:
    _project(sessions)
    now = utc_now()
    (first,) = _fill(sessions, now=now)
    _finish(sessions, first, RunStatus.FAILED)
    assert _fill(sessions, now=now + timedelta(seconds=15)) == []
    (second,) = _fill(sessions, now=now + timedelta(seconds=60))
    _finish(sessions, second, RunStatus.SUCCEEDED, items=0)  # duplicates only
    assert _fill(sessions, now=now + timedelta(seconds=25)) == []
    assert len(_fill(sessions, now=now + timedelta(minutes=5))) == 1


def test_a_newer_candidate_is_mixed_in_until_it_is_judged_and_everywhere_in_a_blind_test(
    sessions: sessionmaker[Session],
) -> None:
    project_id = _project(sessions)
    with sessions.begin() as session:
        make_version(session, session.get_one(Project, project_id))
    (run,) = _fill(sessions)
    assert run.config["candidate_share"] == 0.2  # of pairs: a tenth of the completions
    _finish(sessions, run, RunStatus.SUCCEEDED, items=1)
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        version = registry.get_version(session, project, "policy-v1")
        update_project(session, project, gate_settings={"canary_share": 0.4})
        test = blind_tests.start(session, project, version, default_base_model="starter")
        pair = make_item(session, project)
        for place, by in enumerate((version, registry.champion(session, project))):
            session.get_one(Completion, pair.members[place].completion_id).model_version_id = by.id
        test_id = test.id
    with read_only(sessions) as session:
        run = list_runs(session)[0]
    assert run.config["candidate_share"] == 1.0
    _finish(sessions, run, RunStatus.SUCCEEDED, items=1)
    (run,) = _fill(sessions)
    assert run.config["candidate_share"] == 1.0
    with sessions.begin() as session:
        test = blind_tests.get_test(session, session.get_one(Project, project_id))
        assert (test.id, blind_tests.standing(session, test).waiting) == (test_id, 1)
        blind_tests.stop(session, test, None)
    _finish(sessions, run, RunStatus.SUCCEEDED, items=1)
    (run,) = _fill(sessions)
    assert run.config["candidate_share"] == 0.8
    _finish(sessions, run, RunStatus.SUCCEEDED, items=1)
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        make_judgeable(
            session, registry.get_version(session, project, "policy-v1"), registry.champion(session, project)
        )
        gate.judge(session, project, registry.get_version(session, project, "policy-v1"))
    (run,) = _fill(sessions)
    assert run.config["candidate_share"] == 0.0


# --- periodic training ---


def test_training_is_queued_once_when_enough_feedback_has_come(sessions: sessionmaker[Session], home: Path) -> None:
    with sessions.begin() as session:
        project, user = make_project(session), make_user(session)
        update_project(session, project, training_policy={"mode": "every_n", "every_n": 24, "kinds": ["dpo"]})
        for split, count in ((Split.TRAIN, 20), (Split.TEST, 3)):
            for _ in range(count):
                make_item(session, project, prompt=make_prompt(session, project, split=split))
                make_annotation(session, project, user)
        project_id = project.id
    assert queue_due(sessions, home, "starter") == []
    with sessions.begin() as session:
        project, user = session.get_one(Project, project_id), make_user(session)
        make_item(session, project, prompt=make_prompt(session, project, split=Split.TRAIN))
        make_annotation(session, project, user)
    assert len(queue_due(sessions, home, "starter")) == 1
    assert queue_due(sessions, home, "starter") == []
    with read_only(sessions) as session:
        (run,) = list_runs(session)
    assert run.kind is RunKind.DPO
    assert run.cause is not None


def test_too_little_feedback_is_no_error(sessions: sessionmaker[Session], home: Path) -> None:
    with sessions.begin() as session:
        project = make_project(session)
        update_project(session, project, training_policy={"mode": "every_n", "every_n": 1, "kinds": ["reward", "dpo"]})
        make_item(session, project, prompt=make_prompt(session, project, split=Split.TEST))
        make_annotation(session, project, make_user(session))
        project_id = project.id
    now = utc_now()
    for _ in range(3):  # three looks of the worker
        assert queue_due(sessions, home, "starter", now) == []
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        found = due(session, project, now)
        assert (found.kinds, found.cause) == ([RunKind.REWARD, RunKind.DPO], "every_n after the start")
        (why,) = found.refused  # the same for both
        assert why.startswith("16 more train pairs are needed: 0 of at least 16")
        noted = [one for one in list_events(session, project) if one.action == "train.refused"]
        assert len(noted) == 2
        make_item(session, project, prompt=make_prompt(session, project, split=Split.TRAIN))
        make_annotation(session, project, make_user(session))
    queue_due(sessions, home, "starter", now + timedelta(minutes=6))
    with sessions() as session:
        (newer,) = due(session, session.get_one(Project, project_id), now).refused
        assert newer.startswith("15 more train pairs are needed: 1 of at least 16")


def test_a_promotion_is_followed_by_answers_to_old_critiques(sessions: sessionmaker[Session]) -> None:
    project_id = _project(sessions, prompts=0, queue_target=1)
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        user, base = make_user(session), registry.base_version(session, project, "starter")
        make_item(session, project, version=base)
        lease = make_lease(session, project, user)
        critique = CritiqueInput(lease.completions[0][0], "Not like this.")
        annotations.submit(session, lease.assignment_id, user, Submission(critiques=[critique]))
        make_item(session, project, version=base)
    assert _fill(sessions) == []  # nothing was promoted
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        version = make_version(session, project)
        registry.promote(session, version, None, "better")
        make_item(session, project, version=version)
    (asked,) = _fill(sessions)
    assert len(asked.config["critique_ids"]) == 1
    assert _fill(sessions) == []
    _finish(sessions, asked, RunStatus.SUCCEEDED, items=0)
    assert _fill(sessions) == []
