"""The LoRA layers that training goes through: PEFT's, without the tensors in between.

A plain layer writes four tensors as large as its output, x W', (x A') B', its scaled copy and their sum, and as many on
the way back, which takes a processor up to a fourth of the layer's time. Here the small product is added where the
large one stands already. Outputs and gradients are the same up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import Linear


class _InPlace(torch.autograd.Function):
    """x W' + bias + scale (x A') B', for x [tokens, in], W [out, in], A [r, in], B [out, r]; W gets no gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, base: torch.nn.Linear, a: torch.Tensor, b: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """The output, [tokens, out]."""
        inner = x @ a.t()
        ctx.save_for_backward(x, a, b, inner)
        ctx.base, ctx.scale = base, scale
        return torch.nn.functional.linear(x, base.weight, base.bias).addmm_(inner, b.t(), alpha=scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Of x, A and B."""
        (of_output,) = gradients
        x, a, b, inner = ctx.saved_tensors
        of_inner = of_output @ b
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (of_output @ ctx.base.weight).addmm_(of_inner, a, alpha=ctx.scale)
        return of_x, None, (of_inner.t() @ x).mul_(ctx.scale), (of_output.t() @ inner).mul_(ctx.scale), None


class QuickLinear(Linear):
    """PEFT's layer, the quick way where it is one adapter on a plain layer and nobody changes types in between."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """As PEFT's."""
        base, name = self.get_base_layer(), self.active_adapters[0]
        if args or kwargs or not self._is_plain(x, base):
            return super().forward(x, *args, **kwargs)
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        apply: Any = _InPlace.apply
        return apply(x.reshape(-1, x.shape[-1]), base, a, b, self.scaling[name]).view(*x.shape[:-1], -1)

    def _is_plain(self, x: torch.Tensor, base: Any) -> bool:
        if self.disable_adapters or self.merged or self.lora_variant or len(self.active_adapters) != 1:
            return False
        name = self.active_adapters[0]
        if name not in self.lora_A or self.lora_A[name].bias is not None or self.lora_B[name].bias is not None:
            return False
        one_type = x.dtype == base.weight.dtype == self.lora_A[name].weight.dtype
        plain = isinstance(self.lora_dropout[name], torch.nn.Identity) and type(base) is torch.nn.Linear
        return one_type and plain and not base.weight.requires_grad and not torch.is_autocast_enabled(x.device.type)


def quickly(config: LoraConfig) -> LoraConfig:
    """`config`, with quick layers; what is saved is the same."""
    config._register_custom_module({torch.nn.Linear: QuickLinear})
    return config
