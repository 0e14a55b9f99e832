"""A small installation that is killed over and over: a worker, a web process, people who annotate, a database.

`Campaign` keeps one training run going and a program sending feedback, kills what it is told, starts it again, and in
the end looks whether anything was lost. `benchmarks.survive` does it for long, a test for a few kills.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from storage.artifacts import folder_sha256
from storage.engine import database_url, make_engine, make_sessions, read_only
from storage.enums import RunKind, RunStatus, TokenScope
from storage.models import Annotation, Item, ModelVersion, Project, Run
from storage.projects import create_project
from storage.runs import list_runs, log_lines, metric_series
from storage.snapshots import verify_snapshot
from storage.tokens import create_token
from storage.training import queue_training
from tests import factories
from tests.trainer.working import judge
from trainer.checkpoints import SEAL

VICTIMS = ("worker", "process", "web", "connection")
LOST_AFTER = 4.0  # seconds of silence until a run is given to the next worker
_DEAD_WITHIN = 10.0  # seconds of waiting for the children of what was killed; who is there in the end is an orphan
_ENDS = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
_WORKER = """
import logging, sys
from datetime import timedelta
from pathlib import Path
from trainer.worker import *
logging.basicConfig(level="INFO")
run_worker(WorkerSettings(sys.argv[1], Path(sys.argv[2]), kinds=kinds_of(["train"]), device="cpu", poll_seconds=0.2,
                          lost_after=timedelta(seconds=float(sys.argv[3]))))
"""

Series = dict[str, list[tuple[int, float | None]]]


@dataclass
class Found:
    """What there is to see after the last kill."""

    kills: Counter[str]
    ended: Counter[str]  # runs by how they ended
    unexplained: list[str] = field(default_factory=list)  # runs that ended in no way that anybody promised
    resumed: int = 0  # runs that went on from a checkpoint after a kill
    compared: int = 0  # of them those whose losses were compared
    difference: float = 0.0  # the largest, of any loss of theirs from that of the uninterrupted run
    orphans: list[int] = field(default_factory=list)
    half: list[str] = field(default_factory=list)  # artifacts and snapshots whose bytes are not those registered
    acknowledged: int = 0  # annotations
    lost: int = 0
    twice: int = 0


class Kept:
    """A process that is started again whenever it is gone."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self._command, self._log = command, log
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def keep(self) -> None:
        """Start it when it does not run."""
        if self.process is None or self.process.poll() is not None:
            with self._log.open("ab") as log:
                self.process = subprocess.Popen(
                    self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
                )

    def family(self) -> list[psutil.Process]:
        """It and everything below it."""
        try:
            root = psutil.Process(self.process.pid if self.process else -1)
            return [root, *root.children(recursive=True)]
        except (psutil.NoSuchProcess, ValueError):
            return []

    def grandchild(self) -> psutil.Process | None:
        """The process of a run: the fork server's child."""
        family = self.family()
        near = {one.pid for one in family[:1]}
        for one in family[1:]:
            try:
                if one.ppid() not in near:
                    return one
            except psutil.NoSuchProcess:
                continue
        return None

    def kill(self) -> list[psutil.Process]:
        """SIGKILL; gives those below it that live on for now."""
        family = self.family()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        _, alive = psutil.wait_procs(family[1:], timeout=_DEAD_WITHIN)
        return list(alive)


