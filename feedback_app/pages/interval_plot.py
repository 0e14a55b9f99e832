"""Intervals as small pictures in a table, against a bar or beside each other; read out in words."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, NamedTuple

from feedback_app.i18n import t
from feedback_app.pages.render import Markup, number

_WIDTH, _HEIGHT, _EDGE = 180.0, 28.0, 8.0


class Scale(NamedTuple):
    """What the left and the right end of a picture stand for."""

    low: float
    high: float


def interval_plot(row: Mapping[str, Any]) -> Markup:
    """What the bar of a gate's row is for: its interval, the bar, and the good side shaded. Nothing without numbers."""
    held = row["difference"] if row["on"] == "difference" else row
    words = None
    if held and held["value"] is not None and row["on"] == "difference":
        words = t("difference from the champion: {interval}", interval=in_words(held))
    return draw(held, least=row["least"], most=row["most"], kind=row["verdict"] or "none", words=words)


def in_words(held: Mapping[str, Any]) -> str:
    """An interval, read out."""
    return t("{value}, from {low} to {high}", **{one: number(held[one]) for one in ("value", "low", "high")})


def draw(
    held: Mapping[str, Any] | None,
    *,
    least: float | None = None,
    most: float | None = None,
    kind: str = "none",
    words: str | None = None,
    scale: Scale | None = None,
) -> Markup:
    """The interval `held` (value, low, high), coloured by a verdict; `scale` where several are to be compared."""
    if not held or held["value"] is None or held["low"] is None or held["high"] is None:
        return Markup("")
    marks = [one for one in (held["low"], held["high"], held["value"], least, most) if one is not None]
    low, high = scale or (min(marks), max(marks))
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return _EDGE + (min(max(value, low), high) - low) / span * (_WIDTH - 2 * _EDGE)

    middle, parts = _HEIGHT / 2, []
    if least is not None or most is not None:
        start = 0.0 if least is None else x(least)
        end = _WIDTH if most is None else x(most)
        parts.append(f'<rect class="good" x="{start:.1f}" y="0" width="{end - start:.1f}" height="{_HEIGHT:g}"/>')
    parts += [
        f'<line class="bar" x1="{x(one):.1f}" x2="{x(one):.1f}" y1="0" y2="{_HEIGHT:g}"/>'
        for one in (least, most)
        if one is not None
    ]
    ends = x(held["low"]), x(held["high"])
    parts.append(f'<line class="span" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{middle}" y2="{middle}"/>')
    parts.append(f'<circle class="dot" cx="{x(held["value"]):.1f}" cy="{middle}" r="4.5"/>')
    said = escape(words or in_words(held))
    return Markup(
        f'<svg class="op-interval" data-verdict="{escape(kind)}" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" '
        f'width="{_WIDTH:g}" height="{_HEIGHT:g}" role="img" aria-label="{said}"><title>{said}</title>'
        f"{''.join(parts)}</svg>"
    )
