"""Two to four model versions side by side: what was measured, how they were trained, and what they write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.chances import Chances, chances
from storage.criticised import chunks
from storage.errors import Invalid
from storage.evaluations import Figure, figures, latest_evaluation
from storage.gate_results import latest_result
from storage.models import Completion, Evaluation, GateResult, Message, ModelVersion, Project, Prompt, Run, Snapshot
from storage.registry import get_version
from storage.run_events import metric_series
from storage.seeds import OverSeeds, groups
from storage.snapshot_diff import Difference, difference

FEWEST, MOST = 2, 4  # versions
PROMPTS = 10  # on one page
RECIPE = "recipe"
CHANGES = 5  # rows of a snapshot that are named, of each sort

Curves = dict[str, list[tuple[int, float | None]]]


@dataclass(frozen=True)
class Side:
    """One of the versions, with what is known of it."""

    version: ModelVersion
    run: Run | None
    snapshot: Snapshot | None
    evaluation: Evaluation | None
    rival: ModelVersion | None  # what the evaluation compared it with
    gate: GateResult | None
    curves: Curves  # (step, value) by metric name


class Measured(NamedTuple):
    """A figure of every version, in their order; None where it was not measured."""

    name: str
    values: list[Figure | None]


class Setting(NamedTuple):
    """Something in which the runs or their bases differ, by version."""

    name: str
    values: list[Any]


class Changed(NamedTuple):
    """How the training data of a version differs from the first one's; `why` says it where it cannot be compared."""

    version: str
    difference: Difference | None
    why: str


@dataclass(frozen=True)
class Comparison:
    """Versions of one kind, side by side."""

    sides: list[Side]
    evaluated: list[Measured]  # on test prompts, with intervals
    trained: list[Measured]  # what training found by itself
    settings: list[Setting]
    alike: int  # settings that are the same for all
    data: list[Changed]
    seeds: list[OverSeeds]  # what of it is the seed's doing, where it was trained with several


class Written(NamedTuple):
    """What the versions wrote for one prompt; None where one did not."""

    prompt_id: int
    messages: list[Message]
    texts: list[str | None]
    ids: tuple[int | None, ...]  # of the completions


class WrittenPage(NamedTuple):
    """Some prompts, newest first; `before` asks for those that follow, None when these are the last."""

    rows: list[Written]
    before: int | None


def pick_versions(session: Session, project: Project, names: Sequence[str]) -> list[ModelVersion]:
    """The versions by name; raises `NotFound`, and `Invalid` unless they are two to four of one kind."""
    versions = [get_version(session, project, name) for name in dict.fromkeys(names)]
    if not FEWEST <= len(versions) <= MOST:
        raise Invalid(f"choose {FEWEST} to {MOST} versions to compare; {len(versions)} given")
    if len({version.kind for version in versions}) > 1:
        raise Invalid("a policy and a reward model have no figures in common; choose versions of one kind")
    return versions


def compare(session: Session, versions: Sequence[ModelVersion]) -> Comparison:
    """Everything that can be put side by side, but for completions (`written`)."""
    sides = [_side(session, version) for version in versions]
    found = [figures(side.evaluation) if side.evaluation else {} for side in sides]
    known = [_figures_of(side.version.metrics) for side in sides]
    settings = [_settings(side) for side in sides]
    names = list(dict.fromkeys(name for one in settings for name in one))
    # A base model had no training: what it lacks is no difference.
    differ = [
        name for name in names if len({repr(one.get(name)) for one in settings if name in one or RECIPE in one}) > 1
    ]
    return Comparison(
        sides=sides,
        evaluated=_rows(found),
        trained=_rows(known),
        settings=[Setting(name, [one.get(name) for one in settings]) for name in differ],
        alike=len(names) - len(differ),
        data=[_changed(session, sides[0], side) for side in sides[1:]],
        seeds=groups(session, versions),
    )


