"""What is refused, what counts as changed, and who is selected."""

from __future__ import annotations

import pytest

from trainer.refining import Candidate, changed_outside, preference_over, refuse, select

DRAFT = "Hello Ann. Your lamp is late. We look into it."


@pytest.mark.parametrize(
    ("text", "truncated", "reason"),
    [
        ("", False, "empty"),
        (" \n…", False, None),  # a mark is something
        ("  hello ann.  Your lamp is LATE. We look into it.\n", False, "unchanged"),
        ("Hello Ann. Your lamp is late. It comes on", True, "truncated"),
        ("Sorry. " * 12, False, "degenerate"),
        ("very late " * 9, True, "degenerate"),
        ("We know. " + "It will come on day one and then day two, " * 3 + "sure.", False, "degenerate"),
        ("word " * 2 + " ".join(f"w{n}" for n in range(120)), False, "too long"),
        ("Hello Ann. Your lamp is late. It is here on 7 May.", False, None),
        ("A very, very, very fine lamp.", False, None),
        ("您好，您的灯已经寄出。", False, None),
        ("好好好好好好好好好好", False, "degenerate"),
    ],
)
def test_what_is_refused_at_once(text: str, truncated: bool, reason: str | None) -> None:
    assert refuse(DRAFT, text, truncated=truncated) == reason


def test_changes_count_only_outside_the_target() -> None:
    mended = DRAFT.replace("We look into it", "We send another on 7 May")
    assert changed_outside(DRAFT, mended) == 0, "one sentence changed is what was asked"
    span = (DRAFT.index("We look"), len(DRAFT))
    assert changed_outside(DRAFT, mended, span) == 0
    elsewhere = mended.replace("Hello Ann", "Dear customer")
    all_new = changed_outside(DRAFT, "Dear Sir! The goods were lost. Goodbye.")
    assert 0 < changed_outside(DRAFT, elsewhere) < all_new <= 1
    assert changed_outside(DRAFT, elsewhere, span) > 0
    assert changed_outside(DRAFT, mended, (0, 5)) > 0, "the marked greeting was left and something else changed"
    assert changed_outside(DRAFT, "Dear customer. Your lamp is late. It comes.", fix="Dear customer") < (
        changed_outside(DRAFT, "Dear somebody. Your lamp is late. It comes.", fix="Dear customer")
    )
    chinese = "您好。您的灯晚了。我们会看看。"
    assert changed_outside(chinese, chinese.replace("我们会看看", "五月七日寄出")) == 0
    assert changed_outside(chinese, chinese.replace("您好", "你").replace("晚了", "坏了")) > 0
    assert changed_outside("", "anything") == 0
    assert changed_outside("a b " * 3000, "a b " * 2999 + "c d") < 0.01, "long texts are compared too, and quickly"


def _candidate(text: str, judge: float | None, sure: float | None = None, **fields: float) -> Candidate:
    return Candidate(text, 3, sure, 1, "policy-v0", judge=judge, **fields)


def test_the_best_is_selected_by_judge_reward_confidence_and_change() -> None:
    candidates = [
        _candidate("sure and preferred", 0.9, preference=0.9),
        _candidate("sure, not preferred", 0.95, preference=0.2),
        _candidate("sure, preferred, much changed", 0.95, preference=0.95, changed=0.8),
        _candidate("does not follow", 0.3, preference=1.0),
        _candidate("cannot be judged", None),
    ]
    kept, reasons = select(candidates, 1, 0.5, 0.3)
    assert [one.text for one in kept] == ["sure and preferred"]
    assert kept[0].score == pytest.approx(0.81)
    assert reasons == {
        "judged not to follow the critique": 1,
        "not judged: too long for the judge": 1,
        "not among the best": 2,
    }
    assert select(candidates, 1, 0.5, 0.0)[0][0].text == "sure, preferred, much changed"
    assert select([], 1, 0.5, 0.3) == ([], {})
    garbled = [_candidate("garbled in one place", 0.97, -0.4), _candidate("sure of every word", 0.95, -0.05)]
    assert select(garbled, 1, 0.5, 0.3)[0][0].text == "sure of every word"


def test_preference_is_the_mean_chance_over_the_reward_models() -> None:
    assert preference_over([], []) == 1
    assert preference_over([None], [2.0]) == 1
    assert preference_over([2.0], [2.0]) == 0.5
    assert preference_over([1000.0, -1000.0], [0.0, 0.0]) == pytest.approx(0.5)
