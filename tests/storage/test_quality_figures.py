"""The statistics behind the quality figures, against published results, another package and simulated people."""

from __future__ import annotations

import json

import numpy as np
import pytest

from storage.quality.agreement import Metric, alpha, make_units
from storage.quality.reliability import beside_others, dawid_skene
from storage.quality.shares import Share

# Table 1 of Dawid and Skene (1979): 45 patients, by the first of five anaesthetists three times, by the others once.
PATIENTS = (
    "1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111 2223212 "
    "1211111 1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111 "
    "1111111 1121121 1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 "
    "2322222 1211111 2222222"
)
OBSERVERS = (1, 1, 1, 2, 3, 4, 5)


def _units(table):
    """Units of a table with a row a thing and a column a person; NaN where they said nothing."""
    rows = ([(who, int(value)) for who, value in enumerate(row) if not np.isnan(value)] for row in table)
    return make_units((row, 1) for row in rows)


def _simulated(rng, things, accuracies, classes=3, present=1.0):
    """(truth, table): people who say what is true with their accuracy, and anything else equally often."""
    truth = rng.choice(classes, size=things, p=[0.5, 0.3, 0.2][:classes])
    table = np.empty((things, len(accuracies)))
    for who, accuracy in enumerate(accuracies):
        wrong = (truth + rng.integers(1, classes, things)) % classes
        table[:, who] = np.where(rng.random(things) < accuracy, truth, wrong)
    table[rng.random(table.shape) > present] = np.nan
    return truth, table


def test_alpha_of_the_pandalm_test_set_is_the_published_one(shared_data):
    rows = json.loads((shared_data / "pandalm_testset_v1.json").read_text())
    units = make_units(([(who, row[f"annotator{who}"]) for who in (1, 2, 3)], 1) for row in rows)
    found = alpha(units, Metric.NOMINAL)
    assert int(units.count.sum()) == 999
    assert found.value == pytest.approx(0.8642, abs=5e-5)
    assert 0.83 < found.low < 0.85
    assert 0.88 < found.high < 0.90


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("present", [1.0, 0.4])
def test_alpha_is_that_of_evalica(metric, present):
    evalica, pandas = pytest.importorskip("evalica"), pytest.importorskip("pandas")
    rng = np.random.default_rng(3)
    truth = rng.integers(1, 6, 120)
    table = np.clip(truth[:, None] + rng.integers(-1, 2, (120, 4)), 1, 5).astype(float)
    table[rng.random(table.shape) > present] = np.nan
    expected = evalica.alpha(pandas.DataFrame(table.T), metric.value).alpha
    assert alpha(_units(table), metric, 10).value == pytest.approx(expected, abs=1e-9)


def test_the_interval_is_as_wide_as_alpha_scatters():
    """Alphas of new samples from the same people fall into the interval of one sample about 95 times in 100."""
    rng = np.random.default_rng(5)
    big = alpha(_units(_simulated(rng, 40_000, (0.8, 0.8, 0.7))[1]), Metric.NOMINAL, 10).value
    within = 0
    for _ in range(200):
        found = alpha(_units(_simulated(rng, 150, (0.8, 0.8, 0.7))[1]), Metric.NOMINAL, 300)
        within += found.low <= big <= found.high
    assert 180 <= within <= 199


def test_the_same_judgements_always_give_the_same_interval_however_they_are_counted():
    judged = [([(1, 4), (2, 5)], 3), ([(2, 1), (1, 1)], 5), ([(1, 2), (2, 2)], 4), ([(1, 3)], 9)]
    one_by_one = [(row, 1) for row, count in reversed(judged) for _ in range(count)]
    merged, spelled = make_units(judged), make_units(one_by_one)
    assert merged.count.tolist() == spelled.count.tolist()
    assert int(merged.count.sum()) == 12  # what one person judged alone is no agreement
    assert alpha(merged, Metric.ORDINAL) == alpha(spelled, Metric.ORDINAL)


