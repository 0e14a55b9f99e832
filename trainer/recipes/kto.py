"""Policy: TRL's KTOTrainer on thumbs and single ratings, a new LoRA from the base model, reference = base.

Each completion is good or bad by itself. The loss of a row is multiplied by its weight (mean 1 over the training rows),
in training only; the rarer label counts more, so that both labels have a say of equal size (the authors' advice, arXiv
2402.01306). The drift that KTO measures a row against is estimated on the same prompt with another row's completion,
the next one's in the snapshot, which is ordered by a hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from trl import KTOConfig as TrlKtoConfig
from trl import KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from storage.configs import parse
from storage.critique_configs import KtoConfig
from storage.enums import Split
from storage.errors import NotEnoughData
from trainer.callbacks import EventCallback
from trainer.completions import completion_form
from trainer.datasets import load_splits, mean_weight, row_number, training_length
from trainer.folder import Job, RunFolder
from trainer.loop import adapter_config, early_stopping, finish, train, trainer_arguments, watched
from trainer.policy import load_model, load_tokenizer, pick_device, pick_dtype, resolve_base_model
from trainer.reference import KeptReference

FORM = completion_form("rated completions")
MOST_BALANCE = 10.0  # how many times more the rarer label may count: a handful of rows must not rule


def run(folder: RunFolder, job: Job) -> dict[str, Any]:
    """Train a policy in `folder`; returns the figures of the result."""
    config = parse(KtoConfig, job.config)
    device = pick_device(config.device)
    base = resolve_base_model(job.base_model)

    tokenizer = load_tokenizer(base)
    model = load_model(base, pick_dtype(config.dtype, device), device)
    folder.say(f"base model {job.base_model}: {model.num_parameters():,} parameters, {model.dtype}, on {device}")
    length = training_length(model.config, config.max_length, device)
    data, fit = load_splits(folder, tokenizer, length, FORM)
    good, bad = label_weights(data[Split.TRAIN]["label"])
    folder.say(f"a good completion counts {good:.2f}, a bad one {bad:.2f}")

    watch = EventCallback(folder)
    trainer = WeightedKtoTrainer(
        folder=folder,
        model=model,
        args=TrlKtoConfig(
            **trainer_arguments(folder, config, job.seed, device, model, data),
            max_length=None,  # fitted already
            beta=config.beta,
            desirable_weight=good,
            undesirable_weight=bad,
        ),
        data_collator=KtoCollator(
            tokenizer.pad_token_id, length, data=data, mean_weight=mean_weight(data[Split.TRAIN])
        ),
        train_dataset=data[Split.TRAIN],
        eval_dataset=watched(data),
        processing_class=tokenizer,
        peft_config=adapter_config(config, "CAUSAL_LM"),
        callbacks=[watch, *early_stopping(config, data)],
    )
    trainer.ahead = data.get(Split.TEST)
    trainer.take_reference(base)
    train(folder, trainer)
    figures = finish(folder, trainer, watch, data, device, "completions")
    trainer.keep_reference()
    return figures | {"fit": fit}


def label_weights(labels: list[bool]) -> tuple[float, float]:
    """What a good and a bad completion count: the rarer one more; raises `NotEnoughData` when one kind is missing."""
    good = sum(labels)
    bad = len(labels) - good
    if not good or not bad:
        kind = "good" if good else "bad"
        raise NotEnoughData(f"all {len(labels)} rated completions are {kind}: KTO needs both; collect more ratings")
    return min(MOST_BALANCE, max(1.0, bad / good)), min(MOST_BALANCE, max(1.0, good / bad))


@dataclass
class KtoCollator(DataCollatorForUnpairedPreference):
    """TRL's batch, with the next row's completion to measure the drift on, and the row's weight."""

    data: Mapping[Split, Any] = field(default_factory=dict)
    mean_weight: float = 1.0

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """One batch."""
        batch: dict[str, Any] = super().torch_call([{**row, "KL_completion_ids": self._next(row)} for row in examples])
        batch["weight"] = torch.tensor([row["weight"] / self.mean_weight for row in examples])
        batch["row"] = [row["row"] for row in examples]
        return batch

    def _next(self, row: dict[str, Any]) -> list[int]:
        split = list(Split)[row["row"] >> 40]
        rows = self.data[split]
        place = (row["row"] - row_number(split, 0) + 1) % len(rows)
        ids: list[int] = rows[place]["completion_ids"]
        return ids


class WeightedKtoTrainer(KeptReference, KTOTrainer):
    """KTOTrainer whose rows count by their weight."""

    sequences_per_row = 1
    reference_columns = ("ref_logps", "ref_KL_logps")

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        """TRL's loss, plus what each row's weight differs from 1; and how often the sign of the reward is right."""
        loss, batch, output = self.compared(model, inputs, return_outputs)
        mode = "train" if self.model.training else "eval"
        drift = self._metrics[mode]["kl"][-1]
        gain = self.beta * (output.log_probs.sum(-1) - batch["ref_logps"] - drift)
        good = batch["label"]
        right = ((gain > 0) == good).float().mean()
        self._metrics[mode]["rewards/accuracies"].append(self.accelerator.gather_for_metrics(right).mean().item())
        if not self.model.training:
            return loss
        each = torch.where(good, self.desirable_weight, self.undesirable_weight)
        losses = each * (1 - torch.sigmoid(torch.where(good, gain, -gain)))
        return loss + ((inputs["weight"] - 1) * losses).mean()
