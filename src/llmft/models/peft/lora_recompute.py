"""LoRA beside bfloat16 weights: what its first matrix needs again is kept as it came, and not in float32 for each layer anew."""

from typing import Any

import torch
from torch import Tensor, nn


def keep_narrow(model: Any) -> None:
    """Let the LoRA matrices beside frozen bfloat16 weights share the input that they keep for the backward pass.

    peft makes a float32 copy of the input for each of them (q, k and v have the same one), and with dropout torch keeps the
    noise and the product in float32 too: a third to a half of all that a LoRA training of SmolLM2 keeps. The copy is made
    again in the backward pass instead; from the same bits come the same bits.

    Args:
        model: A peft model; of its layers those that are not vanilla LoRA, or not in bfloat16, stay as they are.
    """
    from peft.tuners.lora import Linear

    for layer in model.modules():
        if (
            isinstance(layer, Linear)
            and not layer.lora_variant
            and layer.get_base_layer().weight.dtype == torch.bfloat16
        ):
            for name in list(layer.lora_A):
                dropout: Any = layer.lora_dropout[name]
                layer.lora_A[name] = LoraARecompute(layer.lora_A[name], getattr(dropout, "p", 0.0))  # pyright: ignore[reportArgumentType]
                layer.lora_dropout[name] = nn.Identity()
            layer.cast_input_dtype_enabled = False


class LoraARecompute(nn.Linear):
    """The first matrix of a LoRA pair, and the dropout before it.

    Args:
        linear: Whose weight [r, D], float32, it takes over.
        dropout: The share of its input that is left out in train mode.
    """

    def __init__(self, linear: Any, dropout: float) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.dropout = linear.weight, dropout
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        """[B, T, D], of any type, to [B, T, r] in float32 (under autocast in its type)."""
        share = self.dropout if self.training else 0.0
        if input.is_meta or not torch.is_autocast_enabled(input.device.type):
            made: Any = _Narrow.apply(input, self.weight, share)
            return made
        return super().forward(nn.functional.dropout(input.to(self.weight.dtype), share))


class _Narrow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, narrow: Tensor, weight: Tensor, share: float) -> Tensor:
        wide, mask = narrow.to(weight.dtype), None
        if share:
            wide, mask = _dropped(wide, share)
        ctx.share = share
        ctx.save_for_backward(narrow, weight, mask)
        return nn.functional.linear(wide, weight)

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        """The gradients of the input, in its type, and of the weight."""
        narrow, weight, mask = ctx.saved_tensors
        noise = None if mask is None else _scaled(mask.to(weight.dtype), ctx.share)
        wide = narrow.to(weight.dtype)
        wide = wide if noise is None else wide * noise
        of_weight = slopes[0].flatten(0, -2).T @ wide.flatten(0, -2)
        if not ctx.needs_input_grad[0]:
            return None, of_weight, None
        of_input = slopes[0] @ weight
        return (of_input if noise is None else of_input * noise).to(narrow.dtype), of_weight, None


def _dropped(wide: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """What dropout leaves, with the same random numbers as torch's own, and what it left in, as bool."""
    if wide.is_cuda:
        return torch.native_dropout(wide, share, True)
    noise = _scaled(torch.empty_like(wide).bernoulli_(1 - share), share)
    return wide * noise, noise != 0


def _scaled(ones: Tensor, share: float) -> Tensor:
    """As much larger as fewer are left in; with all left out there is nothing to scale."""
    return ones.div_((1 - share) or 1)
