"""Reward model: TRL's RewardTrainer, LoRA on a sequence classifier with one output, trained on all feedback so far.

Pair weights count: the Bradley-Terry term of a pair is multiplied by its weight (mean 1 over the training pairs), in
training only. Two baselines tell what the test accuracy is worth: "the longer completion wins" and "the one written
first wins", on the same test pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from transformers import set_seed
from trl import RewardConfig as TrlRewardConfig
from trl import RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from storage.configs import RewardConfig, parse
from storage.enums import Split
from trainer.callbacks import EventCallback, WatchedTrainer
from trainer.datasets import load_splits, mean_weight, training_length
from trainer.folder import Job, RunFolder
from trainer.loop import adapter_config, early_stopping, finish, train, trainer_arguments, watched
from trainer.policy import load_model, load_tokenizer, pick_device, pick_dtype, resolve_base_model


def run(folder: RunFolder, job: Job) -> dict[str, Any]:
    """Train a reward model in `folder`; returns the figures of the result."""
    config = parse(RewardConfig, job.config)
    device = pick_device(config.device)
    base = resolve_base_model(job.base_model)

    tokenizer = load_tokenizer(base)
    set_seed(job.seed)  # the head starts random
    model = load_model(base, pick_dtype(config.dtype, device), device, reward=True)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    folder.say(f"base model {job.base_model}: {model.num_parameters():,} parameters, {model.dtype}, on {device}")
    data, fit = load_splits(folder, tokenizer, training_length(model.config, config.max_length, device))

    watch = EventCallback(folder)
    trainer = WeightedRewardTrainer(
        folder=folder,
        model=model,
        args=TrlRewardConfig(
            **trainer_arguments(folder, config, job.seed, device, model, data),
            max_length=None,  # fitted already
            center_rewards_coefficient=config.center_rewards_coefficient,
        ),
        data_collator=RewardCollator(tokenizer.pad_token_id, mean_weight=mean_weight(data[Split.TRAIN])),
        train_dataset=data[Split.TRAIN],
        eval_dataset=watched(data),
        processing_class=tokenizer,
        peft_config=adapter_config(config, "SEQ_CLS"),
        callbacks=[watch, *early_stopping(config, data)],
    )
    train(folder, trainer)
    figures = finish(folder, trainer, watch, data, device)
    return figures | _baselines(data.get(Split.TEST)) | {"fit": fit}


@dataclass
class RewardCollator(DataCollatorForPreference):
    """Whole sequences (prompt + completion) and the pair's weight."""

    mean_weight: float = 1.0

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """One batch."""
        batch: dict[str, Any] = super().torch_call(
            [{side: row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids")} for row in examples]
        )
        batch["weight"] = torch.tensor([row["weight"] / self.mean_weight for row in examples])
        return batch


class WeightedRewardTrainer(WatchedTrainer, RewardTrainer):
    """RewardTrainer whose pairs count by their weight."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss, plus what each pair's weight differs from 1."""
        weight = inputs.pop("weight")
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        if self.model.training:
            chosen, rejected = outputs.logits.squeeze(-1).chunk(2)
            loss = loss - ((weight - 1) * logsigmoid(chosen - rejected)).mean()
        return (loss, outputs) if return_outputs else loss


def _baselines(test: Any) -> dict[str, float]:
    """Accuracy on the test pairs of two rules that need no model; a tie in length counts half."""
    if test is None:
        return {}
    longer = [
        0.5 if len(chosen) == len(rejected) else float(len(chosen) > len(rejected))
        for chosen, rejected in zip(test["chosen_ids"], test["rejected_ids"], strict=True)
    ]
    return {
        "test_longer_wins": sum(longer) / len(longer),
        "test_first_wins": sum(test["first_wins"]) / len(longer),
    }
