"""Runs on one snapshot share tokens and the reference's log-probabilities: taken whole, for the very same, or not."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sqlalchemy.orm import Session, sessionmaker

from storage.models import utc_now
from tests.trainer.conftest import Executor, FolderMaker, Outcome, rows_of
from trainer.folder import RunFolder
from trainer.tidy import UNUSED, tidy

STEPS: dict[str, Any] = {"epochs": 1, "eval_steps": 2}
TOKENS, REFERENCE = "tokens of an earlier run", "are those of an earlier run"


def _said(outcome: Outcome, text: str) -> int:
    return sum(text in event["text"] for event in outcome.events if event["event"] == "log")


def _sharing(folder: RunFolder, cache: Path) -> RunFolder:
    folder.write_job(folder.job().model_copy(update={"cache": str(cache)}))
    return folder


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_a_second_run_takes_what_the_first_one_kept(
    make_folder: FolderMaker, run: Executor, tmp_path: Path, kind: str
) -> None:
    cache = tmp_path / "cache" / "snapshot"
    first = run(_sharing(make_folder(kind, "first", **STEPS), cache))
    assert first.code == 0
    assert not _said(first, TOKENS)
    kept = {path: path.read_bytes() for path in cache.iterdir()}
    second = run(_sharing(make_folder(kind, "second", seed=5, **STEPS), cache))
    again = run(_sharing(make_folder(kind, "again", **STEPS), cache))
    for outcome in (second, again):
        assert (_said(outcome, TOKENS), _said(outcome, REFERENCE)) == (3, 1)
    assert dict(again.series("loss")) == pytest.approx(dict(first.series("loss")), rel=1e-5)
    assert again.result["test_loss"] == pytest.approx(first.result["test_loss"], rel=1e-5)
    assert again.result["fit"] == first.result["fit"]
    assert {path: path.read_bytes() for path in cache.iterdir()} == kept, "all rows were known: nothing to add"
    assert not list(cache.glob(".*")), "nothing half written"


def test_another_model_another_snapshot_and_what_was_damaged_are_not_taken(
    make_folder: FolderMaker, run: Executor, tiny_base: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache" / "snapshot"
    first = run(_sharing(make_folder("dpo", "first", **STEPS), cache))
    # A reward model needs the same tokens, and no reference; other lengths are other tokens, hence another reference.
    reward = run(_sharing(make_folder("reward", "reward", heads=1, **STEPS), cache))
    assert (_said(reward, TOKENS), _said(reward, REFERENCE)) == (3, 0)
    shorter = run(_sharing(make_folder("dpo", "shorter", max_length=100, **STEPS), cache))
    assert not _said(shorter, TOKENS)
    other = shutil.copytree(tiny_base, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: value * 1.01 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
    moved = run(_sharing(make_folder("dpo", "moved", base=other, **STEPS), cache))
    assert (_said(moved, TOKENS), _said(moved, REFERENCE)) == (3, 0)
    # Another snapshot has a folder of its own; even in this one its rows would have another reference.
    rows = run(_sharing(make_folder("dpo", "rows", rows=rows_of(24, 99), **STEPS), tmp_path / "cache" / "another"))
    assert (_said(rows, TOKENS), _said(rows, REFERENCE)) == (0, 0)
    # Damaged on the disk: removed, made again, and the training is what it was.
    for path in cache.iterdir():
        if path.suffix != ".json":
            path.unlink() if "test" in path.name else os.truncate(path, path.stat().st_size - 1)
    mended = run(_sharing(make_folder("dpo", "mended", **STEPS), cache))
    assert (_said(mended, TOKENS), _said(mended, REFERENCE)) == (0, 0)
    assert mended.series("loss") == first.series("loss")
    last = run(_sharing(make_folder("dpo", "last", **STEPS), cache))
    assert (_said(last, TOKENS), _said(last, REFERENCE)) == (3, 1)


def test_a_run_whose_cache_cannot_be_written_trains_all_the_same(
    make_folder: FolderMaker, run: Executor, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("no folder")
    outcome = run(_sharing(make_folder("dpo", "run", max_steps=1, **STEPS), tmp_path / "cache" / "snapshot"))
    assert outcome.code == 0
    assert _said(outcome, "could not be kept") == 4
    assert torch.isfinite(torch.tensor(outcome.result["train_loss"]))


def test_what_nobody_takes_any_more_is_removed(sessions: sessionmaker[Session], tmp_path: Path) -> None:
    for name in ("used", "old", "gone"):
        (tmp_path / "cache" / name).mkdir(parents=True)
        (tmp_path / "cache" / name / "reference-1.safetensors").write_text("")
    for name in ("used", "old"):
        (tmp_path / "artifacts" / "snapshots" / name).mkdir(parents=True)
    long_ago = (utc_now() - UNUSED - timedelta(hours=1)).timestamp()
    os.utime(tmp_path / "cache" / "old", (long_ago, long_ago))
    assert {path.name for path in tidy(sessions, tmp_path, timedelta(days=7))} == {"old", "gone"}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["used"]
