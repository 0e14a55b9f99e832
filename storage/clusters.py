"""Texts that say the same, found without a model: weighted words and letters, cosine, and the densest first.

Each text becomes a vector of its words, pairs of words and runs of three letters (of Chinese, where words do not stand
apart: characters and pairs of them), weighted by how rare they are among all texts (TF-IDF) and folded into a fixed
number of dimensions by a hash. The text with the most neighbours that are at least `alike` (cosine) becomes the middle
of a cluster with all of them, then the next one among what is left; clusters whose means lie close are one in the end.
No chance is involved: the same texts give the same clusters. What it cannot see is that two texts without a common word
mean the same; tags are there for that.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

ALIKE = 0.4  # cosine from which two texts are neighbours
_SAME = 0.45  # cosine of two means from which their clusters are one
_DIMENSIONS = 512
_BLOCK = 1000  # rows compared at a time: bounds memory
_READ = 300  # characters of a text that count; what a long critique is about, it says first
_TAG = 1.0  # what a tag weighs, where a word weighs 1
_PAIR, _LETTERS = 0.6, 0.25

CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af"
_PIECE = re.compile(f"[{CJK}]+|[^\\W_]+(?:['’][^\\W_]+)*")
# Words that stand in every critique and say nothing of it; rarity alone finds them only among many texts.
_EMPTY = frozenset(
    _PIECE.findall(
        "a an and are as at be been but by can could did do does for from had has have he her his i if in into is it "
        "its just me my of on or our she should so some such than that the their them then there these they this to "
        "too us very was we were what when which will with would you your reply completion answer response text"
    )
)
Vectors = np.ndarray[Any, np.dtype[np.float32]]


class Cluster(NamedTuple):
    """Places of the texts that belong together, the most typical first."""

    members: list[int]


def words(text: str) -> list[str]:
    """The words of a text in lower case; of Chinese, its pairs of characters."""
    found: list[str] = []
    for piece in _PIECE.findall(text[:_READ].casefold()):
        if is_cjk(piece[0]):
            found += [piece[at : at + 2] for at in range(max(1, len(piece) - 1))]
        elif piece not in _EMPTY:
            found.append(piece)
    return found


def is_cjk(character: str) -> bool:
    """Whether a character belongs to a script whose words do not stand apart."""
    return bool(re.match(f"[{CJK}]", character))


def _features(text: str, tags: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {f"#{tag.casefold()}": _TAG for tag in tags}
    said = words(text)
    for word in said:
        found[f"w{word}"] = 1.0
        if not is_cjk(word[0]):
            edged = f"<{word}>"
            for at in range(len(edged) - 2):
                found.setdefault(f"l{edged[at : at + 3]}", _LETTERS)
        else:
            for character in word:
                found.setdefault(f"l{character}", _LETTERS)
    for one, other in itertools.pairwise(said):
        found[f"p{one} {other}"] = _PAIR
    return found


def vectors(texts: Sequence[str], tags: Sequence[Sequence[str]]) -> Vectors:
    """One row of length 1 a text; a row of zeros where a text shares nothing with any other."""
    found = [_features(text, own) for text, own in zip(texts, tags, strict=True)]
    spread = Counter(name for one in found for name in one)
    place: dict[str, tuple[int, float]] = {}
    for name, n in spread.items():
        if n > 1:  # what stands in one text alone makes it like no other
            digest = zlib.crc32(name.encode())
            rarity = 1.0 + float(np.log(len(texts) / n))
            place[name] = digest % _DIMENSIONS, rarity if digest & 0x8000_0000 else -rarity
    made = np.zeros((len(texts), _DIMENSIONS), np.float32)
    for row, one in enumerate(found):
        for name, weight in one.items():
            where = place.get(name)
            if where is not None:
                made[row, where[0]] += weight * where[1]
    length = np.linalg.norm(made, axis=1, keepdims=True)
    np.divide(made, length, out=made, where=length > 0)
    return made


def clusters(made: Vectors, at_least: int, alike: float = ALIKE) -> list[Cluster]:
    """Clusters of `at_least` texts and more, the largest first; see the module."""
    neighbours = np.concatenate([(block > alike).sum(axis=1) for block in _compared(made)] or [np.zeros(0, int)])
    free: Any = made.any(axis=1)
    groups: list[np.ndarray[Any, np.dtype[np.intp]]] = []
    for middle in np.argsort(-neighbours, kind="stable"):
        if neighbours[middle] < at_least:
            break
        if not free[middle]:
            continue
        near = np.flatnonzero((made @ made[middle] > alike) & free)
        if len(near) >= at_least:
            groups.append(near)
            free[near] = False
    found = [Cluster(_typical_first(made, group)) for group in _joined(made, groups)]
    return sorted(found, key=lambda one: (-len(one.members), one.members[0]))


def _compared(made: Vectors) -> Iterator[Vectors]:
    return (made[start : start + _BLOCK] @ made.T for start in range(0, len(made), _BLOCK))


def _joined(made: Vectors, groups: list[Any]) -> list[Any]:
    """Groups whose means point the same way, as one; the larger takes in the smaller."""
    kept: list[Any] = []
    means: list[Vectors] = []
    for group in sorted(groups, key=lambda one: (-len(one), int(one[0]))):
        mean = _mean(made, group)
        near = [float(mean @ other) for other in means]
        if near and max(near) >= _SAME:
            at = near.index(max(near))
            kept[at] = np.concatenate([kept[at], group])
            means[at] = _mean(made, kept[at])
        else:
            kept.append(group)
            means.append(mean)
    return kept


def _mean(made: Vectors, group: Any) -> Vectors:
    mean: Vectors = made[group].mean(axis=0)
    return mean / np.linalg.norm(mean)


def _typical_first(made: Vectors, group: Any) -> list[int]:
    near = np.round(made[group] @ _mean(made, group), 4)  # what is as near but for rounding keeps its order
    return [int(group[at]) for at in np.lexsort((group, -near))]
