"""How pages tell times, and how many points a plot keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from feedback_app import plots
from feedback_app.pages import render

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (2, "now"),
        (45, "45 s ago"),
        (600, "10 min ago"),
        (7800, "2 h 10 min ago"),
        (-3600, "in 1 h"),
        (4 * 86400, "4 d ago"),
    ],
)
def test_times_are_relative(span, text):
    assert render.ago(NOW - timedelta(seconds=span), NOW) == text


def test_older_times_name_their_zone():
    assert render.ago(NOW - timedelta(days=30), NOW) == "2026-04-04 12:00 UTC"


def test_plots_keep_their_last_point():
    points = [(step, float(step)) for step in range(10_001)]
    thinned = plots.thin(points)
    assert len(thinned) <= plots.MAX_POINTS
    assert (thinned[0], thinned[-1]) == (points[0], points[-1])
    assert plots.frame(plots.LOSS, {}).dtypes["value"] == "float64"
