"""What a run says while it works: its metrics by step and its log."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage.models import RunLog, RunMetric
from storage.prompts import storable

_MAX_LINE = 4_000


class MetricPoint(NamedTuple):
    """One figure at a step; None stands for a value that was not finite."""

    step: int
    name: str
    value: float | None


def add_metrics(session: Session, run_id: int, points: Iterable[MetricPoint]) -> None:
    """Store figures; the same step and name again replaces the value, as after a resumed run."""
    newest = {(point.step, point.name): point.value for point in points}
    if not newest:
        return
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(RunMetric)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["run_id", "step", "name"], set_={"value": statement.excluded.value}
        ),
        [
            {"run_id": run_id, "step": step, "name": name[:120], "value": _finite(value)}
            for (step, name), value in newest.items()
        ],
    )


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def add_log(session: Session, run_id: int, lines: Iterable[str]) -> None:
    """Append lines to the run's log; line numbers begin at 1, very long lines are cut."""
    last = session.scalar(select(func.max(RunLog.line)).where(RunLog.run_id == run_id)) or 0
    session.add_all(
        RunLog(run_id=run_id, line=number, text=storable(text)[:_MAX_LINE])
        for number, text in enumerate(lines, start=last + 1)
    )
    session.flush()


def metric_series(session: Session, run_id: int, max_points: int = 500) -> dict[str, list[tuple[int, float | None]]]:
    """(step, value) by metric name in the order of steps; thinned evenly to about `max_points`, the last one kept."""
    place = func.row_number().over(partition_by=RunMetric.name, order_by=RunMetric.step)
    total = func.count().over(partition_by=RunMetric.name)
    numbered = (
        select(RunMetric.name, RunMetric.step, RunMetric.value, place.label("place"), total.label("total"))
        .where(RunMetric.run_id == run_id)
        .subquery()
    )
    stride = (numbered.c.total + max_points - 1) // max_points
    rows = session.execute(
        select(numbered.c.name, numbered.c.step, numbered.c.value)
        .where(or_(numbered.c.place % stride == 1, stride == 1, numbered.c.place == numbered.c.total))
        .order_by(numbered.c.name, numbered.c.step)
    )
    series: dict[str, list[tuple[int, float | None]]] = defaultdict(list)
    for name, step, value in rows:
        series[name].append((step, value))
    return dict(series)


def log_lines(session: Session, run_id: int, after: int = 0, limit: int = 2000) -> list[str]:
    """The lines of the log with a number above `after`, in order, at most `limit`."""
    query = select(RunLog.text).where(RunLog.run_id == run_id, RunLog.line > after).order_by(RunLog.line).limit(limit)
    return list(session.scalars(query))
