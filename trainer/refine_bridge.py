"""Between the store and the folder of a refine run: which critiques wait, who rewrites, and what was selected."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from storage.artifacts import atomic_write
from storage.configs import AnnotationSettings, SamplingSettings, parse
from storage.critique_configs import RefineConfig
from storage.errors import Invalid, NotEnoughData
from storage.models import ModelVersion, Prompt, Refinement, Run
from storage.refinements import Selected, ToRefine, add_model_refinements, critiques_to_refine
from storage.registry import base_version, champion, get_version, list_versions
from storage.rule_scope import Applied, note_rules, rule_book, rules_behind
from storage.runs import add_log
from trainer.drafts import select_drafts
from trainer.folder import Job, RunFolder
from trainer.place import Place, adapter_of, rewards_for


def refine_job(session: Session, run: Run, config: dict[str, Any], folder: RunFolder, place: Place) -> Job:
    """What a refine run does. One that was begun before keeps its critiques and its refiner: it goes on."""
    if folder.requests.exists():
        return folder.job()
    settings = parse(RefineConfig, run.config)
    waiting = critiques_to_refine(session, run.project, settings.critiques)
    if not waiting:
        raise NotEnoughData("no critique waits for a refinement; collect more critiques first")
    refiner = _refiner(session, run, settings, place)
    asked = _asked(session, run, waiting)
    rows = (
        {
            "critique_id": one.critique_id,
            "completion_id": one.completion_id,
            "prompt_id": one.prompt_id,
            "messages": asked[one.prompt_id].messages,
            "prompt": one.prompt,
            "rules": asked[one.prompt_id].rules,
            "completion": one.completion,
            "critique": one.critique,
            "span_start": one.span_start,
            "span_end": one.span_end,
            "tags": one.tags,
            "fix": one.fix,
        }
        for one in waiting
    )
    job = Job(
        recipe=run.kind,
        run_id=run.id,
        project=run.project.name,
        config=config,
        base_model=refiner.base_model,
        # A second run must not sample for a critique what the first one sampled in vain.
        seed=run.seed + 7919 * run.id,
        adapters={refiner.name: adapter_of(refiner, place.home)},
        rewards=rewards_for(session, run, refiner, place),
        sampling=parse(SamplingSettings, run.project.sampling).plain(),
        templates=parse(AnnotationSettings, run.project.annotation_settings or {}).templates.model_dump(),
    )
    folder.write_job(job)
    atomic_write(folder.requests, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return job


def _asked(session: Session, run: Run, waiting: Sequence[ToRefine]) -> dict[int, Applied]:
    """The prompts of critiques, by id, with the rules that are on."""
    book = rule_book(session, run.project)
    prompts = {one.prompt_id: one.prompt for one in waiting}
    sources = {one: session.get_one(Prompt, one).source for one in prompts} if book else {}
    return {one: book.apply(messages, sources.get(one, "")) for one, messages in prompts.items()}


def _refiner(session: Session, run: Run, settings: RefineConfig, place: Place) -> ModelVersion:
    """The version whose base model judges, and which rewrites unless an endpoint does."""
    base = base_version(session, run.project, place.default_base_model)
    if settings.refiner == "endpoint":
        return base
    if settings.refiner == "champion":
        return champion(session, run.project) or base
    version = get_version(session, run.project, settings.refiner)
    if version.base_model != base.base_model:
        raise Invalid(f"{version.name} rests on {version.base_model}, not on {base.base_model}; choose another refiner")
    return version


def enter_refinements(session: Session, run: Run, folder: RunFolder, result: dict[str, Any]) -> dict[str, Any]:
    """Store what was selected, also by a run that failed half-way; returns the result with what became of it.

    Of a run that never came to select, because it was cancelled or killed, what it had drafted is.
    """
    path = folder.out / "refinements.jsonl"
    if path.exists():
        rows: Iterable[dict[str, Any]] = map(json.loads, path.read_text("utf-8").splitlines())
    else:
        rows = select_drafts(folder, parse(RefineConfig, run.config))
    selected = _selected(session, run, rows)
    if not selected and not result:
        return result
    entered = add_model_refinements(session, run, selected)
    _note(session, folder, entered.refinements)
    left_out = {reason.replace("_", " "): n for reason, n in entered.left_out.items()}
    add_log(session, run.id, [f"{len(entered.refinements)} refinements stored"])
    return result | {"stored": len(entered.refinements), "not_stored": left_out}


def _note(session: Session, folder: RunFolder, refinements: Sequence[Refinement]) -> None:
    """Under which rules each refinement was written: those of its completion's prompt."""
    with folder.requests.open(encoding="utf-8") as lines:
        asked = {row["completion_id"]: row.get("rules") for row in map(json.loads, lines)}
    for one in refinements:
        rules = asked.get(one.completion_id)
        if rules and not rules_behind(session, one.refined_id):
            note_rules(session, one.refined_id, rules)


def _selected(session: Session, run: Run, rows: Iterable[dict[str, Any]]) -> list[Selected]:
    """What out/refinements.jsonl holds; one text that answers several critiques of a completion is one refinement."""
    config = parse(RefineConfig, run.config)
    versions = {version.name: version.id for version in list_versions(session, run.project)}
    sampling = {"temperature": config.temperature, "samples": config.samples}
    found: dict[tuple[int, str], Selected] = {}
    for row in rows:
        key = (row["completion_id"], row["text"].strip())
        other = found.get(key)
        if other is not None:
            found[key] = replace(
                other,
                critique_ids=(*other.critique_ids, row["critique_id"]),
                judge_score=min(other.judge_score or 0.0, row["judge"]),
                rank=min(other.rank or 1, row["rank"]),
            )
            continue
        found[key] = Selected(
            completion_id=row["completion_id"],
            critique_ids=(row["critique_id"],),
            text=row["text"],
            version_id=versions.get(row["version"]),
            judge_score=row["judge"],
            reward=row["reward"],
            rank=row["rank"],
            sampling=sampling | ({"endpoint_model": row["endpoint_model"]} if row["endpoint_model"] else {}),
            seed=row["seed"],
            token_count=row["token_count"],
            mean_logprob=row["mean_logprob"],
        )
    return list(found.values())
