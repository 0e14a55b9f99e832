"""The way of one arm through the store: annotations in, refined, trained on, written with, measured."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from benchmarks.language_feedback.arms import BATCH, STEPS, UNSEEN, Arm, Crowd
from benchmarks.language_feedback.people import Shown, feedback, says_something, taste_of
from feedback_app.demo_people import Taste
from feedback_app.demo_project import add_requests
from feedback_app.settings import Settings, load_settings
from feedback_app.supervisor import Supervisor
from feedback_app.waiting import wait_for_run
from storage.accounts import create_user
from storage.annotations import record_imported
from storage.engine import make_engine, make_sessions, read_only
from storage.enums import CompletionOrigin, Role, RunKind, RunStatus
from storage.errors import TrainingFailed
from storage.items import add_item
from storage.models import Completion, Item, ModelVersion, Project, Prompt, Run, User
from storage.projects import CriterionSpec, create_project, find_project
from storage.prompts import add_completion, add_prompt
from storage.registry import promote
from storage.schema import upgrade
from storage.training import queue_generate, queue_refine, queue_training
from trainer.starter.grammar import sample_prompts

POOL = "pool"
WORKERS = 2  # training takes half of the cores; two cells go side by side


class Store(NamedTuple):
    """A store of its own, and the processes that work on it."""

    settings: Settings
    sessions: sessionmaker[Session]
    processes: Supervisor


@contextmanager
def open_store(home: Path) -> Iterator[Store]:
    """The store of one seed, with its workers; what an earlier, unfinished benchmark left there is used again."""
    url = f"sqlite:///{home / 'feedback.db'}"
    settings = load_settings(home=home, database_url=url, base_model="starter", poll_seconds=0.3)
    upgrade(settings.store_url)
    engine = make_engine(settings.store_url)
    try:
        with Supervisor(settings.as_environment(), settings.logs, print) as processes:
            for number in range(WORKERS):
                processes.start(f"worker {number}", ["worker"], restart=True)
            yield Store(settings, make_sessions(engine), processes)
    finally:
        engine.dispose()


def make_pool(store: Store, seed: int, size: int) -> list[Shown]:
    """`size` prompts with two different replies of the base model each, written once for all arms."""
    with store.sessions.begin() as session:
        project = find_project(session, POOL) or create_project(session, POOL, queue_target=0)
        add_requests(session, project, sample_prompts(size, seed, held_out=False), POOL)
        project_id = project.id
        missing = size - len(_pairs(session, project_id))
    if missing > 0:
        _generate(store, project_id, size, seed)
    with read_only(store.sessions) as session:
        return _pairs(session, project_id)[:size]


def run_cell(store: Store, arm: Arm, seed: int, size: int, crowd: Crowd, pool: list[Shown]) -> dict[str, Any]:
    """One arm with `size` annotations of one taste; what its policy is worth on unseen prompts, and how it came about.

    quality: one number from 0 to 1 a prompt, by the prompt's text. written: what the policy wrote, with the log-
    probability that it gives to each.
    """
    started = time.monotonic()
    told: dict[str, Any] = {}
    project_id = _new_project(store, f"{arm.name} {size} {time.time_ns()}")
    if arm.ratings or arm.critiques:
        told["annotations"] = _enter(store, project_id, arm, seed, crowd, pool[: size * arm.times])
        if arm.critiques:
            told["refine"] = finish(store, _queue_refine(store, project_id, seed)).result
        run = finish(store, _queue_dpo(store, project_id, STEPS[size], {"seed": seed, **arm.settings}))
        told["pairs"] = _promote(store, run)
    _add_unseen(store, project_id, seed)
    _generate(store, project_id, UNSEEN, seed)
    return {
        "seed": seed,
        "size": size,
        **asdict(crowd),
        "arm": arm.name,
        **_measure(store, project_id, taste_of(seed, crowd)),
        **told,
        "seconds": round(time.monotonic() - started, 1),
    }


def _pairs(session: Session, project_id: int) -> list[Shown]:
    rows = session.execute(
        select(Prompt.id, Prompt.messages, Completion.id, Completion.text)
        .join(Completion.prompt)
        .where(Prompt.project_id == project_id)
        .order_by(Prompt.id, Completion.id)
    )
    shown: dict[int, Shown] = {}
    for prompt_id, messages, completion_id, text in rows:
        shown.setdefault(prompt_id, Shown(messages, [])).completions.append((completion_id, text))
    return [pair for pair in shown.values() if len(pair.completions) >= 2]


def _new_project(store: Store, name: str) -> int:
    with store.sessions.begin() as session:
        project = create_project(session, name, criteria=[CriterionSpec("quality")], queue_target=0)
        return project.id


def _enter(store: Store, project_id: int, arm: Arm, seed: int, crowd: Crowd, pool: list[Shown]) -> int:
    """The arm's feedback on the pool's replies, as annotations; gives their number."""
    with store.sessions.begin() as session:
        project = session.get_one(Project, project_id)
        users = [_person(session, name) for name in ("ann", "ben", "cleo")]
        placed = [_place(session, project, pair) for pair in pool]
        shown = [pair for _, pair in placed]
        entered = 0
        for number, said in enumerate(feedback(arm, seed, shown, project.criteria[0].id, crowd)):
            if says_something(said):
                record_imported(session, placed[number][0], users[number % 3], said, f"{project_id:08d}{number:056d}")
                entered += 1
    return entered


def _person(session: Session, name: str) -> User:
    return session.scalar(select(User).where(User.name == name)) or create_user(session, name, Role.ANNOTATOR)


def _place(session: Session, project: Project, pair: Shown) -> tuple[Item, Shown]:
    """The pair as an item of the project; the replies have new ids there."""
    prompt = add_prompt(session, project, pair.messages, POOL).row
    replies = [add_completion(session, prompt, text, CompletionOrigin.IMPORTED).row for _, text in pair.completions[:2]]
    return add_item(session, prompt, replies).row, Shown(pair.messages, [(reply.id, reply.text) for reply in replies])


def _queue_refine(store: Store, project_id: int, seed: int) -> int:
    with store.sessions.begin() as session:
        project = session.get_one(Project, project_id)
        return queue_refine(session, project, {"seed": seed}, default_base_model="starter").id


def _queue_dpo(store: Store, project_id: int, steps: int, settings: dict[str, Any]) -> int:
    """DPO for exactly so many steps, on however many pairs there are; the rest is what an operator gets."""
    values = {"max_steps": steps, "epochs": 100.0, "batch_size": BATCH, "early_stopping": False, **settings}
    with store.sessions.begin() as session:
        project, home = session.get_one(Project, project_id), store.settings.home
        return queue_training(session, project, RunKind.DPO, values, home=home, default_base_model="starter").id


def finish(store: Store, run_id: int) -> Run:
    """Wait until a run has ended, and give it; raises `TrainingFailed` unless it succeeded."""
    ended = wait_for_run(store.sessions, run_id, lambda _line: None, lambda _run: store.processes.check())
    if ended.status is not RunStatus.SUCCEEDED:
        raise TrainingFailed(f"run {run_id} ({ended.kind}) {ended.status}: {ended.error}; home: {store.settings.home}")
    return ended


def _promote(store: Store, run: Run) -> dict[str, int]:
    """Make the trained policy the champion; gives what it learned from: pairs by source."""
    with store.sessions.begin() as session:
        version = session.scalars(select(ModelVersion).where(ModelVersion.run_id == run.id)).one()
        promote(session, version, None, "benchmark")
        snapshot = session.get_one(Run, run.id).snapshot
        used: dict[str, int] = snapshot.report["used"] if snapshot else {}
        return used


def _add_unseen(store: Store, project_id: int, seed: int) -> None:
    with store.sessions.begin() as session:
        unseen = sample_prompts(UNSEEN, seed + 500_000, held_out=True)
        add_requests(session, session.get_one(Project, project_id), unseen, "unseen")


def _generate(store: Store, project_id: int, prompts: int, seed: int) -> None:
    with store.sessions.begin() as session:
        values = {"prompts": prompts, "completions_per_prompt": 2, "seed": seed}
        project = session.get_one(Project, project_id)
        run_id = queue_generate(session, project, values, default_base_model="starter").id
    finish(store, run_id)


def _measure(store: Store, project_id: int, taste: Taste) -> dict[str, Any]:
    """Quality by prompt, 0 to 1, and what was written with its log-probability."""
    quality: dict[str, list[float]] = defaultdict(list)
    written: list[tuple[str, str, float]] = []
    with read_only(store.sessions) as session:
        rows = session.execute(
            select(Prompt.messages, Completion.text, Completion.mean_logprob, Completion.token_count)
            .join(Completion.prompt)
            .where(Prompt.project_id == project_id, Prompt.source == "unseen")
            .where(Completion.origin == CompletionOrigin.MODEL)
        )
        for messages, text, mean_logprob, tokens in rows:
            points = (taste.of_text(messages, text) - taste.worst) / (taste.best - taste.worst)
            quality[messages[-1]["content"]].append(points)
            written.append((messages[-1]["content"], text, (mean_logprob or 0.0) * (tokens or 0)))
    return {"quality": {prompt: statistics.fmean(points) for prompt, points in quality.items()}, "written": written}
