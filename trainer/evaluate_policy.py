"""Figures of a policy: what it writes for test prompts, and how it reads what people chose."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from storage.configs import SamplingSettings, parse
from storage.enums import Split
from storage.formats import parse_format
from trainer.calibration import HOTTEST, Estimate, ece, reliability, right, sigmoid, win_rate
from trainer.ensemble import MIN_PAIRS
from trainer.evaluating import Judge, Task, ask_rewards
from trainer.figures import Report, bars_of, distinct_2, mean, objects, perplexity, ratio
from trainer.folder import RunFolder
from trainer.measuring import Passage, Read, passages_of, read
from trainer.policy import Policies, Request, generator_of, load_policies
from trainer.refining import words_of

CHUNK_BATCHES = 6  # batches sampled together, so that prompts of like length find each other
FEW_PROMPTS = 100  # under which each of them is written for several times
MOST_SAMPLES = 4
REFERENCES = 8  # texts by people at least; with fewer, the base model's own are the reference
FILE = "written.jsonl"


class Completed(NamedTuple):
    """A completion of a test prompt; None where the prompt does not fit."""

    prompt_id: int
    text: str
    tokens: int


class Sides(NamedTuple):
    """The version and what it is compared with, by name; `base` None: it has another base model's place."""

    ours: str
    theirs: str
    base: str | None


def measure_policy(task: Task) -> Report:
    """Every figure of the version, beside those of the champion on the same prompts."""
    report = Report(task.slices, "policy")
    job = task.job
    base = next((name for name, folder in job.adapters.items() if folder is None), None)
    sides = Sides(job.evaluated or "", job.against or "", base)
    adapters = {name: None if folder is None else Path(folder) for name, folder in job.adapters.items()}
    policies = load_policies(task.base, adapters, dtype=task.config.dtype, device=task.config.device)
    people = task.asked["reference"]
    writers = [sides.ours, sides.theirs]
    if len(people) < REFERENCES and base is not None and base not in writers:
        writers.append(base)
    written = {name: _write(task, policies, name, n, len(writers)) for n, name in enumerate(writers)}
    _written(task, report, sides, written)
    _distances(task, report, policies, sides, written)
    _pairs(task, report, policies, sides)
    _reference(task, report, policies, sides, written)
    del policies  # its model makes room for that of the rewards
    _win_rate(task, report, sides, written)
    wanted = len(writers) * len(written[sides.ours]) + 1
    task.folder.progress(wanted, wanted)
    return report


# --- writing ---


def _write(task: Task, policies: Policies, version: str, turn: int, turns: int) -> list[Completed | None]:
    """What `version` writes for the test prompts, aligned over the versions; kept in written.jsonl chunk by chunk.

    Chunks, order and seeds depend on the prompts alone: every version meets the same dice.
    """
    rows, config = task.asked["write"], task.config
    samples = config.samples or min(MOST_SAMPLES, max(1, ceil(FEW_PROMPTS / max(1, len(rows)))))
    asked = [row for row in rows for _ in range(samples)]
    sampling = parse(SamplingSettings, task.job.sampling)
    generate = generator_of(policies, sampling, batch_size=config.batch_size, before_batch=task.folder.check_cancel)
    kept = _kept(task.folder, version)
    size = config.batch_size * CHUNK_BATCHES
    found: list[Completed | None] = []
    for number, start in enumerate(range(0, len(asked), size)):
        chunk = asked[start : start + size]
        if number not in kept:
            requests = [Request(row["messages"], version) for row in chunk]
            made = generate(requests, task.job.seed + 10_007 * number)
            lines = [None if one is None else [one.text, one.token_count] for one in made]
            _keep(task.folder, {"version": version, "chunk": number, "rows": lines})
            kept[number] = lines
        found += [
            None if one is None else Completed(row["prompt_id"], *one)
            for row, one in zip(chunk, kept[number], strict=True)
        ]
        task.folder.progress(turn * len(asked) + len(found), turns * len(asked) + 1)
    return found