class Campaign:
    """One installation on the database at `url`, whose schema is there, with its data in `home`."""

    def __init__(self, home: Path, url: str, base_model: str, seed: int = 0, **asked: Any) -> None:
        self.home, self.url = home, url
        self._survivors: list[psutil.Process] = []
        self.lost_by: Counter[int] = Counter()  # workers by run
        self._done: dict[int, int] = {}  # the newest checkpoint of a run when something was killed
        self.rng = random.Random(seed)
        self.engine = make_engine(url)
        self.sessions = make_sessions(self.engine)
        self.asked = {"batch_size": 4, "lora_r": 4, "threads": 1, "early_stopping": False, **asked}
        self.found = Found(Counter(), Counter())
        self.on_postgres = database_url(url).get_backend_name() == "postgresql"
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.worker = Kept([sys.executable, "-c", _WORKER, url, str(home), str(LOST_AFTER)], home / "worker.log")
        web = [sys.executable, "-m", "feedback_app", "web", "--port", str(port)]
        self.web = Kept(web, home / "web.log", FEEDBACK_HOME=str(home), FEEDBACK_DATABASE_URL=url)
        self._prepare(base_model)
        self._ending = threading.Event()
        self._program = threading.Thread(target=self._send_feedback)

    def _prepare(self, base_model: str) -> None:
        with self.sessions.begin() as session:
            project = create_project(session, "trains", base_model=base_model, queue_target=0)
            inbox = create_project(session, "inbox", base_model=base_model, queue_target=0)
            operator = factories.make_user(session, "operator", factories.Role.OPERATOR)
            scopes = list(TokenScope)
            self.token = create_token(session, operator, "program", scopes, project=inbox, lifetime=None).plain
            self.project_id, self.inbox_id = project.id, inbox.id
        judge(self.sessions, self.project_id)

    # --- what goes on ---

    def __enter__(self) -> Campaign:
        self.keep()
        self._program.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._program.join()
        self._survivors += self.worker.kill() + self.web.kill()
        self.found.orphans = [one.pid for one in psutil.wait_procs(self._survivors, timeout=_DEAD_WITHIN)[1]]
        self.engine.dispose()

    def keep(self) -> None:
        """Whatever was killed runs again."""
        self.worker.keep()
        self.web.keep()

    def _send_feedback(self) -> None:
        """One annotation after the other, each sent until it was acknowledged, as a careful program does."""
        number = 0
        while not self._ending.is_set():
            said = {
                "annotator": f"person {number % 3}", "prompt": f"Question {number}?",
                "completions": [f"Yes {number}.", f"No {number}."], "preference": {"outcome": "first"},
            }  # fmt: skip
            headers = {"authorization": f"Bearer {self.token}", "idempotency-key": f"feedback-{number}"}
            try:
                answer = httpx.post(
                    f"{self.address}/api/v1/feedback",
                    json={"project": "inbox", "feedback": [said]},
                    headers=headers,
                    timeout=10,
                    trust_env=False,
                )
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            if answer.status_code == 200:
                number += 1
                self.found.acknowledged = number
            time.sleep(0.05)

    def queue(self, kind: RunKind) -> int:
        """A run on the same data, with the same seed, as all of its kind."""
        with self.sessions.begin() as session:
            project = session.get_one(Project, self.project_id)
            return queue_training(session, project, kind, self.asked, home=self.home, default_base_model="starter").id

    def open_run(self) -> Run | None:
        """The run that has not ended."""
        with read_only(self.sessions) as session:
            runs = list_runs(session, session.get_one(Project, self.project_id))
        return next((run for run in runs if not run.status.ended), None)

    def at_work(self) -> bool:
        """Whether the open run, if there is one, has something to lose: a checkpoint since the last kill."""
        run = self.open_run()
        return run is None or self._newest(run.id) > self._done.get(run.id, 0)

    def _newest(self, run_id: int) -> int:
        found = (self.home / "runs" / str(run_id) / "checkpoints").glob(f"checkpoint-*/{SEAL}")
        return max((int(path.parent.name.split("-")[-1]) for path in found), default=0)

    def wait(self, until: Callable[[], bool], seconds: float = 180) -> None:
        """Keep everything running until something is true."""
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds:g} s; see {self.home}/worker.log")
            self.keep()
            time.sleep(0.05)

    def pause(self, seconds: float) -> None:
        """Let it run for a while."""
        deadline = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= deadline, seconds + 60)

    def finish(self) -> None:
        """Wait until no run is open."""
        self.wait(lambda: self.open_run() is None)

    # --- killing ---

    def strike(self, victim: str) -> bool:
        """Kill it; False when it was not there."""
        if (run := self.open_run()) is not None:
            self._done[run.id] = self._newest(run.id)
            self.lost_by[run.id] += victim == "worker"
        if victim == "connection":
            if not self.on_postgres:
                return False
            admin = create_engine(database_url(self.url))
            with admin.connect() as connection:
                connection.exec_driver_sql(_ENDS)
            admin.dispose()
        elif victim == "process":
            process = self.worker.grandchild()
            if process is None:
                return False
            os.kill(process.pid, signal.SIGKILL)
        else:
            self._survivors += (self.worker if victim == "worker" else self.web).kill()
        self.found.kills[victim] += 1
        return True

    # --- looking ---

    def look(self, reference: dict[RunKind, int]) -> Found:
        """What became of everything; `reference`: the uninterrupted run of each kind."""
        found = self.found
        with read_only(self.sessions) as session:
            runs = list_runs(session, session.get_one(Project, self.project_id), limit=10_000)
            whole = {kind: metric_series(session, run_id, 100_000) for kind, run_id in reference.items()}
            for run in runs:
                self._look_at(session, run, whole.get(run.kind, {}))
            for version in session.scalars(select(ModelVersion).where(ModelVersion.folder.is_not(None))):
                folder = self.home / str(version.folder)
                if not folder.is_dir() or folder_sha256(folder) != version.sha256:
                    found.half.append(version.name)
            for one in {run.snapshot_id: run.snapshot for run in runs if run.snapshot is not None}.values():
                verify_snapshot(one, self.home)
            mine = (
                select(Item.prompt_id, func.count().label("n"))
                .join(Annotation, Annotation.item_id == Item.id)
                .where(Item.project_id == self.inbox_id)
                .group_by(Item.prompt_id)
            )
            stored = session.execute(mine).all()
        found.lost = max(0, found.acknowledged - len(stored))
        found.twice = sum(n > 1 for _, n in stored)
        return found

    def _look_at(self, session: Session, run: Run, whole: Series) -> None:
        found = self.found
        found.ended[run.status.value] += 1
        if run.status is RunStatus.FAILED and not run.error:
            found.unexplained.append(f"run {run.id} failed without a reason")
        if run.status not in (RunStatus.SUCCEEDED, RunStatus.FAILED):
            found.unexplained.append(f"run {run.id} is {run.status.value}")
        went_on = any("resuming from checkpoint-" in line for line in log_lines(session, run.id, limit=100_000))
        found.resumed += went_on
        if not went_on or run.status is not RunStatus.SUCCEEDED:
            return
        found.compared += 1
        series = metric_series(session, run.id, 100_000)
        for name in ("loss", "eval_loss"):
            mine, theirs = dict(series.get(name, [])), dict(whole.get(name, []))
            if mine.keys() != theirs.keys():
                found.unexplained.append(f"run {run.id}: {name} is known of other steps than in the uninterrupted run")
            for step in mine.keys() & theirs.keys():
                found.difference = max(found.difference, abs((mine[step] or 0.0) - (theirs[step] or 0.0)))


def moments(rng: random.Random, seconds: float) -> float:
    """A pause before the next kill: mostly short, sometimes long enough for a checkpoint or an end."""
    return min(rng.expovariate(1 / seconds), 4 * seconds)
