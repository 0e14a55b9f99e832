"""How sure a reward model may be, and how sure we may be of a figure: temperature, ECE, Brier, NLL, the bootstrap.

A pair is described by its margin: the reward of the completion that people chose minus that of the other one, in the
model's own units. Bradley-Terry makes a probability of it: p(chosen) = sigmoid(margin / T).

- Temperature: the T of minimal negative log-likelihood on one split (validation), everything reported on another
  (test). Guo et al. 2017, "On calibration of modern neural networks" (1706.04599).
- ECE: expected calibration error with bins of equal mass, which is less biased than one with bins of equal width. Nixon
  et al. 2019, "Measuring calibration in deep learning" (1904.01685). It is never negative, so it lies above 0 also for
  a perfect model, the more the fewer pairs and the more bins there are (Roelofs et al. 2022, 2012.08668): `ece_floor`
  says how far.
- Intervals: the bootstrap over prompts, not pairs: pairs of one prompt are not independent of each other. Differences
  are taken on the same resamples (paired). Efron and Tibshirani 1993, chapters 8 and 13.

No torch here, and no state: every function is a plain one of arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Statistic = Callable[[Ints], float]  # of the rows with these numbers, some of them several times

ROUNDS = 1000
BINS = 15
IN_A_BIN = 40  # pairs at least: the share of fewer is so uncertain that the ECE would measure little else
LEVEL = 0.95
COLDEST, HOTTEST = 0.01, 100.0  # temperatures looked at
_SEED = 20_221_122
_Z = 1.959964  # of the normal distribution, at 95 %


class Estimate(NamedTuple):
    """A figure with its 95 % interval; `n` rows. Without bounds where there are too few prompts to tell."""

    value: float | None
    low: float | None
    high: float | None
    n: int


class Bin(NamedTuple):
    """A bar of a reliability diagram: predictions from `low` to `high`, how sure they were and how often right."""

    low: float
    high: float
    confidence: float
    accuracy: float
    n: int


class Classified(NamedTuple):
    """How a rule tells good from bad."""

    precision: float
    recall: float
    f1: float


# --- probabilities ---


def sigmoid(x: ArrayLike) -> Floats:
    """1 / (1 + e^-x), for any size of x."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(x, dtype=np.float64)))


def nll(margins: ArrayLike, temperature: float = 1.0) -> Floats:
    """-log p(chosen) of each pair, in nats."""
    return np.logaddexp(0.0, -np.asarray(margins, dtype=np.float64) / temperature)


def brier(margins: ArrayLike, temperature: float = 1.0) -> Floats:
    """(1 - p(chosen))² of each pair. Brier 1950, for two outcomes counted once: a coin toss has 0.25."""
    losing: Floats = 1.0 - sigmoid(np.asarray(margins, dtype=np.float64) / temperature)
    return losing**2


def fit_temperature(margins: ArrayLike) -> float:
    """The temperature of minimal mean NLL, between `COLDEST` and `HOTTEST`; 1 without pairs.

    Where margins are wrong as often as right, the hottest: the model says nothing.
    """
    slope = fit_slope(margins) if np.size(margins) else 1.0
    return 1 / slope if slope > 1 / HOTTEST else HOTTEST


def fit_slope(margins: ArrayLike) -> float:
    """1 / T of minimal mean NLL; below zero where the model is wrong more than it is right.

    The target is (n + 1) / (n + 2) instead of 1 for n pairs: Platt's smoothing (1999), without which a model that is
    right on all of a few pairs would be held for certain. The mean NLL is convex in the slope: its derivative is zero
    in one place, found by halving.
    """
    found = np.asarray(margins, dtype=np.float64)
    target = (found.size + 1) / (found.size + 2)
    low, high = -1 / COLDEST, 1 / COLDEST
    for _ in range(50):
        middle = (low + high) / 2
        rising = float(np.mean(found * (sigmoid(middle * found) - target))) < 0
        low, high = (middle, high) if rising else (low, middle)
    return (low + high) / 2


