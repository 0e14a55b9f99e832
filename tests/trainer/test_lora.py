"""LoRA layers that add in place: what PEFT's give, forward and backward; PEFT's own way where there is more to it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear

from trainer.lora import QuickLinear, quickly


def _models(**options: Any) -> list[Any]:
    """The same weights, in PEFT's layers and in quick ones."""
    made = []
    for way in (lambda config: config, quickly):
        torch.manual_seed(0)
        layers = torch.nn.Sequential(torch.nn.Linear(12, 20, bias=True), torch.nn.Tanh(), torch.nn.Linear(20, 7))
        model = get_peft_model(layers, way(LoraConfig(r=4, lora_alpha=6, target_modules=["0", "2"], **options)))
        for name, value in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(value)
        made.append(model.train())
    return made


@pytest.mark.parametrize("way", ["plain", "disabled", "autocast", "dora", "merged", "two adapters"])
def test_outputs_and_gradients_are_those_of_peft(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    asked: list[bool] = []
    original = QuickLinear._is_plain
    monkeypatch.setattr(QuickLinear, "_is_plain", lambda *a: asked.append(original(*a)) or asked[-1])
    torch.manual_seed(1)
    x = torch.randn(3, 5, 12)
    for model in _models(use_dora=way == "dora"):
        if way == "two adapters":
            model.add_adapter("other", LoraConfig(r=2, target_modules=["0", "2"], init_lora_weights=False))
            model.base_model.set_adapter(["default", "other"])
            for name, value in model.named_parameters():
                if "other" in name:
                    torch.nn.init.constant_(value, 0.1)
        elif way == "merged":
            model.merge_adapter()
        context = {"disabled": model.disable_adapter, "autocast": lambda: torch.autocast("cpu", torch.bfloat16)}
        asking = x.clone().requires_grad_()
        with context.get(way, nullcontext)():
            output = model(asking).float()
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        gradients = [value.grad for name, value in model.named_parameters() if "lora_" in name]
        found.append([output.detach(), asking.grad, *[one for one in gradients if one is not None]])
    assert asked == [way == "plain"] * 2
    assert len(found[0]) == len(found[1])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_the_first_layer_owes_no_gradient_to_its_input_and_the_base_gets_none() -> None:
    (_, model) = _models()
    model(torch.randn(4, 12)).sum().backward()
    layers = [module for module in model.modules() if isinstance(module, Linear)]
    assert [type(layer) for layer in layers] == [QuickLinear, QuickLinear]
    assert all(layer.base_layer.weight.grad is None for layer in layers)
    assert all(layer.lora_A["default"].weight.grad.abs().sum() > 0 for layer in layers)