def _kept(folder: RunFolder, version: str) -> dict[int, list[Any]]:
    """What an earlier attempt wrote; a line that a kill cut short does not count."""
    found = {}
    path = folder.path / FILE
    for line in path.read_text("utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["version"] == version:
            found[row["chunk"]] = row["rows"]
    return found


def _keep(folder: RunFolder, row: dict[str, Any]) -> None:
    with (folder.path / FILE).open("ab") as file:
        # A line that a kill cut short must not swallow the next one.
        file.write(b"\n" + (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", errors="replace"))
        file.flush()
        os.fsync(file.fileno())


# --- what was written ---


def _both(sides: Sides, written: dict[str, list[Completed | None]]) -> tuple[list[Completed], list[Completed]]:
    """The completions of both, where both could write."""
    found = [
        (ours, theirs)
        for ours, theirs in zip(written[sides.ours], written[sides.theirs], strict=True)
        if ours is not None and theirs is not None
    ]
    return [ours for ours, _ in found], [theirs for _, theirs in found]


def _written(task: Task, report: Report, sides: Sides, written: dict[str, list[Completed | None]]) -> None:
    """Length, diversity, and the project's format."""
    ours, theirs = _both(sides, written)
    prompts = [one.prompt_id for one in ours]
    if not ours:
        for name in ("length_ratio", "diversity", "format_ok"):
            report.missing(name, "no test prompt fits the model's context beside a completion")
        return
    lengths = [[a.tokens, b.tokens] for a, b in zip(ours, theirs, strict=True)]
    report.add("length_ratio", ratio, prompts, lengths, sliced=True)
    pairs = [objects([_bigrams(one.text) for one in side]) for side in (ours, theirs)]
    report.add("diversity", distinct_2, prompts, *pairs, without_twins=True)
    checks = [parse_format(line) for line in task.job.formats]
    if not checks:
        report.missing("format_ok", "the project defines no format checks")
        return
    held = [[float(all(check.holds(one.text) for check in checks)) for one in side] for side in (ours, theirs)]
    report.add("format_ok", mean, prompts, *held, sliced=True)
    for check in checks:
        failed = sum(not check.holds(one.text) for one in ours)
        if failed:
            report.notes.append(f"format check '{check.name}' fails in {failed} of {len(ours)} completions")


def _bigrams(text: str) -> list[tuple[str, str]]:
    words = [word.text for word in words_of(text)]
    return list(pairwise(words))


def _read(task: Task, policies: Policies, version: str | None, passages: Sequence[Passage], kl: bool) -> list[Read]:
    return read(
        policies,
        version,
        passages,
        with_kl=kl,
        batch_size=task.config.batch_size,
        before_batch=task.folder.check_cancel,
    )


def _distances(
    task: Task, report: Report, policies: Policies, sides: Sides, written: dict[str, list[Completed | None]]
) -> None:
    """KL of each to the base model, on what it wrote itself."""
    ours, theirs = _both(sides, written)
    asked = {row["prompt_id"]: row["messages"] for row in task.asked["write"]}
    found: dict[str, list[Read | None]] = {}
    for name, side in ((sides.ours, ours), (sides.theirs, theirs)):
        rows = [_row(asked[one.prompt_id], one.text) for one in side]
        passages = [row.get("chosen") for row in passages_of(policies, name, rows)]
        told = iter(_read(task, policies, name, [one for one in passages if one is not None], kl=True))
        found[name] = [None if one is None else next(told) for one in passages]
    pairs = [
        (one.prompt_id, a.kl, b.kl)
        for one, a, b in zip(ours, found[sides.ours], found[sides.theirs], strict=True)
        if a is not None and b is not None
    ]
    if not pairs:
        report.missing("kl", "no test prompt fits the model's context beside a completion")
        return
    prompts, a, b = zip(*pairs, strict=True)
    report.add("kl", mean, prompts, a, b)


def _row(messages: Any, text: str) -> dict[str, Any]:
    return {"prompt": messages, "chosen": [{"role": "assistant", "content": text}], "rejected": []}


# --- what was read ---


def _pairs(task: Task, report: Report, policies: Policies, sides: Sides) -> None:
    """Whether the policy moved towards what people chose (its implicit reward), and how probable it finds that."""
    rows = task.pairs[Split.TEST]
    read_by: dict[str, list[tuple[Read, Read] | None]] = {}
    for name in dict.fromkeys([sides.ours, sides.theirs]):
        read_by[name] = _sides(task, policies, name, name, rows)
        read_by[f"{name} before"] = _sides(task, policies, name, None, rows)  # the base model, asked as the policy is
    kept = [n for n in range(len(rows)) if all(values[n] is not None for values in read_by.values())]
    if not kept:
        for name in ("implicit_accuracy", "chosen_logprob"):
            report.missing(name, "there are no test pairs that fit the model's context")
        return
    prompts = [rows[n]["prompt_id"] for n in kept]

    def gains(name: str) -> Any:
        now, before = ([values[n] for n in kept] for values in (read_by[name], read_by[f"{name} before"]))
        rewards = [
            (a[0].logprob - b[0].logprob) - (a[1].logprob - b[1].logprob)
            for a, b in zip(now, before, strict=True)
            if a is not None and b is not None
        ]
        return right(rewards)

    def chosen(name: str) -> Any:
        return np.array([[values[0].logprob, values[0].tokens] for n in kept if (values := read_by[name][n])])

    # The base model prefers nothing to itself.
    rival = gains(sides.theirs) if sides.theirs != sides.base else None
    report.add("implicit_accuracy", mean, prompts, gains(sides.ours), rival, sliced=True)
    report.add("chosen_logprob", ratio, prompts, chosen(sides.ours), chosen(sides.theirs), sliced=True)


def _sides(
    task: Task, policies: Policies, asked_as: str, version: str | None, rows: list[dict[str, Any]]
) -> list[tuple[Read, Read] | None]:
    passages = passages_of(policies, asked_as, rows)
    flat = [one[side] for one in passages if one for side in ("chosen", "rejected")]
    told = iter(_read(task, policies, version, flat, kl=False))
    return [(next(told), next(told)) if one else None for one in passages]


def _reference(
    task: Task, report: Report, policies: Policies, sides: Sides, written: dict[str, list[Completed | None]]
) -> None:
    """Perplexity of text that people wrote for test prompts; where there is none, of what the base model writes."""
    people = task.asked["reference"]
    if len(people) >= REFERENCES:
        rows = [(row["prompt_id"], _row(row["messages"], row["text"])) for row in people]
    elif sides.base is not None:
        asked = {row["prompt_id"]: row["messages"] for row in task.asked["write"]}
        own = [one for one in written[sides.base] if one is not None and one.text]
        rows = [(one.prompt_id, _row(asked[one.prompt_id], one.text)) for one in own]
        report.notes.append("reference text: what the base model writes; there is too little by people on test prompts")
    else:
        rows = []
    both = []
    for name in (sides.ours, sides.theirs):
        passages = [one.get("chosen") for one in passages_of(policies, name, [row for _, row in rows])]
        told = iter(_read(task, policies, name, [one for one in passages if one], kl=False))
        both.append([next(told) if one else None for one in passages])
    kept = [(rows[n][0], a, b) for n, (a, b) in enumerate(zip(*both, strict=True)) if a is not None and b is not None]
    if not kept:
        report.missing("perplexity", "there is no reference text: people wrote none for test prompts")
        return
    columns = [np.array([[row[side].logprob, row[side].tokens] for row in kept]) for side in (1, 2)]
    report.add("perplexity", perplexity, [row[0] for row in kept], *columns)


# --- which is better ---


def _win_rate(task: Task, report: Report, sides: Sides, written: dict[str, list[Completed | None]]) -> None:
    """The mean probability, by the calibrated reward model, that the version's completion is the better one."""
    ours, theirs = _both(sides, written)
    if not task.job.rewards or not ours:
        why = "no reward model scores on this base model; train one: feedback-app train reward"
        report.missing("win_rate", why if ours else "no test prompt fits the model's context beside a completion")
        return
    plain = {row["prompt_id"]: row.get("prompt", row["messages"]) for row in task.asked["write"]}
    texts = [(plain[one.prompt_id], one.text) for both in zip(ours, theirs, strict=True) for one in both]
    ((name, judge),) = ask_rewards(task, texts).items()
    found = [
        (one.prompt_id, float((a - b).mean()))
        for one, a, b in zip(ours, judge.more[::2], judge.more[1::2], strict=True)
        if a is not None and b is not None
    ]
    if not found:
        report.missing("win_rate", f"nothing that was written fits the context of {name}")
        return
    prompts, margins = [prompt for prompt, _ in found], np.array([margin for _, margin in found])
    says_something = judge.temperature < HOTTEST
    report.add("win_rate", mean, prompts, sigmoid(margins / judge.temperature), sliced=says_something)
    held = judge.margins[Split.VALIDATION]
    if len(held.rows) >= MIN_PAIRS:
        # Its interval also knows how few pairs the judge was held against; those of slices do not.
        report.keep("win_rate", win_rate(margins, prompts, held.mean, [row["prompt_id"] for row in held.rows]))
        if not says_something:
            report.notes.append(f"win rate: no interval, {name} is wrong on validation pairs as often as right")
    else:
        report.keep("win_rate", Estimate(report.figures["win_rate"]["value"], None, None, len(found)))
        report.notes.append(f"win rate: no interval, too few validation pairs say how far {name} can be trusted")
    _of_judge(report, name, judge)


def _of_judge(report: Report, name: str, judge: Judge) -> None:
    """How far its word can be trusted: its own figures on test pairs."""
    test = judge.margins[Split.TEST]
    report.more["temperature"] = judge.temperature
    report.notes += [judge.note] if judge.note else []
    if not test.rows:
        report.notes.append(f"{name} judged; there are no test pairs to hold it against")
        return
    prompts = [row["prompt_id"] for row in test.rows]
    report.add("judge_accuracy", mean, prompts, right(test.mean))
    report.add("judge_ece", ece, prompts, test.mean / judge.temperature)
    report.more["reliability"] = bars_of(reliability(test.mean, judge.temperature))
    report.more["reliability_before"] = bars_of(reliability(test.mean))
