"""`feedback-app train`: queue a training run, and wait for it if asked."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, ProjectName, RunSettings, WaitFlag, emit, open_store, say, table

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from feedback_app.settings import Settings
    from storage.models import Project, Run


class TrainKind(StrEnum):
    """What can be trained."""

    AUTO = "auto"
    CYCLE = "cycle"
    REFINE = "refine"
    REWARD = "reward"
    DPO = "dpo"
    SFT = "sft"
    KTO = "kto"
    CONDITIONAL = "conditional"
    SDFT = "sdft"


_KINDS = (
    "auto: look at what there is, choose and say why; cycle: everything in turn, up to the gate; "
    "refine: rewrite what was criticised; reward: a model that "
    "scores; a policy: dpo from pairs, sft from refinements, kto from single ratings, conditional from critiques as "
    "they are, sdft from critiques by self-distillation (large models)."
)


def train(
    kind: Annotated[TrainKind, typer.Argument(help=_KINDS)],
    project: ProjectName,
    settings: RunSettings = None,
    wait: WaitFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Train on what a project has collected. A worker does it; --wait shows the progress and the result."""
    from storage.audit import record
    from storage.enums import RunStatus
    from storage.projects import get_project

    values = parse_settings(settings or [])
    with open_store() as store:
        with store.sessions.begin() as session:
            found = get_project(session, project)
            run, because = _queue(session, found, kind, values, store.settings)
            record(session, None, "run.queue", f"run {run.id}", found, kind=run.kind.value, by="command line")
        if because:
            say(f"{run.kind}: {because}")
        if wait:
            from feedback_app.waiting import own_worker, wait_for_run

            kinds = "generate,refine,train" if kind is TrainKind.CYCLE else "refine,train"
            with own_worker(store.sessions, say, kinds, store.settings.logs) as look_after:
                run = wait_for_run(store.sessions, run.id, say, look_after)
    payload = run_payload(run, project) | ({"because": because} if because else {})
    lines = [run_table(payload)]
    if not wait:
        lines.append(f"queued; a worker takes it (feedback-app worker). Look: feedback-app runs show {run.id}")
    if run.status in (RunStatus.FAILED, RunStatus.CANCELLED):
        payload["error"] = run.error or f"the run was {run.status}"
        say(f"error: run {run.id} {run.status}: {payload['error']}")
    emit(payload, as_json, *lines)
    if "error" in payload:
        raise typer.Exit(1)


def _queue(
    session: Session, project: Project, kind: TrainKind, values: dict[str, Any], settings: Settings
) -> tuple[Run, str]:
    """The run, and why it was chosen where the choice was ours."""
    from storage.auto import queue_auto
    from storage.enums import RunKind
    from storage.training import queue_refine, queue_training

    if kind is TrainKind.AUTO:
        run, choice = queue_auto(session, project, values, home=settings.home, default_base_model=settings.base_model)
        return run, choice.because
    if kind is TrainKind.CYCLE:
        from storage.cycle import queue_cycle

        return queue_cycle(session, project, values), ""
    if kind is TrainKind.REFINE:
        return queue_refine(session, project, values, default_base_model=settings.base_model), ""
    run = queue_training(
        session, project, RunKind(kind), values, home=settings.home, default_base_model=settings.base_model
    )
    return run, ""


def parse_settings(pairs: list[str], hint: str = "'--set'") -> dict[str, Any]:
    """`["epochs=2", "seed=1"]` as a dict; the values stay text, the run's config reads them."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        name = name.strip()
        if not sign or not name:
            raise typer.BadParameter(f"'{pair}' is not NAME=VALUE, for instance epochs=2", param_hint=hint)
        if name in values:
            raise typer.BadParameter(f"'{name}' is set twice", param_hint=hint)
        values[name] = None if value.strip().lower() in ("", "none") else value.strip()
    return values


def run_payload(run: Run, project: str) -> dict[str, Any]:
    """A run as scripts read it: final metrics, and the model version that it made."""
    result = dict(run.result or {})
    version = result.pop("model_version", None)
    return {
        "run": run.id,
        "project": project,
        "kind": run.kind,
        "status": run.status,
        "metrics": result.pop("metrics", result),
        "model_version": version,
        "step": run.step,
        "total_steps": run.total_steps,
    }


def run_table(payload: dict[str, Any]) -> Any:
    """A run as people read it."""
    rows = [(name, payload[name]) for name in ("run", "project", "kind", "status", "model_version")]
    rows += list(flatten(payload["metrics"]).items())
    return table(("", ""), rows)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested figures as `test.accuracy: 0.9`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat
