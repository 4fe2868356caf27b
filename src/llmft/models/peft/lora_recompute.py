"""LoRA on bfloat16 weights: the input of A, with its dropout, is computed again in the backward pass instead of being saved."""

from typing import Any

import torch
from torch import Tensor, nn


def recompute_lora_inputs(model: Any) -> None:
    """Save the bfloat16 input of LoRA layers for the backward pass, once, instead of float32 copies of it.

    peft makes a float32 copy of the input for each layer (q, k and v have the same input), and with dropout torch saves the
    mask and the product in float32 too: a third to a half of the activation memory of a LoRA training of SmolLM2. Here the
    copy is recomputed in the backward pass, with the same result to the bit. Under autocast there is no copy, and only the
    mask is saved.

    Args:
        model: A peft model; layers that are not vanilla LoRA, or whose inputs are not in bfloat16, are not changed.
    """
    from peft.tuners.lora import LoraLayer

    half = (
        model.get_input_embeddings().weight.dtype == torch.bfloat16
    )  # inputs of a layer whose own weights are quantized
    for layer in model.modules():
        if not isinstance(layer, LoraLayer) or layer.lora_variant:
            continue
        weight: Any = layer.get_base_layer().weight
        if weight.dtype == torch.bfloat16 or (half and not weight.is_floating_point()):
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
        dtype = autocast_dtype_of(input) or self.weight.dtype
        out: Any = _DropoutLinear.apply(input, self.weight.to(dtype), self.dropout if self.training else 0.0)
        return out


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
        cast = input.to(weight.dtype)
        cast = cast if mask is None else _kept(cast, mask, ctx.p)
        weight_grad = grads[0].flatten(0, -2).T @ cast.flatten(0, -2)
        if not ctx.needs_input_grad[0]:
            return None, weight_grad, None
        input_grad = grads[0] @ weight
        return (input_grad if mask is None else _kept(input_grad, mask, ctx.p)).to(input.dtype), weight_grad, None


def autocast_dtype_of(x: Tensor) -> torch.dtype | None:
    """The dtype of autocast on the device of a tensor; None outside of autocast, and on the meta device."""
    kind = x.device.type
    return None if x.is_meta or not torch.is_autocast_enabled(kind) else torch.get_autocast_dtype(kind)


def _dropout(x: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Dropout with the same random numbers as torch's; returns the output and the mask of kept elements, bool."""
    if x.is_cuda:
        return torch.native_dropout(x, p, True)
    mask = torch.empty_like(x).bernoulli_(1 - p)
    if x.dtype == torch.float32:
        return x * mask.div_((1 - p) or 1), mask != 0
    return _kept(x, mask.bool(), p), mask.bool()


def _kept(x: Tensor, mask: Tensor, p: float) -> Tensor:
    """A tensor where the mask is, divided by the keep probability; with p = 1 nothing is left."""
    scale = (1 - p) or 1
    if x.dtype == torch.float32:
        return x * mask.to(x.dtype).div_(scale)  # the order of torch's dropout, to the bit
    return x.mul(mask).mul_(1 / scale)  # in bfloat16 the quotient alone would be rounded: 1 / 0.95 is 0.2 % off
