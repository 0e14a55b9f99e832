"""SFT, KTO and conditional training with the real TRL, on a tiny model for a few steps."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from storage.configs import SamplingSettings
from storage.errors import NotEnoughData
from storage.wordings import MIXED, NEGATIVE, POSITIVE, Templates
from tests.trainer.conftest import Executor, FolderMaker, single_rows_of
from trainer.conditions import read_condition
from trainer.folder import RunFolder
from trainer.policy import Request, make_generator
from trainer.recipes.conditional import feedback_in_words
from trainer.recipes.kto import label_weights
from trainer.templates import condition_messages

KINDS = ["sft", "kto", "conditional"]
STEPS: dict[str, Any] = {"max_steps": 3, "eval_steps": 3}


class _Held(Exception):
    """Carries a trainer out of its recipe before it trains."""


def _held(folder: RunFolder, kind: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The recipe's own trainer, held before it trains."""
    recipe = importlib.import_module(f"trainer.recipes.{kind}")

    def hold(_: RunFolder, trainer: Any) -> None:
        raise _Held(trainer)

    monkeypatch.setattr(recipe, "train", hold)
    with pytest.raises(_Held) as held:
        recipe.run(folder, folder.job())
    return held.value.args[0]


@pytest.mark.parametrize("kind", KINDS)
def test_training_changes_every_trainable_parameter_by_weighted_rows_and_nothing_else(
    make_folder: FolderMaker, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    asked = STEPS | ({"anchor_share": 0} if kind == "sft" else {})
    trainer = _held(make_folder(kind, **asked), kind, monkeypatch)
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    for name, value in trainer.model.named_parameters():
        assert (not torch.equal(before[name], value)) == value.requires_grad, name
    trained = [name for name, value in trainer.model.named_parameters() if value.requires_grad]
    assert len(trained) == 2 * 7 * 2  # A and B of seven linears in two layers

    trainer.model.train()
    rows = [trainer.train_dataset[index] for index in range(4)]

    def loss_of(*weights: float) -> float:
        batch = trainer.data_collator([row | {"weight": w} for row, w in zip(rows, weights, strict=True)])
        return float(trainer.compute_loss(trainer.model, batch).detach())

    alone = [loss_of(*(4.0 * (place == own) for place in range(4))) for own in range(4)]
    assert max(alone) - min(alone) > 1e-3
    assert loss_of(1, 1, 1, 1) == pytest.approx(sum(alone) / 4, rel=1e-4)
    assert loss_of(2, 1, 0.5, 0.5) == pytest.approx(
        (2 * alone[0] + alone[1] + 0.5 * alone[2] + 0.5 * alone[3]) / 4, rel=1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
def test_equal_weights_are_no_weights_and_figures_have_the_common_names(
    make_folder: FolderMaker, run: Executor, tiny_base: Path, kind: str
) -> None:
    outcomes = [
        run(make_folder(kind, str(weight), rows=single_rows_of(24, 1, weight=weight), **STEPS, early_stopping=False))
        for weight in (1.0, 0.25)
    ]
    assert outcomes[0].code == 0, outcomes[0].events[-1]
    for name in ("loss", "eval_loss"):
        heavy, light = (dict(outcome.series(name)) for outcome in outcomes)
        assert heavy == pytest.approx(light, abs=1e-6), name
    names = {name for event in outcomes[0].events if event["event"] == "metrics" for name in event["values"]}
    own = {"accuracy", "eval_accuracy", "margin"} if kind == "kto" else {"token_accuracy", "eval_token_accuracy"}
    assert {"loss", "eval_loss", "tokens_per_second", *own} <= names
    result = outcomes[0].result
    assert result["test_loss"] > 0
    assert result["fit"]["train"]["kept"] == 24
    ids = torch.tensor([[3, 20, 30, 40, 1]])
    bare = AutoModelForCausalLM.from_pretrained(tiny_base)
    base_logits = bare(ids).logits
    assert not torch.allclose(
        PeftModel.from_pretrained(bare, outcomes[0].folder.out)(ids).logits, base_logits, atol=1e-4
    )


def test_sft_learns_refinements_and_the_base_model_is_its_anchor(make_folder: FolderMaker, run: Executor) -> None:
    rows = [row for row in single_rows_of(48, 1) if row["label"]]
    asked = {"rows": rows, "epochs": 4, "learning_rate": 0.02, "early_stopping": False}
    anchored = run(make_folder("sft", "anchored", **asked, anchor_share=2.0, anchor_weight=1.0))
    free = run(make_folder("sft", "free", **asked, anchor_share=0))
    assert anchored.result["train_refinements"] == free.result["train_refinements"] == 24
    assert free.result["anchors"] == 0
    assert 0 < anchored.result["anchors"] <= 48
    written = [json.loads(line) for line in (anchored.folder.path / "anchors.jsonl").read_text("utf-8").splitlines()]
    assert len(written) == anchored.result["anchors"]
    assert len({json.dumps(row["prompt"]) for row in written}) > 1
    losses = [value for _, value in free.series("loss")]
    assert losses[0] is not None
    assert losses[-1] is not None
    assert losses[-1] < losses[0] - 0.5
    # The mixture asks for less of the same, so it goes less far from the base.
    assert anchored.result["test_loss"] != pytest.approx(free.result["test_loss"], abs=1e-3)


def test_a_conditional_policy_writes_under_positive_feedback(
    make_folder: FolderMaker, run: Executor, tiny_base: Path
) -> None:
    outcome = run(make_folder("conditional", epochs=2, learning_rate=0.02, early_stopping=False))
    out = outcome.folder.out
    condition = read_condition(out)
    assert condition is not None
    assert condition.feedback == outcome.result["writes_under"] == POSITIVE
    sampling = SamplingSettings(temperature=0.0, max_new_tokens=8)
    generate = make_generator(str(tiny_base), {"policy-v1": out, "policy-v0": None}, sampling, device="cpu")
    prompt = [{"role": "user", "content": "late parcel blue lamp"}]
    worded = [dict(message) for message in condition_messages(prompt, POSITIVE)]
    asked, plain, by_hand, base = generate(
        [
            Request(prompt, "policy-v1"),
            Request(prompt, "policy-v1", plain=True),
            Request(worded, "policy-v1", plain=True),
            Request(prompt, "policy-v0"),
        ],
        1,
    )
    assert asked is not None
    assert by_hand is not None
    assert plain is not None
    assert base is not None
    assert (asked.text, asked.mean_logprob) == (by_hand.text, pytest.approx(by_hand.mean_logprob, abs=1e-4))
    assert asked.mean_logprob != pytest.approx(plain.mean_logprob, abs=1e-4)


def _said(text: str = "", fix: str | None = None, tags: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"text": text, "fix": fix, "tags": list(tags), "span_start": None, "span_end": None}


@pytest.mark.parametrize(
    ("feedback", "rating", "words"),
    [
        ([_said("Too long."), _said("Wrong name.", "Write Ann.")], 1.0, "Too long. Wrong name. Write Ann."),
        ([_said(tags=("vague",))], 0.9, "vague"),
        ([_said("  ")], 0.9, POSITIVE),
        ([], 0.75, POSITIVE),
        ([], 0.5, MIXED),
        ([], None, MIXED),
        ([], 0.0, NEGATIVE),
    ],
)
def test_feedback_is_put_into_words(feedback: list[dict[str, Any]], rating: float | None, words: str) -> None:
    assert feedback_in_words({"feedback": feedback, "rating": rating}, Templates()) == words


def test_kto_tells_good_from_bad_and_starts_at_its_reference(make_folder: FolderMaker, run: Executor) -> None:
    outcome = run(make_folder("kto", train=48, epochs=5, learning_rate=0.02, early_stopping=False))
    margins = [value for _, value in outcome.series("margin")]
    assert margins[0] == pytest.approx(0, abs=1e-4)
    assert margins[-1] is not None
    assert margins[-1] > 0.1
    assert outcome.result["test_accuracy"] > 0.6
    assert outcome.result["test_completions"] == 8


def test_kto_weighs_the_rarer_label_more_and_needs_both(make_folder: FolderMaker, run: Executor) -> None:
    assert label_weights([True, False]) == (1.0, 1.0)
    assert label_weights([True, True, True, False]) == (1.0, 3.0)
    assert label_weights([False] * 99 + [True]) == (10.0, 1.0)
    with pytest.raises(NotEnoughData, match="good"):
        label_weights([True, True])
    only = [row for row in single_rows_of(40) if not row["label"]]
    outcome = run(make_folder("kto", rows=only))
    assert outcome.code == 1
    assert outcome.error["mendable"]
    assert "all 20 rated completions are bad" in outcome.error["message"]


def test_sdft_refuses_small_models_and_trains_them_when_told_to(
    make_folder: FolderMaker, run: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = run(make_folder("sdft", "small"))
    assert small.code == 1
    assert small.error["mendable"]
    assert "sdft needs a model that can use a critique" in small.error["message"]
    asked: dict[str, Any] = {
        "min_parameters": 0, "max_new_tokens": 6, "samples": 2, "batch_size": 4, "learning_rate": 0.01,
        "early_stopping": False,
    }  # fmt: skip
    outcome = run(make_folder("sdft", "told", **STEPS, **asked))
    assert outcome.code == 0, outcome.events[-1]
    assert outcome.result["train_completions"] == 12, "the others were not criticised"
    assert any("12 left out (nothing was written about it)" in event.get("text", "") for event in outcome.events)
    names = {name for event in outcome.events if event["event"] == "metrics" for name in event["values"]}
    assert {"loss", "eval_loss", "distillation_loss"} <= names

    trainer = _held(make_folder("sdft", "held", **STEPS, **asked), "sdft", monkeypatch)
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    shown = trainer.teacher_context_builder._compose_teacher_prompt(*list(trainer.train_dataset[0].values())[:2])
    assert shown[-1]["content"].startswith(trainer.train_dataset[0]["prompt"][-1]["content"])
    assert "Feedback on that reply: no thanks" in shown[-1]["content"]
    trainer.train()
    for name, value in trainer.model.named_parameters():
        assert (not torch.equal(before[name], value)) == value.requires_grad, name
    trainer.model.train()
    rows = [trainer.train_dataset[index] for index in range(2)]
    torch.manual_seed(0)
    batch = trainer._prepare_training_batch(rows)

    def loss_of(*weights: float) -> float:
        return float(trainer.compute_loss(trainer.model, {**batch, "weight": torch.tensor(weights)}).detach())

    first, second = loss_of(2.0, 0.0), loss_of(0.0, 2.0)
    assert first != pytest.approx(second, abs=1e-6)
    assert loss_of(1.0, 1.0) == pytest.approx((first + second) / 2, rel=1e-4)
