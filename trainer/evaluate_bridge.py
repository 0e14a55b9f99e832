"""Between the store and the folder of an evaluate run: what is measured against what, and what was found."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.artifacts import atomic_write
from storage.configs import AnnotationSettings, SamplingSettings, SnapshotSettings, parse
from storage.enums import CompletionOrigin, ModelKind, SnapshotForm, Split
from storage.errors import FeedbackError, Invalid, NotEnoughData
from storage.evaluation_configs import EvaluateConfig
from storage.evaluations import human_agreement, rival_of
from storage.forms import unpaired
from storage.models import (
    Annotation,
    Completion,
    Critique,
    Evaluation,
    ModelVersion,
    Prompt,
    Run,
    Snapshot,
    SnapshotRow,
)
from storage.preferences import PairCounts
from storage.registry import base_version, champion, get_version
from storage.rule_scope import rule_book
from storage.runs import add_log
from storage.scores import ensemble
from storage.snapshots import build_snapshot, snapshot_paths, verify_snapshot
from trainer.folder import Job, RunFolder
from trainer.place import Place, adapter_of
from trainer.rules import request

HELD_OUT = (Split.VALIDATION, Split.TEST)


def evaluate_job(session: Session, run: Run, config: dict[str, Any], folder: RunFolder, place: Place) -> Job:
    """What an evaluate run does. One that was begun before keeps its prompts and its champion: it goes on."""
    if folder.requests.exists():
        return folder.job()
    settings = parse(EvaluateConfig, run.config)
    version = session.get(ModelVersion, run.parent_version_id) if run.parent_version_id else None
    if version is None:
        raise Invalid(f"run {run.id} names no version; queue the evaluation again")
    rival = rival_of(session, run.project, version, place.default_base_model)
    snapshot = _held_out(session, run, version, place)
    if snapshot is not None:
        for split in HELD_OUT:
            # Copied by reference: the snapshot's file may be written anew while this run reads it.
            atomic_write(folder.split(split), snapshot_paths(snapshot, place.home)[split].read_bytes())
    policy = version.kind is ModelKind.POLICY
    rows = [*(_to_write(session, run, settings) if policy else ()), *_said(session, run, settings, policy)]
    asked = {row["prompt_id"] for row in rows} | _test_prompts(session, snapshot)
    rows += _about(session, run, asked)
    versions = {version.name: adapter_of(version, place.home)}
    if rival is not None:
        versions[rival.name] = adapter_of(rival, place.home)
    if policy:
        base = base_version(session, run.project, place.default_base_model)
        if base.base_model == version.base_model:
            versions[base.name] = None
    job = Job(
        recipe=run.kind,
        run_id=run.id,
        project=run.project.name,
        config=config,
        base_model=version.base_model,
        snapshot_hash=snapshot.content_hash if snapshot else None,
        seed=run.seed,
        adapters=versions if policy else {},
        rewards=_judge(session, run, version, place) if policy else {k: v for k, v in versions.items() if v},
        sampling=parse(SamplingSettings, run.project.sampling).plain(),
        evaluated=version.name,
        against=rival.name if rival else None,
        formats=list(parse(AnnotationSettings, run.project.annotation_settings or {}).formats),
    )
    folder.write_job(job)
    atomic_write(folder.requests, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return job


def _held_out(session: Session, run: Run, version: ModelVersion, place: Place) -> Snapshot | None:
    """The snapshot whose held-out pairs measure: the version's own; a new one where that has no pairs."""
    own = session.get(Snapshot, version.snapshot_id) if version.snapshot_id else None
    if own is not None and own.form is SnapshotForm.PREFERENCE:
        try:
            verify_snapshot(own, place.home)
        except FeedbackError as error:
            add_log(session, run.id, [f"measured on what is held out now: {error}"])
        else:
            return own
    wanted = SnapshotSettings(use_rules=False, min_train_pairs=1, min_test_pairs=1)
    try:
        return build_snapshot(session, run.project, wanted, place.home)
    except NotEnoughData as error:
        if version.kind is ModelKind.REWARD:
            raise
        add_log(session, run.id, [f"no pairs to measure on: {error}"])
        return None


def _judge(session: Session, run: Run, version: ModelVersion, place: Place) -> dict[str, str]:
    """The reward model that says which completion is better: the champion, else the newest that fits."""
    best = champion(session, run.project, ModelKind.REWARD)
    for reward in [*([best] if best else []), *ensemble(session, run.project)]:
        if reward.base_model == version.base_model:
            folder = adapter_of(reward, place.home)
            if folder is not None:
                return {reward.name: folder}
    return {}


