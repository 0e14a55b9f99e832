"""Policy that is conditioned on feedback: SFT of each completion given its prompt and what was said of it.

Good and bad completions train alike, each under its own feedback: critiques in their own words, and where nobody wrote
any, the rating in words. So the policy learns what feedback means without ever imitating it (training on critiques as
targets hurts: ILF, arXiv 2303.16755), and is then asked to write under the best one. How it is asked stands beside its
adapter (`trainer.conditions`), so that whoever generates with this version does it.
"""

from __future__ import annotations

from typing import Any

from storage.configs import TemplateSettings, parse
from storage.critique_configs import ConditionalConfig
from storage.models import Message
from storage.wordings import MIXED, NEGATIVE, Templates, templates_of
from trainer.completions import completion_form
from trainer.conditions import Condition, write_condition
from trainer.datasets import load_splits, messages_of, training_length
from trainer.folder import Job, RunFolder
from trainer.loop import finish, train
from trainer.policy import load_model, load_tokenizer, pick_device, pick_dtype, resolve_base_model
from trainer.recipes.sft import sft_trainer
from trainer.templates import condition_messages, told

GOOD, FAIR = 0.75, 0.4  # ratings from which a completion counts as good, and as fair


def run(folder: RunFolder, job: Job) -> dict[str, Any]:
    """Train a policy in `folder`; returns the figures of the result."""
    config = parse(ConditionalConfig, job.config)
    templates = templates_of(parse(TemplateSettings, job.templates))
    device = pick_device(config.device)
    base = resolve_base_model(job.base_model)

    tokenizer = load_tokenizer(base)
    model = load_model(base, pick_dtype(config.dtype, device), device)
    folder.say(f"base model {job.base_model}: {model.num_parameters():,} parameters, {model.dtype}, on {device}")
    form = completion_form("completions", lambda row: conditioned_prompt(row, templates))
    data, fit = load_splits(folder, tokenizer, training_length(model.config, config.max_length, device), form)

    trainer, watch = sft_trainer(folder, job, config, tokenizer, model, data)
    train(folder, trainer)
    condition = Condition(template=templates.condition, feedback=templates.positive)
    figures = finish(folder, trainer, watch, data, device, form.noun, lambda beside: write_condition(beside, condition))
    return figures | {"writes_under": templates.positive, "fit": fit}


def conditioned_prompt(row: dict[str, Any], templates: Templates) -> list[Message]:
    """The prompt of a row with what was said of its completion."""
    messages = condition_messages(messages_of(row["prompt"]), feedback_in_words(row, templates), templates.condition)
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def feedback_in_words(row: dict[str, Any], templates: Templates) -> str:
    """Everything written about a completion; the rating in words where nobody wrote anything.

    A completion that was rated well and criticised besides is under its critiques: it can be mended.
    """
    said = [told(one["text"] or "", one["fix"], one["tags"] or ()).text for one in row["feedback"] or ()]
    written = " ".join(text for text in said if text)
    if written:
        return written
    rating = row["rating"]
    if rating is None or FAIR <= rating < GOOD:
        return MIXED
    return templates.positive if rating >= GOOD else NEGATIVE
