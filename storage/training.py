"""The one path by which training and generation are queued: by the page, the command line and the schedule alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from storage.configs import (
    AnnotationSettings,
    GenerateConfig,
    Settings,
    SnapshotSettings,
    SourceWeights,
    TrainingPolicy,
    inherit,
    parse,
)
from storage.critique_configs import RECIPES, Recipe, RefineConfig
from storage.enums import ModelKind, RunKind, SnapshotForm, Split
from storage.errors import Conflict, Invalid, NotEnoughData
from storage.models import ModelVersion, Project, Prompt, Run, User
from storage.preferences import PairCounts, PairSet, stream_pairs
from storage.progress import count_usable
from storage.refinements import critiques_to_refine
from storage.registry import base_version, champion, get_version
from storage.runs import queue_run
from storage.snapshots import build_snapshot


@dataclass(frozen=True)
class Preview:
    """What a training run would use now; `missing` is the line that says what is not enough, None when it can start."""

    annotations: int
    pairs: dict[Split, int]
    used: dict[str, int]
    left_out: dict[str, int]
    missing: str | None


def queue_training(
    session: Session,
    project: Project,
    kind: RunKind,
    values: Mapping[str, Any],
    *,
    home: Path,
    default_base_model: str,
    user: User | None = None,
    cause: str | None = None,
) -> Run:
    """Freeze the project's feedback and queue a training run of `kind` on it.

    `values` are settings of the run (`storage.critique_configs.RECIPES`) or of its snapshot (`SnapshotSettings`), by
    name. What is not set inherits the weights of the project's training policy, then what was set for the parent
    version (the champion of the same sort of model), and the rest follows from the number of training rows; the run
    stores both what was asked and the complete config.
    Raises `Invalid` for an unknown key or a bad value, `NotEnoughData` with the missing number, and `Conflict` when
    there is a run for `cause` already.
    """
    recipe = recipe_of(kind)
    if cause is not None:
        _refuse_second(session, project, cause)  # before the snapshot, which costs more
    parent = _parent(session, project, kind, default_base_model)
    asked = inherit(_policy_weights(project) | dict(values), _asked_of(session, parent, recipe.config))
    return queue_asked(session, project, kind, asked, parent, home=home, user=user, cause=cause)


def queue_asked(
    session: Session,
    project: Project,
    kind: RunKind,
    asked: dict[str, Any],
    parent: ModelVersion | None,
    *,
    home: Path,
    user: User | None = None,
    cause: str | None = None,
) -> Run:
    """Freeze the project's feedback and queue a training run with exactly these settings, inheriting none.

    Raises as `queue_training` does.
    """
    recipe = recipe_of(kind)
    for_run, for_snapshot = _divide(asked, recipe.config)
    config = parse(recipe.config, for_run)
    wanted = parse(SnapshotSettings, for_snapshot)
    if kind is RunKind.REWARD:
        wanted = wanted.model_copy(update={"use_rules": False})
    snapshot = build_snapshot(session, project, wanted, home, kind.form or SnapshotForm.PREFERENCE)
    train_pairs = int(snapshot.report["splits"][Split.TRAIN.value]["pairs"])
    return queue_run(
        session,
        project,
        kind,
        asked=asked,
        config=recipe.resolve(config, train_pairs),
        snapshot=snapshot,
        parent_version=parent,
        cause=cause,
        user=user,
        seed=config.seed,
    )


def recipe_of(kind: RunKind) -> Recipe:
    """The settings of a recipe that trains; raises `Invalid` for the others."""
    if kind not in RECIPES:
        raise Invalid(f"'{kind.value}' trains nothing; choose from: {', '.join(RECIPES)}")
    return RECIPES[kind]


def _policy_weights(project: Project) -> dict[str, Any]:
    """The weights by source that the project's training policy changes."""
    policy = parse(TrainingPolicy, project.training_policy)
    weights = {name: getattr(policy, name) for name in SourceWeights.model_fields}
    return {name: weight for name, weight in weights.items() if weight != SourceWeights.model_fields[name].default}


def _refuse_second(session: Session, project: Project, cause: str) -> None:
    if session.scalar(select(exists().where(Run.project_id == project.id, Run.cause == cause))):
        raise Conflict(f"a run for this cause is there already: {cause}")


def _parent(session: Session, project: Project, kind: RunKind, default_base_model: str) -> ModelVersion | None:
    # A project that never generated (imported feedback only) has no policy yet: the base model is the first.
    base = base_version(session, project, default_base_model)
    if kind is RunKind.REWARD:
        return champion(session, project, ModelKind.REWARD)
    return champion(session, project, ModelKind.POLICY) or base


