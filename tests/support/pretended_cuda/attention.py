"""``scaled_dot_product_attention`` of the pretended device: one operation, as a fused kernel is, with a note of its arguments."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from tests.support.pretended_cuda.counts import COUNTS
from tests.support.pretended_cuda.operations import HALF, refuse
from tests.support.pretended_cuda.tensor import PretendedTensor

REAL = torch.nn.functional.scaled_dot_product_attention


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """In place of torch's, with its arguments.

    Raises:
        RuntimeError: A device or a dtype that CUDA refuses.
    """
    options = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    inputs = [tensor for tensor in (query, key, value, attn_mask) if tensor is not None]
    if not any(isinstance(tensor, PretendedTensor) for tensor in inputs):
        return REAL(query, key, value, attn_mask, **options)
    for tensor in inputs:
        if not isinstance(tensor, PretendedTensor):
            refuse("scaled_dot_product_attention", f"of the CPU: {tuple(tensor.shape)}")
    if torch.is_autocast_enabled("cuda"):
        kind = torch.get_autocast_dtype("cuda")
        inputs = [tensor.to(kind) if tensor.is_floating_point() else tensor for tensor in inputs]
    _check_dtypes(*inputs)
    COUNTS.add("attention", _described(inputs[0], *inputs[3:], is_causal=is_causal, enable_gqa=enable_gqa))
    return FusedKernel.apply(partial(REAL, **options), *inputs)  # pyright: ignore[reportReturnType]


def _check_dtypes(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> None:
    if len(dtypes := {tensor.dtype for tensor in (query, key, value)}) > 1:
        raise RuntimeError(f"Expected query, key, and value to have the same dtype, but got {dtypes}")
    if mask is not None and mask.dtype not in (torch.bool, query.dtype):
        raise RuntimeError(
            f"Expected attn_mask dtype to be bool or to match query dtype, but got {mask.dtype} and {query.dtype}"
        )


def _described(query: Tensor, mask: Tensor | None = None, *, is_causal: bool, enable_gqa: bool) -> str:
    words = [str(query.dtype), "causal" if is_causal else "not causal"]
    words += ["no mask" if mask is None else f"mask of {mask.dim()} dimensions, {mask.dtype}"]
    return ", ".join([*words, "grouped"] if enable_gqa else words).replace("torch.", "")


class FusedKernel(torch.autograd.Function):
    """A kernel of the CPU on the held numbers, as one operation; its own graph is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, kernel: Callable[..., Tensor], *inputs: PretendedTensor) -> PretendedTensor:
        COUNTS.operation()
        needed = ctx.needs_input_grad[1:]
        held = [_in_float32(one.held.detach()).requires_grad_(need) for one, need in zip(inputs, needed, strict=True)]
        with torch.enable_grad(), _disable_current_modes():  # its operations are those of a CPU
            out = kernel(*held)
        ctx.graph = (out, held, [one.dtype for one in inputs]) if any(needed) else None
        return PretendedTensor(out.detach().to(inputs[0].dtype), inputs[0].device)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        COUNTS.operation()
        out, held, kinds = ctx.graph
        wanted = [tensor for tensor in held if tensor.requires_grad]
        with _disable_current_modes():
            found = iter(torch.autograd.grad(out, wanted, _in_float32(grads[0].held)))
        device = grads[0].device
        return None, *(
            PretendedTensor(next(found).to(kind), device) if tensor.requires_grad else None
            for tensor, kind in zip(held, kinds, strict=True)
        )


def _in_float32(tensor: Tensor) -> Tensor:
    """As ``operations.run`` computes a product of half precision."""
    return tensor.float() if tensor.dtype in HALF else tensor
