"""What was measured of model versions on frozen test prompts: asking for it, and reading it.

`Evaluation.metrics` is what `trainer.recipes.evaluate` found:

    {"kind": "policy" | "reward",
     "figures": {NAME: {"value", "low", "high", "n", "champion", "difference": {"value", "low", "high"} | None}},
     "slices": {"source:shop": {NAME: {…}}, …},
     "reliability": [{"low", "high", "confidence", "accuracy", "n"}], "reliability_before": […],
     "temperature": float | None, "notes": [one line each]}

A figure that could not be computed has no value, and a note says why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from storage.configs import SnapshotSettings, parse
from storage.enums import ModelKind, RunKind, Split
from storage.errors import FeedbackError, Invalid, NotEnoughData
from storage.evaluation_configs import EvaluateConfig
from storage.judged import live_marks, prompt_windows
from storage.models import Evaluation, ModelVersion, Project, Prompt, Run, User
from storage.registry import base_version, champion, get_version, newest_candidate
from storage.runs import queue_run
from storage.votes import Votes, read_comparisons, read_rankings, read_rating_gaps


class Figure(NamedTuple):
    """A figure with its 95 % interval; `n` rows behind it. `difference`: above the champion's, on the same prompts."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    champion: float | None = None
    difference: tuple[float | None, float | None, float | None] | None = None  # value, low, high


def figures(evaluation: Evaluation) -> dict[str, Figure]:
    """The figures of an evaluation by name; none for one that holds other things."""
    return figures_of(evaluation.metrics.get("figures"))


def figures_of(stored: Any) -> dict[str, Figure]:
    """Figures as they are stored, of the whole or of a slice."""
    if not isinstance(stored, Mapping):
        return {}
    return {name: _figure(values) for name, values in stored.items()}


def _figure(values: Mapping[str, Any]) -> Figure:
    difference = values.get("difference")
    return Figure(
        values.get("value"),
        values.get("low"),
        values.get("high"),
        int(values.get("n") or 0),
        values.get("champion"),
        None if difference is None else (difference.get("value"), difference.get("low"), difference.get("high")),
    )


def latest_evaluation(
    session: Session, version: ModelVersion, against: ModelVersion | None = None
) -> Evaluation | None:
    """The newest evaluation that a run of kind evaluate made of a version; with `against`, in comparison with it."""
    query = select(Evaluation).where(Evaluation.version_id == version.id).order_by(Evaluation.id.desc())
    if against is not None:
        query = query.where(Evaluation.champion_id == against.id)
    return next((one for one in session.scalars(query) if "figures" in one.metrics), None)


def as_shown(session: Session, version: ModelVersion) -> dict[str, Any] | None:
    """The newest evaluation of a version as commands and the interface of programs print it; None before the first."""
    found = latest_evaluation(session, version)
    return None if found is None else shown(session, found)


def evaluation_of(session: Session, run: Run) -> dict[str, Any] | None:
    """What a run measured, as it is shown; None before it has ended, and of a run of another kind."""
    found = session.scalar(select(Evaluation).where(Evaluation.run_id == run.id).order_by(Evaluation.id.desc()))
    return None if found is None or "figures" not in found.metrics else shown(session, found)


def shown(session: Session, found: Evaluation) -> dict[str, Any]:
    """An evaluation with the names of what it is of."""
    champion = session.get(ModelVersion, found.champion_id) if found.champion_id else None
    reward = session.get(ModelVersion, found.reward_id) if found.reward_id else None
    return {
        "evaluation": found.id,
        "version": session.get_one(ModelVersion, found.version_id).name,
        "run": found.run_id,
        "split": found.split,
        "against": champion.name if champion else None,
        "judged_by": reward.name if reward else None,
        "created_at": found.created_at,
        **found.metrics,
    }


# --- asking for it ---


def queue_evaluation(
    session: Session,
    project: Project,
    version: ModelVersion,
    *,
    default_base_model: str,
    values: Mapping[str, Any] | None = None,
    user: User | None = None,
    cause: str | None = None,
) -> Run:
    """Queue a run that measures `version` on test prompts, against what is the champion when it starts.

    `values` are settings of the run (`EvaluateConfig`). Raises `Invalid` for an unknown setting or a version that there
    is nothing to compare with, `NotEnoughData` without test prompts, `Conflict` for a second run of one `cause`.
    """
    config = parse(EvaluateConfig, dict(values or {}))
    if (problem := refusal(session, project, version, default_base_model)) is not None:
        raise problem
    rival_of(session, project, version, default_base_model)
    return queue_run(
        session,
        project,
        RunKind.EVALUATE,
        asked=dict(values or {}),
        config=config,
        parent_version=version,
        cause=cause,
        user=user,
        seed=config.seed,
    )


