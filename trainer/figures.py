"""Figures of an evaluation as they are stored: each with its interval, beside the champion's, whole and by slice."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.gate_configs import POLICY_BARS, REWARD_BARS
from trainer.calibration import Bin, Estimate, bootstrap, jackknife, mean_of

Rows = NDArray[Any]  # one entry a row; what it is, the statistic knows

MIN_SLICE = 8  # prompts: of fewer, a slice says nothing
_SLICE_ROUNDS = 300
_LETTERS = 500  # looked at to tell a script


def mean(rows: Rows) -> float:
    """The mean of numbers."""
    return float(np.mean(rows)) if len(rows) else float("nan")


def ratio(rows: Rows) -> float:
    """The sum of the first column over that of the second."""
    below = float(np.sum(rows[:, 1])) if len(rows) else 0.0
    return float(np.sum(rows[:, 0])) / below if below else float("nan")


def perplexity(rows: Rows) -> float:
    """Of log-probabilities and numbers of tokens."""
    return float(np.exp(-ratio(rows)))


def distinct_2(rows: Rows) -> float:
    """Different pairs of neighbouring words over all of them, in a set of texts (Li et al. 2016, 1510.03055).

    Longer texts repeat more: only sets of like length compare. `rows` are lists of pairs.
    """
    pairs = [pair for row in rows for pair in row]
    return len(set(pairs)) / len(pairs) if pairs else float("nan")


def objects(rows: Sequence[Any]) -> Rows:
    """An array of lists."""
    made = np.empty(len(rows), dtype=object)
    made[:] = list(rows)
    return made


def language_of(text: str) -> str:
    """The script that most letters are of: latin, cyrillic, cjk, hiragana, arabic, …; none without letters."""
    names = (unicodedata.name(letter, "none") for letter in text[:_LETTERS] if letter.isalpha())
    scripts = Counter(name.split()[0].lower() for name in names)
    return scripts.most_common(1)[0][0] if scripts else "none"


@dataclass(frozen=True)
class About:
    """What a slice can be made of: tags that critiques of the prompt have, its source, its text."""

    source: str
    tags: tuple[str, ...]
    text: str


def slices_of(about: dict[int, About]) -> dict[int, list[str]]:
    """The names of the slices that each prompt is in; lengths are thirds of these prompts."""
    lengths = sorted(len(one.text) for one in about.values())
    thirds = [lengths[len(lengths) * third // 3] for third in (1, 2)] if lengths else [0, 0]
    found = {}
    for prompt, one in about.items():
        length = ("short", "medium", "long")[sum(len(one.text) >= bound for bound in thirds)]
        names = [f"length:{length}", f"language:{language_of(one.text)}", *(f"tag:{tag}" for tag in one.tags)]
        found[prompt] = [*names, *([f"source:{one.source}"] if one.source else [])]
    return found


@dataclass
class Report:
    """The figures of one evaluation while they are collected."""

    slices: dict[int, list[str]]  # of each prompt
    kind: str
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    parts: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    notes: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def add(
        self,
        name: str,
        statistic: Callable[[Rows], float],
        prompts: Sequence[int],
        ours: Any,
        theirs: Any = None,
        *,
        sliced: bool = False,
        without_twins: bool = False,
    ) -> None:
        """A figure of the version's rows and, row for row, of the champion's (None: it has none of this kind).

        `without_twins`: a row that is drawn twice would change the figure, so the jackknife makes the interval.
        """
        a = ours if isinstance(ours, np.ndarray) else np.asarray(ours, dtype=np.float64)
        b = theirs if theirs is None or isinstance(theirs, np.ndarray) else np.asarray(theirs, dtype=np.float64)
        interval = jackknife if without_twins else bootstrap
        found = mean_of(a, prompts) if statistic is mean else interval(lambda rows: statistic(a[rows]), prompts)
        champion, difference = None, None
        if b is not None:
            champion = _finite(statistic(b)) if len(b) else None
            apart = interval(lambda rows: statistic(a[rows]) - statistic(b[rows]), prompts)
            difference = {"value": apart.value, "low": apart.low, "high": apart.high}
        self.figures[name] = _stored(found, champion, difference)
        if sliced:
            self._slice(name, statistic, prompts, a, b)

    def _slice(
        self, name: str, statistic: Callable[[Rows], float], prompts: Sequence[int], a: Rows, b: Rows | None
    ) -> None:
        rows_in: dict[str, list[int]] = defaultdict(list)
        for row, prompt in enumerate(prompts):
            for part in self.slices.get(prompt, ()):
                rows_in[part].append(row)
        for part, rows in sorted(rows_in.items()):
            of_rows = [prompts[row] for row in rows]
            if len(set(of_rows)) < MIN_SLICE or len(rows) == len(prompts):
                continue
            found = bootstrap(_of(statistic, a[rows]), of_rows, rounds=_SLICE_ROUNDS)
            self.parts[part][name] = _stored(found, None if b is None else _finite(statistic(b[rows])), None)

    def keep(self, name: str, found: Estimate) -> None:
        """A figure that was estimated in another way."""
        self.figures[name] = _stored(found, None, None)

    def missing(self, name: str, why: str) -> None:
        """A figure that cannot be computed, and why in a note."""
        self.figures[name] = _stored(Estimate(None, None, None, 0), None, None)
        if why not in self.notes:
            self.notes.append(why)

    def stored(self) -> dict[str, Any]:
        """As `Evaluation.metrics` holds it: what gates ask for stands first."""
        own = {"reliability": [], "reliability_before": [], "temperature": None, **self.more}
        return {
            "kind": self.kind,
            "figures": dict(sorted(self.figures.items(), key=lambda one: _PLACES.get(one[0], len(_PLACES)))),
            "slices": dict(self.parts),
            **own,
            "notes": self.notes,
        }


_PLACES = {name: place for place, name in enumerate((*POLICY_BARS, *REWARD_BARS))}


def bars_of(bins: Sequence[Bin]) -> list[dict[str, Any]]:
    """A reliability diagram for JSON."""
    return [one._asdict() for one in bins]


def _of(statistic: Callable[[Rows], float], rows: Rows) -> Callable[[Any], float]:
    return lambda drawn: statistic(rows[drawn])


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _stored(found: Estimate, champion: float | None, difference: dict[str, Any] | None) -> dict[str, Any]:
    return {**found._asdict(), "champion": champion, "difference": difference}
