"""One turn of the loop as one run: reward -> calibrate -> refine -> rules -> train -> evaluate -> gate -> promote.

The run of a cycle has no process. It is queued, running and ended like any other, but what it does stands in its
children (`runs.parent_run_id`), ordinary runs that workers claim and resume. `advance` looks at the cycle's row and
does the next thing, all in the caller's transaction and under the row's lock: it may be called by many workers, at any
moment, as often as they like, and goes on where it was after a restart of everything.

`Run.result` of a cycle, also while it runs: {"steps": [{"step", "state", "run", "model_version", "why", "reasons",
"figures"}], "model_version": the policy it made, "verdict": the gate's, "promoted": bool, "why": what decided}.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session, aliased

from storage import auto
from storage.configs import SnapshotSettings, parse
from storage.critique_configs import RECIPES
from storage.cycle_configs import AUTO, CycleSettings
from storage.enums import CycleStep, GateVerdict, RunKind, RunStatus, StepState
from storage.errors import Conflict, FeedbackError, NotEnoughData
from storage.evaluations import queue_evaluation
from storage.gate import gate_settings, judge
from storage.models import ModelVersion, Project, Run, User, utc_now
from storage.registry import get_version, promote
from storage.runs import add_log, end_run, queue_run
from storage.training import queue_generate, queue_refine, queue_training

_OPEN = (RunStatus.QUEUED, RunStatus.RUNNING)
# Figures of a child that say in a word what came of it.
_TOLD = ("train_pairs", "test_accuracy", "test_loss", "selected", "completions", "win_rate", "implicit_accuracy")


@dataclass(frozen=True)
class Installation:
    """What queueing a run takes beside the project."""

    home: Path
    default_base_model: str


def queue_cycle(
    session: Session,
    project: Project,
    values: Mapping[str, Any],
    *,
    cause: str | None = None,
    user: User | None = None,
) -> Run:
    """Queue a cycle; `values` overrule the project's cycle settings, or are settings of the runs that train.

    Raises `Invalid` for an unknown key or a bad value, and `Conflict` when a cycle of the project is under way or there
    is one for `cause` already.
    """
    stored = parse(CycleSettings, project.cycle_settings or {}).model_dump(mode="json")
    own = {key: value for key, value in values.items() if key in stored}
    training = {key: value for key, value in values.items() if key not in stored and value is not None}
    config = parse(CycleSettings, stored | own | {"training": stored["training"] | training})
    # Two that ask at the same moment take turns at the project.
    session.execute(select(Project.id).where(Project.id == project.id).with_for_update(key_share=True))
    if (under_way := open_cycle(session, project)) is not None:
        raise Conflict(f"run {under_way.id} (cycle) is {under_way.status.value}; wait until it has ended, or cancel it")
    run = queue_run(session, project, RunKind.CYCLE, asked=dict(values), config=config, cause=cause, user=user)
    steps: list[CycleStep] = [*config.steps]
    if CycleStep.GATE in steps:
        steps.append(CycleStep.PROMOTE)
    run.result = {"steps": [{"step": step.value, "state": StepState.WAITING.value} for step in steps]}
    run.step, run.total_steps = 0, len(steps)
    session.flush()
    return run


def open_cycle(session: Session, project: Project) -> Run | None:
    """The project's cycle that has not ended, if there is one."""
    return session.scalar(
        select(Run).where(Run.project_id == project.id, Run.kind == RunKind.CYCLE, Run.status.in_(_OPEN)).limit(1)
    )


def ready_cycles(session: Session) -> list[int]:
    """The ids of the cycles that have not ended and wait for no child, oldest first."""
    child = aliased(Run)
    waits = exists().where(child.parent_run_id == Run.id, child.status.in_(_OPEN))
    query = select(Run.id).where(Run.kind == RunKind.CYCLE, Run.status.in_(_OPEN), ~waits).order_by(Run.id)
    return list(session.scalars(query))


def children(session: Session, run: Run) -> list[Run]:
    """The runs that a cycle queued, in order."""
    return list(session.scalars(select(Run).where(Run.parent_run_id == run.id).order_by(Run.id)))


def advance(session: Session, run_id: int, place: Installation, now: datetime | None = None) -> bool:
    """Do what a cycle is to do next, as far as it goes without waiting; False when there was nothing to do.

    Nothing happens while somebody else advances it. A step that has nothing to do is skipped with the reason; one that
    failed fails the cycle with its reason.
    """
    run = session.scalar(
        select(Run)
        .where(Run.id == run_id, Run.kind == RunKind.CYCLE, Run.status.in_(_OPEN))
        .with_for_update(skip_locked=True, of=Run)
        .execution_options(populate_existing=True)
    )
    if run is None:
        return False
    turn = _Turn(session, run, place, now or utc_now())
    changed = False
    while turn.move():
        changed = True
    if changed:
        turn.keep()
    return changed