def win_rate(
    margins: ArrayLike,
    prompts: Sequence[Any],
    judged: ArrayLike,
    judged_prompts: Sequence[Any],
    *,
    rounds: int = ROUNDS,
) -> Estimate:
    """The mean probability that ours wins, from the judge's `margins` in our favour, calibrated on pairs it `judged`.

    The interval knows both that other prompts could have been asked and that the judge was held against a few pairs
    only: its slope is fitted anew on resampled pairs, and may turn. A judge that cannot be told from a coin can so make
    no winner, however sure of itself and however many prompts. One that is wrong on those pairs as often as right has
    no interval at all: turned round, its word would prove as a winner what it holds for the worse.
    """
    ours, pairs = np.asarray(margins, dtype=np.float64), np.asarray(judged, dtype=np.float64)
    temperature = fit_temperature(pairs)
    value = float(np.mean(sigmoid(ours / temperature)))
    (of_row, count), (of_pair, judges) = _numbered(prompts), _numbered(judged_prompts)
    if count < 2 or judges < 2 or temperature >= HOTTEST:
        return Estimate(value, None, None, len(ours))
    chance = np.random.default_rng(_SEED)
    drawn = []
    for _ in range(rounds):
        rows = np.repeat(ours, chance.multinomial(count, np.full(count, 1 / count))[of_row])
        seen = np.repeat(pairs, chance.multinomial(judges, np.full(judges, 1 / judges))[of_pair])
        drawn.append(float(np.mean(sigmoid(rows * fit_slope(seen)))))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), len(ours))


# --- calibration of a winner ---


def reliability(margins: ArrayLike, temperature: float = 1.0, bins: int = BINS) -> list[Bin]:
    """Bins of equal mass over the probability of the predicted winner, 0.5 to 1; a margin of 0 is right by half.

    With fewer than `bins` * `IN_A_BIN` pairs there are fewer bins; none without pairs.
    """
    confidence, correct = winners(margins, temperature)
    found = []
    for part in _equal_mass(confidence, bins):
        low, high = float(confidence[part].min()), float(confidence[part].max())
        found.append(Bin(low, high, float(confidence[part].mean()), float(correct[part].mean()), len(part)))
    return found


def ece(margins: ArrayLike, temperature: float = 1.0, bins: int = BINS) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy over the bins of `reliability`."""
    confidence, correct = winners(margins, temperature)
    if not len(confidence):
        return float("nan")
    gaps = (len(part) * abs(confidence[part].mean() - correct[part].mean()) for part in _equal_mass(confidence, bins))
    return float(sum(gaps) / len(confidence))


def ece_floor(margins: ArrayLike, temperature: float = 1.0, bins: int = BINS, rounds: int = 200) -> Estimate:
    """The ECE that a model with these margins would have if each probability were true: its mean and 95 % range."""
    found = np.asarray(margins, dtype=np.float64)
    if not found.size:
        return Estimate(None, None, None, 0)
    chance = np.random.default_rng(_SEED)
    sure = sigmoid(np.abs(found) / temperature)
    drawn = [
        ece(np.abs(found) * np.where(chance.random(len(found)) < sure, 1, -1), temperature, bins) for _ in range(rounds)
    ]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(np.mean(drawn)), float(low), float(high), len(found))


def winners(margins: ArrayLike, temperature: float = 1.0) -> tuple[Floats, Floats]:
    """The probability of whichever completion is predicted to win, and whether people chose it."""
    found = np.asarray(margins, dtype=np.float64)
    return sigmoid(np.abs(found) / temperature), right(found)


def right(margins: ArrayLike) -> Floats:
    """1 where the chosen completion has the higher reward, 0 where it has the lower one, 1/2 where they are equal."""
    return 0.5 * (np.sign(np.asarray(margins, dtype=np.float64)) + 1.0)


def _equal_mass(confidence: Floats, bins: int) -> list[Ints]:
    count = max(1, min(bins, len(confidence) // IN_A_BIN))
    return [part for part in np.array_split(np.argsort(confidence, kind="stable"), count) if len(part)]


# --- intervals ---


def bootstrap(statistic: Statistic, groups: Sequence[Any], *, rounds: int = ROUNDS) -> Estimate:
    """`statistic` of all rows, and the percentile interval over resamples of whole groups (prompts).

    Without bounds for fewer than two groups; without a value where the statistic is not finite. The interval of an ECE
    leans upwards, as the resamples have gaps of their own: a bar on its upper end errs on the safe side.
    """
    of_row, count = _numbered(groups)
    rows = len(of_row)
    value = _finite(statistic(np.arange(rows))) if rows else None
    if value is None or count < 2:
        return Estimate(value, None, None, rows)
    chance = np.random.default_rng(_SEED)
    drawn = []
    for _ in range(rounds):
        times = chance.multinomial(count, np.full(count, 1 / count))
        again = _finite(statistic(np.repeat(np.arange(rows), times[of_row])))
        if again is not None:
            drawn.append(again)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if drawn else (None, None)
    return Estimate(value, _finite(low), _finite(high), rows)


def mean_of(values: ArrayLike, groups: Sequence[Any], *, rounds: int = ROUNDS) -> Estimate:
    """The mean of `values`, one a row. A share that is 0 or 1 throughout has Wilson's interval by number of prompts.

    Resamples of equal rows are all alike: the bootstrap would be sure of what four prompts say.
    """
    found = np.asarray(values, dtype=np.float64)
    made = bootstrap(lambda rows: float(found[rows].mean()), groups, rounds=rounds)
    if made.low is None or made.low != made.high or made.value not in (0.0, 1.0):
        return made
    prompts = len(set(groups))
    reach = _Z**2 / (prompts + _Z**2)
    return made._replace(low=1 - reach) if made.value else made._replace(high=reach)


def difference(statistic: Callable[[Floats], float], ours: ArrayLike, theirs: ArrayLike, groups: Sequence[Any]) -> Any:
    """How far `statistic` of our rows lies above that of theirs, rows of one number belonging together (paired)."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    return bootstrap(lambda rows: statistic(a[rows]) - statistic(b[rows]), groups)


