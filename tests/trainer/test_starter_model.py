"""The model that ships: it loads the way any other would, and speaks its grammar."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import trainer
from benchmarks.starter import FOLDER, balanced_accuracy, judged, load, refine_share, sample
from storage.wordings import NO, YES
from trainer.starter import checker, grammar
from trainer.starter.lessons import write_lesson
from trainer.starter.tokens import encode_lesson

TRAINER = Path(trainer.__file__).parent


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


def test_no_training_code_imports_the_checker() -> None:
    guilty = []
    for file in TRAINER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
            if any(name.endswith("checker") for name in names):
                guilty.append(str(file))
    assert guilty == []


def test_the_folder_is_whole_and_small() -> None:
    files = {file.name for file in FOLDER.iterdir()}
    wanted = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert wanted <= files
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 10 * 2**20


@pytest.mark.parametrize(
    "text", ["Zoë owes 1,234.50 € — 日本語 🙂 \t\n x", " leading", "<|user", "\u0000\u200b", "#48213"]
)
def test_any_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_every_digit_is_one_token_wherever_it_stands(tokenizer: Any) -> None:
    digits = set(tokenizer.convert_tokens_to_ids(list("0123456789")))
    for text in ("order #48213.", "48213", "in 48213 days", "A48213B"):
        assert sum(token in digits for token in tokenizer(text)["input_ids"]) == 5


def test_the_chat_template_writes_what_the_model_was_taught(tokenizer: Any) -> None:
    rng = random.Random(0)
    for _ in range(50):
        lesson = write_lesson(rng, (1, 1, 1, 1))
        messages = [{"role": turn.role, "content": turn.content} for turn in lesson]
        ids, _ = encode_lesson(tokenizer, lesson)
        assert tokenizer.apply_chat_template(messages, return_dict=False) == ids


def test_every_prefix_of_turns_is_a_prefix_of_the_text(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi "},
        {"role": "assistant", "content": " Hello\n"},
        {"role": "user", "content": "Again?"},
        {"role": "assistant", "content": "Yes."},
    ]
    whole = tokenizer.apply_chat_template(messages, return_dict=False)
    for end in (2, 4):
        asked = tokenizer.apply_chat_template(messages[:end], add_generation_prompt=True, return_dict=False)
        assert whole[: len(asked)] == asked
    masked = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    learned = [i for i, m in zip(masked["input_ids"], masked["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(learned) == " Hello\n<|end|>Yes.<|end|>"
    assert len(tokenizer(YES)["input_ids"]) == len(tokenizer(NO)["input_ids"]) == 1


def test_special_tokens_agree_between_model_and_tokenizer(tokenizer: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    assert model.config.max_position_embeddings >= 1024
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert len(tokenizer) == model.config.vocab_size
    for config in (model.config, model.generation_config):
        assert config.eos_token_id == tokenizer.eos_token_id is not None
        assert config.pad_token_id == tokenizer.pad_token_id is not None
        assert config.bos_token_id == tokenizer.bos_token_id


def test_it_loads_as_a_reward_model_and_scores_a_batch(tokenizer: Any) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(FOLDER, num_labels=1, dtype=torch.float32)
    inputs = tokenizer(["a", "a longer one"], return_tensors="pt", padding=True, padding_side="right")
    with torch.inference_mode():
        assert model(**inputs).logits.shape == (2, 1)


def test_it_replies_and_refines_for_requests_it_has_never_seen() -> None:
    # A smoke test of the shipped weights; every quality bar stands in benchmarks/starter.py, with its figure.
    torch.manual_seed(0)
    starter = load(FOLDER)
    requests = grammar.sample_prompts(40, seed=77, held_out=True)
    replies = sample(starter, [request.messages for request in requests])
    assert len(set(replies)) >= 35
    assert sum(checker.read_reply(r, text) is not None for r, text in zip(requests, replies, strict=True)) >= 34
    stated = [
        order == request.order
        for request, reply in zip(requests, replies, strict=True)
        for order in checker.mentions(reply).orders
    ]
    assert len(stated) >= 10
    assert sum(stated) >= 0.9 * len(stated)
    assert refine_share(starter, requests, replies, seed=1)["both"] >= 0.75


def test_its_judge_tells_met_from_unmet() -> None:
    requests = grammar.sample_prompts(120, seed=78, held_out=True)
    assert balanced_accuracy(judged(load(FOLDER), requests, seed=2)) >= 0.8
