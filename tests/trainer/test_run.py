"""One run in one process: resuming, cancelling, failing; every outcome is an event."""

from __future__ import annotations

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
from trainer.checkpoints import newest_checkpoint
from trainer.folder import RunFolder
from trainer.run import CANCELLED, FAILED


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


def test_a_checkpoint_cut_short_is_passed_over(make_folder: FolderMaker) -> None:
    folder = make_folder("dpo")
    for step, state in ((2, "{}"), (4, '{"global_step": 4, "log_hi')):
        checkpoint = folder.checkpoints / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "trainer_state.json").write_text(state)
    (folder.checkpoints / "checkpoint-6").mkdir()
    assert newest_checkpoint(folder) == folder.checkpoints / "checkpoint-2"
    assert not (folder.checkpoints / "checkpoint-4").exists()


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