def written(
    session: Session, versions: Sequence[ModelVersion], *, before: int | None = None, limit: int = PROMPTS
) -> WrittenPage:
    """What the versions wrote for the same prompts: those for which at least two of them did, newest prompts first."""
    ids = [version.id for version in versions]
    query = (
        select(Completion.prompt_id)
        .where(Completion.model_version_id.in_(ids))
        .group_by(Completion.prompt_id)
        .having(func.count(Completion.model_version_id.distinct()) >= FEWEST)
        .order_by(Completion.prompt_id.desc())
        .limit(limit + 1)
    )
    if before is not None:
        query = query.where(Completion.prompt_id < before)
    found = session.scalars(query).all()
    shown = found[:limit]
    firsts = _firsts(session, shown, ids)
    prompts = {row.id: row for row in session.scalars(select(Prompt).where(Prompt.id.in_(shown)))}
    rows = []
    for one in shown:
        wrote = [firsts.get((one, version), (None, None)) for version in ids]
        rows.append(Written(one, prompts[one].messages, [text for _, text in wrote], tuple(own for own, _ in wrote)))
    return WrittenPage(rows, shown[-1] if len(found) > limit else None)


def chances_of(session: Session, project: Project, rows: Sequence[Written]) -> Chances:
    """How probably what each version wrote is better than what the first one did, by their completions."""
    pairs = [(one, row.ids[0]) for row in rows for one in row.ids[1:] if one is not None and row.ids[0] is not None]
    return chances(session, project, pairs)


def _side(session: Session, version: ModelVersion) -> Side:
    run = session.get(Run, version.run_id) if version.run_id else None
    evaluation = latest_evaluation(session, version)
    return Side(
        version=version,
        run=run,
        snapshot=session.get(Snapshot, version.snapshot_id) if version.snapshot_id else None,
        evaluation=evaluation,
        rival=session.get(ModelVersion, evaluation.champion_id) if evaluation and evaluation.champion_id else None,
        gate=latest_result(session, version),
        curves=metric_series(session, run.id) if run else {},
    )


def _rows(found: Sequence[Mapping[str, Figure]]) -> list[Measured]:
    names = dict.fromkeys(name for one in found for name in one)
    return [Measured(name, [one.get(name) for one in found]) for name in names]


def _figures_of(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Figure]:
    """Plain numbers as figures without an interval."""
    result: dict[str, Figure] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            result |= _figures_of(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            result[f"{prefix}{name}"] = Figure(float(value), None, None, 0)
    return result


def _settings(side: Side) -> dict[str, Any]:
    about: dict[str, Any] = {"base_model": side.version.base_model}
    if side.run is not None:
        about |= {RECIPE: side.run.kind.value, **side.run.config, "seed": side.run.seed}
    return about


def _changed(session: Session, first: Side, other: Side) -> Changed:
    name = other.version.name
    if first.snapshot is None or other.snapshot is None:
        return Changed(name, None, "one of them was not trained on a snapshot")
    if first.snapshot.form is not other.snapshot.form:
        return Changed(name, None, "they were trained on rows of different forms")
    return Changed(name, difference(session, first.snapshot, other.snapshot, CHANGES), "")


def _firsts(
    session: Session, prompt_ids: Sequence[int], version_ids: Sequence[int]
) -> dict[tuple[int, int], tuple[int, str]]:
    """The first completion of each version for each prompt: its id and its text."""
    found: dict[tuple[int, int], tuple[int, str]] = {}
    for chunk in chunks(prompt_ids):
        rows = session.execute(
            select(Completion.prompt_id, Completion.model_version_id, Completion.id, Completion.text)
            .where(Completion.prompt_id.in_(chunk), Completion.model_version_id.in_(version_ids))
            .order_by(Completion.id)
        )
        for prompt_id, version_id, completion_id, text in rows:
            if version_id is not None:
                found.setdefault((prompt_id, version_id), (completion_id, text))
    return found