def jackknife(statistic: Statistic, groups: Sequence[Any], blocks: int = 20) -> Estimate:
    """As `bootstrap`, leaving out one block of groups at a time: for figures that a row drawn twice would change.

    The interval is the normal one around the value (Efron and Tibshirani, chapter 11).
    """
    of_row, count = _numbered(groups)
    rows = np.arange(len(of_row))
    value = _finite(statistic(rows)) if len(rows) else None
    parts = min(blocks, count)
    if value is None or parts < 2:
        return Estimate(value, None, None, len(rows))
    left = [_finite(statistic(rows[of_row % parts != part])) for part in range(parts)]
    known = np.array([one for one in left if one is not None])
    error = float(np.sqrt((parts - 1) * np.mean((known - known.mean()) ** 2)))
    return Estimate(value, value - _Z * error, value + _Z * error, len(rows))


def _numbered(groups: Sequence[Any]) -> tuple[Ints, int]:
    """The number of each row's group, in order of first appearance, and how many groups there are."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64), len(numbers)


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


# --- good and bad ---


def classified(predicted: ArrayLike, labels: ArrayLike) -> Classified:
    """Precision, recall and F1 of "good"; what would divide by nothing is not a number."""
    said, good = np.asarray(predicted, dtype=bool), np.asarray(labels, dtype=bool)
    both = float(np.sum(said & good))
    precision = both / said.sum() if said.any() else float("nan")
    recall = both / good.sum() if good.any() else float("nan")
    f1 = 2 * both / (said.sum() + good.sum()) if said.any() or good.any() else float("nan")
    return Classified(float(precision), float(recall), float(f1))


def best_threshold(rewards: ArrayLike, labels: ArrayLike) -> float:
    """The reward from which on a completion counts as good: the one of highest F1 on these rows."""
    values, good = np.asarray(rewards, dtype=np.float64), np.asarray(labels, dtype=bool)
    order = np.argsort(-values, kind="stable")
    f1 = 2 * np.cumsum(good[order]) / (np.arange(1, len(values) + 1) + max(1, good.sum()))
    return float(values[order][int(np.argmax(f1))])