def fail(session: Session, run_id: int, reason: str) -> None:
    """End a cycle that cannot go on; nothing happens to one that has ended."""
    run = session.get_one(Run, run_id, with_for_update=True, populate_existing=True)
    if not run.status.ended:
        add_log(session, run_id, [reason])
        end_run(session, run, RunStatus.FAILED, error=reason)


class _Turn:
    """A cycle while it is being advanced: its row is locked, its result is a copy that `keep` stores."""

    def __init__(self, session: Session, run: Run, place: Installation, now: datetime) -> None:
        self.session, self.run, self.place, self.now = session, run, place, now
        self.project = session.get_one(Project, run.project_id)
        self.config = parse(CycleSettings, run.config)
        self.user = session.get(User, run.requested_by_id) if run.requested_by_id else None
        self.result: dict[str, Any] = deepcopy(run.result or {})

    def keep(self) -> None:
        self.run.result = self.result
        self.run.step = sum(one["state"] not in (StepState.WAITING, StepState.RUNNING) for one in self.result["steps"])
        self.session.flush()

    def move(self) -> bool:
        """One thing; False when it has ended or waits for a child."""
        if self.run.status.ended:
            return False
        if self.run.status is RunStatus.QUEUED:
            self.run.status, self.run.started_at = RunStatus.RUNNING, self.now
            self.run.attempts = 1
        step = next(
            (one for one in self.result["steps"] if one["state"] in (StepState.WAITING, StepState.RUNNING)), None
        )
        if step is None:
            self._end(RunStatus.SUCCEEDED)
        elif step["state"] == StepState.RUNNING:
            return self._look(step)
        elif self.run.cancel_requested_at is not None:
            self._end(RunStatus.CANCELLED, "cancelled")
        else:
            self._start(step)
        return True

    def _end(self, status: RunStatus, error: str | None = None) -> None:
        if "why" not in self.result:  # the gate's words, where there are any
            self.result["why"] = error or next(
                (one["why"] for one in reversed(self.result["steps"]) if one.get("why")), ""
            )
        self.keep()
        end_run(self.session, self.run, status, error=error, now=self.now)

    def _say(self, step: dict[str, Any], state: StepState, why: str = "", **more: Any) -> None:
        step |= {"state": state.value, **more} | ({"why": why} if why else {})
        told = f"{step['step']}: {state.value}" + (f", run {step['run']}" if "run" in step else "")
        told += f": {why}" if why else ""
        add_log(self.session, self.run.id, [told])

    # --- a child ---

    def _look(self, step: dict[str, Any]) -> bool:
        child = self.session.get_one(Run, step["run"], populate_existing=True)
        if not child.status.ended:
            return False
        if child.status is RunStatus.SUCCEEDED:
            result = child.result or {}
            figures = {name: result[name] for name in _TOLD if isinstance(result.get(name), int | float)}
            made = result.get("model_version")
            more: dict[str, Any] = {"figures": figures} if figures else {}
            if made:
                more["model_version"] = made
            if step["step"] == CycleStep.TRAIN and made:
                self.result["model_version"] = made
            self._say(step, StepState.DONE, **more)
            if step["step"] == CycleStep.CALIBRATE:
                self._take_up_reward(step)
            return True
        reason = child.error or child.status.value
        if child.status is RunStatus.CANCELLED:
            self._say(step, StepState.CANCELLED, reason)
            whose = "cancelled" if self.run.cancel_requested_at else f"run {child.id} ({step['step']}) was {reason}"
            self._end(RunStatus.CANCELLED, whose)
        else:
            self._say(step, StepState.FAILED, reason)
            self._end(RunStatus.FAILED, f"step {step['step']} failed (run {child.id}): {reason}")
        return True

    # --- starting a step ---

    def _start(self, step: dict[str, Any]) -> None:
        begin = {
            CycleStep.REWARD: self._reward,
            CycleStep.CALIBRATE: self._calibrate,
            CycleStep.REFINE: self._refine,
            CycleStep.RULES: self._rules,
            CycleStep.TRAIN: self._train,
            CycleStep.EVALUATE: self._evaluate,
            CycleStep.GATE: self._gate,
            CycleStep.PROMOTE: self._promote,
        }[CycleStep(step["step"])]
        try:
            with self.session.begin_nested():
                begin(step)
        except (NotEnoughData, Conflict) as error:  # nothing to do, or somebody decided meanwhile
            self._say(step, StepState.SKIPPED, str(error))
        except FeedbackError as error:
            self._say(step, StepState.FAILED, str(error))
            self._end(RunStatus.FAILED, f"step {step['step']} failed: {error}")

    def _queued(self, step: dict[str, Any], child: Run, why: str = "") -> None:
        child.parent_run_id = self.run.id
        self.session.flush()
        self._say(step, StepState.RUNNING, why, run=child.id)

    def _common(self, step: dict[str, Any]) -> dict[str, Any]:
        """What every way of queueing takes; the cause makes a second child of one step impossible."""
        return {
            "default_base_model": self.place.default_base_model,
            "user": self.user,
            "cause": f"cycle {self.run.id}: {step['step']}",
        }

    def _training(self, kind: RunKind) -> dict[str, Any]:
        known = RECIPES[kind].config.model_fields.keys() | SnapshotSettings.model_fields.keys()
        return {key: value for key, value in self.config.training.items() if key in known}

    def _reward(self, step: dict[str, Any]) -> None:
        values = self._training(RunKind.REWARD)
        self._queued(step, self._queue_training(step, RunKind.REWARD, values))

    def _calibrate(self, step: dict[str, Any]) -> None:
        self._queued(step, self._queue_evaluation(step, self._new_reward()))

    def _new_reward(self) -> ModelVersion:
        name = next((one.get("model_version") for one in self.result["steps"] if one["step"] == CycleStep.REWARD), None)
        if name is None:
            raise NotEnoughData("no reward model was trained in this cycle")
        return get_version(self.session, self.project, name)

    def _take_up_reward(self, step: dict[str, Any]) -> None:
        """Where the gate lets it, what has just been measured judges from now on; else the one before it goes on."""
        version = self._new_reward()
        try:
            with self.session.begin_nested():
                verdict = judge(self.session, self.project, version, self.user)
                step |= {"verdict": verdict.verdict.value, "why": str(verdict.figures.get("why", ""))}
                if verdict.verdict is GateVerdict.PASS and gate_settings(self.project).auto_promote:
                    promote(self.session, version, None)
        except FeedbackError as error:  # somebody decided meanwhile
            step["why"] = str(error)

    def _queue_training(self, step: dict[str, Any], kind: RunKind, values: dict[str, Any]) -> Run:
        return queue_training(self.session, self.project, kind, values, home=self.place.home, **self._common(step))

    def _refine(self, step: dict[str, Any]) -> None:
        self._queued(step, queue_refine(self.session, self.project, {}, **self._common(step)))

    def _rules(self, step: dict[str, Any]) -> None:
        """What rules that changed are trained on is written first."""
        values = auto.for_rules(self.session, self.project)
        if values is None:
            raise NotEnoughData("nothing is to be written for rules")
        self._queued(step, queue_generate(self.session, self.project, values, **self._common(step)))

    def _train(self, step: dict[str, Any]) -> None:
        if self.config.recipe != AUTO:
            kind = RunKind(self.config.recipe)
            self._queued(step, self._queue_training(step, kind, self._training(kind)))
            return
        found = auto.collected(self.session, self.project)
        # What could be refined or written for rules was, in the steps before.
        choice = auto.choose(replace(found, waiting=0, tried=found.tried + found.waiting, unwritten=0))
        if choice.kind is None:
            step["reasons"] = list(choice.reasons)
            raise NotEnoughData(choice.because)
        values = choice.settings | self._training(choice.kind)
        self._queued(step, self._queue_training(step, choice.kind, values), choice.because)
        step["reasons"] = list(choice.reasons)

    # --- deciding ---

    def _version(self) -> ModelVersion:
        name = self.result.get("model_version")
        if name is None:
            raise NotEnoughData("no policy was trained in this cycle")
        return get_version(self.session, self.project, name)

    def _evaluate(self, step: dict[str, Any]) -> None:
        self._queued(step, self._queue_evaluation(step, self._version()))

    def _queue_evaluation(self, step: dict[str, Any], version: ModelVersion) -> Run:
        return queue_evaluation(self.session, self.project, version, **self._common(step))

    def _gate(self, step: dict[str, Any]) -> None:
        verdict = judge(self.session, self.project, self._version(), self.user)
        why = str(verdict.figures.get("why", ""))
        self.result |= {"verdict": verdict.verdict.value, "why": why}
        self._say(step, StepState.DONE, why, verdict=verdict.verdict.value, gate_result=verdict.id)

    def _promote(self, step: dict[str, Any]) -> None:
        version, verdict = self._version(), self.result.get("verdict")
        self.result["promoted"] = False
        if verdict is None:
            raise NotEnoughData("the gate gave no verdict")
        if verdict != GateVerdict.PASS:
            raise NotEnoughData(f"the gate says {verdict}")
        if not gate_settings(self.project).auto_promote:
            raise NotEnoughData("promotion by itself is off in the gate's settings; promote it on the Models tab")
        promote(self.session, version, None)
        self.result["promoted"] = True
        self._say(step, StepState.DONE, f"{version.name} passed the gate")