def _to_write(session: Session, run: Run, settings: EvaluateConfig) -> Iterator[dict[str, Any]]:
    """The test prompts that are written for, in an order that depends on their content alone."""
    found = session.scalars(
        select(Prompt)
        .where(Prompt.project_id == run.project_id, Prompt.split == Split.TEST)
        .order_by(Prompt.content_hash)
        .limit(settings.prompts)
    )
    book = rule_book(session, run.project)
    for prompt in found:
        yield {"kind": "write", **request(prompt, [], book)}


def _said(session: Session, run: Run, settings: EvaluateConfig, policy: bool) -> Iterator[dict[str, Any]]:
    """What people said or wrote beside pairs: reference texts for a policy, ratings and votes for a reward model."""
    if policy:
        texts = session.execute(
            select(Prompt.id, Prompt.messages, Completion.text)
            .join(Completion, Completion.prompt_id == Prompt.id)
            .where(
                Prompt.project_id == run.project_id,
                Prompt.split == Split.TEST,
                Completion.origin.in_((CompletionOrigin.HUMAN, CompletionOrigin.IMPORTED)),
                Completion.text != "",
            )
            .order_by(Prompt.content_hash, Completion.id)
            .limit(settings.prompts)
        )
        for prompt_id, messages, text in texts:
            yield {"kind": "reference", "prompt_id": prompt_id, "messages": messages, "text": text}
        return
    for row in unpaired.stream(session, run.project, SnapshotSettings(), PairCounts()):
        if row.split in HELD_OUT:
            text = row.values["completion"][0]["content"]
            told = {"prompt_id": row.prompt_id, "messages": row.prompt(), "text": text, "good": row.values["label"]}
            yield {"kind": "rated", "split": row.split.value, **told}
    for prompt_id, agrees in human_agreement(session, run.project, Split.TEST):
        yield {"kind": "agreement", "prompt_id": prompt_id, "agrees": agrees}


def _test_prompts(session: Session, snapshot: Snapshot | None) -> set[int]:
    if snapshot is None:
        return set()
    of_test = SnapshotRow.snapshot_id == snapshot.id, SnapshotRow.split == Split.TEST
    return set(session.scalars(select(SnapshotRow.prompt_id).where(*of_test).distinct()))


def _about(session: Session, run: Run, prompt_ids: Collection[int]) -> list[dict[str, Any]]:
    """What slices are made of, for these prompts."""
    tags: dict[int, set[str]] = defaultdict(set)
    of_project = Prompt.project_id == run.project_id, Prompt.split == Split.TEST
    critiques = (
        select(Prompt.id, Critique.tags)
        .join(Completion, Completion.prompt_id == Prompt.id)
        .join(Critique, Critique.completion_id == Completion.id)
        .join(Annotation, Annotation.id == Critique.annotation_id)
        .where(*of_project, Annotation.withdrawn_at.is_(None), Annotation.superseded_at.is_(None))
    )
    for prompt_id, given in session.execute(critiques):
        tags[prompt_id] |= set(given or ())
    prompts = session.execute(select(Prompt.id, Prompt.source, Prompt.messages).where(*of_project))
    return [
        {
            "kind": "about",
            "prompt_id": prompt_id,
            "source": source,
            "tags": sorted(tags[prompt_id]),
            "text": messages[-1]["content"],
        }
        for prompt_id, source, messages in prompts
        if prompt_id in prompt_ids
    ]


def enter_evaluation(session: Session, run: Run, folder: RunFolder, result: dict[str, Any]) -> dict[str, Any]:
    """Store what was measured, once for a run; returns the result with the evaluation's number."""
    stored = session.scalar(select(Evaluation).where(Evaluation.run_id == run.id))
    if stored is None:
        job = folder.job()
        names = {name: get_version(session, run.project, name).id for name in (job.evaluated, job.against) if name}
        policy = bool(job.adapters)
        judge = next(iter(job.rewards), None) if policy else None
        snapshot = session.scalar(
            select(Snapshot).where(Snapshot.project_id == run.project_id, Snapshot.content_hash == job.snapshot_hash)
        )
        stored = Evaluation(
            version_id=names[job.evaluated or ""],
            run_id=run.id,
            snapshot_id=snapshot.id if snapshot else None,
            champion_id=names.get(job.against or ""),
            reward_id=get_version(session, run.project, judge).id if judge else None,
            split=Split.TEST,
            metrics=json.loads((folder.out / "evaluation.json").read_text("utf-8")),
        )
        session.add(stored)
        session.flush()
        add_log(session, run.id, [f"{job.evaluated} was measured{f' against {job.against}' if job.against else ''}"])
    return result | {"evaluation": stored.id}
