"""Variable-length attention of the pretended device: one operation, with a note of its arguments.

``torch.nn.attention.varlen.varlen_attn``, and ``aten::_flash_attention_forward``, which can drop out.
"""

from typing import Any

from torch import Tensor

from tests.support.pretended_cuda.attention import FusedKernel
from tests.support.pretended_cuda.counts import COUNTS
from tests.support.pretended_cuda.operations import HALF, refuse
from tests.support.pretended_cuda.tensor import PretendedTensor
from tests.support.varlen_kernel import VarlenKernel


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

    def kernel(*held: Tensor) -> Tensor:
        return VarlenKernel().varlen_attn(*held, max_q, max_k, **options)

    return FusedKernel.apply(kernel, *tensors)  # pyright: ignore[reportReturnType]


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
