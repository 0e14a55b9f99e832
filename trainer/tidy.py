"""What nobody needs any more goes: checkpoints by policy, and what a kill left half written.

The checkpoints of a run that succeeded go at once: its adapter is published. Those of a run that failed or was
cancelled stay for some days, so that it can go on (`feedback-app runs resume`). Runs under way are left alone. What
runs on one snapshot share (`trainer.kept`) goes a month after it was last used, or with the snapshot's files.
"""

from __future__ import annotations

import logging
import shutil
import time
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from storage.engine import read_only
from storage.enums import RunStatus
from storage.models import Run, utc_now

log = logging.getLogger(__name__)

HALF_WRITTEN = timedelta(days=1)  # nobody writes one file for so long
UNUSED = timedelta(days=30)  # since a run took something that an earlier one had kept


def tidy(sessions: sessionmaker[Session], home: Path, keep: timedelta, now: datetime | None = None) -> list[Path]:
    """Remove what is due; returns what was removed."""
    moment = now or utc_now()
    removed = [path for path in _checkpoints_due(sessions, home, moment - keep) if _remove(path)]
    removed += [path for path in _half_written(home, moment - HALF_WRITTEN) if _remove(path)]
    removed += [path for path in _kept_in_vain(home, moment - UNUSED) if _remove(path)]
    if removed:
        log.info("tidied: %s", ", ".join(str(path.relative_to(home)) for path in removed))
    return removed


def _checkpoints_due(sessions: sessionmaker[Session], home: Path, before: datetime) -> list[Path]:
    there = {int(path.parent.name): path for path in home.glob("runs/*/checkpoints") if path.parent.name.isdigit()}
    if not there:
        return []
    with read_only(sessions) as session:
        rows = session.execute(select(Run.id, Run.status, Run.finished_at).where(Run.id.in_(there))).all()
    return [
        there[run_id]
        for run_id, status, finished in rows
        if status is RunStatus.SUCCEEDED or (status.ended and finished is not None and finished < before)
    ]


def _half_written(home: Path, before: datetime) -> list[Path]:
    """Temporary names of `storage.artifacts` and of snapshots, downloads, and adapters that were not published."""
    places = ("artifacts/**/.*.tmp", "tmp/snapshot-*", "tmp/downloads/*", "runs/*/out.partial")
    found = [path for place in places for path in home.glob(place)]
    return [path for path in found if _touched(path) < before.timestamp()]


def _kept_in_vain(home: Path, before: datetime) -> list[Path]:
    """What runs on a snapshot share, unused for long, or left when its files went: these hold people's words too."""
    snapshots = home / "artifacts" / "snapshots"
    return [
        path
        for path in home.glob("cache/*")
        if _touched(path) < before.timestamp() or not (snapshots / path.name).is_dir()
    ]


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # its writer has just finished
        return time.time()


def _remove(path: Path) -> bool:
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        log.warning("%s cannot be removed: %s", path, error.strerror)
        return False
    return True
