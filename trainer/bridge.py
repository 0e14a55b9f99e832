"""Between the store and a run folder: lay out the folder before a run, enter what came out of it afterwards."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from storage.artifacts import atomic_write, folder_sha256, publish_folder
from storage.best_of import BestOf, best_of
from storage.configs import AnnotationSettings, GenerateConfig, SamplingSettings, parse
from storage.enums import CompletionOrigin, ItemKind, ModelKind, RunKind
from storage.errors import NotEnoughData
from storage.items import add_item, mark_stale, prompts_to_generate
from storage.models import Completion, ModelVersion, Project, Prompt, Run
from storage.prompts import add_completion
from storage.registry import base_version, champion, list_versions, newest_candidate, next_number, register_version
from storage.resolution import enter_answers, prompts_of
from storage.rule_scope import note_rules, rule_book
from storage.runs import add_log
from storage.scores import Score, add_scores
from storage.snapshots import snapshot_paths, verify_snapshot
from storage.turns import take_up_again
from trainer.evaluate_bridge import evaluate_job
from trainer.folder import Job, RunFolder
from trainer.place import Place, adapter_of, rewards_for
from trainer.refine_bridge import refine_job
from trainer.rules import for_rules, request, rules_told


def lay_out(session: Session, run: Run, place: Place) -> RunFolder:
    """Make the run's folder ready; one that an earlier attempt left behind keeps its checkpoints and events."""
    folder = RunFolder(place.home / "runs" / str(run.id))
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.cancel_file.unlink(missing_ok=True)
    config = dict(run.config)
    if config.get("device", "auto") == "auto":
        config["device"] = place.device
    if run.kind is RunKind.PLAYGROUND:
        folder.write_job(_playground_job(session, run, config, folder, place))
    elif run.kind is RunKind.GENERATE:
        folder.write_job(_generate_job(session, run, config, folder, place))
    elif run.kind is RunKind.REFINE:
        refine_job(session, run, config, folder, place)
    elif run.kind is RunKind.EVALUATE:
        evaluate_job(session, run, config, folder, place)
    else:
        folder.write_job(_training_job(session, run, config, folder, place))
    return folder


def _training_job(session: Session, run: Run, config: dict[str, Any], folder: RunFolder, place: Place) -> Job:
    if run.snapshot is None:
        raise NotEnoughData(f"run {run.id} has no snapshot; queue the training again")
    verify_snapshot(run.snapshot, place.home)
    for split, path in snapshot_paths(run.snapshot, place.home).items():
        _link(path, folder.split(split))
    parent = session.get(ModelVersion, run.parent_version_id) if run.parent_version_id else None
    return Job(
        recipe=run.kind,
        run_id=run.id,
        project=run.project.name,
        config=config,
        base_model=run.project.base_model or place.default_base_model,
        parent_version=parent.name if parent else None,
        snapshot_hash=run.snapshot.content_hash,
        cache=str(place.home.absolute() / "cache" / Path(run.snapshot.folder).name),
        seed=run.seed,
        sampling=parse(SamplingSettings, run.project.sampling).plain(),
        templates=parse(AnnotationSettings, run.project.annotation_settings or {}).templates.model_dump(),
    )


def _link(source: Path, destination: Path) -> None:
    destination.unlink(missing_ok=True)
    try:
        os.link(source, destination)
    except OSError:  # another file system
        shutil.copyfile(source, destination)


