"""`feedback-app demo`: the loop once around, without a browser, on data of its own.

Simulated people judge what the model writes through the functions that the pages call; a real worker process writes
and trains; the better policy is promoted and writes for prompts that nobody has seen. The report says what came out,
whatever it is.
"""

from __future__ import annotations

import math
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from feedback_app.demo_people import Annotator, Taste
from feedback_app.demo_project import add_requests, make_demo_project
from feedback_app.settings import Settings, load_settings
from feedback_app.supervisor import Supervisor
from feedback_app.waiting import wait_for_run
from storage.accounts import create_user
from storage.annotations import submit
from storage.engine import make_engine, make_sessions, read_only
from storage.enums import Role, RunKind, RunStatus
from storage.errors import Conflict, TrainingFailed
from storage.items import lease_next
from storage.models import Completion, ModelVersion, Project, Prompt, Run
from storage.registry import champion, promote
from storage.schema import upgrade
from storage.training import queue_generate, queue_training

UNSEEN_PROMPTS = 120
PEOPLE = 3
Say = Callable[[str], None]


@dataclass(frozen=True)
class DemoReport:
    """What the loop brought, in points of the hidden taste, on prompts that were never annotated."""

    annotations: int
    reward_version: str
    reward_accuracy: float | None
    policy_version: str
    unseen_prompts: int
    before: float
    after: float
    gain: float
    low: float
    high: float
    better: int
    worse: int
    seconds: float
    home: str | None

    @property
    def verdict(self) -> str:
        """One honest line."""
        if self.low > 0:
            return "the new policy is better on prompts it has never seen"
        return "the new policy is worse" if self.high < 0 else "no difference is shown by these prompts"


class Loop(NamedTuple):
    """What every step of the demo works with."""

    settings: Settings
    sessions: sessionmaker[Session]
    processes: Supervisor
    say: Say


def run_demo(say: Say, *, home: Path | None, annotations: int, seed: int, unseen: int = UNSEEN_PROMPTS) -> DemoReport:
    """Run the loop once; `home` (new, or None for a temporary one) keeps its data.

    `annotations` items are judged, and the policies before and after are compared on `unseen` prompts. Raises
    `NotEnoughData` when the annotations decide too little to train on, `Conflict` when `home` is not empty.
    """
    from trainer.starter.grammar import sample_prompts

    started = time.monotonic()
    taste = Taste(seed)
    with _loop(say, home, started) as loop:
        with loop.sessions.begin() as session:
            seen = sample_prompts(annotations, seed, held_out=False)
            make_demo_project(session, seen, queue_target=0)  # 0: the demo says itself what is written when
        loop.say(f"{annotations} prompts; the base model writes two replies to each")
        _generate(loop, annotations)
        loop.say(f"{PEOPLE} people with one hidden taste judge them")
        judged = _annotate(loop, taste, annotations, seed)
        with loop.sessions.begin() as session:
            add_requests(session, _project(session), sample_prompts(unseen, seed + 1, held_out=True))
        loop.say(f"{judged} annotations; the base model writes for {unseen} prompts nobody has seen")
        _generate(loop, unseen)
        loop.say("a reward model learns from the annotations")
        reward = _train(loop, RunKind.REWARD)
        loop.say("a new policy learns from them (DPO)")
        policy = _train(loop, RunKind.DPO)
        base = _promote(loop, policy)
        loop.say(f"{policy.name} is promoted and writes for the unseen prompts")
        _generate(loop, unseen)
        worth = _measure(loop, taste, base, policy)
    gains = [after - before for before, after in worth]
    mean, margin = statistics.fmean(gains), 1.96 * statistics.stdev(gains) / math.sqrt(len(gains))
    return DemoReport(
        annotations=judged,
        reward_version=reward.name,
        reward_accuracy=accuracy_on_test(reward.metrics),
        policy_version=policy.name,
        unseen_prompts=len(worth),
        before=statistics.fmean(before for before, _ in worth),
        after=statistics.fmean(after for _, after in worth),
        gain=mean,
        low=mean - margin,
        high=mean + margin,
        better=sum(gain > 0 for gain in gains),
        worse=sum(gain < 0 for gain in gains),
        seconds=round(time.monotonic() - started, 1),
        home=str(home) if home else None,
    )


