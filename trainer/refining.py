"""Which refinements of a completion are worth having: what is refused at once, what was changed, who is selected.

A candidate's score is

    judge x preference x confidence - change_penalty x changed

judge: how sure the judge is that it does what the critique asks (0..1, mean over the wordings). preference: how likely
the reward models hold it for better than the original, sigmoid(reward - reward of the original), the mean over the
models; 1 where there is none. confidence: how sure the refiner was of its tokens, exp(mean log-probability); 1 where an
endpoint does not say. What is sampled is sometimes garbled in one place, which a judge of the critique's point does not
mind; on two hidden tastes confidence took such refinements from 16 of 364 to 2. changed: the share of the original's
words outside the target that were touched. The target is the marked span; without one, the sentence with the most
changes; a change to words that the critique's fix asks for is never counted. No torch here.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple

# A word, or one character of a script that writes none: Chinese, Japanese, Thai, Lao, Khmer, Burmese.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")
_SENTENCE_END = frozenset(".!?。！？")
MAX_GROWTH, MAX_EXTRA = 3, 60  # words: a refinement longer than this many times the original plus so many is too long
_LONGEST_DIFF = 4000  # words: beyond, only what the texts share at both ends counts as kept


class Word(NamedTuple):
    """A word and where it begins and ends in its text."""

    text: str
    start: int
    end: int


def words_of(text: str) -> list[Word]:
    """Words, punctuation marks, and single characters where a script has no spaces."""
    return [Word(found.group().casefold(), found.start(), found.end()) for found in _WORD.finditer(text)]


def refuse(original: str, text: str, *, truncated: bool) -> str | None:
    """Why a sampled refinement is no candidate, or None: empty, unchanged, truncated, degenerate, too long."""
    words = [word.text for word in words_of(text)]
    if not words:
        return "empty"
    if words == [word.text for word in words_of(original)]:
        return "unchanged"
    if is_degenerate(words):
        return "degenerate"
    if truncated:
        return "truncated"
    if len(words) > MAX_GROWTH * len(words_of(original)) + MAX_EXTRA:
        return "too long"
    return None


def is_degenerate(words: Sequence[str]) -> bool:
    """Whether a text goes round in circles: a phrase four times in a row, or few different runs of four words."""
    for size in range(1, 9):
        repeats = 0
        for place in range(size, len(words)):
            repeats = repeats + 1 if words[place] == words[place - size] else 0
            if repeats >= 3 * size and repeats >= 6:  # a line of dashes or "very, very, very" is no circle
                return True
    runs = Counter(tuple(words[place : place + 4]) for place in range(len(words) - 3))
    return len(words) >= 24 and len(runs) < 0.5 * sum(runs.values())


def changed_outside(original: str, text: str, span: tuple[int, int] | None = None, fix: str | None = None) -> float:
    """The share of the original's words outside the target that were changed or had words put beside them, 0..1."""
    before, after = words_of(original), words_of(text)
    if not before:
        return 0.0
    touched = _touched(before, after, {word.text for word in words_of(fix or "")})
    groups = _sentences(before)
    if span is not None:
        target = {place for place, word in enumerate(before) if word.end > span[0] and word.start < span[1]}
    else:
        most = max(set(groups), key=lambda group: sum(touched[i] for i, own in enumerate(groups) if own == group))
        target = {place for place, group in enumerate(groups) if group == most}
    # What is put beside the target belongs to it.
    target |= {place + step for place in target for step in (-1, 1)} if span is not None else set()
    outside = [place for place in range(len(before)) if place not in target]
    if not outside:
        return 0.0
    return min(1.0, sum(touched[place] for place in outside) / len(outside))


def _touched(before: list[Word], after: list[Word], asked: set[str]) -> list[float]:
    """For each word of the original how much was changed there: 1 when it went, and one for each word put beside it.

    A change whose new words are, for the most part, `asked` for is none.
    """
    touched = [0.0] * len(before)
    for tag, low, high, first, last in _opcodes([w.text for w in before], [w.text for w in after]):
        added = after[first:last]
        if tag == "equal" or (added and sum(word.text in asked for word in added) * 2 > len(added)):
            continue
        for place in range(low, high):
            touched[place] += 1
        if len(added) > high - low:
            touched[min(max(low, high - 1), len(before) - 1)] += len(added) - (high - low)
    return touched


def _opcodes(before: list[str], after: list[str]) -> Sequence[tuple[str, int, int, int, int]]:
    if len(before) + len(after) <= _LONGEST_DIFF:
        return SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    # Quadratic time would be minutes here.
    head = next(
        (i for i, (x, y) in enumerate(zip(before, after, strict=False)) if x != y), min(len(before), len(after))
    )
    most = min(len(before), len(after)) - head
    tail = next((i for i in range(most) if before[-1 - i] != after[-1 - i]), most)
    return [("replace", head, len(before) - tail, head, len(after) - tail)]


def _sentences(words: list[Word]) -> list[int]:
    """The number of the sentence that each word stands in."""
    numbers, number = [], 0
    for word in words:
        numbers.append(number)
        number += word.text in _SENTENCE_END
    return numbers


# --- selection ---


@dataclass
class Candidate:
    """One refinement that was not refused; what it is judged by is filled in step by step."""

    text: str
    token_count: int | None
    mean_logprob: float | None  # of its tokens, under the refiner
    seed: int | None
    version: str | None  # the model version or the endpoint's model that wrote it
    changed: float = 0.0
    judge: float | None = None  # None: it does not fit the judge's context
    reward: float | None = None  # mean over the reward models, in their own units
    preference: float = 1.0
    score: float = 0.0


def preference_over(rewards: Sequence[float | None], originals: Sequence[float | None]) -> float:
    """How likely the reward models hold a refinement for better than its original; 1 where none could say."""
    gaps = [new - old for new, old in zip(rewards, originals, strict=True) if new is not None and old is not None]
    return sum(_sigmoid(gap) for gap in gaps) / len(gaps) if gaps else 1.0


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, value))))


def select(
    candidates: Sequence[Candidate], keep: int, min_judge: float, change_penalty: float
) -> tuple[list[Candidate], Counter[str]]:
    """The best `keep` candidates of one critique, best first, and why the others were not taken."""
    reasons: Counter[str] = Counter()
    standing = []
    for candidate in candidates:
        if candidate.judge is None:
            reasons["not judged: too long for the judge"] += 1
        elif candidate.judge < min_judge:
            reasons["judged not to follow the critique"] += 1
        else:
            confidence = math.exp(candidate.mean_logprob or 0.0)
            candidate.score = candidate.judge * candidate.preference * confidence - change_penalty * candidate.changed
            standing.append(candidate)
    standing.sort(key=lambda candidate: (-candidate.score, candidate.text))
    if standing[keep:]:
        reasons["not among the best"] += len(standing[keep:])
    return standing[:keep], reasons
