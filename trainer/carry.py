"""From a run's events.jsonl into SQL: whole lines only, each at least once, from where the last worker stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from storage.runs import Beat, MetricPoint, add_log, add_metrics, heartbeat
from trainer.desk import take_in
from trainer.folder import RunFolder


@dataclass
class Batch:
    """What new events say."""

    end: int  # offset in events.jsonl behind the last whole line
    metrics: list[MetricPoint] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    step: int | None = None
    total: int | None = None
    result: dict[str, Any] | None = None
    error: str | None = None
    turns: list[dict[str, Any]] = field(default_factory=list)  # what a playground run tells of its answers


class EventTail:
    """Reads a run's events; how far they are in SQL is kept beside them, for the worker that comes next."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._mark = folder.path / "events.offset"
        try:
            self._offset = int(self._mark.read_text())
        except (FileNotFoundError, ValueError):
            self._offset = 0

    def waiting(self) -> bool:
        """Whether there is something new; costs next to nothing."""
        try:
            return self._folder.events.stat().st_size > self._offset
        except FileNotFoundError:
            return False

    def read(self) -> Batch:
        """Everything new; calling it again without `done` gives the same again."""
        batch = Batch(self._offset)
        try:
            with self._folder.events.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return batch
        whole, newline, _ = new.rpartition(b"\n")
        if not newline:
            return batch
        batch.end += len(whole) + 1
        for line in whole.split(b"\n"):
            _take(batch, line)
        return batch

    def done(self, batch: Batch) -> None:
        """The batch is committed."""
        if batch.end != self._offset:
            self._offset = batch.end
            self._mark.write_text(str(batch.end))


def _take(batch: Batch, line: bytes) -> None:
    try:
        event = json.loads(line)
    except ValueError:
        return  # a line cut short by a kill, completed by the next process's first line
    kind = event.get("event")
    if kind == "metrics":
        batch.metrics += [MetricPoint(event["step"], name, value) for name, value in event["values"].items()]
    elif kind == "progress":
        batch.step, batch.total = event["step"], event["total"]
    elif kind == "log":
        batch.lines += event["text"].splitlines()
    elif kind == "result":
        batch.result = event["values"]
    elif kind in ("piece", "written", "refused"):
        batch.turns.append(event)
    elif kind == "error":
        batch.error = event["message"]


def carry(session: Session, run_id: int, worker: str, batch: Batch) -> Beat:
    """Write a batch into SQL and beat the heart; nothing is written for a run that is another worker's by now."""
    beat = heartbeat(session, run_id, worker, batch.step, batch.total)
    if not beat.lost:
        add_metrics(session, run_id, batch.metrics)
        if batch.lines:
            add_log(session, run_id, batch.lines)
        take_in(session, run_id, batch.turns)
    return beat
