"""Reward model: TRL's RewardTrainer, LoRA on a sequence classifier, trained on all feedback so far.

With several heads it is an ensemble in one pass (`trainer.ensemble`): the loss is the mean of the heads', each on its
own resample of the prompts, and accuracy is that of the mean over the heads. Pair weights count: the Bradley-Terry term
of a pair is multiplied by its weight (mean 1 over the training pairs), in training only. Two baselines tell what the
test accuracy is worth: "the longer completion wins" and "the one written first wins", on the same test pairs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import logsigmoid
from transformers import set_seed
from trl import RewardConfig as TrlRewardConfig
from trl import RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from storage.configs import RewardConfig, parse
from storage.enums import Split
from trainer.calibration import Floats
from trainer.callbacks import EventCallback, WatchedTrainer
from trainer.datasets import load_splits, mean_weight, training_length
from trainer.ensemble import Ensemble, ensemble_of, times_drawn, write_ensemble
from trainer.folder import Job, RunFolder
from trainer.loop import adapter_config, early_stopping, finish, train, trainer_arguments, watched
from trainer.policy import load_model, load_tokenizer, pick_device, pick_dtype, resolve_base_model
from trainer.shared_prompts import SharedPrompts, rewards_of

READ_PAIRS = 16  # training pairs that say where the heads begin, where none are held out


def run(folder: RunFolder, job: Job) -> dict[str, Any]:
    """Train a reward model in `folder`; returns the figures of the result."""
    config = parse(RewardConfig, job.config)
    device = pick_device(config.device)
    base = resolve_base_model(job.base_model)

    tokenizer = load_tokenizer(base)
    set_seed(job.seed)  # the head starts random
    # A run that was begun before there were ensembles goes on with its one head.
    heads = config.heads if "heads" in job.config else 1
    model = load_model(base, pick_dtype(config.dtype, device), device, heads=heads)
    model.config.num_labels = 1  # TRL refuses any other number, and uses it for nothing else
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
        data_collator=RewardCollator(
            tokenizer.pad_token_id, mean_weight=mean_weight(data[Split.TRAIN]), heads=heads, seed=job.seed
        ),
        train_dataset=data[Split.TRAIN],
        eval_dataset=watched(data),
        processing_class=tokenizer,
        peft_config=adapter_config(config, "SEQ_CLS"),
        callbacks=[watch, *early_stopping(config, data)],
    )
    train(folder, trainer)
    # Finished evaluates the held-out pairs first, whose rewards say how the heads are read.
    reading: list[Ensemble] = []

    def put_beside(fresh: Path) -> None:
        reading.append(_reading(trainer, data))
        write_ensemble(fresh, reading[0])

    figures = finish(folder, trainer, watch, data, device, put_beside=put_beside, again=True)
    ensemble = {"heads": heads, "temperature": reading[0].temperature}
    return figures | ensemble | _baselines(data.get(Split.TEST)) | {"fit": fit}


def _reading(trainer: WeightedRewardTrainer, data: dict[Split, Any]) -> Ensemble:
    """From the validation pairs; without any, where the heads begin is what the last training pairs were given."""
    if Split.VALIDATION in data:
        return ensemble_of(trainer.rewards_of(data[Split.VALIDATION]))
    latest = trainer.latest_rewards()
    if latest is None:  # resumed after the last step
        train_pairs = data[Split.TRAIN]
        some = train_pairs.select(range(min(READ_PAIRS, len(train_pairs))))
        trainer.evaluate(some)
        latest = trainer.rewards_of(some)
    return ensemble_of(latest, temperature=False)


@dataclass
class RewardCollator(DataCollatorForPreference):
    """Whole sequences (prompt + completion) and the pair's weight."""

    mean_weight: float = 1.0
    heads: int = 1
    seed: int = 0

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """One batch."""
        batch: dict[str, Any] = super().torch_call(
            [{side: row["prompt_ids"] + row[side] for side in ("chosen_ids", "rejected_ids")} for row in examples]
        )
        weight = torch.tensor([row["weight"] / self.mean_weight for row in examples])
        if self.heads > 1:
            drawn = times_drawn([row["prompt_number"] for row in examples], self.heads, self.seed)
            weight = weight[:, None] * torch.from_numpy(drawn)
        batch["weight"] = weight
        return batch


class WeightedRewardTrainer(WatchedTrainer, RewardTrainer):
    """RewardTrainer whose pairs count by their weight, [pairs], or [pairs, heads] of an ensemble."""

    def __init__(self, *, folder: RunFolder, model: Any, args: Any, **kwargs: Any) -> None:
        self._seen: list[torch.Tensor] | None = None  # rewards of the pairs being evaluated, batch by batch
        self._rewards: dict[int, Floats] = {}
        self._latest: deque[torch.Tensor] = deque()  # rewards of the last `READ_PAIRS` pairs trained on, by batch
        self._shared = SharedPrompts(rewards_of, "logits", model, args, folder.say)
        super().__init__(folder=folder, model=model, args=args, **kwargs)

    def rewards_of(self, dataset: Any) -> Floats:
        """What each head gave the pairs of an evaluated dataset, longest first: [2 pairs, heads], chosen first."""
        return self._rewards[id(dataset)]

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As always; the rewards of a dataset that is named are kept, see `rewards_of`."""
        self._seen = [] if eval_dataset is not None else None
        figures: dict[str, float] = super().evaluate(eval_dataset, *args, **kwargs)
        if self._seen:
            self._rewards[id(eval_dataset)] = _joined(self._seen)
        self._seen = None
        return figures

    def latest_rewards(self) -> Floats | None:
        """What each head gave the pairs of the last steps: as `rewards_of`; None before the first step."""
        return _joined(self._latest) if self._latest else None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss, plus what each pair's weight differs from 1."""
        weight = inputs.pop("weight")

        def asked(**model_inputs: Any) -> Any:
            with self.accelerator.autocast():
                return self._shared.ask(model, model_inputs)

        loss, outputs = super().compute_loss(asked, inputs, return_outputs=True)
        rewards = outputs.logits
        if rewards.shape[-1] > 1:
            self._count_right(rewards.detach())
        if self.model.training:
            self._latest.append(rewards.detach())
            while sum(map(len, self._latest)) - len(self._latest[0]) >= 2 * READ_PAIRS:
                self._latest.popleft()
            chosen, rejected = rewards.squeeze(-1).chunk(2)
            loss = loss - ((weight - 1) * logsigmoid(chosen - rejected)).mean()
        elif self._seen is not None:
            self._seen.append(rewards.detach())
        return (loss, outputs) if return_outputs else loss

    def _count_right(self, rewards: torch.Tensor) -> None:
        """The accuracy of the ensemble, in place of the mean of its heads' accuracies."""
        chosen, rejected = rewards.mean(-1).chunk(2)
        right = self.accelerator.gather_for_metrics((chosen > rejected).float().mean()).mean().item()
        self._metrics["train" if self.model.training else "eval"]["accuracy"][-1] = right


def _joined(batches: Iterable[torch.Tensor]) -> Floats:
    """Rewards of the pairs of all batches, [2 pairs, heads], the chosen completions first."""
    each = [batch.double().cpu().numpy().reshape(2, -1, batch.shape[-1]) for batch in batches]
    joined: Floats = np.concatenate(np.concatenate(each, axis=1))
    return joined


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
