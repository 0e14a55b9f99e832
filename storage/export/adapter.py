"""The files of a version's adapter as they leave this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from storage.artifacts import folder_sha256
from storage.errors import ModelUnusable
from storage.models import ModelVersion

CONFIG, ENSEMBLE = "adapter_config.json", "reward.json"


def adapter_files(version: ModelVersion, home: Path) -> dict[str, Path | bytes]:
    """The adapter's files by name, checked against the registered hash; as bytes what is not as it lies here.

    Raises `ModelUnusable` when they are missing or not what was registered.
    """
    folder = home / str(version.folder)
    if not folder.is_dir() or folder_sha256(folder) != version.sha256:
        raise ModelUnusable(f"the files of {version.name} are missing or were changed; restore them from a backup")
    found: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    return found | {CONFIG: portable_config(folder / CONFIG, version.base_model)}


def portable_config(path: Path, base_model: str) -> bytes:
    """PEFT's settings with the base model's name: where it lies on this machine is nobody else's business."""
    known: dict[str, Any] = json.loads(path.read_bytes())
    return json.dumps(known | {"base_model_name_or_path": base_model}, indent=2).encode()


def heads_beside(folder: Path) -> int:
    """How many heads the reward adapter in `folder` has, as the file beside it says; one where there is none."""
    path = folder / ENSEMBLE
    return len(json.loads(path.read_bytes())["offsets"]) if path.is_file() else 1