def refusal(session: Session, project: Project, version: ModelVersion, default_base_model: str) -> FeedbackError | None:
    """Why a version cannot be evaluated now: nothing to compare it with, or no test prompts. Reads only."""
    rival = champion(session, project)
    if version.kind is ModelKind.POLICY and (rival is None or rival.id == version.id):
        if version.folder is None and version.base_model == (project.base_model or default_base_model):
            return Invalid(f"{version.name} is the base model and the champion: there is nothing to compare it with")
    elif version.kind is ModelKind.POLICY and rival is not None and rival.base_model != version.base_model:
        return _unlike(version, rival)
    if not session.scalar(select(exists().where(Prompt.project_id == project.id, Prompt.split == Split.TEST))):
        return NotEnoughData(f"project '{project.name}' has no test prompts; one prompt in ten becomes one: add more")
    return None


def queue_evaluation_of(
    session: Session,
    project: Project,
    values: Mapping[str, Any],
    *,
    default_base_model: str,
    user: User | None = None,
) -> Run:
    """As `queue_evaluation`, where the version is one of the settings: `version`, by default the newest candidate."""
    rest = dict(values)
    name = rest.pop("version", None)
    if name is not None:
        version = get_version(session, project, str(name))
    else:
        found = newest_candidate(session, project) or newest_candidate(session, project, ModelKind.REWARD)
        if found is None or found.folder is None:
            raise NotEnoughData("there is no candidate to evaluate; train one, or say which: version=policy-v3")
        version = found
    return queue_evaluation(session, project, version, default_base_model=default_base_model, values=rest, user=user)


def rival_of(session: Session, project: Project, version: ModelVersion, default_base_model: str) -> ModelVersion | None:
    """What `version` is compared with: the champion; the champion itself with the base model. None: the first reward.

    Raises `Invalid` for the base model while it is the champion, and for a champion that rests on another base model.
    """
    if version.kind is ModelKind.REWARD:
        rival = champion(session, project, ModelKind.REWARD)
        alike = rival is not None and rival.id != version.id and rival.base_model == version.base_model
        return rival if alike else None
    base = base_version(session, project, default_base_model)
    rival = champion(session, project) or base
    if rival.id == version.id:
        rival = base
    if rival.id == version.id:
        raise Invalid(f"{version.name} is the base model and the champion: there is nothing to compare it with")
    if rival.base_model != version.base_model:
        raise _unlike(version, rival)
    return rival


def _unlike(version: ModelVersion, rival: ModelVersion) -> Invalid:
    return Invalid(
        f"{version.name} rests on {version.base_model}, {rival.name} on {rival.base_model}: they cannot be "
        "compared; train a version on the project's present base model"
    )


# --- what people say, as a measure ---


def human_agreement(session: Session, project: Project, split: Split) -> list[tuple[int, float]]:
    """(prompt, 1 or 0): whether one person's choice in a pair is that of the majority of the others, each person once.

    Pairs that two people or more decided; where the others are split evenly nothing is counted. Its mean is the most
    that a reward model can be asked for: the human ceiling.
    """
    rows: list[tuple[int, float]] = []
    for window in prompt_windows(session, project):
        marks = live_marks(session, project, window)
        votes: Votes = defaultdict(list)
        read_comparisons(session, marks, 1.0, votes)
        read_rankings(session, marks, 1.0, votes)
        read_rating_gaps(session, marks, SnapshotSettings(), votes)
        of_split = set(
            session.scalars(
                select(Prompt.id).where(
                    Prompt.project_id == project.id, Prompt.id.between(*window), Prompt.split == split
                )
            )
        )
        for (prompt_id, _, _), cast in sorted(votes.items()):
            if prompt_id in of_split:
                rows += [(prompt_id, agrees) for agrees in _agreements({vote.user_id: vote.lean for vote in cast})]
    return rows


def _agreements(leans: Mapping[int, float]) -> list[float]:
    signs = [1 if lean > 0 else -1 for lean in leans.values() if lean]
    others = [sum(signs) - sign for sign in signs]
    return [float(sign * rest > 0) for sign, rest in zip(signs, others, strict=True) if rest]
