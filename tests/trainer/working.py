"""What the tests of the worker share: queue a run, turn the worker until something is true, look at what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from storage.annotations import PreferenceInput, Submission, submit
from storage.engine import read_only
from storage.enums import Outcome, RunKind, Split
from storage.models import Project, Run
from storage.runs import get_run, log_lines
from storage.training import queue_generate, queue_training
from tests.factories import make_item, make_lease, make_prompt, make_user
from trainer.worker import Worker, kinds_of

ASKED: dict[str, Any] = {"batch_size": 4, "lora_r": 4, "threads": 1, "max_length": 128}
TRAINING = kinds_of(["train"])
GENERATION = kinds_of(["generate"])
SRC = Path(__file__).parents[2]


def judge(sessions: sessionmaker[Session], project_id: int, train: int = 18, held_out: int = 4) -> None:
    """Comparisons of two completions on prompts of every split; a yes is always better than a no."""
    with sessions.begin() as session:
        project, user = session.get_one(Project, project_id), make_user(session)
        for split, count in ((Split.TRAIN, train), (Split.VALIDATION, held_out), (Split.TEST, held_out)):
            for number in range(count):
                prompt = make_prompt(session, project, split=split)
                make_item(session, project, prompt=prompt, texts=[f"Yes, yes {number}.", f"No, no {number}."])
                lease = make_lease(session, project, user)
                (first, text), (second, _) = lease.completions[:2]
                better = Outcome.FIRST if text.startswith("Yes") else Outcome.SECOND
                said = Submission(preference=PreferenceInput(first, second, better, 2), seconds_spent=1.5)
                submit(session, lease.assignment_id, user, said)


def work(worker: Worker, until: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "the worker did not get there"
        worker.tick()
        time.sleep(0.02)


def run_of(sessions: sessionmaker[Session], run_id: int) -> Run:
    with read_only(sessions) as session:
        return get_run(session, run_id)


def queue(sessions: sessionmaker[Session], project_id: int, home: Path, kind: RunKind, **values: Any) -> int:
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        run = queue_training(session, project, kind, ASKED | values, home=home, default_base_model="starter")
        return run.id


def queue_writing(sessions: sessionmaker[Session], project_id: int, **values: Any) -> int:
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        return queue_generate(session, project, {"threads": 1} | values, default_base_model="starter").id


def said(sessions: sessionmaker[Session], run_id: int, text: str) -> bool:
    with read_only(sessions) as session:
        return any(text in line for line in log_lines(session, run_id))


def child_pid(worker: Worker) -> int:
    pid = next(lane._live.child.pid for lane in worker._lanes if lane._live is not None)
    assert pid is not None
    return pid


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
