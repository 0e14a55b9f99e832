"""Pairs in one row: the same rewards, log-probabilities, gradients and losses as two sequences each."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    FalconConfig,
    FalconForSequenceClassification,
)
from trl.trainer.utils import add_fused_lm_head

from tests.trainer.conftest import Executor, FolderMaker
from trainer import shared_prompts
from trainer.shared_prompts import SharedPrompts, log_probs_of, rewards_of

# Shared beginning, chosen, rejected: of all lengths, alike, one the beginning of the other, nothing shared.
PAIRS = [
    ([5, 6, 7, 8, 9, 10], [11, 12, 13], [14]),
    ([5, 6], [20, 21], [20, 21, 22, 23]),
    ([9, 9, 9, 9], [30, 31, 32], [30, 31, 32]),
    ([], [40, 41], [42, 43, 44]),
]
ARGS = SimpleNamespace(bf16=False, fp16=False)


def _batch(labelled: bool) -> dict[str, Any]:
    sequences = [prompt + side for place in (1, 2) for prompt, side in ((pair[0], pair[place]) for pair in PAIRS)]
    width = max(map(len, sequences))
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids in sequences])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in sequences])
    if not labelled:
        return {"input_ids": ids, "attention_mask": mask}
    prompt = torch.tensor([len(pair[0]) for pair in PAIRS] * 2)[:, None]
    labels = ids.masked_fill((mask == 0) | (torch.arange(width) < prompt), -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "fused_lm_head": True}


def _model(base: Path, kind: str) -> Any:
    torch.manual_seed(1)
    if kind == "reward":
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    else:
        model = AutoModelForCausalLM.from_pretrained(base)
        add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    lora = LoraConfig(task_type="SEQ_CLS" if kind == "reward" else "CAUSAL_LM", r=4, target_modules="all-linear")
    model = get_peft_model(model, lora)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, 0, 0.2)
    return model


@pytest.mark.parametrize("kind", ["reward", "policy"])
def test_one_row_or_two_sequences_come_to_the_same(tiny_base: Path, kind: str) -> None:
    model, batch = _model(tiny_base, kind), _batch(kind == "policy")
    model.train()
    how = (rewards_of, "logits") if kind == "reward" else (log_probs_of, "log_probs")
    asked: list[int] = []

    def read(*args: Any) -> Any:
        asked.append(len(args[1]["input_ids"]))
        return how[0](*args)

    said: list[str] = []
    shared = SharedPrompts(read, how[1], model, ARGS, said.append)
    found, gradients = [], []
    for way in (model, lambda **inputs: shared.ask(model, inputs)):
        model.zero_grad()
        output = way(**batch)
        figures = torch.cat([output.log_probs, output.entropy]) if kind == "policy" else output.logits
        (figures * torch.linspace(-1, 1, figures.numel()).view_as(figures)).sum().backward()
        found.append(figures.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert asked == [2, len(PAIRS) * 2], "compared on the first pair, then asked about all"
    assert not said
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)
    assert found[0].std() > 0.1


def test_a_model_with_a_count_of_its_own_is_asked_about_separate_sequences(capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    config = FalconConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, alibi=True, num_labels=1,
        pad_token_id=0, new_decoder_architecture=False, parallel_attn=False,
    )  # fmt: skip
    model = get_peft_model(
        FalconForSequenceClassification(config), LoraConfig(task_type="SEQ_CLS", target_modules="all-linear")
    )
    said: list[str] = []
    shared = SharedPrompts(rewards_of, "logits", model, ARGS, said.append)
    batch = _batch(False)
    for _ in range(2):
        torch.testing.assert_close(shared.ask(model, batch).logits, model(**batch).logits)
    assert len(said) == 1


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_training_takes_the_same_course(
    make_folder: FolderMaker, run: Executor, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    asked = {"epochs": 2, "eval_steps": 3, "learning_rate": 0.01}
    quick = run(make_folder(kind, "quick", **asked))
    monkeypatch.setattr(shared_prompts, "_masks_are_ours", lambda config: False)
    slow = run(make_folder(kind, "slow", **asked))
    for name in ("loss", "eval_loss", "margin"):
        one, other = dict(quick.series(name)), dict(slow.series(name))
        assert one == pytest.approx(other, abs=1e-4), name
    assert quick.result["test_loss"] == pytest.approx(slow.result["test_loss"], abs=1e-4)
