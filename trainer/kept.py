"""What a later run on the same snapshot finds again: its tokens, and the reference's log-probabilities of them.

A folder a snapshot, `cache/NAME` beside `runs`, which run.json names; a run folder without one keeps nothing. The name
of a file holds a hash of all that its content follows from, and a small file beside it the hash of its content, written
last: what was damaged or half written is never taken, but removed and made anew. What goes wrong here costs time and a
line in the log, never a run. `trainer.tidy` removes what nobody took for a month, or whose snapshot's files are gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage.artifacts import atomic_write, write_via


def key_of(*parts: Any) -> str:
    """A short hash of what a kept file follows from."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tokenizer_key(tokenizer: Any) -> str | None:
    """Of all that says how a tokenizer renders messages; None for one that does not say it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    return key_of(backend.to_str(), tokenizer.chat_template, sorted(tokenizer.special_tokens_map.items()))


def model_key(base: str) -> str | None:
    """Of the weights and the config of a resolved base model; None where they are not found."""
    folder = Path(base)
    if not folder.is_dir():
        from transformers.utils import cached_file

        config = cached_file(base, "config.json", _raise_exceptions_for_missing_entries=False)
        if config is None:
            return None
        folder = Path(config).parent
    files = sorted([folder / "config.json", *folder.glob("*.safetensors")])
    return key_of(*((path.name, file_sha256(path)) for path in files))


def keep(path: Path, source: Path, about: dict[str, Any], say: Callable[[str], None]) -> None:
    """Copy `source` to `path`, with what `take` shall give back."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_via(path, lambda temporary: shutil.copyfile(source, temporary))
        atomic_write(_beside(path), json.dumps({"sha256": file_sha256(source), "about": about}).encode())
    except OSError as error:
        say(f"{path.name} could not be kept for later runs: {error.strerror}")


def take(path: Path, target: Path) -> dict[str, Any] | None:
    """Put what was kept at `path` into the place of `target`; None when there is nothing, or nothing whole."""
    try:
        noted: dict[str, Any] = json.loads(_beside(path).read_bytes())
        about: dict[str, Any] | None = noted["about"] if file_sha256(path) == noted["sha256"] else None
        if about is not None:
            _link(path, target)
            os.utime(path.parent)  # used
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        about = None
    if about is None:
        with contextlib.suppress(OSError):
            for one in (_beside(path), path):
                one.unlink(missing_ok=True)
    return about


def _link(path: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(path, target)
    except OSError:  # another file system
        shutil.copyfile(path, target)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
