"""An interval against its bar, as a small picture in a table; read out in words."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from feedback_app.i18n import t
from feedback_app.pages.render import Markup, number

_WIDTH, _HEIGHT, _EDGE = 180.0, 28.0, 8.0


def interval_plot(row: Mapping[str, Any]) -> Markup:
    """What the bar of a gate's row is for: its interval, the bar, and the good side shaded. Nothing without numbers."""
    held = row["difference"] if row["on"] == "difference" else row
    least, most = row["least"], row["most"]
    if not held or held["value"] is None or held["low"] is None or held["high"] is None:
        return Markup("")
    marks = [one for one in (held["low"], held["high"], held["value"], least, most) if one is not None]
    low, high = min(marks), max(marks)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return _EDGE + (value - low) / span * (_WIDTH - 2 * _EDGE)

    middle = _HEIGHT / 2
    start = 0.0 if least is None else x(least)
    end = _WIDTH if most is None else x(most)
    parts = []
    if least is not None or most is not None:
        parts.append(f'<rect class="good" x="{start:.1f}" y="0" width="{end - start:.1f}" height="{_HEIGHT:g}"/>')
    parts += [
        f'<line class="bar" x1="{x(one):.1f}" x2="{x(one):.1f}" y1="0" y2="{_HEIGHT:g}"/>'
        for one in (least, most)
        if one is not None
    ]
    parts.append(
        f'<line class="span" x1="{x(held["low"]):.1f}" x2="{x(held["high"]):.1f}" y1="{middle}" y2="{middle}"/>'
    )
    parts.append(f'<circle class="dot" cx="{x(held["value"]):.1f}" cy="{middle}" r="4.5"/>')
    words = t("{value}, from {low} to {high}", **{one: number(held[one]) for one in ("value", "low", "high")})
    if row["on"] == "difference":
        words = t("difference from the champion: {interval}", interval=words)
    kind = escape(row["verdict"] or "none")
    said = escape(words)
    return Markup(
        f'<svg class="op-interval" data-verdict="{kind}" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" width="{_WIDTH:g}" '
        f'height="{_HEIGHT:g}" role="img" aria-label="{said}"><title>{said}</title>{"".join(parts)}</svg>'
    )
