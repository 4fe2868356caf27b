"""The dtype that a model computes in, and float32 for as long as an evaluation or an answer asks for it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def dtype_name(model: Any, dtype: str = "auto") -> str:
    """The dtype that a model computes in: ``float32`` or ``bfloat16``; of a quantized base also its format.

    Of a LoRA model it is that of the frozen base, which computes nearly everything; the adapter itself is in float32.

    Args:
        model: A transformers or peft model.
        dtype: As for ``computing_in``.
    """
    quantized = getattr(model.config, "quantization_config", None)
    if quantized and not quantized.load_in_8bit:
        computes = str(quantized.bnb_4bit_compute_dtype).removeprefix("torch.")
        return f"{computes}, base in {quantized.bnb_4bit_quant_type}"
    sizes: Counter[torch.dtype] = Counter()
    # of an int8 base the embeddings, which are not quantized: the adapter may be larger than all that is not
    for weight in [model.get_input_embeddings().weight] if quantized else model.parameters():
        sizes[weight.dtype] += weight.numel()
    name = str(max(sizes, key=lambda each: sizes[each])).removeprefix("torch.")
    name = dtype if name == "bfloat16" and dtype != "auto" else name
    return f"{name}, base in int8" if quantized else name


def to_float32(model: Any) -> list[Tensor]:
    """Convert weights and buffers in bfloat16 to float32, one after the other and in place; no second copy is made.

    Args:
        model: A transformers or peft model whose weights in bfloat16 are frozen.

    Returns:
        The tensors that were in bfloat16.
    """
    found = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.dtype == torch.bfloat16]
    for tensor in found:
        tensor.data = tensor.data.float()
    return found


@contextmanager
def computing_in(model: Any, dtype: str) -> Iterator[None]:
    """Compute in a dtype inside the block: the weights that were trained, only with more digits.

    A number in bfloat16 is one in float32 too, so the weights are back to the bit afterwards.

    Args:
        model: As for ``to_float32``.
        dtype: ``float32``; ``auto`` leaves everything as it is.
    """
    converted = to_float32(model) if dtype == "float32" else []
    try:
        yield
    finally:
        for tensor in converted:
            tensor.data = tensor.data.bfloat16()
