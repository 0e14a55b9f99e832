"""The playground's process: real, on the tiny model; what people send is answered, stopped, and never left alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from storage import playground
from storage.configs import SamplingSettings
from storage.engine import read_only
from storage.enums import RunKind, RunStatus, TurnState
from storage.models import Assignment, Completion, Conversation, Project, Run
from storage.projects import update_project
from storage.registry import get_version, promote
from tests.factories import make_project, make_user
from tests.trainer.conftest import FolderMaker
from tests.trainer.working import child_pid, judge, queue, run_of, work
from trainer.folder import Job, RunFolder
from trainer.policy import Request, make_generator
from trainer.recipes.playground import Answer, run
from trainer.streaming import Speaker, Stream
from trainer.worker import Worker, kinds_of

pytestmark = [pytest.mark.timeout(280), pytest.mark.usefixtures("warm")]
TALKING = frozenset({RunKind.PLAYGROUND})
Sessions = sessionmaker[Session]


def send(sessions: Sessions, project_id: int, user_id: int, text: str) -> int:
    with sessions.begin() as session:
        project, user = session.get_one(Project, project_id), session.get_one(playground.User, user_id)
        talk = playground.my_conversation(session, project, user)
        playground.send(session, project, talk, text)
        return talk.id


def talk_of(sessions: Sessions, talk_id: int) -> Conversation:
    with read_only(sessions) as session:
        return session.get_one(Conversation, talk_id)


def person(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return make_user(session).id


def written(sessions: Sessions, talk_id: int) -> list[Completion]:
    with read_only(sessions) as session:
        talk = session.get_one(Conversation, talk_id)
        assert talk.assignment_id is not None, talk.error
        order = session.get_one(Assignment, talk.assignment_id).shown_order
        return [session.get_one(Completion, one) for one in order]


def newest_run(sessions: Sessions) -> Run:
    with read_only(sessions) as session:
        return session.query(Run).order_by(Run.id.desc()).first()  # type: ignore[return-value]  # there is one


def test_streams_write_what_the_model_would_write_anyway(tiny_base: Path) -> None:
    """Greedy, token by token and row by row, it is the completion of the batch generator; the log-probability too."""
    greedy = SamplingSettings(temperature=0, max_new_tokens=16)
    messages = [{"role": "user", "content": "parcel late refund"}]
    speaker = Speaker(str(tiny_base), {"v0": None}, dtype="float32", device="cpu")
    stream = Stream(speaker, messages, ["v0", "v0"], greedy, 1)
    grown: list[str] = []
    while not stream.done:
        stream.step()
        grown.append(stream.texts()[0])
    other = make_generator(str(tiny_base), {"v0": None}, greedy, device="cpu")([Request(messages, "v0")], 1)[0]
    assert other is not None
    for one in stream.written():
        assert (one.text, one.token_count) == (other.text, other.token_count)
        assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=1e-4)
    assert len(set(grown)) > 3
    assert all("\ufffd" not in text[-1:] for text in grown[:-1])

    # What is there already is written again, a few times at most; the same seed writes the same.
    def texts(avoid: list[str]) -> list[str]:
        request = {"messages": messages, "versions": ["v0"] * 2, "sampling": {"max_new_tokens": 8}, "seed": 5}
        answer = Answer(speaker, request | {"avoid": avoid})
        while not answer.step():
            pass
        return answer.texts()

    first = texts([])
    assert first == texts([])
    assert len(set(first)) == 2
    assert not set(texts(first)) & set(first)


def test_the_folder_is_the_whole_contract(tiny_base: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    base = {"adapters": {"v0": None}, "versions": ["v0", "v0"], "sampling": {"max_new_tokens": 6}, "seed": 1}
    lines = [
        base | {"key": "1.1", "messages": [{"role": "user", "content": "parcel"}]},
        base | {"key": "2.1", "messages": [{"role": "user", "content": "lamp"}]},
        base | {"key": "3.1", "messages": [{"role": "user", "content": "x"}], "sampling": {"max_new_tokens": 4000}},
        {"stop": "2.1"},
        {"end": True},
    ]
    folder.requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = {"device": "cpu", "threads": 1, "idle_seconds": 0}
    job = Job(recipe=RunKind.PLAYGROUND, run_id=1, project="p", config=config, base_model=str(tiny_base),
              adapters={"v0": None})  # fmt: skip
    assert run(folder, job)["answered"] == 1
    events = [json.loads(line) for line in folder.events.read_text().splitlines()]
    by_key = {(event["event"], event["key"]) for event in events if "key" in event}
    assert by_key == {("piece", "1.1"), ("written", "1.1"), ("refused", "3.1")}
    shown = ["", ""]
    for event in events:
        if event["event"] == "piece":
            shown = [old[:at] + new for old, (at, new) in zip(shown, event["pieces"], strict=True)]
        if event["event"] == "written":
            assert [row["text"] for row in event["completions"]] == shown


def test_people_are_answered_stopped_and_taken_up_again(
    sessions: Sessions, project_id: int, make_worker: Callable[..., Worker]
) -> None:
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        project.sampling = {"max_new_tokens": 200, "temperature": 1.0}
    ann, bob = person(sessions), person(sessions)
    worker = make_worker(TALKING)
    talk = send(sessions, project_id, ann, "parcel late")
    seen: list[int] = []

    def begun() -> bool:
        now = talk_of(sessions, talk)
        seen.append(len("".join(now.texts)))
        return now.state is TurnState.WRITING and seen[-1] > 0

    work(worker, begun)
    # Killed in the middle: the message is the draft again, with the reason, and can be sent again.
    os.kill(child_pid(worker), signal.SIGKILL)
    work(worker, lambda: newest_run(sessions).status is RunStatus.FAILED)
    with sessions.begin() as session:
        playground.settle(session, session.get_one(Project, project_id), session.get_one(Conversation, talk))
    assert talk_of(sessions, talk).draft == "parcel late"
    assert "killed" in (talk_of(sessions, talk).error or "")
    # Two people at once; one of them does not wait for the end.
    assert send(sessions, project_id, ann, "parcel late") == talk
    other = send(sessions, project_id, bob, "blue lamp")
    work(worker, begun)
    with sessions.begin() as session:
        playground.stop(session, session.get_one(Conversation, talk))
    work(worker, lambda: talk_of(sessions, other).state is TurnState.WRITTEN)
    assert talk_of(sessions, talk).draft == "parcel late"
    first = newest_run(sessions)
    # The worker goes, and the process with it: whoever comes next takes the message up again.
    send(sessions, project_id, ann, "parcel late again")
    work(worker, begun)
    worker.close()
    assert run_of(sessions, first.id).status is RunStatus.QUEUED
    work(make_worker(TALKING), lambda: talk_of(sessions, talk).state is TurnState.WRITTEN)
    rows = written(sessions, talk)
    assert [row.text for row in rows] == talk_of(sessions, talk).texts
    assert {row.run_id for row in rows} == {first.id}
    assert all(row.mean_logprob and row.token_count and row.latency_ms for row in rows)


def test_a_new_champion_writes_from_the_next_message_on_and_projects_take_turns(
    sessions: Sessions, project_id: int, tiny_base: Path, home: Path, make_worker: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    judge(sessions, project_id)
    worker = make_worker(kinds_of(["train", "playground"]))
    training = queue(sessions, project_id, home, RunKind.DPO, max_steps=1, learning_rate=0.05)
    ann = person(sessions)
    talk = send(sessions, project_id, ann, "parcel late")  # beside the training
    work(worker, lambda: talk_of(sessions, talk).state is TurnState.WRITTEN)
    process = newest_run(sessions).id
    work(worker, lambda: run_of(sessions, training).status.ended)

    def next_versions(share: float) -> list[str]:
        with sessions.begin() as session:
            update_project(session, session.get_one(Project, project_id), gate_settings={"canary_share": share})
            playground.begin_anew(session, session.get_one(Conversation, talk))
        send(sessions, project_id, ann, "parcel late")
        work(worker, lambda: talk_of(sessions, talk).state is TurnState.WRITTEN)
        with read_only(sessions) as session:
            project = session.get_one(Project, project_id)
            names = {get_version(session, project, name).id: name for name in ("policy-v0", "policy-v1")}
        return sorted(names[row.model_version_id or 0] for row in written(sessions, talk))

    assert next_versions(0.0) == ["policy-v0", "policy-v0"]
    assert next_versions(1.0) == ["policy-v0", "policy-v1"]
    with sessions.begin() as session:
        promote(session, get_version(session, session.get_one(Project, project_id), "policy-v1"), None, "better")
    assert next_versions(1.0) == ["policy-v1", "policy-v1"]
    assert newest_run(sessions).id == process  # one process all along

    # Two more projects: the oldest process makes room once it had its time.
    monkeypatch.setattr("trainer.worker.TALK_SECONDS", 0.0)
    with sessions.begin() as session:
        more = [make_project(session, base_model=str(tiny_base), queue_target=0).id for _ in range(2)]
    talks = [send(sessions, one, ann, "hello") for one in more]
    work(worker, lambda: all(talk_of(sessions, one).state is TurnState.WRITTEN for one in talks))
    assert run_of(sessions, process).status is RunStatus.SUCCEEDED
    assert run_of(sessions, process).result == {"answered": 4, "tokens": run_of(sessions, process).result["tokens"]}  # type: ignore[index]  # it succeeded


def test_what_cannot_be_answered_is_said(
    sessions: Sessions, project_id: int, tmp_path: Path, make_worker: Callable[..., Worker], make_folder: FolderMaker
) -> None:
    with sessions.begin() as session:
        session.get_one(Project, project_id).base_model = str(tmp_path / "gone")
    talk = send(sessions, project_id, person(sessions), "parcel late")
    work(make_worker(TALKING), lambda: newest_run(sessions).status.ended)
    with sessions.begin() as session:
        playground.settle(session, session.get_one(Project, project_id), session.get_one(Conversation, talk))
    assert "no such folder" in (talk_of(sessions, talk).error or "")
