"""Refine: rewrite completions as their critiques ask, so that critiques train.

For each critique several refinements are sampled, by the policy or by an endpoint. What is empty, unchanged, truncated,
degenerate or too long is refused and counted; the rest is judged, held against its original by the reward models, and
the best is selected (`trainer.refining` has the rule). Two critiques of one completion are two requests: each is
refined and judged by itself, also when they contradict each other. A critique in which nothing was said is skipped; of
one that would fill the context, the beginning is read.

requests.jsonl, one object a critique: {"critique_id", "completion_id", "prompt_id", "messages" for the refiner, with
the rules that hold as "rules" [[rule, revision]], "prompt" without them for the judge and the rewards, "completion",
"critique", "span_start", "span_end", "tags", "fix"}. drafts.jsonl keeps what was sampled and judged, so that a killed
run goes on where it was. out/refinements.jsonl, one object a refinement selected: {"critique_id", "completion_id",
"text", "rank", "judge", "reward", "score", "token_count", "mean_logprob", "seed", "version", "endpoint_model"}. When
the refiner fails for good, the run fails, and out/ holds what was done before; of a run that was cancelled the worker
selects what stands in drafts.jsonl.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from storage.configs import SamplingSettings, TemplateSettings, parse
from storage.critique_configs import RefineConfig
from storage.errors import FeedbackError
from storage.models import Message
from trainer.datasets import cut_text, fit_turns
from trainer.drafts import FILE, read_drafts, refinement_row
from trainer.endpoint import endpoint_from_environment
from trainer.folder import Job, RunFolder
from trainer.judge import Question, judge
from trainer.policy import STARTER, Policies, Request, generator_of, load_policies, prompt_budget, resolve_base_model
from trainer.refining import Candidate, changed_outside, preference_over, refuse, select
from trainer.scoring import score_completions
from trainer.starter.facets import ChatMessage
from trainer.templates import Said, Templates, refine_messages, templates_of, told

CHUNK_BATCHES = 6  # batches sampled together, so that sequences of like length find each other
ENDPOINT_CHUNK = 8  # requests for each that may be under way: what a failure may cost
CRITIQUE_SHARE = 4  # a critique gets at most this part of the context


@dataclass
class Asked:
    """One critique and what came of it so far."""

    critique_id: int
    completion_id: int
    messages: list[Message]  # as the refiner sees them, with the rules that hold
    prompt: list[Message]  # as it is stored: what is judged and scored
    completion: str
    said: Said
    span: tuple[int, int] | None
    fix: str | None
    candidates: list[Candidate] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Refining:
    """What stays as it is from the first chunk of a run to the last."""

    folder: RunFolder
    job: Job
    config: RefineConfig
    sampling: SamplingSettings
    templates: Templates
    policies: Policies


def run(folder: RunFolder, job: Job) -> dict[str, Any]:
    """Execute a refine run; returns its counts."""
    config = parse(RefineConfig, job.config)
    templates = templates_of(parse(TemplateSettings, job.templates), starter=job.base_model == STARTER)
    sampling = parse(SamplingSettings, job.sampling).model_copy(
        update={"temperature": config.temperature, "top_p": 1.0}
    )
    if config.max_new_tokens:
        sampling = sampling.model_copy(update={"max_new_tokens": config.max_new_tokens})
    versions = {name: None if path is None else Path(path) for name, path in job.adapters.items()}
    policies = load_policies(resolve_base_model(job.base_model), versions, dtype=config.dtype, device=config.device)

    everything = [_read(row, policies) for row in map(json.loads, folder.requests.read_text("utf-8").splitlines())]
    asked = [one for one in everything if one.said.text]
    sample = _from_endpoint if config.refiner == "endpoint" else _from_policy
    folder.say(f"refining {len(asked)} critiques, {config.samples} samples each, with {_refiner(config, job)}")
    started = time.perf_counter()
    failure: FeedbackError | None = None
    try:
        _draft(_Refining(folder, job, config, sampling, templates, policies), asked, sample)
    except FeedbackError as error:
        failure = error
    seconds = time.perf_counter() - started
    del policies  # its model makes room for that of the rewards

    done = [one for one in asked if one.candidates or one.reasons]
    if failure is not None and not done:
        raise failure
    _prefer(folder, job, config, done)
    result = _publish(folder, config, done)
    if failure is not None:
        folder.say(f"{len(done)} of {len(asked)} critiques were done before")
        raise failure
    return {
        "critiques": len(everything),
        "nothing_said": len(everything) - len(asked),
        **result,
        "critiques_per_second": len(asked) / seconds if seconds else None,
    }


def _read(row: dict[str, Any], policies: Policies) -> Asked:
    """A request, with everything that was said in one text that leaves room for the rest."""
    start, end, completion = row["span_start"], row["span_end"], row["completion"]
    span = (start, end) if start is not None and end is not None else None
    said = told(row["critique"], row["fix"], row["tags"] or (), completion[start:end] if span is not None else "")
    most = prompt_budget(policies, 0) // CRITIQUE_SHARE
    return Asked(
        row["critique_id"],
        row["completion_id"],
        row["messages"],
        row.get("prompt", row["messages"]),
        completion,
        said._replace(text=cut_text(policies.tokenizer, said.text, most)),
        span,
        row["fix"],
    )


def _refiner(config: RefineConfig, job: Job) -> str:
    return f"the endpoint's {config.endpoint_model}" if config.refiner == "endpoint" else ", ".join(job.adapters)


# --- sampling and judging, a chunk of critiques at a time ---

Sampler = Callable[[_Refining, list[Asked], int], None]


def _draft(by: _Refining, asked: list[Asked], sample: Sampler) -> None:
    """Fill in the candidates of each critique; what an earlier attempt drafted is taken from drafts.jsonl.

    Chunks and their seeds depend on the requests alone: a run that was killed ends as one that was not.
    """
    folder, config = by.folder, by.config
    kept = read_drafts(folder)
    together = config.parallel * ENDPOINT_CHUNK if config.refiner == "endpoint" else config.batch_size * CHUNK_BATCHES
    size = max(1, together // config.samples)
    folder.progress(0, len(asked))
    for start in range(0, len(asked), size):
        folder.check_cancel()
        chunk = asked[start : start + size]
        if all(one.critique_id in kept for one in chunk):
            for one in chunk:
                one.candidates = [Candidate(**values) for values in kept[one.critique_id]["candidates"]]
                one.reasons = Counter(kept[one.critique_id]["reasons"])
            continue
        sample(by, chunk, by.job.seed + 10_007 * (start // size))
        _judge(by, chunk)
        _keep(folder, chunk)
        folder.progress(start + len(chunk), len(asked))


def _keep(folder: RunFolder, chunk: list[Asked]) -> None:
    rows = (
        {"critique_id": one.critique_id, "reasons": one.reasons, "candidates": [asdict(c) for c in one.candidates]}
        for one in chunk
    )
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with (folder.path / FILE).open("ab") as file:
        # A line that a kill cut short must not swallow the first one of ours.
        file.write(b"\n" + lines.encode("utf-8", errors="replace"))
        file.flush()
        os.fsync(file.fileno())


def _take(one: Asked, text: str, truncated: bool, **about: Any) -> None:
    """A sampled refinement becomes a candidate, or is counted with the reason why not."""
    reason = refuse(one.completion, text, truncated=truncated)
    if reason is None and any(candidate.text == text for candidate in one.candidates):
        reason = "sampled before"
    if reason is not None:
        one.reasons[reason] += 1
        return
    changed = changed_outside(one.completion, text, one.span, one.fix)
    one.candidates.append(Candidate(text, **about, changed=changed))


def _from_policy(by: _Refining, chunk: list[Asked], seed: int) -> None:
    config, sampling, policies = by.config, by.sampling, by.policies
    version = next(iter(by.job.adapters))
    generate = generator_of(policies, sampling, batch_size=config.batch_size, before_batch=by.folder.check_cancel)
    budget = prompt_budget(policies, sampling.max_new_tokens)
    owners, requests = [], []
    for one in chunk:
        turns = _plain(refine_messages((), one.completion, one.said, by.templates.refine))
        fitted = fit_turns(policies.tokenizer, one.messages, turns, budget)
        if fitted is None:
            one.reasons["too long for the context"] += 1
            continue
        owners += [one] * config.samples
        requests += [Request(fitted, version, plain=True)] * config.samples
    for one, written in zip(owners, generate(requests, seed), strict=True):
        if written is None:
            one.reasons["too long for the context"] += 1
            continue
        truncated = written.token_count >= sampling.max_new_tokens
        _take(
            one, written.text, truncated, token_count=written.token_count, mean_logprob=written.mean_logprob,
            seed=written.seed, version=version,
        )  # fmt: skip


def _from_endpoint(by: _Refining, chunk: list[Asked], seed: int) -> None:
    config = by.config
    endpoint = endpoint_from_environment(
        config.endpoint_model,
        timeout_seconds=config.timeout_seconds,
        retries=config.retries,
        parallel=config.parallel,
    )
    owners = [one for one in chunk for _ in range(config.samples)]
    conversations = [
        _plain(refine_messages(one.messages, one.completion, one.said, by.templates.refine)) for one in owners
    ]
    options = {"temperature": by.sampling.temperature, "max_tokens": by.sampling.max_new_tokens}

    def pause(seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            by.folder.check_cancel()
            time.sleep(min(left, 0.2))

    answers = endpoint.write(conversations, options, seed, pause)
    for place, (one, answer) in enumerate(zip(owners, answers, strict=True)):
        _take(
            one, answer.text, answer.truncated, token_count=answer.token_count, mean_logprob=None, seed=seed + place,
            version=None,
        )  # fmt: skip


def _plain(messages: list[ChatMessage]) -> list[Message]:
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _judge(by: _Refining, chunk: list[Asked]) -> None:
    candidates = [(one, candidate) for one in chunk for candidate in one.candidates]
    questions = [Question(one.prompt, candidate.text, one.said.text) for one, candidate in candidates]
    size, check = by.config.batch_size, by.folder.check_cancel
    sure = judge(by.policies, questions, by.templates, batch_size=size, before_batch=check)
    for (_, candidate), value in zip(candidates, sure, strict=True):
        candidate.judge = value


# --- rewards and selection ---


def _prefer(folder: RunFolder, job: Job, config: RefineConfig, asked: list[Asked]) -> None:
    """What the reward models think of each candidate beside its original."""
    if not job.rewards or not any(one.candidates for one in asked):
        return
    texts = [(one, text) for one in asked for text in (one.completion, *(c.text for c in one.candidates))]
    rewards = score_completions(
        resolve_base_model(job.base_model),
        {name: Path(path) for name, path in job.rewards.items()},
        [(one.prompt, text) for one, text in texts],
        batch_size=config.batch_size,
        dtype=config.dtype,
        device=config.device,
        before_batch=folder.check_cancel,
    )
    folder.say(f"held against their originals by {', '.join(rewards)}")
    each: Iterator[list[float | None]] = (
        [said.value if (said := values[n]) else None for values in rewards.values()] for n in range(len(texts))
    )
    for one in asked:
        original = next(each)
        for candidate in one.candidates:
            own = next(each)
            known = [value for value in own if value is not None]
            candidate.reward = sum(known) / len(known) if known else None
            candidate.preference = preference_over(own, original)


def _publish(folder: RunFolder, config: RefineConfig, asked: list[Asked]) -> dict[str, Any]:
    """Select, write out/refinements.jsonl, and count."""
    fresh = folder.path / "out.partial"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    reasons: Counter[str] = Counter()
    refined, kept = 0, []
    with (fresh / "refinements.jsonl").open("w", encoding="utf-8") as file:
        for one in asked:
            selected, why_not = select(one.candidates, config.keep, config.min_judge, config.change_penalty)
            reasons += one.reasons + why_not
            refined += bool(selected)
            kept += selected
            for rank, candidate in enumerate(selected, 1):
                row = refinement_row(one.critique_id, one.completion_id, rank, candidate, config)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    folder.publish(fresh)
    return {
        "refined": refined,
        "refinements": len(kept),
        "rejected": dict(sorted(reasons.items())),
        "mean_judge": sum(c.judge or 0 for c in kept) / len(kept) if kept else None,
        "mean_changed": sum(c.changed for c in kept) / len(kept) if kept else None,
    }