def test_alpha_is_undefined_where_nothing_can_differ():
    assert alpha(make_units([]), Metric.NOMINAL) is None
    assert alpha(make_units([([(1, 3)], 5)]), Metric.NOMINAL) is None
    for metric in Metric:
        assert alpha(make_units([([(1, 3), (2, 3)], 50)]), metric) is None


def test_people_who_say_the_opposite_fall_below_zero():
    found = alpha(make_units([([(1, 0), (2, 1)], 20), ([(1, 1), (2, 0)], 20)]), Metric.NOMINAL)
    assert found.value < -0.9
    assert found.high < 0


def test_dawid_and_skene_find_what_they_published():
    units = make_units((list(zip(OBSERVERS, map(int, row), strict=True)), 1) for row in PATIENTS.split())
    found = dawid_skene(units)
    assert found.classes.tolist() == [1, 2, 3, 4]
    assert found.prior == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.006)
    # Their Table 2: the first observer's error rates.
    assert found.confusion[0, 0] == pytest.approx([0.89, 0.11, 0, 0], abs=0.012)
    assert found.confusion[0, 1] == pytest.approx([0.07, 0.88, 0.05, 0], abs=0.012)
    assert found.confusion[0, 2] == pytest.approx([0, 0.34, 0.66, 0], abs=0.012)
    assert found.confusion[0, 3] == pytest.approx([0, 0, 0.56, 0.44], abs=0.012)


@pytest.mark.parametrize("present", [1.0, 0.5])
def test_reliability_is_the_accuracy_that_simulated_people_were_given(present):
    given = (0.95, 0.9, 0.8, 0.7, 0.45, 0.85)
    truth, table = _simulated(np.random.default_rng(11), 4_000, given, present=present)
    units = _units(table)
    found = dawid_skene(units)
    assert [found.of(who) for who in range(len(given))] == pytest.approx(given, abs=0.03)
    # Its most probable truth is right more often than a majority that counts everybody alike.
    guess = found.classes[found.truth.argmax(axis=1)]
    likely = {_key(units, n): guess[n] for n in range(len(guess))}
    judged = [(row, right) for row, right in zip(table, truth, strict=True) if (~np.isnan(row)).sum() > 1]
    by_em = np.mean([likely[_row_key(row)] == right for row, right in judged])
    by_vote = np.mean([np.bincount(row[~np.isnan(row)].astype(int)).argmax() == right for row, right in judged])
    assert by_em > by_vote + 0.005


def _key(units, n):
    mine = units.unit == n
    return tuple(zip(units.rater[mine].tolist(), units.value[mine].tolist(), strict=True))


def _row_key(row):
    return tuple((who, int(value)) for who, value in enumerate(row) if not np.isnan(value))


def test_nobody_is_infallible_and_nothing_has_no_reliability():
    assert dawid_skene(make_units([])) is None
    found = dawid_skene(make_units([([(1, 0), (2, 0)], 3), ([(1, 1), (2, 1)], 2)]))
    assert 0.98 < found.of(1) < 1


def test_beside_the_others_counts_only_where_they_have_a_majority():
    units = make_units(
        [
            ([(1, 5), (2, 3), (3, 3)], 2),  # 1 is against the majority; for 2 and 3 the others are split
            ([(1, 4), (2, 4), (3, 4)], 1),
            ([(1, 2), (2, 1)], 1),
        ]
    )
    found = beside_others(units, units.value)
    assert {who: one.majority for who, one in found.items()} == {1: Share(1, 4), 2: Share(1, 2), 3: Share(1, 1)}
    assert found[1].offset.value == pytest.approx((2 * 2 + 0 + 1) / 4)
    assert found[1].offset.low < found[1].offset.value < found[1].offset.high
    assert beside_others(make_units([]), make_units([]).value) == {}


def test_wilsons_interval():
    assert Share(8, 10).bounds == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert Share(0, 10).bounds == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert (Share(0, 0).value, Share(0, 0).bounds, Share(0, 0).leans()) == (None, (0.0, 1.0), 0)
    assert [Share(hits, 100).leans() for hits in (30, 45, 50, 55, 70)] == [-1, 0, 0, 0, 1]
