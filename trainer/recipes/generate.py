"""Write completions for the queue: two or more distinct ones a prompt, by the versions that each request names.

requests.jsonl, one object a prompt: {"prompt_id", "messages", "versions": [one name per completion], "avoid": [texts],
"prompt": the messages without rules, which is what is scored, "rules": those in `messages` as [[rule, revision]]}.
out/completions.jsonl, one object a completion: {"prompt_id", "version", "text", "token_count", "mean_logprob",
"latency_ms", "seed", "rules", "scores": {reward version: its reward}, "spreads": {those that are ensembles: how far
their heads are apart}, "chosen": how, of several}; a prompt's completions stand together.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.best_of import moved
from storage.configs import GenerateConfig, SamplingSettings, parse
from storage.errors import ModelUnusable
from storage.models import Message
from trainer.folder import Job, RunFolder
from trainer.policy import Request, Written, make_generator, resolve_base_model
from trainer.scoring import score_completions

ROUNDS = 4  # a duplicate is sampled again at most so often; a model that has one answer has one answer


@dataclass
class _Prompt:
    prompt_id: int
    messages: list[Message]
    versions: list[str]
    seen: set[str]
    plain: list[Message]
    rules: list[list[int]]
    kept: list[tuple[str, Written]] = field(default_factory=list)

    def missing(self) -> list[str]:
        """The versions that still owe a completion."""
        owed = list(self.versions)
        for version, _ in self.kept:
            if version in owed:  # there may be more than were asked for, to choose from
                owed.remove(version)
        return owed


def run(folder: RunFolder, job: Job) -> dict[str, Any]:
    """Execute a generate run; returns its counts.

    With `best_of` in its sampling, so many are sampled for each completion that is wanted, and the reward model that
    the job names chooses (`storage.best_of`).
    """
    config = parse(GenerateConfig, job.config)
    sampling = parse(SamplingSettings, job.sampling)
    prompts = [
        _Prompt(
            row["prompt_id"],
            row["messages"],
            row["versions"],
            set(row.get("avoid", [])),
            row.get("prompt", row["messages"]),
            row.get("rules", []),
        )
        for row in map(json.loads, folder.requests.read_text("utf-8").splitlines())
    ]
    wanted = sum(len(prompt.versions) for prompt in prompts)
    generate = make_generator(
        resolve_base_model(job.base_model),
        {name: None if path is None else Path(path) for name, path in job.adapters.items()},
        sampling,
        batch_size=config.batch_size,
        dtype=config.dtype,
        device=config.device,
        before_batch=folder.check_cancel,
    )
    folder.say(f"writing {wanted} completions for {len(prompts)} prompts with {', '.join(job.adapters)}")
    folder.progress(0, wanted)

    duplicates = tokens = 0
    for round_number in range(ROUNDS):
        times = sampling.best_of if round_number == 0 else 1
        owed = [(prompt, version) for prompt in prompts for version in prompt.missing() for _ in range(times)]
        if not owed:
            break
        seed = job.seed + 100_003 * round_number
        written = generate([Request(prompt.messages, version) for prompt, version in owed], seed)
        for (prompt, version), completion in zip(owed, written, strict=True):
            if completion is None:
                continue  # the prompt does not fit the context: it stays without
            tokens += completion.token_count
            if not completion.text or completion.text in prompt.seen:
                duplicates += 1
                continue
            prompt.seen.add(completion.text)
            prompt.kept.append((version, completion))
        folder.progress(sum(min(len(prompt.kept), len(prompt.versions)) for prompt in prompts), wanted)

    del generate  # its model makes room for that of the rewards
    scores = iter(_scores(folder, job, config, prompts))
    if sampling.best_of > 1:
        scores = iter(_choose(job, sampling, prompts, list(scores)))
    complete = [prompt for prompt in prompts if not prompt.missing()]
    fresh = folder.path / "out.partial"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    with (fresh / "completions.jsonl").open("w", encoding="utf-8") as file:
        for prompt in prompts:
            for version, completion in prompt.kept:
                row = {
                    "prompt_id": prompt.prompt_id,
                    "version": version,
                    **completion._asdict(),
                    "rules": prompt.rules,
                    **next(scores),
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    folder.publish(fresh)
    return {
        "prompts": len(prompts),
        "completions": sum(len(prompt.kept) for prompt in prompts),
        "tokens": tokens,
        "duplicates_dropped": duplicates,
        "prompts_without_enough": len(prompts) - len(complete),
    }


def _choose(
    job: Job, sampling: SamplingSettings, prompts: list[_Prompt], scores: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Leave each prompt the best of what was sampled for it; returns their scores, with how they were chosen.

    What a version sampled is divided evenly among the completions that it owes, and the best of each part is kept.
    """
    each, chosen = iter(scores), []
    how = {"best_of": sampling.best_of, "caution": sampling.caution, "chosen_by": job.chooser}
    how["kl_at_most"] = moved(sampling.best_of)
    for prompt in prompts:
        pool = [(one, next(each)) for one in prompt.kept]
        prompt.kept = []
        for version in dict.fromkeys(prompt.versions):
            own = [entry for entry in pool if entry[0][0] == version]
            places = min(prompt.versions.count(version), len(own))
            for place in range(places):
                best, said = max(own[place::places], key=lambda entry: _worth(job, sampling, entry[1]))
                prompt.kept.append(best)
                judged = job.chooser in said["scores"]
                chosen.append({**said, "chosen": how if judged else {"best_of": 1}})
    return chosen


def _worth(job: Job, sampling: SamplingSettings, said: dict[str, Any]) -> float:
    """Mean minus `caution` times the spread; what could not be scored comes last."""
    name = job.chooser or ""
    if name not in said["scores"]:
        return -math.inf
    return float(said["scores"][name] - sampling.caution * said["spreads"].get(name, 0.0))


def _scores(folder: RunFolder, job: Job, config: GenerateConfig, prompts: list[_Prompt]) -> list[dict[str, Any]]:
    """What each reward version says of each completion, in the order of writing; a broken one costs no completion."""
    written = [(prompt.plain, completion.text) for prompt in prompts for _, completion in prompt.kept]
    nothing: list[dict[str, Any]] = [{"scores": {}, "spreads": {}} for _ in written]
    if not job.rewards or not written:
        return nothing
    try:
        rewards = score_completions(
            resolve_base_model(job.base_model),
            {name: Path(path) for name, path in job.rewards.items()},
            written,
            batch_size=config.batch_size,
            dtype=config.dtype,
            device=config.device,
            before_batch=folder.check_cancel,
        )
    except ModelUnusable as error:
        folder.say(f"completions are not scored: {error}")
        return nothing
    folder.say(f"scored by {', '.join(rewards)}")
    each = [{name: one for name, all_ in rewards.items() if (one := all_[place])} for place in range(len(written))]
    return [
        {
            "scores": {name: one.value for name, one in said.items()},
            "spreads": {name: one.spread for name, one in said.items() if one.spread is not None},
        }
        for said in each
    ]
