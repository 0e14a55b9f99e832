"""Files are whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from storage import artifacts
from storage.errors import Conflict, NotFound


def make_folder(path: Path, **files: str) -> Path:
    for name, text in files.items():
        target = path / name.replace("__", "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return path


def test_a_folder_is_published_whole_with_its_hash(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "out", weights="abc", sub__config="{}")
    destination = tmp_path / "home" / "versions" / "policy-v1"
    digest = artifacts.publish_folder(source, destination)
    assert digest == artifacts.folder_sha256(destination) == artifacts.folder_sha256(source)
    assert (destination / "sub" / "config").read_text() == "{}"
    assert [p.name for p in destination.parent.iterdir()] == ["policy-v1"], "no temporary folder is left"
    assert artifacts.publish_folder(source, destination) == digest, "publishing again is a no-op"
    (source / "weights").write_text("abd")
    with pytest.raises(Conflict, match="other files"):
        artifacts.publish_folder(source, destination)
    assert (destination / "weights").read_text() == "abc"


def test_the_hash_depends_on_names_and_contents_only(tmp_path: Path) -> None:
    one = make_folder(tmp_path / "one", a="x", b="yz")
    two = make_folder(tmp_path / "two", b="yz", a="x")
    os.utime(two / "a", (0, 0))
    assert artifacts.folder_sha256(one) == artifacts.folder_sha256(two)
    for name, files in {"moved": {"a": "xy", "b": "z"}, "renamed": {"c": "x", "b": "yz"}, "less": {"a": "x"}}.items():
        assert artifacts.folder_sha256(make_folder(tmp_path / name, **files)) != artifacts.folder_sha256(one)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="gone"):
        artifacts.folder_sha256(tmp_path / "gone")
    with pytest.raises(NotFound, match="nothing to publish"):
        artifacts.publish_folder(tmp_path / "gone", tmp_path / "there")


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_folder(tmp_path / "out", weights="abc")
    old = make_folder(tmp_path / "home", report="old") / "report"

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(artifacts.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        artifacts.publish_folder(source, tmp_path / "home" / "policy-v1")
    with pytest.raises(OSError, match="No space"):
        artifacts.atomic_write(old, b"new")
    assert [p.name for p in old.parent.iterdir()] == ["report"]
    assert old.read_text() == "old"


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    artifacts.atomic_write(path, b"one")
    artifacts.atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]
