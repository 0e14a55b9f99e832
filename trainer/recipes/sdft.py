"""Policy: TRL's SDFTTrainer (experimental), self-distillation with the critique as privileged context.

The base model, shown a criticised completion and its critiques, is the teacher; the policy, a new LoRA that sees the
prompt alone, learns to write what the teacher would (arXiv 2601.19897). The teacher is asked for a new reply and told
of an earlier one: what is judged is sampled afresh, by the policy. Only a model that can use what it is shown gains
from this, so small ones are refused. Row weights count: a row's loss is multiplied by its weight (mean 1), in training
only. Sampling is part of every step, so a resumed run samples anew where an uninterrupted one went on.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from trl.experimental.sdft import SDFTConfig as TrlSdftConfig
from trl.experimental.sdft import SDFTTrainer
from trl.experimental.sdft.sdft_trainer import DistillationLogits

from storage.configs import TemplateSettings, parse
from storage.critique_configs import SdftConfig
from storage.enums import Split
from storage.errors import Invalid, NotEnoughData
from storage.wordings import Templates, templates_of
from trainer.callbacks import EventCallback, Watched
from trainer.datasets import mean_weight, messages_of, prompt_ids, read_rows, training_length
from trainer.folder import Job, RunFolder
from trainer.loop import adapter_config, early_stopping, finish, train, trainer_arguments, watched
from trainer.policy import load_model, load_tokenizer, pick_device, pick_dtype, resolve_base_model
from trainer.templates import filled, told


def run(folder: RunFolder, job: Job) -> dict[str, Any]:
    """Train a policy in `folder`; returns the figures of the result."""
    config = parse(SdftConfig, job.config)
    templates = templates_of(parse(TemplateSettings, job.templates))
    device = pick_device(config.device)
    base = resolve_base_model(job.base_model)

    tokenizer = load_tokenizer(base)
    model = load_model(base, pick_dtype(config.dtype, device), device)
    _require_size(job.base_model, model.num_parameters(), config.min_parameters)
    length = training_length(model.config, config.max_length, device)
    data = _load(folder, tokenizer, templates, length - min(config.max_new_tokens, length // 2))

    watch = EventCallback(folder)
    arguments = trainer_arguments(folder, config, job.seed, device, model, data)
    trainer = WeightedSdftTrainer(
        folder=folder,
        model=model,
        args=TrlSdftConfig(
            **arguments | {"per_device_train_batch_size": arguments["per_device_train_batch_size"] * config.samples},
            num_generations=config.samples,
            num_generations_eval=1,
            max_prompt_length=None,  # fitted already
            max_completion_length=min(config.max_new_tokens, length // 2),
            teacher_prompt_template=_before_prompt(templates) + "{prompt}{privileged_context}",
            distillation_topk=min(100, model.config.get_text_config().vocab_size),
        ),
        train_dataset=data[Split.TRAIN],
        eval_dataset=watched(data),
        processing_class=tokenizer,
        peft_config=adapter_config(config, "CAUSAL_LM"),
        callbacks=[watch, *early_stopping(config, data)],
    )
    trainer.mean_weight = mean_weight(data[Split.TRAIN])
    train(folder, trainer)
    return finish(folder, trainer, watch, data, device, "completions")


def _require_size(name: str, parameters: int, least: int) -> None:
    if parameters < least:
        raise Invalid(
            f"sdft needs a model that can use a critique it is shown: {name} has {parameters / 1e6:,.0f} million "
            f"parameters, {least / 1e6:,.0f} million are the least; train dpo on refinements instead, or set "
            "min_parameters=0 to try it anyway"
        )


def _load(folder: RunFolder, tokenizer: Any, templates: Templates, budget: int) -> dict[Split, Any]:
    """Criticised completions of each split: prompt, privileged_context and weight; counts what is left out."""
    from datasets import Dataset

    data: dict[Split, Any] = {}
    for split in Split:
        left_out: Counter[str] = Counter()
        kept = []
        for rows in read_rows(folder.split(split)):
            for row in rows:
                found = _row(row, tokenizer, templates, budget)
                if isinstance(found, str):
                    left_out[found] += 1
                else:
                    kept.append(found)
        reasons = "".join(f", {count} left out ({reason})" for reason, count in sorted(left_out.items()))
        folder.say(f"{split.value}: {len(kept)} criticised completions used{reasons}")
        if kept:
            data[split] = Dataset.from_list(kept)
    if Split.TRAIN not in data:
        raise NotEnoughData("no criticised completion on training prompts can be used; collect more critiques")
    return data


def _row(row: dict[str, Any], tokenizer: Any, templates: Templates, budget: int) -> dict[str, Any] | str:
    said = [told(one["text"] or "", one["fix"], one["tags"] or ()).text for one in row["feedback"] or ()]
    critique = " ".join(text for text in said if text)
    prompt = messages_of(row["prompt"])
    if not critique:
        return "nothing was written about it"
    if prompt[-1]["role"] != "user":
        return "the prompt does not end with a user's message"
    after = templates.teacher.partition("{prompt}")[2]
    shown = filled(after, completion=row["completion"][0]["content"], critique=critique)
    whole = templates.teacher.partition("{prompt}")[0] + prompt[-1]["content"] + shown
    if len(prompt_ids(tokenizer, [*prompt[:-1], {"role": "user", "content": whole}])) > budget:
        return "too long"
    return {"prompt": prompt, "privileged_context": shown, "weight": row["weight"]}


def _before_prompt(templates: Templates) -> str:
    """What the teacher's template says before the prompt, for TRL, which formats it once more."""
    return templates.teacher.partition("{prompt}")[0].replace("{", "{{").replace("}", "}}")


class WeightedSdftTrainer(Watched, SDFTTrainer):
    """SDFTTrainer whose rows count by their weight."""

    mean_weight = 1.0

    def _prepare_training_batch(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._prepare_training_batch(inputs)
        weights = [row["weight"] / self.mean_weight for row in inputs]
        batch["weight"] = torch.tensor(weights, device=batch["prompt_ids"].device)
        return batch

    def _compute_self_distillation_loss(
        self, model: Any, inputs: dict[str, Any], distillation_logits: DistillationLogits
    ) -> Any:
        """TRL's loss of each row, times its weight; the logits are computed for the whole batch before."""
        if not self.model.training:
            return super()._compute_self_distillation_loss(model, inputs, distillation_logits)
        losses = []
        for place in range(len(inputs["weight"])):
            one = slice(place, place + 1)
            logits = DistillationLogits(
                completion_ids=distillation_logits.completion_ids[one],
                loss_mask=distillation_logits.loss_mask[one],
                student_logits=distillation_logits.student_logits[one],
                teacher_logits=distillation_logits.teacher_logits[one],
            )
            old = inputs.get("old_per_token_logps")
            own = {} if old is None else {"old_per_token_logps": old[one]}
            losses.append(super()._compute_self_distillation_loss(model, own, logits))
        return (torch.stack(losses) * inputs["weight"]).mean()
