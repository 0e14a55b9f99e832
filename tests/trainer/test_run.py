"""One run in one process: resuming, cancelling, failing; every outcome is an event."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import trainer.callbacks
from storage.enums import Split
from tests.trainer.conftest import Executor, FolderMaker
from trainer.checkpoints import newest_checkpoint, seal
from trainer.folder import RunFolder
from trainer.run import CANCELLED, DISK_FULL, FAILED, FULL


class _StopAt(trainer.callbacks.EventCallback):
    """Ends training at a step, as if the process were killed right after its checkpoint."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step == 5:
            self.folder.cancel_file.touch()
            control.should_training_stop = control.should_save = True
        return control


@pytest.mark.parametrize("kind", ["reward", "dpo", "sft", "kto"])
def test_a_resumed_run_gives_the_losses_of_an_uninterrupted_one(
    make_folder: FolderMaker, run: Executor, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"epochs": 3, "eval_steps": 3, "early_stopping": True}
    if kind == "sft":
        asked["anchor_share"] = 0.1  # nine steps; 5 is inside the second epoch
    whole = run(make_folder(kind, "whole", **asked))
    folder = make_folder(kind, "broken", **asked)
    with monkeypatch.context() as patch:
        patch.setattr(f"trainer.recipes.{kind}.EventCallback", _StopAt)
        assert run(folder).code == CANCELLED
    folder.cancel_file.unlink()
    assert not folder.out.exists()
    resumed = run(folder)
    assert any("resuming from checkpoint-5" in event.get("text", "") for event in resumed.events)
    for name in ("loss", "eval_loss", "learning_rate"):
        assert dict(resumed.series(name)) == pytest.approx(dict(whole.series(name)), abs=1e-6), name
    for name in {"test_loss", "test_accuracy", "kept_step", "steps"} & whole.result.keys():
        assert resumed.result[name] == pytest.approx(whole.result[name], abs=1e-6), name


