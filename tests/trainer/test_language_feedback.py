"""The proof's own parts: the arms differ in what they say they differ in, and the verdict follows from the cells."""

import random

import pytest

from benchmarks.language_feedback import arms, report
from benchmarks.language_feedback.people import Shown, feedback, says_something
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