def _generate_job(session: Session, run: Run, config: dict[str, Any], folder: RunFolder, place: Place) -> Job:
    """Prompts and versions are chosen when the run starts: a champion promoted since it was queued writes it."""
    settings = parse(GenerateConfig, run.config)
    first = champion(session, run.project) or base_version(session, run.project, place.default_base_model)
    second = challenger(session, run.project, first) if settings.candidate_share > 0 else None
    if settings.for_rules:
        second = _anchoring(session, run, first, place)
        rows = for_rules(session, run.project, settings.prompts, first, second)
    else:
        rows = _for_queue(session, run, settings, first, second)
    writers = [first] if second is None else [first, second]
    sampling = parse(SamplingSettings, run.project.sampling)
    # What rules are trained on is written as the policy writes.
    best = BestOf(1, None, "") if settings.for_rules else best_of(session, run.project, sampling, first.base_model)
    rewards = rewards_for(session, run, first, place)
    if best.chooser is not None and best.chooser.name not in rewards:
        best = BestOf(1, None, f"best of n is off: {best.chooser.name} cannot be used now")
    add_log(session, run.id, [*rules_told(session, run.project, rows), *([best.why] if best.why else [])])
    atomic_write(folder.requests, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return Job(
        recipe=run.kind,
        run_id=run.id,
        project=run.project.name,
        config=config,
        base_model=first.base_model,
        # Runs with one seed must not write the same completions again for the same prompt.
        seed=run.seed + 7919 * run.id,
        adapters={version.name: adapter_of(version, place.home) for version in writers},
        rewards=rewards,
        chooser=best.chooser.name if best.chooser else None,
        sampling=sampling.plain() | ({"best_of": best.n, "caution": sampling.caution} if best.n > 1 else {}),
    )


def _for_queue(
    session: Session, run: Run, settings: GenerateConfig, first: ModelVersion, second: ModelVersion | None
) -> list[dict[str, Any]]:
    if settings.critique_ids:
        prompts = prompts_of(session, settings.critique_ids)
    else:
        prompts = prompts_to_generate(session, run.project, settings.prompts)
    if not prompts:
        raise NotEnoughData("every prompt has an open item already; add prompts, or judge the open items")
    rng = random.Random(f"{run.id}:{run.seed}")
    book = rule_book(session, run.project)
    rows = []
    for prompt in prompts:
        versions = [first.name] * settings.completions_per_prompt
        if second is not None and rng.random() < settings.candidate_share:
            versions[-1] = second.name
        rows.append(request(prompt, versions, book))
    return rows


def _anchoring(session: Session, run: Run, first: ModelVersion, place: Place) -> ModelVersion | None:
    """The base model, which writes anchors, where it is not the champion and shares its weights in memory."""
    base = base_version(session, run.project, place.default_base_model)
    return base if base.id != first.id and base.base_model == first.base_model else None


def _playground_job(session: Session, run: Run, config: dict[str, Any], folder: RunFolder, place: Place) -> Job:
    """The champion and its challenger are loaded at once; who writes is decided with each request."""
    take_up_again(session, run.id)
    folder.requests.unlink(missing_ok=True)
    run.step = run.total_steps = None  # not ready yet
    first = champion(session, run.project) or base_version(session, run.project, place.default_base_model)
    second = challenger(session, run.project, first)
    writers = [first] if second is None else [first, second]
    return Job(
        recipe=run.kind,
        run_id=run.id,
        project=run.project.name,
        config=config,
        base_model=first.base_model,
        adapters={version.name: adapter_of(version, place.home) for version in writers},
    )


def challenger(session: Session, project: Project, first: ModelVersion) -> ModelVersion | None:
    """The newest candidate, when it is newer than the champion and can share its base model in memory."""
    found = newest_candidate(session, project, ModelKind.POLICY)
    if found is None or found.number < first.number or found.folder is None or found.base_model != first.base_model:
        return None
    return found


# --- afterwards ---


def publish_adapter(session: Session, run: Run, folder: RunFolder, place: Place, result: dict[str, Any]) -> str:
    """Copy the adapter to its place and register it as a candidate; gives the version's name."""
    kind = ModelKind.REWARD if run.kind is RunKind.REWARD else ModelKind.POLICY
    name = f"{kind.value}-v{next_number(session, run.project, kind)}"
    relative = f"artifacts/versions/{run.project_id}/{name}"
    destination = place.home / relative
    if destination.exists() and folder_sha256(destination) != folder_sha256(folder.out):
        # No version of this number is registered: what lies there is from a worker that died before its commit.
        shutil.rmtree(destination)
    digest = publish_folder(folder.out, destination)
    metrics = {name: value for name, value in result.items() if not isinstance(value, dict)}
    version = register_version(session, run, kind, relative, digest, metrics, folder.job().base_model)
    add_log(session, run.id, [f"registered {version.name}"])
    return version.name


def enter_completions(session: Session, run: Run, folder: RunFolder, result: dict[str, Any]) -> dict[str, Any]:
    """Store the completions and put each prompt's up for judgement; returns the result with the number of items."""
    job = folder.job()
    versions = {version.name: version for version in list_versions(session, run.project)}
    by_prompt: dict[int, list[Completion]] = {}
    scores: list[Score] = []
    with (folder.out / "completions.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            prompt = session.get_one(Prompt, row["prompt_id"])
            added = add_completion(
                session,
                prompt,
                row["text"],
                CompletionOrigin.MODEL,
                model_version_id=versions[row["version"]].id,
                run_id=run.id,
                sampling=job.sampling | row.get("chosen", {}),
                seed=row["seed"],
                token_count=row["token_count"],
                mean_logprob=row["mean_logprob"],
                latency_ms=row["latency_ms"],
            )
            if added.created:
                note_rules(session, added.row.id, row.get("rules", ()))
            by_prompt.setdefault(prompt.id, []).append(added.row)
            for name, value in row.get("scores", {}).items():
                scores.append(Score(added.row.id, versions[name].id, value, row.get("spreads", {}).get(name)))
    add_scores(session, scores)
    settings = parse(GenerateConfig, run.config)
    if settings.critique_ids:
        answers = {prompt_id: completions[0] for prompt_id, completions in by_prompt.items()}
        return result | {"items": enter_answers(session, run, versions[next(iter(job.adapters))], answers)}
    if settings.for_rules:
        return result
    wanted = settings.completions_per_prompt
    kind = ItemKind.SINGLE if wanted == 1 else ItemKind.PAIR
    items = 0
    for prompt_id, completions in by_prompt.items():
        distinct = list({completion.id: completion for completion in completions}.values())
        if len(distinct) >= min(2, wanted):
            items += add_item(session, session.get_one(Prompt, prompt_id), distinct, kind).created
    current = champion(session, run.project)
    if current is not None and current.name not in job.adapters:
        mark_stale(session, run.project, [current.id])  # promoted while this run was writing
    return result | {"items": items}
