"""LoRA on bfloat16 weights: recompute the float32 input of A in the backward pass instead of saving it."""

from typing import Any

import torch
from torch import Tensor, nn


def recompute_lora_inputs(model: Any) -> None:
    """Save the bfloat16 input of LoRA layers for the backward pass, once, instead of float32 copies of it.

    peft makes a float32 copy of the input for each layer (q, k and v have the same input), and with dropout torch saves the
    mask and the product in float32 too: a third to a half of the activation memory of a LoRA training of SmolLM2. Here the
    copy is recomputed in the backward pass, with the same result to the bit.

    Args:
        model: A peft model; layers that are not vanilla LoRA, or not in bfloat16, are not changed.
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
    """LoRA's A matrix with the dropout before it.

    Args:
        linear: The A matrix; its weight [r, D], float32, is taken over.
        dropout: Dropout probability of its input, in train mode.
    """

    def __init__(self, linear: Any, dropout: float) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.dropout = linear.weight, dropout
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        """[B, T, D], of any dtype, to [B, T, r] in float32 (in the dtype of autocast)."""
        p = self.dropout if self.training else 0.0
        if input.is_meta or not torch.is_autocast_enabled(input.device.type):
            out: Any = _DropoutLinear.apply(input, self.weight, p)
            return out
        return super().forward(nn.functional.dropout(input.to(self.weight.dtype), p))


class _DropoutLinear(torch.autograd.Function):
    """Dropout and matrix product in the dtype of the weight; saves the input as it came, and the mask as bool."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, p: float) -> Tensor:
        cast, mask = input.to(weight.dtype), None
        if p:
            cast, mask = _dropout(cast, p)
        ctx.p = p
        ctx.save_for_backward(input, weight, mask)
        return nn.functional.linear(cast, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """The gradients of the input, in its dtype, and of the weight."""
        input, weight, mask = ctx.saved_tensors
        noise = None if mask is None else _scaled(mask.to(weight.dtype), ctx.p)
        cast = input.to(weight.dtype)
        cast = cast if noise is None else cast * noise
        weight_grad = grads[0].flatten(0, -2).T @ cast.flatten(0, -2)
        if not ctx.needs_input_grad[0]:
            return None, weight_grad, None
        input_grad = grads[0] @ weight
        return (input_grad if noise is None else input_grad * noise).to(input.dtype), weight_grad, None


def _dropout(x: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Dropout with the same random numbers as torch's; returns the output and the mask of kept elements, bool."""
    if x.is_cuda:
        return torch.native_dropout(x, p, True)
    noise = _scaled(torch.empty_like(x).bernoulli_(1 - p), p)
    return x * noise, noise != 0


def _scaled(mask: Tensor, p: float) -> Tensor:
    """The mask divided by the keep probability, in place; with p = 1 all of it is 0 already."""
    return mask.div_((1 - p) or 1)
