"""The people of `benchmarks.queue`, in threads and in processes of which some are killed, and what is checked after."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from storage.annotations import PreferenceInput, Submission, save_draft, submit
from storage.engine import make_engine, make_sessions, read_only
from storage.enums import (
    AnnotationStatus,
    AssignmentStatus,
    CompletionOrigin,
    ItemStatus,
    Role,
)
from storage.enums import Outcome as Choice
from storage.errors import Conflict
from storage.items import Lease, add_item, lease_next, skip
from storage.models import (
    Annotation,
    Assignment,
    Item,
    Project,
    User,
    utc_now,
)
from storage.projects import create_project
from storage.prompts import add_completion, add_prompt

FAILED = 0  # instead of an annotation's id
THREADS = 32
PROCESSES = 8
_LEASE_SECONDS = 2
_ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Proof:
    """What was found after everybody went home; `problems` in words."""

    doubled: int = 0
    lost: int = 0
    stuck: int = 0
    annotations: int = 0
    failed: int = 0  # transactions that the database refused for being busy
    killed: int = 0
    seconds: float = 0.0
    looks: int = 0  # of the watcher
    problems: list[str] = field(default_factory=list)


# --- the people ---


def make_queue(sessions: sessionmaker[Session], items: int, people: int, overlap: int) -> None:
    """Project 1 with `items` pairs, and people 1 … `people`."""
    with sessions.begin() as session:
        project = create_project(session, "queue", overlap=overlap)
        session.add_all(User(name=f"person {n}", role=Role.ANNOTATOR) for n in range(1, people + 1))
        for n in range(items):
            prompt = add_prompt(session, project, [{"role": "user", "content": f"Question {n}?"}], "bench").row
            pair = [add_completion(session, prompt, f"{n} {s}", CompletionOrigin.MODEL).row for s in "ab"]
            add_item(session, prompt, pair)


def work(sessions: sessionmaker[Session], person: int, confirmed: Callable[[int], None]) -> None:
    """Judge until the project has no open item; each annotation's id is given to `confirmed` after its commit.

    A store that cannot be reached for a while (its patience ran out: `FAILED` is given) is asked again, as people do.
    """
    rng = random.Random(person)
    while True:
        try:
            _work(sessions, person, rng, confirmed)
        except (OperationalError, PoolTimeout):
            confirmed(FAILED)
        else:
            return


def _work(sessions: sessionmaker[Session], person: int, rng: random.Random, confirmed: Callable[[int], None]) -> None:
    with sessions() as session:
        user, project_id = session.get_one(User, person), 1
    while True:
        with sessions.begin() as session:
            lease = lease_next(session, session.get_one(Project, project_id), user, rng=rng)
        if lease is None:
            with read_only(sessions) as session:
                if not session.scalar(select(func.count()).select_from(Item).where(Item.status == ItemStatus.OPEN)):
                    return
            time.sleep(0.05)  # others hold the last ones
            continue
        try:
            annotation = _judge(sessions, lease, user, rng)
        except Conflict:
            continue  # too slow: the lease ran out and somebody else was quicker
        if annotation is not None:
            confirmed(annotation)


def _judge(sessions: sessionmaker[Session], lease: Lease, user: User, rng: random.Random) -> int | None:
    if rng.random() < 0.03:
        with sessions.begin() as session:
            skip(session, lease.assignment_id, user)
        return None
    if rng.random() < 0.125:
        with sessions.begin() as session:
            save_draft(session, lease.assignment_id, user, {"critique": "so far"})
    (first, _), (second, _) = lease.completions
    with sessions.begin() as session:
        judged = Submission(preference=PreferenceInput(first, second, Choice.FIRST, 2))
        return submit(session, lease.assignment_id, user, judged).id


def work_apart(url: str, person: int, log: Path) -> subprocess.Popen[bytes]:
    """`work` in a process of its own, which writes what was confirmed to it into `log` at once."""
    command = [sys.executable, "-m", "benchmarks._crowd", url, str(person), str(log)]
    return subprocess.Popen(command, cwd=_ROOT)


def _work_here(url: str, person: int, log: Path) -> None:
    with log.open("ab", buffering=0) as file:
        work(make_sessions(make_engine(url)), person, lambda annotation: _append(file.fileno(), annotation))


def _append(descriptor: int, annotation: int) -> None:
    os.write(descriptor, b"%d\n" % annotation)


# --- the three trials ---


def in_threads(url: str, items: int, *, people: int = THREADS, overlap: int = 2) -> Proof:
    """`people` threads of one program on one queue."""
    engine = make_engine(url)
    sessions = make_sessions(engine)
    make_queue(sessions, items, people, overlap)
    confirmed: list[int] = []
    failures: list[BaseException] = []

    def person(number: int) -> None:
        try:
            work(sessions, number, confirmed.append)
        except BaseException as error:
            failures.append(error)

    with watched(url) as proof:
        threads = [threading.Thread(target=person, args=(n,)) for n in range(1, people + 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    check(sessions, proof, confirmed)
    engine.dispose()
    return proof


def in_processes(
    url: str, items: int, logs: Path, *, processes: int = PROCESSES, kills: int = 0, overlap: int = 1
) -> Proof:
    """`processes` on one queue; `kills` of them are killed, and each is followed by a new person."""
    engine = make_engine(url)
    sessions = make_sessions(engine)
    make_queue(sessions, items, processes + kills, overlap)
    with sessions.begin() as session:
        session.execute(update(Project).values(lease_seconds=_LEASE_SECONDS))
    rng = random.Random(0)
    with watched(url) as proof:
        # Only who works can be killed in the middle of it: a log that has begun says so.
        running = {n: work_apart(url, n, logs / str(n)) for n in range(1, processes + 1)}
        newcomer = processes + 1
        while any(process.poll() is None for process in running.values()):
            time.sleep(rng.uniform(0.02, 0.2))
            busy = [n for n, process in running.items() if process.poll() is None and _size(logs / str(n))]
            if newcomer <= processes + kills and busy:
                victim = running.pop(rng.choice(busy))
                victim.kill()
                proof.killed += victim.wait() == -signal.SIGKILL
                running[newcomer] = work_apart(url, newcomer, logs / str(newcomer))
                newcomer += 1
    if any(process.returncode for process in running.values()):
        raise RuntimeError("a process ended with an error; its traceback is above")
    check(sessions, proof, [int(line) for log in logs.iterdir() for line in log.read_text().split()])
    engine.dispose()
    return proof


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# --- the proof ---


@contextmanager
def watched(url: str) -> Iterator[Proof]:
    """Look all the time whether an item has more annotations and live leases than places; counts seconds too."""
    proof, stop, begun = Proof(), threading.Event(), time.perf_counter()
    engine = make_engine(url)  # not that of the threads, which wait for its connections
    sessions = make_sessions(engine)

    def watch() -> None:
        while not stop.wait(0.05):
            with read_only(sessions) as session:
                session.execute(select(Project.id))  # the moment that is looked at, before the clock is read
                proof.problems += [f"in the middle: {line}" for line in _too_many(session)]
            proof.looks += 1

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield proof
    finally:
        proof.seconds = round(time.perf_counter() - begun, 1)
        stop.set()
        watcher.join()
        engine.dispose()
    proof.doubled += len(proof.problems)


def _too_many(session: Session) -> list[str]:
    live = (
        select(Assignment.item_id, func.count().label("leases"))
        .where(Assignment.status == AssignmentStatus.LEASED, Assignment.expires_at > utc_now())
        .group_by(Assignment.item_id)
        .subquery()
    )
    taken = Item.judged + func.coalesce(live.c.leases, 0)
    rows = session.execute(
        select(Item.id, taken)
        .join(Project, Project.id == Item.project_id)
        .outerjoin(live, live.c.item_id == Item.id)
        .where(taken > func.coalesce(Item.wanted, Project.overlap))
    )
    return [f"item {row[0]} is taken {row[1]} times" for row in rows]


def check(sessions: sessionmaker[Session], proof: Proof, confirmed: list[int]) -> None:
    """Look at what is in the store once everybody has gone."""
    proof.failed = confirmed.count(FAILED)
    confirmed = [annotation for annotation in confirmed if annotation != FAILED]
    with read_only(sessions) as session:
        stored = session.execute(
            select(Annotation.id, Annotation.item_id, Annotation.user_id).where(
                Annotation.status == AnnotationStatus.SUBMITTED
            )
        ).all()
        leases = session.execute(select(Assignment.item_id, Assignment.user_id)).all()
        overlap = session.get_one(Project, 1).overlap
        per_item = Counter(row[1] for row in stored)
        items = session.scalars(select(Item)).all()
    twice = [key for key, n in (Counter(row[1:] for row in stored)).items() if n > 1]
    twice += [key for key, n in Counter(tuple(row) for row in leases).items() if n > 1]
    full = [item.id for item in items if per_item[item.id] > (item.wanted or overlap)]
    stuck = [item.id for item in items if item.status is not ItemStatus.DONE or item.judged != per_item[item.id]]
    lost = set(confirmed) - {row[0] for row in stored}
    proof.doubled += len(twice) + len(full) + len(confirmed) - len(set(confirmed))
    proof.lost, proof.stuck, proof.annotations = len(lost), len(stuck), len(stored)
    proof.problems += [f"twice: {twice}"] * bool(twice) + [f"too many: {full}"] * bool(full)
    proof.problems += [f"stuck: {stuck}"] * bool(stuck) + [f"lost: {lost}"] * bool(lost)


if __name__ == "__main__":
    _work_here(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
