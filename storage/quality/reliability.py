"""Each annotator beside the others: the majority's view, their distance on the scale, and Dawid-Skene's reliability."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from storage.quality.agreement import Floats, Interval, Ints, Units
from storage.quality.shares import Share

_ROUNDS = 200
_CLOSE = 1e-6  # of the log-likelihood of a judgement
_PRIOR = 0.01  # imagined judgements a cell: a person who was never wrong is not called infallible


class Beside(NamedTuple):
    """One annotator beside the others who judged the same things."""

    majority: Share  # of the things on which the others have a majority: how often the annotator said the same
    offset: Interval | None  # mean of (their value - the others' mean): above 0, they rate higher. None: under two


class Reliabilities(NamedTuple):
    """What EM found: how often each class is true, and what each rater says of it."""

    classes: Ints
    prior: Floats  # [class]
    raters: Ints
    confusion: Floats  # [rater, true class, class said]
    truth: Floats  # [unit, class]: the probability that it is the true one

    def of(self, rater: int) -> float:
        """The probability that `rater` says what is true, over classes as frequent as they are."""
        place = int(np.searchsorted(self.raters, rater))
        return float(self.prior @ np.diagonal(self.confusion[place]))


def beside_others(units: Units, bands: Ints) -> dict[int, Beside]:
    """Rater -> how they stand beside the others; `bands` are the entries' values as classes, for the majority.

    Where the others are split evenly there is no majority, and the thing is not counted.
    """
    if not len(units.count):
        return {}
    _, code = np.unique(bands, return_inverse=True)
    code = code.ravel()
    classes = int(code.max()) + 1
    said = np.bincount(units.unit * classes + code, minlength=len(units.count) * classes).reshape(-1, classes)
    others = said[units.unit]
    others[np.arange(len(code)), code] -= 1
    best = others.max(axis=1)
    clear = (others == best[:, None]).sum(axis=1) == 1
    agrees = clear & (others.argmax(axis=1) == code)
    total = np.bincount(units.unit, weights=units.value)[units.unit]
    offset = units.value - (total - units.value) / (units.size[units.unit] - 1)

    raters, who = np.unique(units.rater, return_inverse=True)
    who = who.ravel()
    weight = units.weight.astype(np.float64)

    def count(of: Floats) -> Floats:
        return np.bincount(who, weights=weight * of).astype(np.float64)

    shared, same = count(clear.astype(np.float64)), count(agrees.astype(np.float64))
    number, sums, squares = count(np.ones(len(who))), count(offset), count(offset**2)
    return {
        int(rater): Beside(Share(int(same[n]), int(shared[n])), _mean(number[n], sums[n], squares[n]))
        for n, rater in enumerate(raters)
    }


def _mean(number: float, total: float, squares: float) -> Interval | None:
    """Mean with the interval of the normal distribution."""
    if number < 2:
        return None
    mean = total / number
    variance = max(squares / number - mean**2, 0.0) * number / (number - 1)
    half = 1.96 * float(np.sqrt(variance / number))
    return Interval(float(mean), float(mean - half), float(mean + half))


def dawid_skene(units: Units) -> Reliabilities | None:
    """Maximum likelihood of observers' error rates by EM, for judgements without known truth.

    A. P. Dawid and A. M. Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm", Applied
    Statistics 28 (1979), 20-28. Starts from each unit's shares of votes, ends when the likelihood stands still. None
    without units.
    """
    if not len(units.count):
        return None
    classes, said = np.unique(units.value, return_inverse=True)
    raters, who = np.unique(units.rater, return_inverse=True)
    said, who = said.ravel(), who.ravel()
    number, cells = len(units.count), len(raters) * len(classes)
    votes = np.bincount(units.unit * len(classes) + said, minlength=number * len(classes)).reshape(number, -1)
    truth: Floats = votes / votes.sum(axis=1, keepdims=True)
    before = -np.inf
    for _ in range(_ROUNDS):
        # M: how often each class is true, and what each rater says of it.
        weighted = truth * units.count[:, None]
        prior = weighted.sum(axis=0) / units.count.sum()
        tallies = [np.bincount(who * len(classes) + said, weights=w[units.unit], minlength=cells) for w in weighted.T]
        counts = np.stack(tallies).reshape(len(classes), len(raters), len(classes)) + _PRIOR
        confusion: Floats = counts / counts.sum(axis=2, keepdims=True)
        # E: how likely each class is for each unit.
        chance = np.log(confusion[:, who, said])  # [class, entry]
        log = np.stack([np.bincount(units.unit, weights=row, minlength=number) for row in chance], axis=1)
        log += np.log(np.maximum(prior, 1e-300))
        top = log.max(axis=1, keepdims=True)
        truth = np.exp(log - top)
        mass = truth.sum(axis=1, keepdims=True)
        truth /= mass
        likelihood = float(units.count @ (np.log(mass) + top)[:, 0])
        if likelihood - before < _CLOSE * units.weight.sum():
            break
        before = likelihood
    return Reliabilities(classes, prior, raters, confusion.transpose(1, 0, 2), truth)
