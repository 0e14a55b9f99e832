"""Policy: TRL's SFTTrainer on refinements, a new LoRA from the base model; the base model itself is the anchor.

The loss is the negative log-likelihood of the refinement's tokens, not of the prompt's. Row weights count: a row's
tokens are multiplied by its weight (mean 1 over everything trained on), in training only.

The anchor is replay: completions that the base model samples for the same prompts are mixed in. Their expected loss is
the divergence of the policy from the base model, over what the base model itself writes, up to a constant; so it holds
the policy where the refinements say nothing, needs no second model in memory and no second forward pass a step. (The
divergence on the refinements' own tokens would pull hardest where a refinement differs from its original: at what is
to be learnt.)
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from trl import SFTConfig as TrlSftConfig
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from storage.artifacts import atomic_write
from storage.configs import SamplingSettings, TrainingSettings, parse
from storage.critique_configs import SftConfig
from storage.enums import Split
from storage.models import Message
from trainer.callbacks import EventCallback, WatchedTrainer
from trainer.completions import completion_form
from trainer.datasets import (
    features_of,
    load_splits,
    mean_weight,
    messages_of,
    read_rows,
    row_number,
    training_length,
)
from trainer.folder import Job, RunFolder
from trainer.loop import adapter_config, early_stopping, finish, train, trainer_arguments, watched
from trainer.policy import (
    Request,
    load_model,
    load_tokenizer,
    make_generator,
    pick_device,
    pick_dtype,
    resolve_base_model,
)

MOST_ANCHORS = 512  # completions of the base model: more hold it no better, and take minutes to write
FORM = completion_form("refinements")


def run(folder: RunFolder, job: Job) -> dict[str, Any]:
    """Train a policy in `folder`; returns the figures of the result."""
    config = parse(SftConfig, job.config)
    device = pick_device(config.device)
    base = resolve_base_model(job.base_model)

    tokenizer = load_tokenizer(base)
    anchors = _anchors(folder, job, config, base, device)
    model = load_model(base, pick_dtype(config.dtype, device), device)
    folder.say(f"base model {job.base_model}: {model.num_parameters():,} parameters, {model.dtype}, on {device}")
    length = training_length(model.config, config.max_length, device)
    data, fit = load_splits(folder, tokenizer, length, FORM)
    refinements = len(data[Split.TRAIN])
    data[Split.TRAIN] = _mixed(data[Split.TRAIN], anchors, tokenizer, length, config.anchor_weight)

    trainer, watch = sft_trainer(folder, job, config, tokenizer, model, data)
    train(folder, trainer)
    figures = finish(folder, trainer, watch, data, device, FORM.noun)
    return figures | {"train_refinements": refinements, "anchors": len(data[Split.TRAIN]) - refinements, "fit": fit}


@dataclass
class SftCollator(DataCollatorForLanguageModeling):
    """TRL's batch, with labels on the completion only, and the row's weight."""

    mean_weight: float = 1.0

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """One batch."""
        batch: dict[str, Any] = super().torch_call(
            [
                {
                    "input_ids": row["prompt_ids"] + row["completion_ids"],
                    "labels": [-100] * len(row["prompt_ids"]) + row["completion_ids"],
                }
                for row in examples
            ]
        )
        batch["weight"] = torch.tensor([row["weight"] / self.mean_weight for row in examples])
        return batch


class WeightedSftTrainer(WatchedTrainer, SFTTrainer):
    """SFTTrainer whose rows count by their weight."""

    sequences_per_row = 1

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss, plus what each row's weight differs from 1."""
        weight = inputs.pop("weight")
        outputs: list[Any] = []

        def recorded(**model_inputs: Any) -> Any:
            outputs.append(model(**model_inputs))
            return outputs[-1]

        loss = super().compute_loss(recorded, inputs, num_items_in_batch=num_items_in_batch)
        if not self.model.training:
            return loss
        tokens = outputs[0].label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        own = ((weight - 1).unsqueeze(-1) * outputs[0].log_probs).sum() / torch.as_tensor(tokens).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            own = own * self.accelerator.num_processes  # as TRL does with its part
        return loss - own


def sft_trainer(
    folder: RunFolder, job: Job, config: TrainingSettings, tokenizer: Any, model: Any, data: dict[Split, Any]
) -> tuple[WeightedSftTrainer, EventCallback]:
    """TRL's trainer for tokenised rows that weigh, with a new LoRA on `model`, and the callback that tells of it."""
    watch = EventCallback(folder)
    trainer = WeightedSftTrainer(
        folder=folder,
        model=model,
        args=TrlSftConfig(
            **trainer_arguments(folder, config, job.seed, model.device.type, model, data),
            max_length=None,  # fitted already
        ),
        data_collator=SftCollator(tokenizer.pad_token_id, mean_weight=mean_weight(data[Split.TRAIN])),
        train_dataset=data[Split.TRAIN],
        eval_dataset=watched(data),
        processing_class=tokenizer,
        peft_config=adapter_config(config, "CAUSAL_LM"),
        callbacks=[watch, *early_stopping(config, data)],
    )
    return trainer, watch


# --- the anchor ---


def _anchors(folder: RunFolder, job: Job, config: SftConfig, base: str, device: str) -> list[dict[str, Any]]:
    """Completions of the base model for the training prompts; written once, so that a resumed run has the same."""
    path = folder.path / "anchors.jsonl"
    if not path.exists():
        rows = [json.dumps(row, ensure_ascii=False) for row in _sample_anchors(folder, job, config, base, device)]
        atomic_write(path, "".join(f"{row}\n" for row in rows).encode())
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _sample_anchors(folder: RunFolder, job: Job, config: SftConfig, base: str, device: str) -> list[dict[str, Any]]:
    prompts: dict[str, list[Message]] = {}
    count = 0
    for rows in read_rows(folder.split(Split.TRAIN)):
        count += len(rows)
        prompts |= {json.dumps(row["prompt"]): messages_of(row["prompt"]) for row in rows}
    wanted = min(MOST_ANCHORS, math.ceil(config.anchor_share * count)) if config.anchor_weight else 0
    if not wanted:
        return []
    folder.say(f"sampling {wanted} completions of the base model as an anchor")
    sampling = parse(SamplingSettings, job.sampling).model_copy(update={"temperature": 1.0, "top_p": 1.0})
    generate = make_generator(
        base, {"base": None}, sampling, dtype=config.dtype, device=device, before_batch=folder.check_cancel
    )
    asked = list(prompts.values()) * math.ceil(wanted / len(prompts))
    written = generate([Request(messages, "base") for messages in asked[:wanted]], job.seed)
    return [
        {"prompt": messages, "completion": [{"role": "assistant", "content": completion.text}]}
        for messages, completion in zip(asked, written, strict=False)
        # What never ended would teach not to end.
        if completion is not None and completion.text and completion.token_count < sampling.max_new_tokens
    ]


def _mixed(rows: Any, anchors: list[dict[str, Any]], tokenizer: Any, length: int, weight: float) -> Any:
    """The training rows with the anchors among them, each of which weighs `weight` times the mean of the rows."""
    from datasets import Dataset, concatenate_datasets

    if not anchors:
        return rows
    fitted = [row.values for row in FORM.tokenise(tokenizer, anchors, length) if not isinstance(row, str)]
    each = weight * mean_weight(rows)
    numbered = [
        {**values, "weight": each, "row": row_number(Split.TRAIN, len(rows) + place)}
        for place, values in enumerate(fitted)
    ]
    return concatenate_datasets([rows, Dataset.from_list(numbered, features=features_of(FORM))])
