"""Policy: TRL's DPOTrainer, a new LoRA from the base model on ALL feedback so far, reference = base.

The loss is DPO's sigmoid term plus `sft_weight` times the negative log-likelihood of the chosen completion: without
that anchor minimal-edit pairs collapse a small model. The reference is the same model with its adapter switched off.
Pair weights count: the sigmoid term of a pair is multiplied by its weight (mean 1 over the training pairs), in training
only; the anchor is not weighted.

Rows without a rejected completion (`storage.rule_rows`) stand as pairs of two equal sides: their preference term is the
same whatever the policy does, so that only the SFT term moves it, and they count in no accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import logsigmoid
from trl import DPOConfig as TrlDpoConfig
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from storage.configs import DpoConfig, parse
from storage.enums import Split
from storage.errors import TrainingFailed
from trainer.callbacks import EventCallback
from trainer.datasets import load_splits, mean_weight, training_length
from trainer.folder import Job, RunFolder
from trainer.loop import adapter_config, early_stopping, finish, train, trainer_arguments, watched
from trainer.policy import load_model, load_tokenizer, pick_device, pick_dtype, resolve_base_model
from trainer.reference import KeptReference
from trainer.shared_prompts import SharedPrompts, log_probs_of


def run(folder: RunFolder, job: Job) -> dict[str, Any]:
    """Train a policy in `folder`; returns the figures of the result."""
    config = parse(DpoConfig, job.config)
    device = pick_device(config.device)
    base = resolve_base_model(job.base_model)

    tokenizer = load_tokenizer(base)
    model = load_model(base, pick_dtype(config.dtype, device), device)
    folder.say(f"base model {job.base_model}: {model.num_parameters():,} parameters, {model.dtype}, on {device}")
    data, fit = load_splits(folder, tokenizer, training_length(model.config, config.max_length, device))
    if config.precompute_reference:
        folder.say("computing the reference's log-probabilities")

    watch = EventCallback(folder)
    trainer = WeightedDpoTrainer(
        folder=folder,
        model=model,
        args=TrlDpoConfig(
            **trainer_arguments(folder, config, job.seed, device, model, data),
            max_length=None,  # fitted already
            loss_type=["sigmoid", "sft"],
            loss_weights=[1.0, config.sft_weight],
            beta=config.beta,
            precompute_ref_log_probs=bool(config.precompute_reference),
        ),
        data_collator=DpoCollator(tokenizer.pad_token_id, mean_weight=mean_weight(data[Split.TRAIN])),
        train_dataset=data[Split.TRAIN],
        eval_dataset=watched(data),
        processing_class=tokenizer,
        peft_config=adapter_config(config, "CAUSAL_LM"),
        callbacks=[watch, *early_stopping(config, data)],
    )
    trainer.ahead = data.get(Split.TEST)
    trainer.take_reference(base)
    train(folder, trainer)
    figures = finish(folder, trainer, watch, data, device)
    trainer.keep_reference()
    return figures | {"fit": fit}


@dataclass
class DpoCollator(DataCollatorForPreference):
    """TRL's batch and the pair's weight."""

    mean_weight: float = 1.0

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """One batch."""
        batch: dict[str, Any] = super().torch_call(examples)
        batch["weight"] = torch.tensor([row["weight"] / self.mean_weight for row in examples])
        batch["row"] = [row["row"] for row in examples]
        batch["pairs"] = sum(row["chosen_ids"] != row["rejected_ids"] for row in examples)
        return batch


class WeightedDpoTrainer(KeptReference, DPOTrainer):
    """DPOTrainer whose pairs count by their weight, and which checks that it starts from its reference."""

    reference_columns = ("ref_chosen_logps", "ref_rejected_logps")

    def __init__(self, *, folder: RunFolder, model: Any, args: Any, **kwargs: Any) -> None:
        # Before the others: what is computed beforehand is computed when they are made.
        self._shared = SharedPrompts(log_probs_of, "log_probs", model, args, folder.say)
        super().__init__(folder=folder, model=model, args=args, **kwargs)

    def ask(self, model: Any, **inputs: Any) -> Any:
        """A prompt is read once for both of its completions."""
        return self._shared.ask(model, inputs)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        """TRL's loss, plus what each pair's weight differs from 1."""
        loss, batch, output = self.compared(model, inputs, return_outputs)
        if not self.model.training:
            return loss
        self._count_pairs_alone(inputs["pairs"], len(inputs["row"]))
        chosen, rejected = output.log_probs.sum(dim=1).chunk(2)
        margins = self.beta * ((chosen - batch["ref_chosen_logps"]) - (rejected - batch["ref_rejected_logps"]))
        if self.state.global_step == 0:
            self._require_reference(margins.detach().float())
        return loss - ((inputs["weight"] - 1) * logsigmoid(margins)).mean()

    def _count_pairs_alone(self, pairs: int, rows: int) -> None:
        """Take rows of two equal sides out of the accuracy that TRL has just noted for the batch."""
        noted = self._metrics["train"]["rewards/accuracies"]
        if pairs:
            noted[-1] *= rows / pairs
        elif len(noted) > 1:
            noted.pop()
        else:
            noted[-1] = float("nan")

    def _require_reference(self, margins: torch.Tensor) -> None:
        """Before the first step policy and reference are one model: a margin means that the reference is broken."""
        tolerance = 0.05 if not self.args.bf16 and not self.args.fp16 else 0.5  # rounding, summed over tokens
        off = float(margins.abs().mean())
        if off > tolerance:
            raise TrainingFailed(
                f"the policy does not start from its reference (margins of {off:.3f} before the first step); "
                "the base model changed while the run was being prepared: queue the training again"
            )
