"""Calibration figures with answers that are known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trainer import calibration as c


def test_the_temperature_is_the_one_that_the_data_was_made_with() -> None:
    chance = np.random.default_rng(1)
    logits = chance.normal(0, 2, 20_000)  # the truth; a model that says three times as much is too sure
    won = chance.random(20_000) < c.sigmoid(logits)
    margins = 3 * np.where(won, logits, -logits)
    temperature = c.fit_temperature(margins[:10_000])
    assert temperature == pytest.approx(3, rel=0.05)
    test = margins[10_000:]
    assert c.ece(test) > 0.1 > 0.02 > c.ece(test, temperature)
    assert c.nll(test, temperature).mean() < c.nll(test).mean()
    assert c.brier(test, temperature).mean() < c.brier(test).mean()
    bins = c.reliability(test, temperature)
    assert {one.n for one in bins} <= {666, 667}, "bins of equal mass"
    assert all(abs(one.confidence - one.accuracy) < 0.06 for one in bins)
    floor = c.ece_floor(test[:400], temperature)
    assert 0.02 < (floor.low or 0) < (floor.value or 0) < (floor.high or 0) < 0.12, "400 pairs cannot show less"
    assert (c.ece_floor(test, temperature).value or 1) < 0.02
    assert 1 < c.fit_temperature([1.0, 2.0]) < 3, "right on both of two pairs is no certainty"
    assert c.fit_temperature([1.0, 2.0] * 500) < 0.2
    assert c.fit_temperature([1.0, -1.0]) == pytest.approx(c.HOTTEST, rel=1e-3)
    assert c.fit_temperature([]) == 1.0


def test_figures_of_a_handful_of_pairs() -> None:
    sure = math.log(9)  # p = 0.9
    margins = [sure] * 9 + [-sure]
    assert c.ece(margins) == pytest.approx(0, abs=1e-9)
    assert c.ece([sure] * 10) == pytest.approx(0.1)
    assert c.brier(margins).mean() == pytest.approx(0.09)
    assert c.nll([0.0]).mean() == pytest.approx(math.log(2))
    assert c.right([2.0, -1.0, 0.0]).tolist() == [1, 0, 0.5]
    assert c.reliability([]) == []
    found = c.classified([True, True, False, False], [True, False, True, False])
    assert found == (0.5, 0.5, 0.5)
    assert math.isnan(c.classified([False], [True]).precision)
    assert c.best_threshold([3.0, 2.0, 1.0], [True, True, False]) == 2.0


def test_a_judge_that_guesses_makes_no_winner() -> None:
    chance = np.random.default_rng(3)
    ours = chance.normal(0.6, 0.3, 400)  # what the judge says, and it says it of nearly every prompt
    prompts = list(range(400))
    good, half = chance.normal(1, 1, 60), chance.normal(0.2, 1, 30)
    guesses = np.concatenate([half, 0.1 - half])
    trusted = c.win_rate(ours, prompts, good, prompts[:60], rounds=200)
    assert 0.5 < (trusted.low or 0) < (trusted.value or 0) < (trusted.high or 0) < 1
    doubted = c.win_rate(ours, prompts, guesses, prompts[:60], rounds=200)
    assert (doubted.low or 1) < 0.5 < (doubted.high or 0)
    assert c.win_rate(ours, prompts, good, [1] * 60).low is None
    reversed_judge = c.win_rate(-ours, prompts, -good, prompts[:60])
    assert (reversed_judge.value, reversed_judge.low) == (pytest.approx(0.5, abs=0.01), None)


def test_intervals_resample_whole_prompts() -> None:
    chance = np.random.default_rng(2)
    of_prompt = chance.normal(0, 1, 100)
    values = np.repeat(of_prompt, 4)  # four rows of a prompt say the same thing
    groups = np.repeat(np.arange(100), 4).tolist()
    found = c.mean_of(values, groups)
    assert found.n == 400
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * of_prompt.std() / 10, rel=0.15)
    paired = c.difference(lambda rows: float(rows.mean()), values + 0.1, values, groups)
    assert paired == pytest.approx((0.1, 0.1, 0.1, 400)), "what they share does not count"
    assert c.mean_of([1.0, 1.0], ["a", "a"]).low is None, "one prompt says nothing of others"
    assert c.mean_of([], []) == (None, None, None, 0)
    always = c.mean_of([1.0] * 4, "abcd")
    assert always.low == pytest.approx(0.51, abs=0.01), "four of four is no certainty"
    jackknife = c.jackknife(lambda rows: float(values[rows].mean()), groups, blocks=100)
    assert jackknife.low == pytest.approx(found.low, abs=0.03)
