"""Figures of a reward model on test pairs, ratings and votes of people."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from storage.enums import Split
from storage.errors import NotEnoughData
from trainer.calibration import (
    Floats,
    best_threshold,
    brier,
    classified,
    ece,
    ece_floor,
    nll,
    reliability,
    right,
    sigmoid,
)
from trainer.evaluating import Judge, Task, ask_rewards
from trainer.figures import Report, Rows, bars_of, mean
from trainer.scoring import opinion_of

ALIKE = 0.1  # completions whose lengths differ by less than this share of the longer one


def measure_reward(task: Task) -> Report:
    """Every figure of the version, beside those of the champion on the same pairs.

    Raises `NotEnoughData` when no test pair fits the model's context.
    """
    job, report = task.job, Report(task.slices, "reward")
    rated = task.asked["rated"]
    judges = ask_rewards(task, [(row["messages"], row["text"]) for row in rated])
    judge = judges[job.evaluated or ""]
    rival = judges.get(job.against or "")
    if not judge.margins[Split.TEST].rows:
        raise NotEnoughData("no test pair fits the model's context; collect more feedback")
    _accuracies(report, judge, rival)
    _calibration(report, judge, rival)
    _heads(report, judge)
    agreement = task.asked["agreement"]
    if agreement:
        prompts = [row["prompt_id"] for row in agreement]
        report.add("human_ceiling", mean, prompts, [row["agrees"] for row in agreement])
    else:
        report.missing("human_ceiling", "no test pair was decided by two people: what people agree on is not known")
    _good(task, report, judge)
    task.folder.progress(1, 1)
    return report


def _accuracies(report: Report, judge: Judge, rival: Judge | None) -> None:
    test = judge.margins[Split.TEST]
    prompts = [row["prompt_id"] for row in test.rows]
    ours, theirs = right(test.mean), right(rival.margins[Split.TEST].mean) if rival else None
    report.add("accuracy", mean, prompts, ours, theirs, sliced=True)
    lengths = np.array([[len(row[side][0]["content"]) for side in ("chosen", "rejected")] for row in test.rows])
    longer = right(lengths[:, 0] - lengths[:, 1])
    alike = np.abs(lengths[:, 0] - lengths[:, 1]) <= ALIKE * lengths.max(axis=1)
    if alike.any():
        of_alike = [prompt for prompt, one in zip(prompts, alike, strict=True) if one]
        both = theirs[alike] if theirs is not None else None
        report.add("length_matched_accuracy", mean, of_alike, ours[alike], both)
    else:
        report.missing("length_matched_accuracy", f"no test pair has completions within {ALIKE:.0%} of one length")
    report.add("longer_wins", mean, prompts, longer)
    report.add("first_wins", mean, prompts, [float(row["chosen_id"] < row["rejected_id"]) for row in test.rows])


def _calibration(report: Report, judge: Judge, rival: Judge | None) -> None:
    """Before and after the temperature, which no test pair had a part in."""
    test, temperature = judge.margins[Split.TEST], judge.temperature
    prompts = [row["prompt_id"] for row in test.rows]
    other = (rival.margins[Split.TEST].mean, rival.temperature) if rival else None
    for name, ours, theirs in (("", temperature, other), ("_before", 1.0, (other[0], 1.0) if other else None)):
        scaled = test.mean / ours
        rivals = theirs[0] / theirs[1] if theirs else None
        report.add(f"ece{name}", _ece, prompts, scaled, rivals)
        report.add(f"brier{name}", mean, prompts, brier(scaled), brier(rivals) if rivals is not None else None)
        report.add(f"nll{name}", mean, prompts, nll(scaled), nll(rivals) if rivals is not None else None)
    report.keep("ece_floor", ece_floor(test.mean, temperature))
    report.more["temperature"] = temperature
    report.more["reliability"] = bars_of(reliability(test.mean, temperature))
    report.more["reliability_before"] = bars_of(reliability(test.mean))
    if judge.note:
        report.notes.append(judge.note)


def _ece(rows: Rows) -> float:
    return ece(rows)


def _heads(report: Report, judge: Judge) -> None:
    """What the Brier score of a single head is made of: that of their mean (bias), and how they differ (variance)."""
    test = judge.margins[Split.TEST]
    if test.heads.shape[1] < 2:
        return
    prompts = [row["prompt_id"] for row in test.rows]
    chances = sigmoid(test.heads / judge.temperature)
    report.add("bias", mean, prompts, (1 - chances.mean(axis=1)) ** 2)
    report.add("variance", mean, prompts, chances.var(axis=1))


def _good(task: Task, report: Report, judge: Judge) -> None:
    """Good and bad completions told apart at the reward that does so best on validation prompts."""
    rewards: dict[str, list[float]] = {split: [] for split in ("validation", "test")}
    labels: dict[str, list[bool]] = {split: [] for split in rewards}
    prompts: list[int] = []
    for row, heads in zip(task.asked["rated"], judge.more, strict=True):
        if heads is None:
            continue
        rewards[row["split"]].append(opinion_of(heads).value)
        labels[row["split"]].append(row["good"])
        if row["split"] == "test":
            prompts.append(row["prompt_id"])
    if len(set(labels["validation"])) < 2 or not prompts:
        why = "precision, recall and F1 need good and bad ratings on validation prompts, and ratings on test prompts"
        for name in ("precision", "recall", "f1"):
            report.missing(name, why)
        return
    bound = best_threshold(rewards["validation"], labels["validation"])
    rows: Floats = np.array([np.array(rewards["test"]) >= bound, labels["test"]], dtype=np.float64).T
    for place, name in enumerate(("precision", "recall", "f1")):
        report.add(name, _part(place), prompts, rows)


def _part(place: int) -> Callable[[Rows], float]:
    def statistic(rows: Rows) -> float:
        return classified(rows[:, 0], rows[:, 1])[place]

    return statistic
