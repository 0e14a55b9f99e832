"""Reward and DPO training with the real TRL, on a tiny model for a few steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from storage.configs import DpoConfig, RewardConfig, parse
from storage.enums import Split
from storage.errors import TrainingFailed
from tests.trainer.conftest import Executor, FolderMaker, rows_of
from trainer.callbacks import EventCallback
from trainer.datasets import tokenised
from trainer.ensemble import heads_of, read_ensemble, times_drawn
from trainer.folder import RunFolder
from trainer.loop import adapter_config, trainer_arguments
from trainer.recipes.dpo import DpoCollator, WeightedDpoTrainer
from trainer.recipes.reward import RewardCollator, WeightedRewardTrainer
from trainer.scoring import head_rewards, score_completions

STEPS = {"max_steps": 3, "eval_steps": 3}


def _trainer(folder: RunFolder, base: Path, kind: str) -> Any:
    """The recipe's trainer, held before it trains."""
    from trl import DPOConfig as TrlDpoConfig
    from trl import RewardConfig as TrlRewardConfig

    job = folder.job()
    tokenizer = AutoTokenizer.from_pretrained(base)
    data = {split: tokenised(folder, split, tokenizer, 256)[0] for split in Split}
    torch.manual_seed(0)
    common: dict[str, Any] = {"train_dataset": data[Split.TRAIN], "eval_dataset": data[Split.VALIDATION]}
    common |= {"processing_class": tokenizer, "folder": folder}
    if kind == "reward":
        settings = parse(RewardConfig, job.config)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=settings.heads)
        model.config.num_labels = 1  # as the recipe: TRL refuses any other number
        args = TrlRewardConfig(**trainer_arguments(folder, settings, 0, "cpu", model, data), max_length=None)
        collator: Any = RewardCollator(tokenizer.pad_token_id, heads=settings.heads)
        peft = adapter_config(settings, "SEQ_CLS")
        return WeightedRewardTrainer(model=model, args=args, data_collator=collator, peft_config=peft, **common)
    model = AutoModelForCausalLM.from_pretrained(base)
    config = parse(DpoConfig, job.config)
    args = TrlDpoConfig(
        **trainer_arguments(folder, config, 0, "cpu", model, data),
        max_length=None, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.2], beta=0.3,
    )  # fmt: skip
    collator = DpoCollator(tokenizer.pad_token_id)
    peft = adapter_config(config, "CAUSAL_LM")
    return WeightedDpoTrainer(model=model, args=args, data_collator=collator, peft_config=peft, **common)


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_training_changes_every_trainable_parameter_and_nothing_else(
    make_folder: FolderMaker, tiny_base: Path, kind: str
) -> None:
    trainer = _trainer(make_folder(kind, **STEPS), tiny_base, kind)
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    for name, value in trainer.model.named_parameters():
        changed = not torch.equal(before[name], value)
        assert changed == value.requires_grad, name
    trained = [name for name, value in trainer.model.named_parameters() if value.requires_grad]
    assert len(trained) == 2 * 7 * 2 + (kind == "reward")  # A and B of seven linears in two layers, and the head


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_the_published_adapter_gives_the_same_logits_in_plain_peft(
    make_folder: FolderMaker, run: Executor, tiny_base: Path, kind: str
) -> None:
    outcome = run(make_folder(kind, **STEPS, early_stopping=False))
    assert outcome.code == 0, outcome.events[-1]
    out = outcome.folder.out
    beside = ["reward.json"] if kind == "reward" else []
    assert sorted(path.name for path in out.iterdir()) == ["adapter_config.json", "adapter_model.safetensors", *beside]
    ids = torch.tensor([[3, 20, 30, 40, 1]])
    if kind == "reward":
        bare: Any = AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=heads_of(out))
        bare.config.pad_token_id = 0
        head = load_file(out / "adapter_model.safetensors")["base_model.model.score.weight"]
    else:
        bare = AutoModelForCausalLM.from_pretrained(tiny_base)
    base_logits = bare(ids).logits
    loaded = PeftModel.from_pretrained(bare, out)
    first = loaded(ids).logits
    assert not torch.allclose(first, base_logits, atol=1e-4)
    if kind == "reward":
        assert torch.equal(loaded.base_model.model.score.modules_to_save["default"].weight, head)
    # The newest checkpoint is what was published, loaded the way the trainer does.
    checkpoint = max(outcome.folder.checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert (checkpoint / "adapter_model.safetensors").read_bytes() == (out / "adapter_model.safetensors").read_bytes()


def test_reward_learns_and_reports_by_split_beside_its_baselines(make_folder: FolderMaker, run: Executor) -> None:
    outcome = run(make_folder("reward", train=64, held_out=20, epochs=6, learning_rate=0.02, lora_r=8))
    result = outcome.result
    assert result["test_accuracy"] >= 0.8
    assert result["test_pairs"] == result["validation_pairs"] == 20
    rows = rows_of(20, 3)
    assert result["test_first_wins"] == pytest.approx(sum(r["chosen_id"] < r["rejected_id"] for r in rows) / 20)
    assert 0.5 < result["test_longer_wins"] <= 1  # the chosen one has a word more
    assert result["fit"]["train"]["kept"] == 64
    assert result["peak_memory_mb"] > 50
    assert result["tokens_per_second"] > 0
    environment = json.loads(outcome.folder.environment.read_text())
    assert environment["packages"]["trl"].startswith("1.")
    assert environment["device"] == "cpu"


def test_dpo_begins_at_its_reference_and_moves_away(make_folder: FolderMaker, run: Executor) -> None:
    outcome = run(make_folder("dpo", train=48, epochs=4, learning_rate=0.01, early_stopping=False))
    margins = [value for _, value in outcome.series("margin")]
    assert margins[0] == pytest.approx(0, abs=1e-5)
    assert margins[-1] is not None
    assert margins[-1] > 0.2
    assert outcome.result["test_accuracy"] > 0.7
    names = {name for event in outcome.events if event["event"] == "metrics" for name in event["values"]}
    assert {"loss", "eval_loss", "accuracy", "eval_accuracy", "margin", "tokens_per_second"} <= names


def test_accuracy_on_held_out_pairs_is_exact_whatever_the_batches(make_folder: FolderMaker, run: Executor) -> None:
    result = run(make_folder("reward", held_out=9, **STEPS)).result  # batches of 8 and 1
    assert result["test_accuracy"] * 9 == pytest.approx(round(result["test_accuracy"] * 9), abs=1e-4)


def test_early_stopping_keeps_the_best_checkpoint(make_folder: FolderMaker, run: Executor) -> None:
    # Nothing can be learnt from pairs whose sides are alike in kind: held-out loss rises soon.
    rows = rows_of(16, 5)
    for row in rows[::2]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    outcome = run(make_folder("dpo", rows=rows, epochs=40, learning_rate=0.02, eval_steps=2))
    result = outcome.result
    losses = dict(outcome.series("eval_loss"))
    assert result["stopped_early"]
    assert result["kept_step"] == min(losses, key=lambda step: losses[step] or 0.0)
    assert result["validation_loss"] == pytest.approx(losses[result["kept_step"]], rel=1e-4)


def test_without_held_out_pairs_heads_begin_where_the_last_steps_left_them(
    make_folder: FolderMaker, run: Executor, tiny_base: Path
) -> None:
    # 16 pairs, all in the last two batches, and steps so small that the model stays what it was.
    rows = rows_of(16, 5)
    trained = run(make_folder("reward", held_out=0, rows=rows, epochs=2, learning_rate=1e-9))
    written = [(row["prompt"], row[side][0]["content"]) for row in rows for side in ("chosen", "rejected")]
    above = np.array(head_rewards(str(tiny_base), {"v1": trained.folder.out}, written, device="cpu")["v1"])
    assert above.shape == (32, 4)
    assert above.mean(0) == pytest.approx(np.zeros(4), abs=1e-4)
    assert np.ptp(read_ensemble(trained.folder.out).offsets) > 1e-3


def test_an_ensemble_is_several_models_in_one_pass(
    make_folder: FolderMaker, run: Executor, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"train": 64, "held_out": 20, "epochs": 6, "learning_rate": 0.02, "eval_steps": 4}
    whole = run(make_folder("reward", "whole", **asked))
    assert whole.result["heads"] == 4
    assert whole.result["test_accuracy"] >= 0.8
    ensemble = read_ensemble(whole.folder.out)
    assert ensemble.heads == heads_of(whole.folder.out) == 4
    assert ensemble.temperature == whole.result["temperature"] > 0
    written = [(row["prompt"], row[side][0]["content"]) for row in rows_of(8, 9) for side in ("chosen", "rejected")]
    scored = head_rewards(str(tiny_base), {"reward-v1": whole.folder.out}, written, device="cpu")["reward-v1"]
    table = np.array(scored)
    assert table.shape == (16, 4)
    assert min(np.ptp(one) for one in table) > 1e-3, "no two heads alike"
    # Killed after its first checkpoint: the second half is the same as without.
    broken = make_folder("reward", "broken", **asked)
    monkeypatch.setattr(EventCallback, "on_evaluate", _stop_at(8, EventCallback.on_evaluate))
    assert run(broken).code != 0
    monkeypatch.undo()
    resumed = run(broken)
    assert resumed.series("loss")[-1] == whole.series("loss")[-1]
    assert (broken.out / "reward.json").read_text() == (whole.folder.out / "reward.json").read_text()
    # One head is what a reward model was before, and is scored as one.
    single = run(make_folder("reward", "single", heads=1, **STEPS))
    (single.folder.out / "reward.json").unlink()
    assert read_ensemble(single.folder.out).offsets == (0.0,)
    both = {"reward-v1": whole.folder.out, "reward-v2": single.folder.out}
    opinions = score_completions(str(tiny_base), both, written, device="cpu")
    assert [one and one.spread for one in opinions["reward-v2"]] == [None] * 16
    assert [one and one.value for one in opinions["reward-v1"]] == pytest.approx(table.mean(1).tolist(), abs=1e-4)


def _stop_at(step: int, then: Any) -> Any:
    def stop(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= step:
            raise KeyError("killed")
        then(self, args, state, control, **kwargs)

    return stop


def test_resamples_follow_from_prompt_head_and_seed() -> None:
    prompts = list(range(4000))
    drawn = times_drawn(prompts, 4, 1)
    assert drawn.mean() == pytest.approx(1, abs=0.03)
    assert drawn.var() == pytest.approx(1, abs=0.08)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.06, "each head has its own"
    assert (times_drawn(prompts[::-1], 4, 1)[::-1] == drawn).all()
    assert (times_drawn(prompts, 4, 2) != drawn).any()
    assert (times_drawn(prompts, 1, 1) == 1).all()


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_the_same_seed_gives_the_same_losses_and_another_does_not(
    make_folder: FolderMaker, run: Executor, kind: str
) -> None:
    runs = [run(make_folder(kind, f"run{n}", seed=seed, **STEPS)) for n, seed in enumerate((7, 7, 8))]
    first, same, other = (outcome.series("loss") for outcome in runs)
    assert len(first) == 3
    assert first == same
    assert first != other


def test_a_precomputed_reference_gives_the_same_losses(make_folder: FolderMaker, run: Executor) -> None:
    outcomes = [
        run(make_folder("dpo", str(before), epochs=2, eval_steps=3, precompute_reference=before))
        for before in (False, True)
    ]
    for name in ("loss", "eval_loss", "margin"):
        lazily, before = (dict(outcome.series(name)) for outcome in outcomes)
        assert lazily == pytest.approx(before, abs=2e-5), name
    assert outcomes[0].result["test_loss"] == pytest.approx(outcomes[1].result["test_loss"], abs=2e-5)


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_equal_weights_are_no_weights(make_folder: FolderMaker, run: Executor, kind: str) -> None:
    losses = [
        run(make_folder(kind, str(weight), rows=rows_of(24, 1, weight=weight), **STEPS)).series("loss")
        for weight in (1.0, 0.25)
    ]
    for (_, heavy), (_, light) in zip(*losses, strict=True):
        assert heavy == pytest.approx(light, abs=1e-6)


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_a_pairs_weight_multiplies_its_loss(make_folder: FolderMaker, tiny_base: Path, kind: str) -> None:
    trainer = _trainer(make_folder(kind, **STEPS), tiny_base, kind)
    if kind == "reward":
        trainer.args.center_rewards_coefficient = None
    else:
        trainer.loss_weights = [1.0, 0.0]
    with torch.no_grad():  # away from the start, where all pairs of DPO have the same loss
        for name, value in trainer.model.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.3)
    trainer.state.global_step = 1
    trainer.model.train()
    rows = [trainer.train_dataset[index] for index in range(2)]

    def loss_of(*weights: float) -> float:
        batch = trainer.data_collator([row | {"weight": w} for row, w in zip(rows, weights, strict=True)])
        return float(trainer.compute_loss(trainer.model, batch).detach())

    first, second = loss_of(2.0, 0.0), loss_of(0.0, 2.0)
    assert first != pytest.approx(second, abs=1e-3)
    assert loss_of(1.0, 1.0) == pytest.approx((first + second) / 2, rel=1e-4)
    assert loss_of(1.5, 0.5) == pytest.approx((1.5 * first + 0.5 * second) / 2, rel=1e-4)


def test_a_policy_that_does_not_start_at_its_reference_is_refused(make_folder: FolderMaker, tiny_base: Path) -> None:
    trainer = _trainer(make_folder("dpo", **STEPS), tiny_base, "dpo")
    with torch.no_grad():
        for name, value in trainer.model.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.3)
    with pytest.raises(TrainingFailed, match="does not start from its reference"):
        trainer.train()


def test_without_held_out_pairs_training_still_works(make_folder: FolderMaker, run: Executor) -> None:
    outcome = run(make_folder("dpo", held_out=0, **STEPS))
    assert outcome.code == 0
    assert outcome.result["steps"] == 3
    assert "test_accuracy" not in outcome.result
