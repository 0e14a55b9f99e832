"""A training run through a real store and a warm worker: how long until its first step, and from its last step until
somebody who writes to the model gets an answer of the version that it trained."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from storage import playground
from storage.accounts import create_user
from storage.annotations import PreferenceInput, Submission, record_imported
from storage.engine import make_engine, make_sessions, read_only
from storage.enums import CompletionOrigin, Outcome, Role, RunKind, RunStatus, TurnState
from storage.items import add_item, queue_counts
from storage.models import Completion, Conversation, Project, Run, User
from storage.projects import create_project
from storage.prompts import add_completion, add_prompt
from storage.registry import get_version, promote
from storage.runs import get_run
from storage.schema import upgrade
from storage.training import queue_training
from trainer.folder import RunFolder
from trainer.launch import Child, warm_up
from trainer.worker import Worker, WorkerSettings, kinds_of

STEPS = 20
FILLED = 8  # items that wait for people; fewer than usual are written sooner
PATIENCE = 300.0


class Waited(NamedTuple):
    """Seconds: from queued to the first step; from the last step until the version is registered, until it is the
    champion, and until a completion that it wrote is there."""

    first_step: float
    registered: float
    promoted: float
    served: float


def through_the_store(home: Path, rows: list[dict[str, Any]]) -> Waited:
    """Train DPO on `rows` (and on the held-out part of them) with the defaults, but for `STEPS` steps only."""
    home.mkdir(parents=True)
    url = f"sqlite:///{home / 'feedback.db'}"
    upgrade(url)
    engine = make_engine(url)
    sessions = make_sessions(engine)
    with sessions.begin() as session:
        project_id, user_id = _judged_project(session, rows)
    warm_up()
    (home / "warm").mkdir()
    warm = Child(RunFolder(home / "warm"), nice=0)  # ends at once, for want of a run.json, when the imports are done
    while warm.exit_code is None:
        time.sleep(0.05)
    worker = Worker(WorkerSettings(url, home, kinds=kinds_of(["train", "generate"])), sessions)
    try:
        return _measured(worker, sessions, home, project_id, user_id)
    finally:
        worker.close()
        engine.dispose()


def _measured(worker: Worker, sessions: sessionmaker[Session], home: Path, project_id: int, user_id: int) -> Waited:
    def until(there: Callable[[], bool]) -> float:
        deadline = time.monotonic() + PATIENCE
        while not there():
            if time.monotonic() > deadline:
                raise RuntimeError("nothing happens any more")
            worker.tick()
            time.sleep(0.02)
        return time.perf_counter()

    def run_is(*, ended: bool) -> bool:
        with read_only(sessions) as session:
            run = get_run(session, run_id)
        if run.error:
            raise RuntimeError(f"the run failed: {run.error}")
        return run.status.ended if ended else bool(run.step)

    talk_id = _send(sessions, project_id, user_id, "Where is my order 4417?")
    until(lambda: bool(_writers(sessions, talk_id)))  # warm
    until(lambda: _idle(sessions, project_id))
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        asked = {"max_steps": STEPS}
        run_id = queue_training(session, project, RunKind.DPO, asked, home=home, default_base_model="starter").id
    queued = time.perf_counter()
    first = until(lambda: run_is(ended=False))
    events = home / "runs" / str(run_id) / "events.jsonl"
    last = until(lambda: _last_step(events))
    registered = until(lambda: run_is(ended=True))
    with sessions.begin() as session:
        name = str((get_run(session, run_id).result or {})["model_version"])
        version = get_version(session, session.get_one(Project, project_id), name)
        promote(session, version, session.get_one(User, user_id), "the benchmark asks for it")
        version_id = version.id
    promoted = time.perf_counter()
    _send(sessions, project_id, user_id, "My parcel 4418 is late.")
    served = until(lambda: bool(_writers(sessions, talk_id)))
    if _writers(sessions, talk_id) != {version_id}:
        raise RuntimeError("another version answered")
    return Waited(first - queued, registered - last, promoted - last, served - last)


def _idle(sessions: sessionmaker[Session], project_id: int) -> bool:
    """The queue is full and nothing is written for it, as where people annotate while somebody thinks of training."""
    with read_only(sessions) as session:
        project = session.get_one(Project, project_id)
        ended = Run.status.not_in((RunStatus.QUEUED, RunStatus.RUNNING))
        busy = select(Run.id).where(Run.kind == RunKind.GENERATE, ~ended).limit(1)
        full = queue_counts(session, project).unjudged > project.queue_target * 3 // 4  # see trainer.filling
        return full and session.scalar(busy) is None


def _last_step(events: Path) -> bool:
    for line in reversed(events.read_text().splitlines(keepends=True)):
        if line.endswith("\n") and (event := json.loads(line))["event"] == "progress":
            return bool(event["step"] == event["total"])
    return False


def _send(sessions: sessionmaker[Session], project_id: int, user_id: int, text: str) -> int:
    """A message in a new conversation."""
    with sessions.begin() as session:
        project, user = session.get_one(Project, project_id), session.get_one(User, user_id)
        talk = playground.my_conversation(session, project, user)
        playground.begin_anew(session, talk)
        playground.send(session, project, talk, text)
        return talk.id


def _writers(sessions: sessionmaker[Session], talk_id: int) -> set[int | None]:
    """The versions that answered; empty while it is being written."""
    with read_only(sessions) as session:
        talk = session.get_one(Conversation, talk_id)
        if talk.error:
            raise RuntimeError(f"no answer: {talk.error}")
        if talk.state is not TurnState.WRITTEN:
            return set()
        assignment = session.get_one(playground.Assignment, talk.assignment_id)
        return {session.get_one(Completion, one).model_version_id for one in assignment.shown_order}


def _judged_project(session: Session, rows: list[dict[str, Any]]) -> tuple[int, int]:
    """A project with these comparisons, on prompts of every split, and who made them."""
    project = create_project(session, "benchmark", queue_target=FILLED)
    user = create_user(session, "benchmark", Role.OPERATOR)
    for number, row in enumerate(rows):
        prompt = add_prompt(session, project, row["prompt"], "benchmark").row
        texts = [row[side][0]["content"] for side in ("chosen", "rejected")]
        first, second = (add_completion(session, prompt, text, CompletionOrigin.IMPORTED).row for text in texts)
        item = add_item(session, prompt, [first, second]).row
        preference = PreferenceInput(first.id, second.id, Outcome.FIRST, None)
        record_imported(session, item, user, Submission(preference=preference), f"{number:064d}")
    return project.id, user.id
