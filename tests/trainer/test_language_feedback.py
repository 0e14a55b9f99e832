"""The proof's own parts: the arms differ in what they say they differ in, and the verdict follows from the cells."""

import json
import random

import numpy as np
import pytest

from benchmarks.language_feedback import arms, real, report
from benchmarks.language_feedback.__main__ import _read
from benchmarks.language_feedback.people import Shown, feedback, says_something
from storage.configs import SnapshotSettings
from storage.engine import make_engine, make_sessions
from storage.ingest import ingest_file
from storage.preferences import derive_pairs
from storage.projects import find_project
from trainer.starter.grammar import sample_facets, sample_prompts, write_reply

SEED = 1003


@pytest.fixture(scope="module")
def pool() -> list[Shown]:
    rng = random.Random(0)
    return [
        Shown(
            [{"role": "user", "content": request.text}],
            [(2 * n + side, write_reply(rng, request, sample_facets(rng))) for side in (0, 1)],
        )
        for n, request in enumerate(sample_prompts(60, 3, held_out=False))
    ]


def test_arms_say_the_same_where_they_do_not_differ(pool):
    plain, default = (feedback(arm, SEED, pool, 9) for arm in (arms.RATINGS, arms.DEFAULT))
    assert [(one.preference, one.ratings) for one in plain] == [(one.preference, one.ratings) for one in default]
    assert not any(one.critiques or one.refinements for one in plain)
    assert sum(bool(one.critiques) for one in default) > 40
    assert not any(one.refinements for one in default)
    only = feedback(arms.by_name("critiques only"), SEED, pool, 9)
    assert [one.critiques for one in only] == [one.critiques for one in default]
    assert not any(one.preference or one.ratings for one in only)
    human = feedback(arms.by_name("ratings + human refinements"), SEED, pool, 9)
    assert [bool(one.refinements) for one in human] == [bool(one.critiques) for one in default]
    assert all(map(says_something, default))


def test_shuffled_critiques_are_the_same_texts_on_other_replies(pool):
    default, shuffled = (feedback(arm, SEED, pool, 9) for arm in (arms.DEFAULT, arms.SHUFFLED))
    texts = [[critique.text for one in said for critique in one.critiques] for said in (default, shuffled)]
    assert sorted(texts[0]) == sorted(texts[1])
    assert sum(a == b for a, b in zip(*texts, strict=True)) < len(texts[0]) / 4
    assert [[c.completion_id for c in one.critiques] for one in default] == [
        [c.completion_id for c in one.critiques] for one in shuffled
    ]


def test_more_mistakes_contain_the_fewer(pool):
    right, some, most = (
        feedback(arms.by_name(f"ratings + critiques{wrong}"), SEED, pool, 9)
        for wrong in ("", ", 40 % wrong", ", 70 % wrong")
    )
    changed = [[a.critiques != b.critiques for a, b in zip(right, other, strict=True)] for other in (some, most)]
    assert 0 < sum(changed[0]) < sum(changed[1])
    assert all(later for earlier, later in zip(*changed, strict=True) if earlier)


def _cell(arm, size, seed, values):
    quality = {f"prompt {number}": value for number, value in enumerate(values)}
    return {"arm": arm, "size": size, "seed": seed, "quality": quality, "kl": 1.0}


def test_a_benchmark_goes_on_with_the_cells_of_the_same_people(tmp_path):
    ledger = tmp_path / "cells.jsonl"
    before = _cell("of an earlier version", 200, 0, [0.5])
    usual, noisy = (
        _cell(name, 200, 0, [0.5]) | {"rules": 2, "noise": noise} for name, noise in (("usual", 0.5), ("noisy", 1.25))
    )
    ledger.write_text("\n".join(map(json.dumps, (before, usual, noisy))) + '\n{"cut sho')
    assert [cell["arm"] for cell in _read(ledger, arms.USUAL)] == [before["arm"], "usual"]
    assert [cell["arm"] for cell in _read(ledger, arms.Crowd(noise=1.25))] == ["noisy"]


def test_the_verdict_is_paired_by_seed_and_prompt():
    rng = random.Random(1)
    results = []
    for seed in range(4):
        hard = [rng.random() for _ in range(80)]
        results += [
            _cell(arms.RATINGS.name, 200, seed, hard),
            _cell(arms.DEFAULT.name, 200, seed, [value + 0.05 + rng.gauss(0, 0.02) for value in hard]),
            _cell(arms.SHUFFLED.name, 200, seed, [value + rng.gauss(0.05, 0.3) for value in hard]),
        ]
    cells = report.by_arm(results)
    found = report.verdicts(cells, (200, 800))
    gap = found["default - ratings at 200"]
    assert gap.low > 0.04
    assert gap.high < 0.06
    assert found["default - ratings + shuffled critiques at 200"].low < 0
    assert "default - ratings at 800" not in found
    told = report.table(cells, (200, 800), [arm.name for arm in arms.SHORT])
    assert told.count("\n") == 4
    assert "+0.05" in told


def test_the_plot_shows_what_there_is(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (dev extra)")
    cells = report.by_arm([_cell("base", 0, 0, [0.4, 0.5]), _cell("ratings", 200, 0, [0.6, 0.5])])
    report.plot(cells, (200,), ["base", "ratings"], tmp_path / "quality.svg")
    assert "<svg" in (tmp_path / "quality.svg").read_text()


# --- real text ---


def test_auc_counts_pairs_of_one_group_only():
    rng = np.random.default_rng(0)
    scores, wrong, groups = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.6, rng.integers(0, 3, 60)
    pairs = [(i, j) for i in range(60) for j in range(60) if groups[i] == groups[j] and wrong[i] and not wrong[j]]
    wins = sum((scores[j] > scores[i]) + (scores[j] == scores[i]) / 2 for i, j in pairs)
    assert real.auc(scores, wrong, groups) == pytest.approx(wins / len(pairs))
    longest_last = real.strata(np.arange(100.0))
    assert np.bincount(longest_last).tolist() == [10] * 10
    found = real.interval(60, lambda rows: float(scores[rows].mean()))
    assert found.low < found.value < found.high


def test_real_critiques_become_pairs_and_labels_become_thumbs(shared_data, sqlite_url, tmp_path):
    lines = (shared_data / "defacto_train.jsonl").read_text("utf-8").splitlines()[:40]
    rows = [json.loads(line) for line in lines]
    criticised = [real._criticised(row) for row in rows if real._rewritten(row)]
    engine = make_engine(sqlite_url)
    sessions = make_sessions(engine)
    for name, format, made in (
        ("critiques", "annotations", criticised),
        ("labels", "unpaired", [real._labelled(row) for row in rows]),
    ):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
        added = ingest_file(sessions, name, path, format)
        assert (added.annotations, added.skipped) == (len(made), {})
    with sessions() as session:
        project = find_project(session, "critiques")
        pairs = derive_pairs(session, project, SnapshotSettings()).pairs
    engine.dispose()
    assert {(pair.chosen, pair.rejected) for pair in pairs} == {
        (one["refinements"][0]["text"], one["completions"][0]["text"]) for one in criticised
    }
    assert all(pair.critiques for pair in pairs)
