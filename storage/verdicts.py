"""The gate's verdict: what a version shows, held against the bars. Nothing here reads the store.

One rule for every figure, with its 95 % interval: the whole interval on the right side of the bar is a pass, the whole
interval on the wrong side a fail, and an interval that holds the bar is inconclusive, as is anything that rests on too
few comparisons. A figure that must not get worse is held by its paired difference from the champion's, with a margin.
One required figure that fails makes the gate fail; one that is not decided, or not measured, keeps it from a pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, sqrt
from typing import Any, NamedTuple

from storage.enums import GateVerdict, ModelKind
from storage.evaluations import Figure
from storage.gate_configs import POLICY_BARS, REWARD_BARS, GateSettings

# What a figure is held by.
VALUE, DIFFERENCE = "value", "difference"
_Z_ERROR, _Z_POWER = 1.959964, 0.841621  # 95 % on both sides, power 80 %
# A project need not ask for these: not measured is nothing amiss.
_WHERE_ASKED = ("format_ok",)
_CHANCE = 0.5
_OPEN = GateVerdict.INCONCLUSIVE
_NOTHING = Figure(None, None, None, 0)


class Interval(NamedTuple):
    """An estimate with its bounds."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Bar(NamedTuple):
    """What an interval must lie within; `text` says it in words of code, as `>= champion - 0.05`."""

    on: str
    text: str
    least: float | None = None
    most: float | None = None
    strict: bool = False


class Row(NamedTuple):
    """One figure and its bar. `low` and `high` are the figure's own; `difference` is candidate minus champion."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    champion: float | None
    difference: Interval | None
    bar: str | None  # None: shown, not held against anything
    on: str
    least: float | None
    most: float | None
    required: bool
    verdict: GateVerdict | None
    why: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        told = self.difference._asdict() if self.difference else None
        return self._asdict() | {"difference": told, "verdict": self.verdict.value if self.verdict else None}


class Human(NamedTuple):
    """What a blind test came to: the candidate's share of decided comparisons, and its verdict (None: none yet)."""

    share: Interval
    n: int
    verdict: GateVerdict


class Verdict(NamedTuple):
    """The gate's word on a version; `why` is one line."""

    verdict: GateVerdict
    why: str
    rows: tuple[Row, ...]


def verdict(
    kind: ModelKind, figures: Mapping[str, Figure], settings: GateSettings, human: Human | None = None
) -> Verdict:
    """Hold the figures of an evaluation and of a blind test against the bars."""
    bars = POLICY_BARS if kind is ModelKind.POLICY else REWARD_BARS
    rows = []
    for name in (*bars, *(name for name in figures if name not in bars)):
        if name == "human_win_rate":
            rows += [_of_people(human, settings)] if human or name in settings.required else []
        elif name in figures or name in settings.required:
            rows.append(_row(name, figures.get(name, _NOTHING), settings))
    held = [row for row in rows if row.required]
    failed = [row.name for row in held if row.verdict is GateVerdict.FAIL]
    undecided = [row.name for row in held if row.verdict is GateVerdict.INCONCLUSIVE]
    if failed:
        return Verdict(GateVerdict.FAIL, f"below the bar: {', '.join(failed)}", tuple(rows))
    if undecided:
        return Verdict(GateVerdict.INCONCLUSIVE, f"not decided: {', '.join(undecided)}", tuple(rows))
    why = "every required figure reaches its bar" if held else "no figure is required"
    return Verdict(GateVerdict.PASS, why, tuple(rows))


def _row(name: str, figure: Figure, settings: GateSettings) -> Row:
    own = Interval(figure.value, figure.low, figure.high)
    difference = Interval(*figure.difference) if figure.difference else None
    n, champion = figure.n, figure.champion
    bar = _bar(name, champion, settings)
    asked = name in settings.required
    if own.value is None and asked and name not in _WHERE_ASKED:
        told = bar.text if bar else None
        return Row(name, *own, n, champion, None, told, VALUE, None, None, True, _OPEN, "not measured")
    if bar is None or own.value is None:
        why = "not measured" if own.value is None else ""
        return Row(name, *own, n, champion, difference, None, VALUE, None, None, False, None, why)
    held = own if bar.on == VALUE else difference or Interval()
    found, why = _hold(held, bar, n, settings.min_comparisons)
    if name == "win_rate" and found is GateVerdict.INCONCLUSIVE and own.low is not None and own.value is not None:
        why = _how_many(own.value, settings.win_rate, n, settings.min_comparisons) or why
    return Row(name, *own, n, champion, difference, bar.text, bar.on, bar.least, bar.most, asked, found, why)


