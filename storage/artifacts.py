"""Files that are either whole or not there: written under a temporary name, fsynced, renamed."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from storage.errors import Conflict, NotFound

_CHUNK = 1 << 20


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path`; whoever looks sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_via(path, lambda temporary: temporary.write_bytes(data))


def write_via(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place; on any error nothing is left behind."""
    temporary = _temporary(path)
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def publish_folder(source: Path, destination: Path) -> str:
    """Copy the folder `source` to `destination`, all at once, and return its SHA-256 (`folder_sha256`).

    A destination that already holds the same content is left alone; raises `Conflict` when it holds something else
    and `NotFound` when there is no source.
    """
    if not source.is_dir():
        raise NotFound(f"nothing to publish: the folder {source} is not there")
    if destination.exists():
        return _published_already(source, destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(destination)
    try:
        shutil.copytree(source, temporary)
        digest = folder_sha256(temporary)
        _put_in_place(temporary, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return digest


def write_folder(destination: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary folder beside `destination`, then put it in place; on any error nothing is left.

    Raises `Conflict` when the destination is there already.
    """
    if destination.exists():
        raise Conflict(f"{destination} is there already; name a new folder")
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(destination)
    try:
        temporary.mkdir()
        write(temporary)
        _put_in_place(temporary, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, destination: Path) -> None:
    for path in [*temporary.rglob("*"), temporary]:
        _sync(path)
    temporary.rename(destination)
    _sync(destination.parent)


def _published_already(source: Path, destination: Path) -> str:
    digest = folder_sha256(source)
    if folder_sha256(destination) != digest:
        raise Conflict(f"{destination} already holds other files; move that folder away, then try again")
    return digest


def folder_sha256(folder: Path) -> str:
    """SHA-256 over the relative name, size and content of every file, in sorted order; times do not count."""
    if not folder.is_dir():
        raise NotFound(f"the folder {folder} is not there; restore it from a backup, or train again")
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix().encode()
        digest.update(f"{len(name)}:".encode() + name + f":{path.stat().st_size}:".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _temporary(path: Path) -> Path:
    # Beside its target: a rename is atomic only within one file system.
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
