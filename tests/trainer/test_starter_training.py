"""The script that makes the starter, at a size that takes seconds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from trainer.starter import train_starter
from trainer.starter.muon import Muon, orthogonalise
from trainer.starter.tokens import make_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer(seed=0, lessons=300)


def test_a_short_training_changes_every_weight_and_can_be_loaded_and_continued(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_starter, "TOKENS_PER_STEP", 512)
    monkeypatch.setattr(train_starter, "POOL", 16)
    model = train_starter.make_model(len(tokenizer), seed=0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    out = tmp_path / "starter"
    result = train_starter.train(model, tokenizer, minutes=0.1, seed=0, out=out)
    assert result["steps"] >= 2
    assert [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])] == []
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert loaded.dtype == torch.bfloat16
    for name, weight in loaded.named_parameters():
        torch.testing.assert_close(weight, model.get_parameter(name).to(torch.bfloat16))
    assert AutoTokenizer.from_pretrained(out).chat_template == tokenizer.chat_template
    assert not (tmp_path / "starter.new").exists()


def test_targets_are_the_turns_that_count_and_padding_does_not(tokenizer: Any) -> None:
    torch.manual_seed(0)
    model = train_starter.make_model(len(tokenizer), seed=0)
    batches = train_starter.lesson_batches(tokenizer, random.Random(0))
    ids, weights = next(batches)
    assert ids.numel() <= train_starter.TOKENS_PER_STEP
    assert weights[ids == train_starter.PAD].sum() == 0
    few = (ids[:2], weights[:2])
    longer = (
        torch.cat([few[0], torch.full((2, 9), train_starter.PAD)], 1),
        torch.cat([few[1], torch.zeros(2, 9)], 1),
    )
    torch.testing.assert_close(train_starter.loss_of(model, few), train_starter.loss_of(model, longer))


def test_the_same_seed_gives_the_same_tokenizer_model_and_lessons(tokenizer: Any) -> None:
    again = make_tokenizer(seed=0, lessons=300)
    assert again.get_vocab() == tokenizer.get_vocab()
    first, second = (next(train_starter.lesson_batches(tokenizer, random.Random(4))) for _ in range(2))
    assert torch.equal(first[0], second[0])
    models: list[LlamaForCausalLM] = [train_starter.make_model(len(tokenizer), seed=3) for _ in range(2)]
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_fresh_model_copies_before_any_training(tokenizer: Any) -> None:
    ready = train_starter.make_model(len(tokenizer), seed=0)
    blank = LlamaForCausalLM(ready.config)
    once = torch.randint(5, len(tokenizer), (8, 20), generator=torch.Generator().manual_seed(1))
    batch = torch.cat([once, once], 1), torch.cat([torch.zeros(8, 21), torch.ones(8, 19)], 1)
    with torch.inference_mode():
        assert train_starter.loss_of(ready, batch) < 0.8 * train_starter.loss_of(blank, batch)


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 40, 16), (2, 16, 40)])
def test_a_muon_update_stretches_every_direction_alike(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    updates = orthogonalise(matrices)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    along = (left.mT @ updates @ right.mT).diagonal(dim1=1, dim2=2)
    assert along.min() > 0.3  # the nearest orthogonal matrix has ones here
    assert along.max() < 1.3
    assert updates.shape == matrices.shape


def test_muon_goes_downhill_whatever_the_gradient_s_size() -> None:
    for size in (1e-3, 1e3):
        weight = torch.nn.Parameter(torch.full((6, 4), 2.0) + torch.eye(6, 4))
        optimizer = Muon([weight], lr=0.1)
        before = float(weight.detach().square().sum())
        for _ in range(40):
            optimizer.zero_grad()
            (size * weight.square().sum()).backward()
            optimizer.step()
        assert float(weight.detach().square().sum()) < 0.8 * before


def test_the_rate_rises_stays_and_ends_at_nothing() -> None:
    assert train_starter.rate(0.0) == 0.0
    assert train_starter.rate(train_starter.WARM_UP) == 1.0
    assert train_starter.rate(1 - train_starter.COOL_DOWN) == 1.0
    assert 0 < train_starter.rate(0.9) < train_starter.rate(0.7) < 1
    assert train_starter.rate(1.0) == 0.0
