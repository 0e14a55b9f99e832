"""What the training recipes share: trainer arguments, the adapter, resuming, and the figures at the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import EarlyStoppingCallback

from storage.configs import TrainingSettings
from storage.enums import Split
from storage.errors import Invalid
from trainer.callbacks import EventCallback, short_name
from trainer.checkpoints import newest_checkpoint, peak_memory_mb, save_adapter
from trainer.folder import RunFolder, finite
from trainer.lora import quickly

PATIENCE = 3  # evaluations without a better loss on held-out pairs
WATCHED_PAIRS = 128
AUTOCAST_PARAMETERS = 10_000_000  # below, bfloat16 autocast costs more on a CPU than it saves


def trainer_arguments(
    folder: RunFolder, config: TrainingSettings, seed: int, device: str, model: Any, data: dict[Split, Any]
) -> dict[str, Any]:
    """Keyword arguments for TRL's config classes, the same for every recipe."""
    held_out = Split.VALIDATION in data
    every = min(_resolved(config.eval_steps), max(1, total_steps(config, len(data[Split.TRAIN]))))
    return {
        "output_dir": str(folder.checkpoints),
        "use_cpu": device == "cpu",
        "bf16": _autocast(config.dtype, device, model),
        "fp16": config.dtype == "float16" and device.startswith("cuda"),
        "gradient_checkpointing": model.num_parameters() > 500_000_000,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "learning_rate": config.learning_rate,
        "warmup_steps": 0.1,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation,
        "eval_strategy": "steps" if held_out else "no",
        "eval_steps": every,
        # The best checkpoint is one that was evaluated: saves stand on multiples of evaluations.
        "save_steps": every * math.ceil(_resolved(config.save_steps) / every) if held_out else config.save_steps,
        "save_total_limit": 2,
        "load_best_model_at_end": held_out and config.early_stopping,
        "metric_for_best_model": "eval_loss" if held_out else None,
        "greater_is_better": False if held_out else None,
        "restore_callback_states_from_checkpoint": True,
        "logging_steps": max(1, total_steps(config, len(data[Split.TRAIN])) // 400),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "dataloader_pin_memory": device.startswith("cuda"),
        "disable_tqdm": True,
        "report_to": "none",
        "seed": seed,
        "data_seed": seed,
    }


def total_steps(config: TrainingSettings, pairs: int) -> int:
    """Optimiser steps of the whole run."""
    batches = math.ceil(pairs / _resolved(config.batch_size))
    steps = math.ceil(_resolved(config.epochs) * math.ceil(batches / config.gradient_accumulation))
    return min(steps, config.max_steps) if config.max_steps else steps


def _resolved(value: float | None) -> float:
    if value is None:
        raise Invalid("run.json holds an unresolved config; queue the run with storage.training.queue_training")
    return value


def _autocast(dtype: str, device: str, model: Any) -> bool:
    if dtype != "auto":
        return dtype == "bfloat16"
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    if device != "cpu" or int(model.num_parameters()) < AUTOCAST_PARAMETERS:
        return False
    # A processor that has to imitate bfloat16 takes three times as long with it as without.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def adapter_config(config: TrainingSettings, task: str) -> LoraConfig:
    """LoRA on every linear layer; a sequence classifier's head is trained whole and saved with the adapter.

    The default initialisation (B = 0) is not negotiable: PiSSA and OLoRA change the base weights, hence the reference.
    """
    return quickly(
        LoraConfig(
            task_type=task,
            r=config.lora_r,
            lora_alpha=config.lora_r,
            target_modules="all-linear",
            modules_to_save=["score"] if task == "SEQ_CLS" else None,
        )
    )


def watched(data: dict[Split, Any]) -> Any:
    """The held-out pairs looked at while training; the figures at the end use all of them."""
    validation = data.get(Split.VALIDATION)
    if validation is None or len(validation) <= WATCHED_PAIRS:
        return validation
    return validation.select(range(WATCHED_PAIRS))  # snapshots are ordered by a hash: the first ones are a fair sample


def early_stopping(config: TrainingSettings, data: dict[Split, Any]) -> list[Any]:
    """The callback that ends training when held-out pairs get no better; none without held-out pairs."""
    if config.early_stopping and Split.VALIDATION in data:
        return [EarlyStoppingCallback(early_stopping_patience=PATIENCE)]
    return []


def train(folder: RunFolder, trainer: Any) -> None:
    """Train, from the newest checkpoint when there is one; raises `Cancelled` once the state is saved."""
    checkpoint = newest_checkpoint(folder)
    if checkpoint is not None:
        folder.say(f"resuming from {checkpoint.name}")
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    folder.check_cancel()


def finish(
    folder: RunFolder,
    trainer: Any,
    watch: EventCallback,
    data: dict[Split, Any],
    device: str,
    noun: str = "pairs",
    put_beside: Callable[[Path], None] | None = None,
    again: bool = False,
) -> dict[str, Any]:
    """Publish the adapter, and return the figures of the model that was kept, by split; `noun`: what the rows are.

    `put_beside`: see `trainer.checkpoints.save_adapter`; called once held-out rows have been evaluated. `again`: also
    those that the model was evaluated on when it was kept, as whoever wants more than the figures has to.
    """
    watch.quiet = True  # the plots show the course of training; what follows are the figures of the model kept
    held_out: dict[str, Any] = {}
    for split in (Split.VALIDATION, Split.TEST):
        if split in data:
            known = None if again else _known(trainer, data[split])
            measured = {short_name(name): value for name, value in (known or trainer.evaluate(data[split])).items()}
            for name in ("loss", "accuracy", "margin", "token_accuracy"):
                if f"eval_{name}" in measured:
                    held_out[f"{split.value}_{name}"] = measured[f"eval_{name}"]
            held_out[f"{split.value}_{noun}"] = len(data[split])
    save_adapter(folder, trainer.accelerator.unwrap_model(trainer.model), put_beside)
    state = trainer.state
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return finite(
        {
            "train_loss": losses[-1] if losses else None,
            f"train_{noun}": len(data[Split.TRAIN]),
            **held_out,
            "steps": state.global_step,
            "kept_step": _kept_step(trainer),
            "stopped_early": state.global_step < state.max_steps,
            "tokens_per_second": watch.tokens_per_second,
            "peak_memory_mb": peak_memory_mb(device),
        }
    )


def _kept_step(trainer: Any) -> int:
    state = trainer.state
    step: int = state.best_global_step if trainer.args.load_best_model_at_end else state.global_step
    return step


def _known(trainer: Any, rows: Any) -> dict[str, float] | None:
    """What was found on these very rows at the step whose model was kept; None where nobody looked, or at others."""
    if trainer.eval_dataset is not rows:
        return None
    step = _kept_step(trainer)
    entries = (entry for entry in trainer.state.log_history if entry["step"] == step and "eval_loss" in entry)
    return next(entries, None)