def test_cancel_takes_effect_within_one_step_and_keeps_the_state(
    make_folder: FolderMaker, run: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder("dpo", epochs=50, early_stopping=False)
    steps: list[int] = []
    step = trainer.callbacks.WatchedTrainer.training_step

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        steps.append(self.state.global_step)
        if len(steps) == 4:
            folder.cancel_file.touch()  # in the middle of the fourth step
        return step(self, *args, **kwargs)

    monkeypatch.setattr(trainer.callbacks.WatchedTrainer, "training_step", counted)
    outcome = run(folder)
    assert outcome.code == CANCELLED
    assert len(steps) == 4
    assert newest_checkpoint(folder) == folder.checkpoints / "checkpoint-4"
    assert not folder.out.exists()
    assert not any(event["event"] in ("error", "result") for event in outcome.events)


@pytest.mark.parametrize(("step", "kept"), [(3, "checkpoint-4"), (6, "checkpoint-3")])
def test_a_run_cancelled_in_an_evaluation_has_a_state_to_go_on_from(
    make_folder: FolderMaker, run: Executor, monkeypatch: pytest.MonkeyPatch, step: int, kept: str
) -> None:
    asked: dict[str, Any] = {"max_steps": 7, "eval_steps": 3, "save_steps": 3}
    whole = run(make_folder("dpo", "whole", **asked))
    folder = make_folder("dpo", "broken", **asked)
    evaluated = trainer.callbacks.WatchedTrainer.prediction_step

    def cancelled(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == step:
            folder.cancel_file.touch()
        return evaluated(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.callbacks.WatchedTrainer, "prediction_step", cancelled)
        assert run(folder).code == CANCELLED
    assert newest_checkpoint(folder) == folder.checkpoints / kept
    folder.cancel_file.unlink()
    resumed = run(folder)
    for name in ("loss", "eval_loss"):
        assert dict(resumed.series(name)) == pytest.approx(dict(whole.series(name)), abs=1e-6), name
    assert resumed.result["kept_step"] == whole.result["kept_step"]


def _state(path: Path, best: Path | None = None, *, sealed: bool = True) -> Path:
    path.mkdir(parents=True)
    (path / "trainer_state.json").write_text(json.dumps({"best_model_checkpoint": str(best) if best else None}))
    (path / "optimizer.pt").write_bytes(b"state")
    if sealed:
        seal(path)
    return path


def test_a_checkpoint_that_is_not_whole_is_passed_over_and_said(make_folder: FolderMaker) -> None:
    folder = make_folder("dpo")
    first, second = (_state(folder.checkpoints / f"checkpoint-{step}") for step in (2, 10))
    third = _state(folder.checkpoints / "checkpoint-12", best=second)
    _state(folder.checkpoints / "checkpoint-14", sealed=False)
    assert newest_checkpoint(folder) == third
    (second / "optimizer.pt").write_bytes(b"stale")
    assert newest_checkpoint(folder) == first
    (first / "optimizer.pt").unlink()
    assert newest_checkpoint(folder) is None
    assert list(folder.checkpoints.iterdir()) == []
    said = [json.loads(line)["text"].split(";")[0] for line in folder.events.read_text().splitlines()]
    assert said == [
        "checkpoint-14 was not finished",
        "checkpoint-12 rests on checkpoint-10, which is damaged (optimizer.pt)",
        "checkpoint-10 is damaged (optimizer.pt)",
        "checkpoint-2 is damaged (optimizer.pt is missing)",
    ]


def test_a_damaged_checkpoint_costs_steps_but_no_exactness(
    make_folder: FolderMaker, run: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"max_steps": 7, "eval_steps": 2, "save_steps": 2, "early_stopping": False}
    whole = run(make_folder("dpo", "whole", **asked))
    folder = make_folder("dpo", "broken", **asked)
    with monkeypatch.context() as patch:
        patch.setattr("trainer.recipes.dpo.EventCallback", _StopAt)
        assert run(folder).code == CANCELLED
    folder.cancel_file.unlink()
    weights = folder.checkpoints / "checkpoint-5" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"\0" * 8)
    resumed = run(folder)
    told = [event["text"] for event in resumed.events if event["event"] == "log"]
    assert any(text.startswith("checkpoint-5 is damaged (adapter_model.safetensors)") for text in told)
    assert "resuming from checkpoint-4" in told
    assert dict(resumed.series("loss")) == pytest.approx(dict(whole.series("loss")), abs=1e-6)


@pytest.mark.parametrize("full", ["once", "for good"])
def test_a_full_disk_is_said_and_leaves_nothing_half_written(
    make_folder: FolderMaker, run: Executor, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    folder = make_folder("dpo", max_steps=6, eval_steps=2, save_steps=2, early_stopping=False)
    saved, emitted = trainer.callbacks.EventCallback.on_save, RunFolder.emit

    def on_save(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step < 4:
            saved(self, args, state, control, **kwargs)
            return
        (folder.path / "out.partial").mkdir()
        if full == "for good":
            monkeypatch.setattr(RunFolder, "emit", nothing_fits)
        # As torch.save says it.
        raise RuntimeError("PytorchStreamWriter failed writing file data/2: file write failed")

    def nothing_fits(self: RunFolder, event: str, **values: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trainer.callbacks.EventCallback, "on_save", on_save)
    outcome = run(folder)
    monkeypatch.setattr(RunFolder, "emit", emitted)
    assert [path.name for path in folder.checkpoints.iterdir()] == ["checkpoint-2"]
    assert not (folder.path / "out.partial").exists()
    if full == "once":
        assert (outcome.code, outcome.error["message"]) == (FAILED, FULL)
    else:
        assert outcome.code == DISK_FULL


def test_a_loss_that_is_not_a_number_stops_the_run_with_its_reason(
    make_folder: FolderMaker, run: Executor, tiny_base: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    poisoned = tmp_path / "poisoned"
    shutil.copytree(tiny_base, poisoned)
    weights = load_file(poisoned / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(weights, poisoned / "model.safetensors", metadata={"format": "pt"})
    outcome = run(make_folder("reward", base=poisoned, epochs=10))
    assert outcome.code == FAILED
    assert outcome.error["mendable"]
    assert "the loss was nan at step 1; lower learning_rate" in outcome.error["message"]
    assert outcome.series("loss") == [(1, None)]
    assert not outcome.folder.out.exists()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: folder.split(Split.TRAIN).unlink(), "train.parquet is missing"),
        (lambda folder: (folder.path / "run.json").write_text('{"recipe": "magic"}'), "recipe"),
        (lambda folder: (folder.path / "run.json").unlink(), "no run.json"),
    ],
)
def test_what_people_can_mend_is_one_line(make_folder: FolderMaker, run: Executor, break_it: Any, message: str) -> None:
    folder = make_folder("dpo")
    break_it(folder)
    outcome = run(folder)
    assert outcome.code == FAILED
    assert outcome.error["mendable"]
    assert message in outcome.error["message"]
    assert "\n" not in outcome.error["message"]


def test_what_nobody_foresaw_keeps_its_traceback(
    make_folder: FolderMaker, run: Executor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("trainer.recipes.dpo.load_splits", broken)
    outcome = run(make_folder("dpo"))
    assert not outcome.error["mendable"]
    assert outcome.error["message"].startswith("ZeroDivisionError: a bug")
    assert "in broken" in capsys.readouterr().err


def test_out_of_memory_says_what_to_lower(
    make_folder: FolderMaker, run: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("trainer.recipes.dpo.load_model", full)
    assert run(make_folder("dpo")).error["message"].startswith("out of memory; lower batch_size")


def test_the_command_runs_a_folder(make_folder: FolderMaker) -> None:
    folder = make_folder("reward", max_steps=1)
    command = [sys.executable, "-m", "trainer.run"]
    done = subprocess.run(
        [*command, str(folder.path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0
    assert (folder.out / "adapter_model.safetensors").exists()
    assert json.loads(folder.events.read_text().splitlines()[-1])["event"] == "result"


def test_events_survive_any_text(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.say("naïve 猫 \ud800 \n second")
    folder.metrics(1, {"loss": float("inf"), "name": "text", "flag": True})
    first, second = map(json.loads, folder.events.read_text("utf-8").splitlines())
    assert first["text"].startswith("naïve 猫")
    assert second == {"event": "metrics", "step": 1, "values": {"loss": None}}
