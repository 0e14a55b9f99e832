"""Where a worker finds things: its folders, and the adapters of the versions that a run needs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sqlalchemy.orm import Session

from storage.artifacts import folder_sha256
from storage.errors import ModelUnusable
from storage.models import ModelVersion, Run
from storage.runs import add_log
from storage.scores import ensemble


class Place(NamedTuple):
    """Where things are for this worker."""

    home: Path
    default_base_model: str
    device: str


def rewards_for(session: Session, run: Run, policy: ModelVersion, place: Place) -> dict[str, str]:
    """The reward models that score what is written; one that cannot be used is left out, with a line in the log."""
    found: dict[str, str] = {}
    for version in ensemble(session, run.project):
        if version.base_model != policy.base_model:
            continue  # its adapter fits another model
        try:
            folder = adapter_of(version, place.home)
        except ModelUnusable as error:
            add_log(session, run.id, [f"{version.name} scores nothing: {error}"])
            continue
        if folder is not None:
            found[version.name] = folder
    return found


def adapter_of(version: ModelVersion, home: Path) -> str | None:
    """The adapter's folder, with the very bytes that were registered."""
    if version.folder is None:
        return None
    folder = home / version.folder
    if not folder.is_dir() or folder_sha256(folder) != version.sha256:
        what = "has been changed or damaged" if folder.is_dir() else "is missing"
        raise ModelUnusable(
            f"adapter of {version.name} {what} ({folder}); restore it from a backup, or roll back to another version"
        )
    return str(folder)
