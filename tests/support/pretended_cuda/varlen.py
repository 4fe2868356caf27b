"""Variable-length attention of the pretended device: one operation, with a note of its arguments.

``torch.nn.attention.varlen.varlen_attn``, and ``aten::_flash_attention_forward``, which can drop out.
"""

from typing import Any

import torch
from torch import Tensor

from tests.support.pretended_cuda.counts import COUNTS
from tests.support.pretended_cuda.operations import refuse
from tests.support.pretended_cuda.tensor import PretendedTensor
from tests.support.varlen_kernel import VarlenKernel

HALF = (torch.float16, torch.bfloat16)


def varlen_attn(*tensors_and_lengths: Any, **options: Any) -> Tensor:
    """In place of torch's, with its arguments.

    Raises:
        RuntimeError: A device or a dtype that CUDA refuses.
    """
    *tensors, max_q, max_k = tensors_and_lengths
    for tensor in tensors:
        if not isinstance(tensor, PretendedTensor):
            refuse("varlen_attn", f"of the CPU: {tuple(tensor.shape)}")
    if {tensor.dtype for tensor in tensors[:3]} not in ({kind} for kind in HALF):
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
    if not isinstance(max_q, int) or not isinstance(max_k, int):
        raise TypeError("max_q and max_k must be numbers of the host")
    window = tuple(options["window_size"])
    causal = "causal" if window[1] == 0 else "not causal"
    words = [str(tensors[0].dtype).removeprefix("torch."), causal, "by lengths"]
    COUNTS.add("attention", ", ".join([*words, "grouped"] if options["enable_gqa"] else words))
    return _Varlen.apply(options, max_q, max_k, *tensors)  # pyright: ignore[reportReturnType]


def flash_attention_forward(
    *tensors_and_lengths: Any,
    scale: float | None,
    window_size_left: int,
    window_size_right: int,
) -> tuple[Tensor]:
    """In place of torch's, as far as llmft calls it: without the values that follow the first one."""
    *tensors, max_q, max_k, dropout, _, _ = tensors_and_lengths
    window = (window_size_left, window_size_right)
    shared = tensors[0].shape[1] != tensors[1].shape[1]
    options = {"scale": scale, "window_size": window, "enable_gqa": shared, "dropout_p": dropout}
    return (varlen_attn(*tensors, max_q, max_k, **options),)


class _Varlen(torch.autograd.Function):
    """The stand-in of the tests on the held numbers; its own graph is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, options: dict[str, Any], max_q: int, max_k: int, *inputs: PretendedTensor) -> PretendedTensor:
        COUNTS.operation()
        needed = ctx.needs_input_grad[3:]
        held = [one.held.detach().requires_grad_(need) for one, need in zip(inputs, needed, strict=True)]
        with torch.enable_grad():
            out = VarlenKernel().varlen_attn(*held, max_q, max_k, **options)
        ctx.graph = (out, held) if any(needed) else None
        return PretendedTensor(out.detach(), inputs[0].device)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        COUNTS.operation()
        out, held = ctx.graph
        wanted = [tensor for tensor in held if tensor.requires_grad]
        found = iter(torch.autograd.grad(out, wanted, grads[0].held))
        device = grads[0].device
        each = (PretendedTensor(next(found), device) if tensor.requires_grad else None for tensor in held)
        return None, None, None, *each
