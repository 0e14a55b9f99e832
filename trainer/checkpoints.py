"""Resumable trainer state, the finished adapter, and the record of what a run ran on."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from storage.errors import TrainingFailed
from trainer.folder import RunFolder

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")


def newest_checkpoint(folder: RunFolder) -> Path | None:
    """The newest complete checkpoint; one that was being written when the process died is passed over.

    `transformers` writes trainer_state.json last, so a checkpoint that holds a whole one is whole.
    """
    found = sorted(
        (path for path in folder.checkpoints.glob("checkpoint-*") if path.name.split("-")[-1].isdigit()),
        key=lambda path: int(path.name.split("-")[-1]),
    )
    for path in reversed(found):
        try:
            json.loads((path / "trainer_state.json").read_text())
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
            continue
        return path
    return None


def save_adapter(folder: RunFolder, model: Any, put_beside: Callable[[Path], None] | None = None) -> None:
    """Publish the trained adapter as out/: adapter_config.json and adapter_model.safetensors.

    `put_beside` writes what belongs beside them: how a conditional policy is asked, how an ensemble is read.
    """
    fresh = folder.path / "out.partial"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        model.save_pretrained(str(fresh), selected_adapters=["default"])
        if put_beside is not None:
            put_beside(fresh)
    except OSError as error:
        raise TrainingFailed(f"could not write {fresh}: {error.strerror}; free some space and retry") from error
    (fresh / "README.md").unlink(missing_ok=True)  # PEFT's empty card
    folder.publish(fresh)


def record_environment(folder: RunFolder, device: str, threads: int) -> None:
    """Write environment.json: what is needed to run the same again."""
    record = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "device": _device_name(device),
        "cores": os.cpu_count(),
        "threads": threads,
    }
    folder.environment.write_text(json.dumps(record, indent=1))


def peak_memory_mb(device: str) -> float:
    """The most memory this process has held: of the GPU when it trains there, else resident memory."""
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.max_memory_allocated(device)) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of this source tree, when it is one."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607  the git on the path is meant
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return f"{device} ({torch.cuda.get_device_name(device)})"
    return device
