"""Resumable trainer state, the finished adapter, and the record of what a run ran on."""

from __future__ import annotations

import hashlib
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

from storage.artifacts import atomic_write
from storage.errors import TrainingFailed
from trainer.folder import RunFolder

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")


SEAL = "sealed.json"  # the hashes of a checkpoint's files, written last


def newest_checkpoint(folder: RunFolder) -> Path | None:
    """The newest checkpoint whose files are those that were written; None: there is none to go on from.

    One that was being written when the process died has no seal, one whose files changed since has other hashes: it is
    said in the log and removed, and the one before it is tried. So is one whose best checkpoint so far is damaged, as
    the model that is kept in the end would be.
    """
    found = sorted(
        (path for path in folder.checkpoints.glob("checkpoint-*") if path.name.split("-")[-1].isdigit()),
        key=lambda path: int(path.name.split("-")[-1]),
    )
    for path in reversed(found):
        wrong = damage(path) or _damage_of_best(path)
        if wrong is None:
            return path
        shutil.rmtree(path, ignore_errors=True)
        folder.say(f"{path.name} {wrong}; it was removed, and the run goes on from what is before it")
    return None


def seal(checkpoint: Path) -> None:
    """Note what a finished checkpoint holds."""
    files = {path.relative_to(checkpoint).as_posix(): _sha256(path) for path in _files(checkpoint)}
    atomic_write(checkpoint / SEAL, json.dumps(files).encode())


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None when it holds what it was sealed with."""
    try:
        sealed: dict[str, str] = json.loads((checkpoint / SEAL).read_text())
        return next(
            (f"is damaged ({name})" for name, digest in sealed.items() if _sha256(checkpoint / name) != digest), None
        )
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        return "was not finished" if missing == SEAL else f"is damaged ({missing} is missing)"
    except (OSError, ValueError, AttributeError):
        return f"is damaged ({SEAL})"


def _damage_of_best(checkpoint: Path) -> str | None:
    best = json.loads((checkpoint / "trainer_state.json").read_text()).get("best_model_checkpoint")
    if best is None or Path(best).name == checkpoint.name:
        return None
    wrong = damage(checkpoint.with_name(Path(best).name))  # by name: the data folder may have been moved
    return f"rests on {Path(best).name}, which {wrong}" if wrong else None


def make_room(folder: RunFolder) -> None:
    """Remove what a full disk left half written."""
    shutil.rmtree(folder.path / "out.partial", ignore_errors=True)
    for path in folder.checkpoints.glob("checkpoint-*"):
        if damage(path) is not None:
            shutil.rmtree(path, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
