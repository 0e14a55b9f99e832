"""Training curves of several versions in one picture: SVG without a script or a style, so that any page can hold it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from markupsafe import Markup

from feedback_app.plots import Points, thin

_WIDTH, _HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 30
_POINTS = 200  # a line


class Line(NamedTuple):
    """One line: whose it is (0, 1, …), what it is called, its points; `held` is on held-out rows, and drawn thicker."""

    place: int
    label: str
    points: Points
    held: bool


def curves(lines: Sequence[Line], title: str) -> Markup:
    """The lines as one SVG picture with its axes; empty when there is no point to draw."""
    drawn = [(line, _clean(line.points)) for line in lines]
    points = [point for _, found in drawn for point in found]
    if not points:
        return Markup("")
    last = max(step for step, _ in points) or 1
    steps = [one for one in ticks(0, last) if one <= last]
    values = ticks(min(value for _, value in points), max(value for _, value in points))
    low, high = values[0], values[-1]

    def x(step: float) -> str:
        return f"{_LEFT + step / last * (_WIDTH - _LEFT - _RIGHT):.1f}"

    def y(value: float) -> str:
        return f"{_HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM):.1f}"

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(one)}" y2="{y(one)}"/>'
        f'<text x="{_LEFT - 8}" y="{float(y(one)) + 4:.1f}" text-anchor="end">{one:g}</text>'
        for one in values
    ]
    parts += [f'<text x="{x(one)}" y="{_HEIGHT - 8}" text-anchor="middle">{one:g}</text>' for one in steps]
    for line, found in drawn:
        kind = f"line-{line.place}{' held' if line.held else ''}"
        if len(found) == 1:
            parts.append(f'<circle class="{kind}" cx="{x(found[0][0])}" cy="{y(found[0][1])}" r="4"/>')
        elif found:
            path = " ".join(f"{x(step)},{y(value)}" for step, value in found)
            parts.append(f'<polyline class="{kind}" points="{path}"><title>{escape(line.label)}</title></polyline>')
    return Markup(  # noqa: S704  numbers, and escaped words
        f'<svg class="curves" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def lines_of(series: Sequence[Mapping[str, Points]], names: Sequence[str], metric: str, held: str) -> list[Line]:
    """For each version its line of `metric`, and that of `held`, the same on held-out rows."""
    return [
        Line(place, f"{name} {which}", of_run[which], which == held)
        for place, (of_run, name) in enumerate(zip(series, names, strict=True))
        for which in (metric, held)
        if of_run.get(which)
    ]


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers around [low, high], about `wanted` steps apart."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / wanted
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _clean(points: Points) -> list[tuple[int, float]]:
    kept = [(step, value) for step, value in points if value is not None]
    return [(step, value) for step, value in thin(kept, _POINTS) if value is not None]