@contextmanager
def _loop(say: Say, home: Path | None, started: float) -> Iterator[Loop]:
    """A store of its own (never the installation's) and one worker process."""
    if home is not None and home.exists() and any(home.iterdir()):
        raise Conflict(f"the folder {home} is not empty; give the demo a new one")
    with tempfile.TemporaryDirectory(prefix="feedback-demo-") as temporary:
        folder = (home or Path(temporary)).absolute()
        url = f"sqlite:///{folder / 'feedback.db'}"
        settings = load_settings(home=folder, database_url=url, base_model="starter", poll_seconds=0.3)
        upgrade(settings.store_url)
        engine = make_engine(settings.store_url)
        try:
            with Supervisor(settings.as_environment(), settings.logs, say) as processes:
                processes.start("worker", ["worker"], restart=True)
                yield Loop(
                    settings,
                    make_sessions(engine),
                    processes,
                    lambda line: say(f"[{time.monotonic() - started:5.1f} s] {line}"),
                )
        finally:
            engine.dispose()


def _project(session: Session) -> Project:
    return session.scalars(select(Project)).one()


def _finish(loop: Loop, run: Run) -> Run:
    ended = wait_for_run(loop.sessions, run.id, lambda _line: None, lambda _run: loop.processes.check())
    if ended.status is not RunStatus.SUCCEEDED:
        raise TrainingFailed(f"run {run.id} ({run.kind}) {ended.status}: {ended.error}; logs: {loop.settings.logs}")
    return ended


def _generate(loop: Loop, prompts: int) -> None:
    with loop.sessions.begin() as session:
        values = {"prompts": prompts, "completions_per_prompt": 2}
        run = queue_generate(session, _project(session), values, default_base_model=loop.settings.base_model)
    _finish(loop, run)


def _annotate(loop: Loop, taste: Taste, wanted: int, seed: int) -> int:
    """People take turns at the queue until it is empty or `wanted` items are judged; one transaction a submit."""
    rng = random.Random(seed)
    with loop.sessions.begin() as session:
        users = [create_user(session, f"person {number + 1}", Role.ANNOTATOR) for number in range(PEOPLE)]
        quality = next(c.id for c in _project(session).criteria if c.name == "quality")
    people = [(user, Annotator(taste, random.Random(f"{user.name} {seed}"))) for user in users]
    for done in range(wanted):
        user, person = people[done % len(people)]
        with loop.sessions.begin() as session:
            lease = lease_next(session, _project(session), user, rng=rng)
            if lease is None:
                return done
            submit(session, lease.assignment_id, user, person.judge(lease.prompt_messages, lease.completions, quality))
    return wanted


def _train(loop: Loop, kind: RunKind) -> ModelVersion:
    with loop.sessions.begin() as session:
        run = queue_training(
            session,
            _project(session),
            kind,
            {},
            home=loop.settings.home,
            default_base_model=loop.settings.base_model,
        )
    _finish(loop, run)
    with read_only(loop.sessions) as session:
        return session.scalars(select(ModelVersion).where(ModelVersion.run_id == run.id)).one()


def _promote(loop: Loop, policy: ModelVersion) -> ModelVersion:
    """Make the policy the champion; gives the one before."""
    with loop.sessions.begin() as session:
        before = champion(session, _project(session))
        if before is None:
            raise TrainingFailed("no champion wrote the first completions")
        promote(session, session.get_one(ModelVersion, policy.id), None, "it is measured next, on unseen prompts")
        return before


def _measure(loop: Loop, taste: Taste, old: ModelVersion, new: ModelVersion) -> list[tuple[float, float]]:
    """Per unseen prompt: the mean worth of what the old and of what the new policy wrote."""
    worth: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with read_only(loop.sessions) as session:
        rows = session.execute(
            select(Prompt.id, Prompt.messages, Completion.model_version_id, Completion.text)
            .join(Completion.prompt)
            .where(Completion.model_version_id.in_([old.id, new.id]))
        )
        for prompt_id, messages, version_id, text in rows:
            worth[prompt_id][version_id or 0].append(taste.of_text(messages, text))
    both = [versions for versions in worth.values() if old.id in versions and new.id in versions]
    if len(both) < 2:
        raise TrainingFailed("the old and the new policy share no prompts; nothing can be compared")
    return [(statistics.fmean(versions[old.id]), statistics.fmean(versions[new.id])) for versions in both]


def accuracy_on_test(metrics: dict[str, Any]) -> float | None:
    """The accuracy on test prompts among a version's metrics."""
    nested = metrics.get("test")
    value = nested.get("accuracy") if isinstance(nested, dict) else metrics.get("test_accuracy")
    return float(value) if value is not None else None