def _asked_of(session: Session, parent: ModelVersion | None, kind: type[Settings]) -> dict[str, Any]:
    run = session.get(Run, parent.run_id) if parent is not None and parent.run_id is not None else None
    return {} if run is None else still_known(run.asked, kind)


def still_known(asked: Mapping[str, Any], kind: type[Settings]) -> dict[str, Any]:
    """What an old run was asked, without keys that a program which was updated since no longer knows."""
    known = kind.model_fields.keys() | SnapshotSettings.model_fields.keys()
    return {key: value for key, value in asked.items() if key in known}


def _divide(asked: dict[str, Any], kind: type[Settings]) -> tuple[dict[str, Any], dict[str, Any]]:
    of_snapshot = SnapshotSettings.model_fields.keys()
    known = kind.model_fields.keys() | of_snapshot
    for unknown in asked.keys() - known:
        raise Invalid(f"unknown setting '{unknown}'; choose from: {', '.join(sorted(known))}")
    for_run = {key: value for key, value in asked.items() if key in kind.model_fields}
    return for_run, {key: value for key, value in asked.items() if key in of_snapshot}


def queue_generate(
    session: Session,
    project: Project,
    values: Mapping[str, Any],
    *,
    default_base_model: str,
    user: User | None = None,
    cause: str | None = None,
) -> Run:
    """Queue a run that writes completions for the prompts that need them most, with the champion.

    Raises `Invalid` for an unknown key, `NotEnoughData` when the project has no prompts, `Conflict` for a second run
    of one `cause`.
    """
    config = parse(GenerateConfig, dict(values))
    if not session.scalar(select(exists().where(Prompt.project_id == project.id))):
        raise NotEnoughData(f"project '{project.name}' has no prompts; import some or add them by hand")
    base = base_version(session, project, default_base_model)
    return queue_run(
        session,
        project,
        RunKind.GENERATE,
        asked=dict(values),
        config=config,
        parent_version=champion(session, project) or base,
        cause=cause,
        user=user,
        seed=config.seed,
    )


def queue_refine(
    session: Session,
    project: Project,
    values: Mapping[str, Any],
    *,
    default_base_model: str,
    user: User | None = None,
    cause: str | None = None,
) -> Run:
    """Queue a run that rewrites criticised completions as their critiques ask.

    What `values` leave open is as the project says (`RefinerSettings` in its annotation settings).
    Raises `Invalid` for an unknown key, `NotFound` for a refiner that is not there, `NotEnoughData` when no critique
    waits for a refinement, `Conflict` for a second run of one `cause`.
    """
    config = parse(RefineConfig, _refiner_of(project, values) | dict(values))
    if not critiques_to_refine(session, project, 1):
        raise NotEnoughData(f"no critique of project '{project.name}' waits for a refinement; collect critiques first")
    base = base_version(session, project, default_base_model)
    refiner = champion(session, project) or base
    if config.refiner not in ("champion", "endpoint"):
        refiner = get_version(session, project, config.refiner)
    return queue_run(
        session,
        project,
        RunKind.REFINE,
        asked=dict(values),
        config=config,
        parent_version=base if config.refiner == "endpoint" else refiner,
        cause=cause,
        user=user,
        seed=config.seed,
    )


def _refiner_of(project: Project, values: Mapping[str, Any]) -> dict[str, Any]:
    """The project's refiner and its settings; a run that names another refiner leaves the endpoint's model out."""
    own = parse(AnnotationSettings, project.annotation_settings or {}).refining.model_dump()
    if values.get("refiner") not in (None, own["refiner"]):
        del own["endpoint_model"]
    return own


def preview(session: Session, project: Project, settings: SnapshotSettings | None = None) -> Preview:
    """What training would use if it were started now, and what is missing; changes nothing."""
    wanted = settings or SnapshotSettings()
    counts = PairCounts()
    pairs = dict.fromkeys(Split, 0)
    for pair in stream_pairs(session, project, wanted, counts):
        pairs[pair.split] += 1
    found = PairSet([], counts)  # its sums; the pairs themselves are not kept
    return Preview(count_usable(session, project), pairs, found.used, found.left_out, _missing(pairs, wanted))


def _missing(pairs: dict[Split, int], wanted: SnapshotSettings) -> str | None:
    for split, least in ((Split.TRAIN, wanted.min_train_pairs), (Split.TEST, wanted.min_test_pairs)):
        lacking = least - pairs[split]
        if lacking == 1:
            return f"1 more pair on {split.value} prompts ({pairs[split]} of {least})"
        if lacking > 1:
            return f"{lacking} more pairs on {split.value} prompts ({pairs[split]} of {least})"
    return None
