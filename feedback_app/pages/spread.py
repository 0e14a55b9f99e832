"""Figures over seeds, in words."""

from __future__ import annotations

from feedback_app.i18n import named, t
from feedback_app.pages.render import number
from storage.seeds import OverSeeds


def spread_rows(found: OverSeeds) -> list[tuple[str, str, str, str, str]]:
    """Name, mean, standard deviation and range of each figure, and how many versions have it."""
    return [
        (
            named(name),
            number(one.mean),
            number(one.deviation),
            t("{low} to {high}", low=number(one.low), high=number(one.high)),
            number(one.n),
        )
        for name, one in found.figures.items()
    ]