def _bar(name: str, champion: float | None, settings: GateSettings) -> Bar | None:
    if name == "win_rate":
        return Bar(VALUE, f"> {settings.win_rate:g}", least=settings.win_rate, strict=True)
    if name == "kl":
        return Bar(VALUE, f"<= {settings.kl_cap:g}", most=settings.kl_cap)
    if name == "ece":
        return Bar(VALUE, f"<= {settings.ece_target:g}", most=settings.ece_target)
    if name == "length_ratio":
        most = settings.length_change
        return Bar(VALUE, f"{1 / most:.2f} to {most:g}", 1 / most, most)
    if name in ("accuracy", "implicit_accuracy"):
        if champion is None:  # the base model prefers nothing by itself: it guesses
            return Bar(VALUE, f"> {_CHANCE:g}", least=_CHANCE, strict=True)
        return _no_worse(settings.accuracy_drop)
    if champion is None:
        return None
    if name == "perplexity":
        most = settings.perplexity_rise * champion
        return Bar(DIFFERENCE, f"<= champion + {settings.perplexity_rise:.0%}", most=most)
    drops = {"chosen_logprob": settings.logprob_drop, "format_ok": settings.format_drop}
    return _no_worse(drops[name]) if name in drops else None


def _no_worse(margin: float) -> Bar:
    return Bar(DIFFERENCE, f">= champion - {margin:g}", least=-margin)


def _hold(held: Interval, bar: Bar, n: int, fewest: int) -> tuple[GateVerdict, str]:
    """The verdict on one interval, and why in one line."""
    if held.value is None:
        return GateVerdict.INCONCLUSIVE, "not measured"
    if held.low is None or held.high is None:
        return GateVerdict.INCONCLUSIVE, "measured without an interval"
    if n < fewest:
        return GateVerdict.INCONCLUSIVE, f"rests on {n}; at least {fewest} are needed"
    above = bar.least is None or (held.low > bar.least if bar.strict else held.low >= bar.least)
    below = bar.most is None or held.high <= bar.most
    if above and below:
        return GateVerdict.PASS, "the whole interval reaches the bar"
    if (bar.least is not None and held.high < bar.least) or (bar.most is not None and held.low > bar.most):
        return GateVerdict.FAIL, "the whole interval misses the bar"
    return GateVerdict.INCONCLUSIVE, "the bar lies within the interval"


def needed(share: float, fair: float = 0.5) -> int | None:
    """Decided comparisons that show `share` to be above `fair` with 80 % power at 95 %; None where it is not above.

    The usual formula for one proportion: 780 for 55 %, 194 for 60 %, 85 for 65 %.
    """
    if not fair < share < 1:
        return None
    spread = _Z_ERROR * sqrt(fair * (1 - fair)) + _Z_POWER * sqrt(share * (1 - share))
    return ceil((spread / (share - fair)) ** 2)


def _how_many(share: float, bar: float, n: int, fewest: int) -> str:
    wanted = needed(share, bar)
    if wanted is None or wanted <= n:
        return ""
    return f"rests on {n}; to show {share:.0%} takes about {max(wanted, fewest)}"


def _of_people(human: Human | None, settings: GateSettings) -> Row:
    """A blind test that is decided counts; one that is not only keeps from a pass where people must have judged."""
    asked = "human_win_rate" in settings.required
    share, n = (human.share, human.n) if human else (Interval(), 0)
    found = human.verdict if human else GateVerdict.INCONCLUSIVE
    why = {
        GateVerdict.PASS: "people preferred the candidate in a blind test",
        GateVerdict.FAIL: "people preferred the champion in a blind test",
        GateVerdict.INCONCLUSIVE: "the blind test is not decided" if human else "no blind test was held",
    }[found]
    required = asked or (human is not None and found is not GateVerdict.INCONCLUSIVE)
    bar = f"> {_CHANCE:g}"
    return Row("human_win_rate", *share, n, None, None, bar, VALUE, _CHANCE, None, required, found, why)
