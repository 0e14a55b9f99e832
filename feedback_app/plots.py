"""Data frames for the live plots; at most 500 points a series, however long the run was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd  # type: ignore[import-untyped]  # pandas ships no types

from feedback_app.i18n import t
from storage.enums import SnapshotForm

MAX_POINTS = 500

Points = Sequence[tuple[int, float | None]]


class Plot(NamedTuple):
    """A plot: its title, (metric, name in the legend, colour) for each line, and training on which forms gives it."""

    title: str
    lines: tuple[tuple[str, str, str], ...]
    forms: tuple[SnapshotForm, ...]


TRAINING, VALIDATION = "#14938a", "#d9822b"
LOSS = Plot("Loss", (("loss", "training", TRAINING), ("eval_loss", "validation", VALIDATION)), tuple(SnapshotForm))
ACCURACY = Plot(
    "Accuracy on preferences",
    (("accuracy", "training", TRAINING), ("eval_accuracy", "validation", VALIDATION)),
    (SnapshotForm.PREFERENCE, SnapshotForm.UNPAIRED),
)


def frame(plot: Plot, series: Mapping[str, Points], say: Callable[[str], str] = t) -> pd.DataFrame:
    """Columns step, value, series for `plot`; values that were not finite are left out, every line is named by `say`.

    Longer series are thinned evenly and keep their last point.
    """
    rows = [
        (step, value, say(label))
        for metric, label, _ in plot.lines
        for step, value in thin([point for point in series.get(metric, ()) if point[1] is not None])
    ]
    # A line without points gets a row without a value: the chart fixes its colours by the first frame it gets, and
    # would never draw a series that was not in it.
    begun = {label for _, _, label in rows}
    names = [say(label) for _, label, _ in plot.lines]
    rows += [(rows[0][0] if rows else 0, None, name) for name in names if name not in begun]
    made = pd.DataFrame(rows, columns=["step", "value", "series"])
    # Typed even when empty: the plot chooses its scales by the type of the first frame it gets.
    return made.astype({"step": "int64", "value": "float64", "series": "str"})


def thin(points: Points, limit: int = MAX_POINTS) -> Points:
    """Every n-th point such that at most `limit` remain, the last among them."""
    if len(points) <= limit:
        return points
    stride = -(-len(points) // (limit - 1))
    kept = list(points[::stride])
    if kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept
